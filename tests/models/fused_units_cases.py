"""The fused residual units by Triton's interpreter on a CPU; test_fused_units.py runs this file in its own process."""

from __future__ import annotations

import os
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from sphereface.models import fused_units
from sphereface.models import prelu_kernels as kernels
from sphereface.models.few_launches import call_cast
from sphereface.models.spherenet import SphereNet, SphereStage

from .test_prelu import by_definition

assert os.environ.get("TRITON_INTERPRET") == "1"
FLOAT, BRAIN, HALF = torch.float32, torch.bfloat16, torch.float16
STORED = {FLOAT: 2**-23, BRAIN: 2**-7, HALF: 2**-10}  # the interpreter cuts bfloat16 off, a GPU rounds it
LAST = torch.channels_last
SLOPES = [0.25, 0.0, -1.5]
types = pytest.mark.parametrize("dtype", [FLOAT, BRAIN, HALF], ids=["fp32", "bf16", "fp16"])


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """So that small maps have several tiles and parts, and are no multiples of them."""
    for name, value in {"_TILE": 16, "_TILES": 2, "_PARTS": 4, "_COLUMNS": 2}.items():
        monkeypatch.setattr(kernels, name, value)


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    monkeypatch.setattr(fused_units, "_can_run", lambda x: torch.is_grad_enabled())


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def a_map(dtype: torch.dtype, seed: int) -> Tensor:
    """5·3·3 rows of three numbers: tiles have four rows, parts eight."""
    x = draw(5, 3, 3, 3, seed=seed)
    x.view(-1)[:: 7 + seed] = 0.0  # at other places in each map
    return x.to(dtype).contiguous(memory_format=LAST)


# The kernels, against loops in Python's own numbers


@types
def test_prelu_and_its_sum_with_another_map(dtype):
    x, base, slopes = a_map(dtype, 0), a_map(dtype, 1), torch.tensor(SLOPES).to(dtype)
    wanted = by_definition(x.double(), x.double(), slopes.double())[0]
    found = kernels.prelu(x, slopes)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=LAST)
    torch.testing.assert_close(found.double(), wanted, rtol=STORED[dtype], atol=0)
    added = kernels.prelu(x, slopes, base)
    torch.testing.assert_close(added.double(), wanted + base.double(), rtol=3 * STORED[dtype], atol=STORED[dtype])
    if dtype != BRAIN:  # the same bits as separate operations
        assert torch.equal(found, torch.prelu(x, slopes))
        assert torch.equal(added, base + torch.prelu(x, slopes))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("again", [False, True])
@types
def test_gradients_of_prelu(dtype, in_place, again):
    x, grad, slopes = a_map(dtype, 0), a_map(dtype, 1), torch.tensor(SLOPES).to(dtype)
    y, dx, dslopes = by_definition(x.double(), grad.double(), slopes.double())
    found = grad if in_place else torch.full_like(x, torch.nan)
    parts = torch.full((kernels.count_parts(x), 3), torch.nan)
    result = torch.full_like(x, torch.nan) if again else None
    kernels.prelu_backward(x, slopes, grad, found, parts, result)
    assert len(parts) == 6
    torch.testing.assert_close(found.double(), dx, rtol=STORED[dtype], atol=0)
    torch.testing.assert_close(parts.double().sum(0), dslopes, rtol=1e-5, atol=1e-6)
    if result is not None:
        torch.testing.assert_close(result.double(), y, rtol=STORED[dtype], atol=0)
        assert torch.equal(result, kernels.prelu(x, slopes))  # of what the forward pass had


@types
def test_parts_are_added_up_for_each_layer(dtype):
    parts = draw(2, 11, 5)
    found = kernels.slope_gradients(parts, dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), parts.double().sum(1), rtol=STORED[dtype], atol=1e-6)


def test_numbers_that_are_not_finite_are_not_lost():
    x, grad, slopes = a_map(FLOAT, 0), a_map(FLOAT, 1), torch.tensor(SLOPES)
    x[0, 0, 0, 0], x[1, 1, 0, 0], grad[1, 2, 0, 0], x[1, 2, 0, 0] = torch.nan, -torch.inf, torch.inf, -1.0
    dx, parts = torch.empty_like(x), torch.empty(kernels.count_parts(x), 3)
    kernels.prelu_backward(x, slopes, grad, dx, parts)
    y = torch.prelu(x, slopes)
    torch.testing.assert_close(kernels.prelu(x, slopes), y, equal_nan=True, rtol=0, atol=0)
    assert dx[1, 2, 0, 0].isinf()
    assert not parts.sum(0).isfinite().any()


# Stages, against the plain layers


def new_stage(units: int, norm: str = "none", channels: int = 6) -> SphereStage:
    torch.manual_seed(0)
    stage = SphereStage(3, channels, units, norm)  # type: ignore[arg-type]
    with torch.no_grad():
        for own in stage.own_units():
            for conv in (own.conv_a, own.conv_b):
                conv.weight.normal_(std=0.2)
        for name, value in stage.named_parameters():
            if "relu" in name:
                value.copy_(torch.tensor([0.25, 0.0, -0.5, 1.0, 0.1, 0.3])[:channels])
    return stage.to(memory_format=LAST)


def step(stage: SphereStage, x: Tensor, dtype: torch.dtype = FLOAT) -> tuple[Tensor, Tensor, dict[str, Tensor | None]]:
    """The result, and the gradients of x and of all parameters."""
    stage.zero_grad(set_to_none=True)
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype in (BRAIN, HALF)):
        out = call_cast(stage, x, dtype) if dtype in (BRAIN, HALF) else stage(x)
    out.backward(draw(*out.shape, seed=9).to(out.dtype))  # channels first, as the last stage gets it
    assert x.grad is not None
    return out.detach(), x.grad, {name: p.grad for name, p in stage.named_parameters()}


def images() -> Tensor:
    return draw(2, 3, 10, 6).contiguous(memory_format=LAST)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("units", [0, 1, 2])
def test_a_stage_gives_what_the_plain_layers_give(monkeypatch, units, norm):
    stage = new_stage(units, norm)
    calls = []
    monkeypatch.setattr(
        type(stage.relu), "forward", lambda layer, x: calls.append(layer) or torch.prelu(x, layer.weight)
    )
    found = step(stage, images())
    assert not calls
    monkeypatch.setattr(fused_units, "_can_run", lambda x: False)
    wanted = step(stage, images())
    assert len(calls) == 1 + 2 * units
    assert torch.equal(found[0], wanted[0])
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-6, atol=1e-6)
    assert found[2].keys() == wanted[2].keys()
    for name, gradient in wanted[2].items():
        if gradient is None:
            assert found[2][name] is None, name
        else:
            torch.testing.assert_close(found[2][name], gradient, rtol=1e-5, atol=1e-5, msg=name)


@types
def test_a_stage_against_float64(monkeypatch, dtype):
    stage = new_stage(3)
    out, dx, found = step(stage, images(), dtype)
    monkeypatch.setattr(fused_units, "_can_run", lambda x: False)
    exact_out, exact_dx, exact = step(deepcopy(stage).double(), images().double())
    allowed = {FLOAT: 1e-6, BRAIN: 8e-2, HALF: 5e-3}[dtype]
    for ours, theirs in [(out, exact_out), (dx, exact_dx), *((found[name], exact[name]) for name in exact)]:
        if theirs is None:
            assert ours is None
            continue
        assert ours is not None
        assert (ours.double() - theirs).norm() <= allowed * theirs.norm()
    assert all(value is None or value.dtype == FLOAT for value in found.values())


@pytest.mark.parametrize("units", [0, 1, 2])
def test_only_the_inputs_of_prelu_are_kept(monkeypatch, units):
    stage, kept = new_stage(units), []
    size = (2, 6, 5, 3)

    def of_maps() -> int:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            stage(images().requires_grad_())
        return len({t.data_ptr() for t in kept if t.shape == size})

    assert of_maps() == 1 + 2 * units
    monkeypatch.setattr(fused_units, "_can_run", lambda x: False)
    assert of_maps() == 1 + 4 * units  # the results of PReLU and the sums too


def test_a_weight_that_is_not_trained_gets_no_gradient():
    stage = new_stage(2)
    _, _, wanted = step(stage, images())
    fixed = {"units.0.conv_a.weight", "units.1.conv_b.weight", "units.1.relu_a.weight"}
    for name, value in stage.named_parameters():
        value.requires_grad_(value.requires_grad and name not in fixed)
    _, _, found = step(stage, images())
    for name, gradient in wanted.items():
        if name in fixed or gradient is None:
            assert found[name] is None, name
        else:
            assert torch.equal(found[name], gradient), name


def test_a_second_backward_gives_the_same():
    stage, x = new_stage(2), images().requires_grad_()
    loss = stage(x).square().sum()
    wanted = [x, *(p for p in stage.parameters() if p.requires_grad)]
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    again = torch.autograd.grad(loss, wanted)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_the_network_embeds_the_same():
    net = SphereNet(10, widths=(4, 4, 4, 4), embedding_dim=8, input_size=(32, 32)).to(memory_format=LAST)
    x = draw(2, 3, 32, 32).contiguous(memory_format=LAST)
    found = net(x)
    with torch.no_grad():  # the plain layers
        torch.testing.assert_close(found, net(x), rtol=1e-6, atol=1e-6)


# Where the plain layers serve


def is_fused(monkeypatch, stage: SphereStage, x: Tensor) -> bool:
    used = []
    monkeypatch.setattr("sphereface.models.spherenet.fused_units", lambda y, *_: used.append(y) or y)
    stage(x)
    return bool(used)


def test_they_serve_in_training(monkeypatch):
    assert is_fused(monkeypatch, new_stage(1), images())
    with torch.no_grad():
        assert not is_fused(monkeypatch, new_stage(1), images())


def test_a_bias_needs_the_plain_layers(monkeypatch):
    stage = new_stage(1)
    with torch.no_grad():
        stage.units[0].conv_b.bias[2] = 1.0
    assert not is_fused(monkeypatch, stage, images())


@pytest.mark.parametrize("layer", ["relu", "units.0", "units.0.conv_b"])
@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
def test_a_hook_is_called(monkeypatch, layer, kind):
    stage, seen = new_stage(1), []
    getattr(stage.get_submodule(layer), f"register_{kind}")(lambda *given: seen.append(given))
    stage(images().requires_grad_()).sum().backward()
    assert seen


def test_other_layouts_and_types_need_the_plain_layers(monkeypatch):
    stage = new_stage(1)
    assert not is_fused(monkeypatch, deepcopy(stage).double(), images().double())
    assert not is_fused(monkeypatch, deepcopy(stage).to(memory_format=torch.contiguous_format), images().contiguous())
    with torch.autocast("cpu", BRAIN):  # the weights are fp32
        assert not is_fused(monkeypatch, stage, images())
    stage.recompute = True
    assert not is_fused(monkeypatch, stage, images())
