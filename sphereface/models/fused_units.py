"""The residual units of the Sphere CNN on CUDA, with fewer maps kept and fewer launches.

Autograd keeps the input and the result of each PReLU, and each sum. This module keeps only the
inputs of the PReLUs. The backward pass computes the other maps again, with the same bits: the
results inside a unit by the kernel that computes its gradient, the sums by one launch each. In the
forward pass, one kernel computes a PReLU and adds it to the input of its unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..device import why_no_triton
from .followed import is_followed


class UnitWeights(NamedTuple):
    """The weights of x + prelu(conv(prelu(conv(x)))): convolutions 3×3 without bias, and slopes."""

    conv_a: Tensor
    slopes_a: Tensor
    conv_b: Tensor
    slopes_b: Tensor


def fuses(x: Tensor, weights: Iterable[Tensor], layers: Iterable[nn.Module]) -> bool:
    """Return whether :func:`fused_units` can serve here: in training on CUDA, with Triton.

    Args:
        x: (B, C, H, W) input of the first PReLU.
        weights: of the units. They must have the type of x.
        layers: must have no hooks, because nothing calls the layers.
    """
    return (
        _can_run(x)
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.dtype != torch.float64
        and all(weight.dtype == x.dtype for weight in weights)
        and not any(map(_has_hooks, layers))
    )


def fused_units(x: Tensor, slopes: Tensor, units: Sequence[UnitWeights]) -> Tensor:
    """Return the result of residual units on prelu(x).

    Args:
        x: (B, C, H, W), channels last.
        slopes: (C,) of the first PReLU.
        units: of width C.
    """
    result: Tensor = _FusedUnits.apply(x, slopes, *(weight for unit in units for weight in unit))
    return result


def _can_run(x: Tensor) -> bool:
    on_gpu = x.device.type == "cuda" and torch.is_grad_enabled() and not is_followed()
    return on_gpu and why_no_triton(x.device) is None


def _has_hooks(layer: nn.Module) -> bool:
    hooks = layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks
    return any(hooks)


class _FusedUnits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slopes: Tensor, *weights: Tensor) -> Tensor:
        kernels = _kernels()
        maps = []
        y = kernels.prelu(x, slopes)
        for unit in _units(weights):
            a = F.conv2d(y, unit.conv_a, padding=1)
            b = F.conv2d(kernels.prelu(a, unit.slopes_a), unit.conv_b, padding=1)
            y = kernels.prelu(b, unit.slopes_b, y)
            maps += [a, b]
        ctx.save_for_backward(x, slopes, *weights, *maps)
        return y  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients from the last unit to the first."""
        kernels = _kernels()
        x, slopes, *rest = ctx.saved_tensors
        count = (len(ctx.needs_input_grad) - 2) // 4
        units, maps = _units(rest[: 4 * count]), rest[4 * count :]
        inputs = [kernels.prelu(x, slopes)] if units else []
        for unit, b in zip(units[:-1], maps[1:-1:2], strict=True):
            inputs.append(kernels.prelu(b, unit.slopes_b, inputs[-1]))
        of_weights: list[Tensor | None] = []
        grad = grad.contiguous(memory_format=torch.channels_last)
        for k in reversed(range(count)):
            wanted = ctx.needs_input_grad[2 + 4 * k : 6 + 4 * k]
            grad, own = _unit_backward(units[k], inputs.pop(), maps[2 * k], maps[2 * k + 1], grad, wanted)
            of_weights = [*own, *of_weights]
        dx, parts = torch.empty_like(x), _new_parts(x, 1)
        kernels.prelu_backward(x, slopes, grad, dx, parts[0])
        return dx, kernels.slope_gradients(parts, slopes.dtype)[0], *of_weights


def _unit_backward(
    unit: UnitWeights, x: Tensor, a: Tensor, b: Tensor, grad: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the gradients of x and of the weights of a unit.

    Args:
        unit: its weights.
        x: (B, C, H, W) its input.
        a, b: the results of its convolutions.
        grad: the gradient of its result.
        wanted: whether each weight needs a gradient.
    """
    kernels, parts = _kernels(), _new_parts(x, 2)
    db = torch.empty_like(b)
    kernels.prelu_backward(b, unit.slopes_b, grad, db, parts[1])
    da, _ = _conv_backward(db, a, unit.conv_b, True, False)  # of the input, only the size matters
    assert da is not None
    y = torch.empty_like(a)
    kernels.prelu_backward(a, unit.slopes_a, da, da, parts[0], y)
    _, conv_b = _conv_backward(db, y, unit.conv_b, False, wanted[2])
    del db, y  # each takes as much memory as a map that is kept
    dx, conv_a = _conv_backward(da, x, unit.conv_a, True, wanted[0])
    slopes_a, slopes_b = kernels.slope_gradients(parts, unit.slopes_a.dtype).unbind()
    assert dx is not None
    return dx.add_(grad), [conv_a, slopes_a, conv_b, slopes_b]


def _conv_backward(grad: Tensor, x: Tensor, weight: Tensor, *wanted: bool) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of input and weight of a 3×3 convolution, where they are wanted."""
    if not any(wanted):
        return None, None
    one, none = [1, 1], [0, 0]
    options = None, one, one, one, False, none, 1, [*wanted, False]
    dx, dweight, _ = torch.ops.aten.convolution_backward(grad, x, weight, *options)
    return dx, dweight


def _new_parts(x: Tensor, layers: int) -> Tensor:
    """Return room for the slopes' gradients of some layers, (layers, parts, C)."""
    return torch.empty(layers, _kernels().count_parts(x), x.shape[1], device=x.device)


def _units(weights: Sequence[Tensor]) -> list[UnitWeights]:
    return [UnitWeights(*weights[k : k + 4]) for k in range(0, len(weights), 4)]


def _kernels() -> Any:
    from . import prelu_kernels  # needs triton, which not every machine with torch has

    return prelu_kernels
