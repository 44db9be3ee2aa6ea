"""Every head on a GPU, in each number type, gives the loss and gradients of float64 on the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from sphereface.errors import UserError
from sphereface.losses.distributed_head import ReplicatedHead, ShardedHead
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import MARGINS, make_margin
from sphereface.losses.ranks import Ranks

from .near import has_values, near, needs_values

N, C, D = 32, 1000, 64
TOLERANCE = {None: 1e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2}
OPTIONS = [{}, {"chunk_size": 100}, {"mhe": 1.0}, {"sample_rate": 0.3}]


def margin_of(name, options):
    try:
        return make_margin(name, **options)
    except UserError as error:
        pytest.skip(str(error))


def inputs():
    draws = torch.Generator().manual_seed(0)
    return torch.randn(N, D, generator=draws) * 3, torch.randint(C, (N,), generator=draws)


def results(head, x, labels, dtype=None):
    """Loss and gradients of embeddings and weights."""
    x = x.clone().requires_grad_()
    with torch.autocast(x.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        loss = head(x, labels, 5.0, 0).loss
    loss.backward()
    gradient = head.weight.grad
    return loss, x.grad, gradient.to_dense() if gradient.is_sparse else gradient


def new_head(margin, kind=MarginHead, *ranks):
    return kind(D, C, margin, *ranks, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", sorted(MARGINS))
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_head_gives_what_float64_gives(device, name, options, dtype):
    margin, (x, labels) = margin_of(name, options), inputs()
    wanted = results(new_head(margin).double(), x.double(), labels)
    found = results(new_head(margin).to(device), x.to(device), labels.to(device), dtype)
    for ours, exact in zip(found, wanted, strict=True):
        assert ours.device.type == device.type
        if device.type == "cuda" and "sample_rate" in options:  # a GPU draws other negatives
            assert not has_values() or (bool(torch.isfinite(ours).all()) and bool(ours.any()))
        else:
            near(ours, exact, TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["a-softmax", "cosface", "sphereface2"])
@pytest.mark.parametrize("dtype", [None, torch.float16], ids=str)
def test_a_large_batch_of_many_classes(device, name, dtype):
    """Sizes that are no multiple of a kernel's block."""
    n, classes = (600, 40_007) if device.type == "cuda" else (70, 1003)
    draws = torch.Generator().manual_seed(0)
    x, labels = torch.randn(n, D, generator=draws), torch.randint(classes, (n,), generator=draws)
    heads = [MarginHead(D, classes, make_margin(name), generator=torch.Generator().manual_seed(2)) for _ in range(2)]
    wanted = results(heads[0].double(), x.double(), labels)
    found = results(heads[1].to(device), x.to(device), labels.to(device), dtype)
    for ours, exact in zip(found, wanted, strict=True):
        near(ours, exact, TOLERANCE[dtype])


@pytest.mark.parametrize("kind", [ShardedHead, ReplicatedHead])
def test_a_head_of_one_process_over_its_own_messages(device, kind, tmp_path):
    """NCCL on the GPU, gloo on the CPU."""
    needs_values()  # NCCL itself is not part of the null CUDA
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        x, labels = inputs()
        wanted = results(new_head(make_margin("a-softmax")).double(), x.double(), labels)
        head = new_head(make_margin("a-softmax"), kind, Ranks()).to(device)
        for ours, exact in zip(results(head, x.to(device), labels.to(device)), wanted, strict=True):
            near(ours, exact, 1e-4)
    finally:
        dist.destroy_process_group()
