"""PReLU against its definition, number by number, in float64."""

from __future__ import annotations

import pytest
import torch

from sphereface.models import prelu
from sphereface.models.prelu import PReLU


def by_definition(x: torch.Tensor, grad: torch.Tensor, slopes: torch.Tensor):
    """Result, dx and dslopes, in plain loops over Python floats."""
    y, dx, dslopes = torch.empty_like(x), torch.empty_like(x), [0.0] * len(slopes)
    for at in torch.cartesian_prod(*(torch.arange(n) for n in x.shape)).tolist():
        place, channel = tuple(at), at[1]
        value, g, slope = float(x[place]), float(grad[place]), float(slopes[channel])
        y[place] = value if value > 0 else slope * value
        dx[place] = g if value > 0 else slope * g
        dslopes[channel] += 0.0 if value > 0 else value * g
    return y, dx, torch.tensor(dslopes, dtype=torch.float64)


def own(x: torch.Tensor, grad: torch.Tensor, slopes: torch.Tensor):
    layer = PReLU(len(slopes)).to(slopes.dtype)
    with torch.no_grad():
        layer.weight.copy_(slopes)
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(grad)
    return y.detach(), x.grad, layer.weight.grad


def numbers(shape=(5, 3, 4, 2), dtype=torch.float64):
    torch.manual_seed(3)
    x, grad = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    x.view(-1)[::7] = 0.0
    return x, grad, torch.tensor([0.25, 0.0, -1.5], dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("part_bytes", [1, 500, 2**20])  # an image at a time, two (the last part is shorter), all
@pytest.mark.parametrize("layouts", ["ff", "ll", "fl", "lf"])  # of x and of the gradient: channels first, last
def test_result_and_gradients_by_definition(part_bytes, layouts, monkeypatch):
    monkeypatch.setattr(prelu, "_PART_BYTES", part_bytes)
    x, grad, slopes = numbers()
    formats = {"f": torch.contiguous_format, "l": torch.channels_last}
    laid_out = [t.contiguous(memory_format=formats[f]) for t, f in zip((x, grad), layouts, strict=True)]
    for found, wanted in zip(own(*laid_out, slopes), by_definition(x, grad, slopes), strict=True):
        torch.testing.assert_close(found, wanted.to(found.dtype), rtol=1e-12, atol=1e-12)


def test_rows_without_a_map():
    x, grad, slopes = numbers((6, 3))
    for found, wanted in zip(own(x, grad, slopes), by_definition(x, grad, slopes), strict=True):
        torch.testing.assert_close(found, wanted.to(found.dtype), rtol=1e-12, atol=1e-12)


def test_bf16_maps_with_float32_slopes_as_torch_does_them():
    x, grad, slopes = numbers((9, 3, 8, 8), torch.bfloat16)
    y, dx, dslopes = own(x, grad, slopes.float())
    assert y.dtype == dx.dtype == torch.bfloat16
    assert dslopes.dtype == torch.float32
    exact = [t.double() for t in (x, grad, slopes)]
    for found, wanted in zip((y, dx, dslopes), by_definition(*exact), strict=True):
        torch.testing.assert_close(found.double(), wanted.double(), rtol=2**-7, atol=0.05)


def test_gradcheck():
    x, _, slopes = numbers()
    x[x.abs() < 0.01] = 0.5  # where there is a derivative
    x.requires_grad_()
    slopes.requires_grad_()
    assert torch.autograd.gradcheck(prelu._PReLU.apply, (x, slopes))


def test_same_state_and_result_as_torch_without_gradient():
    ours, theirs = PReLU(3), torch.nn.PReLU(3)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        assert ours(x).equal(theirs(x))


def test_an_infinite_gradient_is_not_lost():
    x, grad, slopes = numbers()
    grad[0, 0, 0, 0], x[0, 0, 0, 0] = float("inf"), -1.0
    _, dx, dslopes = own(x, grad, slopes)
    assert not dx.isfinite().all()
    assert not dslopes.isfinite().all()
