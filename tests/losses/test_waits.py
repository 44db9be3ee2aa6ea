"""No head waits for a GPU: shown on meta tensors, which have shapes and no values, and take the same paths."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sphereface.losses import last_layer
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import MARGINS, make_margin
from sphereface.losses.shards import Shard, Shared

HEADS = [
    *({"name": name} for name in sorted(MARGINS)),
    *({"name": name, "chunk_size": 100} for name in ("a-softmax", "sphereface2")),
    {"name": "a-softmax", "mhe": 1.0},
    *({"name": name, "sample_rate": 0.1} for name in ("cosface", "softmax", "l-softmax")),
]
CLASSES, WIDTH, SAMPLES = 400, 8, 16


class Transfers(TorchDispatchMode):
    """Finds what would make the program wait: a value read, a copy between devices, a number assigned by index."""

    def __init__(self):
        super().__init__()
        self.found, self.before = [], ""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = str(func), kwargs or {}
        tensors = [value for value in torch.utils._pytree.tree_leaves(args) if isinstance(value, torch.Tensor)]
        devices = {value.device.type for value in tensors}
        reads = any(word in name for word in ("_local_scalar", "nonzero"))
        moves = any(word in name for word in ("index_put", "copy_", "_to_copy")) and len(devices) > 1
        assigns = "index_put" in name and "scalar_tensor" in self.before  # on CUDA, a copy from the CPU
        self.before = name
        if reads or moves or assigns:
            self.found.append(name)
        return func(*args, **kwargs)


class FakeRanks:
    """The calls of a rank that holds the second half of the classes."""

    rank, size = 1, 2

    def max_(self, values):
        return values

    def sum(self, *values):
        return list(values)


def transfers_of_a_step(options, shared):
    shard = Shard.of(2 * CLASSES, 1, 2) if shared else None
    with Transfers() as transfers:
        head = MarginHead(WIDTH, 2 * CLASSES if shared else CLASSES, make_margin(**options), shard=shard).to("meta")
        x = torch.empty(SAMPLES, WIDTH, device="meta", requires_grad=True)
        labels = torch.empty(SAMPLES, dtype=torch.int64, device="meta")
        transfers.found.clear()
        if shared:
            rows, here = shard.locate(labels)
            loss, *_ = head._loss(x, rows, 2.0, 0, Shared(FakeRanks(), here, 2 * CLASSES))
        else:
            loss, *_ = head(x, labels, 2.0, step=0)
        loss.backward()
        assert x.grad.shape == x.shape
        assert head.weight.grad.shape == head.weight.shape
        return transfers.found


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    """Several blocks."""
    monkeypatch.setattr(last_layer, "BLOCK_BYTES", 4 * SAMPLES * 150)
    monkeypatch.setattr(torch, "Generator", FakeGenerator)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    rand = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *size, generator=None, **options: rand(*size, **options))


class FakeGenerator:
    """There is none for meta tensors."""

    def __init__(self, device):
        assert torch.device(device).type == "meta"

    def manual_seed(self, seed):
        return self


@pytest.mark.parametrize("shared", [False, True], ids=["whole", "shard"])
@pytest.mark.parametrize("options", HEADS, ids=lambda options: " ".join(map(str, options.values())))
def test_a_forward_and_backward_wait_for_no_value(options, shared):
    assert transfers_of_a_step(options, shared) == []


def test_waits_would_be_seen():
    with Transfers() as transfers:
        x = torch.empty(4, 5, device="meta")
        rows = torch.empty(2, dtype=torch.int64, device="meta")
        x[rows, rows] = 1.0
        with pytest.raises((RuntimeError, NotImplementedError)):
            x.sum().item()
        with pytest.raises((RuntimeError, NotImplementedError)):
            x[x > 0]
    assert transfers.found == ["aten.index_put_.default", "aten._local_scalar_dense.default"]
