"""Weights cast together, and biases left out: the same network. tests/nullcuda counts the launches on CUDA."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sphereface.models.few_launches import FixedBiasConv2d, call_cast, call_with, run_block, slopes_by_image
from sphereface.models.prelu import PReLU
from sphereface.models.spherenet import SphereNet, SphereStage


def stage(norm: str = "batch") -> SphereStage:
    torch.manual_seed(0)
    block = SphereStage(3, 8, 2, norm)  # type: ignore[arg-type]
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for unit in block.units:
            for conv in (unit.conv_a, unit.conv_b):
                conv.bias.zero_()
    return block.to(memory_format=torch.channels_last)


def gradients(block: nn.Module, call) -> tuple[torch.Tensor, dict[str, torch.Tensor | None], torch.Tensor]:
    x = torch.randn(4, 3, 16, 12, generator=torch.Generator().manual_seed(1), requires_grad=True)
    block.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = call(block, x)
    out.float().square().sum().backward()
    return out, {name: p.grad for name, p in block.named_parameters()}, x.grad


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("recompute", [False, True])
def test_weights_cast_together_give_the_same_bits(monkeypatch, norm, recompute):
    monkeypatch.setattr(PReLU, "forward", nn.PReLU.forward)  # as on CUDA
    block = stage(norm)
    block.recompute = recompute
    block.conv.weight.requires_grad_(False)
    statistics = {name: value.clone() for name, value in block.named_buffers()}
    out, wanted, dx = gradients(block, lambda block, x: block(x))
    moved = {name: value.clone() for name, value in block.named_buffers()}
    for name, value in block.named_buffers():
        value.copy_(statistics[name])
    again, found, dx_again = gradients(block, lambda block, x: call_cast(block, x, torch.bfloat16))
    assert torch.equal(out, again)
    assert torch.equal(dx, dx_again)
    for name, gradient in wanted.items():
        if gradient is None:
            assert found[name] is None, name
        else:
            assert found[name].dtype == torch.float32
            assert torch.equal(gradient, found[name]), name
    assert all(torch.equal(value, moved[name]) for name, value in block.named_buffers())
    assert found["conv.weight"] is None
    assert found["units.0.conv_a.bias"] is None


def doubled(block: nn.Module, call) -> tuple[torch.Tensor, dict[str, torch.Tensor | None], torch.Tensor]:
    """Result and gradients in float64."""
    x = torch.randn(4, 3, 16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    block.zero_grad(set_to_none=True)
    out = call(block, x)
    out.square().sum().backward()
    return out, {name: p.grad for name, p in block.named_parameters()}, x.grad


def with_slopes_by_image(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return call_with(block, x, slopes_by_image(block, len(x), {}))


@pytest.mark.parametrize("compiled", [False, True])
def test_slopes_by_image_give_the_same_result_and_gradients(compiled):
    block = stage().double()
    block.units[0].relu_b.weight.requires_grad_(False)
    call = (
        torch.compile(with_slopes_by_image, backend="aot_eager", fullgraph=True) if compiled else with_slopes_by_image
    )
    assert slopes_by_image(block, 4, {}).keys() == {
        f"{name}.weight" for name in ("relu", "units.0.relu_a", "units.1.relu_a", "units.1.relu_b")
    }
    out, wanted, dx = doubled(block, lambda block, x: block(x))
    again, found, dx_again = doubled(block, call)
    torch.testing.assert_close(again, out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dx_again, dx, rtol=1e-12, atol=1e-12)
    assert wanted["relu.weight"].abs().min() > 0
    for name, gradient in wanted.items():
        if gradient is None:
            assert found[name] is None, name
        else:
            torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-12)


def test_slopes_in_half_precision_have_sums_in_float32():
    layer, x = PReLU(3), torch.full((4, 3, 200, 200), -2.0, dtype=torch.float16)
    nn.init.constant_(layer.weight, 0.1)
    cast = layer.weight.to(torch.float16)
    slopes = slopes_by_image(layer, 4, {"weight": cast})
    assert torch.equal(slopes["weight"], cast.float().expand(4, 3))
    assert (slopes["weight"].shape, slopes["weight"].dtype) == ((4, 3), torch.float32)
    out = call_with(layer, x, slopes)
    assert out.dtype == torch.float16
    out.backward(torch.full_like(x, 0.0625))
    assert torch.equal(layer.weight.grad, torch.full((3,), -2.0 * 0.0625 * 200 * 200 * 4))


def test_layers_that_are_used_get_gradients_where_others_are_not():
    block = nn.Sequential(nn.Linear(3, 3), nn.PReLU(3))
    block.aside = nn.Linear(2, 2)
    block.forward = lambda x: block[1](block[0](x))  # type: ignore[method-assign]
    with torch.autocast("cpu", torch.bfloat16):
        call_cast(block, torch.ones(2, 3), torch.bfloat16).float().sum().backward()
    assert block[0].weight.grad is not None
    assert block.aside.weight.grad is None


def test_layers_that_autocast_leaves_alone_keep_their_weights():
    seen = {}

    class Looks(nn.BatchNorm2d):
        def forward(self, x):
            seen["dtype"] = self.weight.dtype
            return super().forward(x)

    block = nn.Sequential(nn.Conv2d(3, 4, 1), Looks(4))
    with torch.autocast("cpu", torch.bfloat16):
        call_cast(block, torch.ones(2, 3, 5, 5), torch.bfloat16)
    assert seen == {"dtype": torch.float32}


def test_a_fixed_weight_is_cast_and_stays_fixed():
    seen = {}

    class Looks(nn.Conv2d):
        def forward(self, x):
            seen[self.out_channels] = self.weight.dtype, self.weight.requires_grad
            return super().forward(x)

    block = nn.Sequential(Looks(3, 4, 1), Looks(4, 5, 1))
    block[0].requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        call_cast(block, torch.ones(2, 3, 5, 5), torch.bfloat16)
    assert seen == {4: (torch.bfloat16, False), 5: (torch.bfloat16, True)}


def test_on_a_cpu_or_without_gradients_the_block_itself_is_called(monkeypatch):
    monkeypatch.setattr("sphereface.models.few_launches.call_cast", lambda *_: pytest.fail("cast"))
    block, x = stage(), torch.ones(2, 3, 16, 12)
    with torch.autocast("cpu", torch.bfloat16):
        run_block(block, x)
    with torch.no_grad():
        run_block(nn.Identity(), torch.ones(1, device="meta"))


def test_a_bias_that_may_be_left_out_is_not_cast():
    seen = {}

    class Looks(FixedBiasConv2d):
        def forward(self, input):  # noqa: A002
            seen[self.out_channels] = self.weight.dtype, self.bias.dtype
            return super().forward(input)

    with torch.autocast("cpu", torch.bfloat16):
        call_cast(nn.Sequential(Looks(3, 4, 1)), torch.ones(2, 3, 5, 5), torch.bfloat16)
    assert seen == {4: (torch.bfloat16, torch.float32)}


def test_a_fixed_bias_is_left_out_as_long_as_it_is_zero():
    conv = FixedBiasConv2d(3, 4, 3)
    bias = nn.init.zeros_(conv.bias)
    assert conv.adds_bias()  # it is trained
    bias.requires_grad_(False)
    assert not conv.adds_bias()
    conv.load_state_dict({"weight": torch.ones(4, 3, 3, 3), "bias": torch.tensor([0.0, 0.0, 0.0, 2.0])})
    assert conv.adds_bias()
    with torch.no_grad():
        bias.zero_()
    assert not conv.adds_bias()
    conv.bias = nn.Parameter(torch.ones(4), requires_grad=False)
    assert conv.adds_bias()
    conv.bias = None
    assert not conv.adds_bias()


def test_it_is_looked_up_only_after_something_wrote_to_it(monkeypatch):
    conv = FixedBiasConv2d(3, 4, 3)
    nn.init.zeros_(conv.bias).requires_grad_(False)
    assert not conv.adds_bias()
    monkeypatch.setattr(torch.Tensor, "any", lambda self: pytest.fail("looked up again"))
    assert not conv.adds_bias()


def test_the_sphere_network_has_such_biases_in_its_units_alone():
    net = SphereNet(20)
    kinds = {name: type(layer) for name, layer in net.named_layers() if isinstance(layer, nn.Conv2d)}
    assert sum(kind is FixedBiasConv2d for kind in kinds.values()) == 16
    assert {name for name, kind in kinds.items() if kind is nn.Conv2d} == {f"conv{n}_1" for n in (1, 2, 3, 4)}
