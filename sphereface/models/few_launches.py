"""Run a block of layers on CUDA with few launches: weights cast together, no bias that is fixed at
zero.

Autocast casts each weight by a launch of its own, and each gradient back. A network of small layers
waits for the host then, not for the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_CAST = (nn.Conv2d, nn.Linear, nn.PReLU)  # layers whose weights autocast casts


def run_block(block: nn.Module, x: Tensor) -> Tensor:
    """Return ``block(x)``; in training on CUDA the layers get other tensors of the same values.

    These are the weights in autocast's number type, cast in one launch for all. A gradient flows to
    the parameters. Call it for a part of the network at a time: all gradients of the block come
    together, and several processes exchange them while the parts before compute.
    """
    device = x.device.type
    if device == "cpu" or not (torch.is_grad_enabled() and torch.is_autocast_enabled(device)) or _is_followed():
        result: Tensor = block(x)
        return result
    return call_cast(block, x, torch.get_autocast_dtype(device))


class Blocks(nn.Sequential):
    """Blocks one after another, each by :func:`run_block`: a Sequential in state and result."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 -- torch's own name
        """Apply the blocks in order."""
        for block in self:
            input = run_block(block, input)  # noqa: A001
        return input


def call_cast(block: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``block(x)``, computed with weights of this number type."""
    cast: dict[str, Tensor] = {}
    for trained in (True, False):  # a fixed weight gets no gradient, also after the cast
        values = {name: value for name, value in _weights(block) if value.requires_grad == trained}
        if values:
            cast |= zip(values, _Cast.apply(dtype, *values.values()), strict=True)
    result: Tensor = torch.func.functional_call(block, cast, (x,), tie_weights=False)
    return result


def _weights(block: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, layer in block.named_modules():
        if isinstance(layer, _CAST):
            for name, value in layer.named_parameters(path, recurse=False):
                if not (isinstance(layer, FixedBiasConv2d) and value is layer.bias):  # is mostly left out
                    yield name, value


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *values: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [value.dtype for value in values]
        cast = [torch.empty_like(value, dtype=dtype) for value in values]
        torch._foreach_copy_(cast, list(values))
        return tuple(cast)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Cast all gradients back."""
        back = [
            None if gradient is None else torch.empty_like(gradient, dtype=dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        ]
        given = [gradient for gradient in gradients if gradient is not None]
        torch._foreach_copy_([part for part in back if part is not None], given)
        return None, *back


class FixedBiasConv2d(nn.Conv2d):
    """A convolution whose bias is fixed, mostly at zero: :class:`torch.nn.Conv2d` in state and
    result.

    On CUDA a bias is a pass over the whole map. It is left out in training while it is zero, which
    the host looks up again only after something has written to it.
    """

    _seen: tuple[int, int, bool] | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 -- torch's own name
        """(B, C, H, W) → (B, C', H', W')."""
        left_out = (
            input.device.type != "cpu" and torch.is_grad_enabled() and not _is_followed() and not self.adds_bias()
        )
        result: Tensor = self._conv_forward(input, self.weight, None if left_out else self.bias)
        return result

    def adds_bias(self) -> bool:
        """Return whether the bias is trained, or not zero. Waits for the device where something
        wrote to it.
        """
        bias = self.bias
        if bias is None or bias.requires_grad:
            return bias is not None
        state = bias.data_ptr(), bias._version
        if self._seen is None or self._seen[:2] != state:
            self._seen = *state, bool(bias.cpu().any())
        return self._seen[2]


def _is_followed() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
