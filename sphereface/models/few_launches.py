"""Run a block of layers on CUDA with few kernel launches.

Autocast uses one launch to cast each weight, and one to cast each gradient back. A network of small
layers then waits for the host, not for the GPU. This module casts all weights of a block together,
and omits a bias that is fixed at zero. Under torch.compile it also sums the gradients of all slopes
of a block together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .followed import is_followed
from .prelu import PReLU

_CAST = (nn.Conv2d, nn.Linear, nn.PReLU)  # layers whose weights autocast casts


def run_block(block: nn.Module, x: Tensor) -> Tensor:
    """Return ``block(x)``. In training on CUDA, prepare all weights of the block together.

    With autocast, one launch casts them. Under torch.compile, the slopes have the form of
    :func:`slopes_by_image`. Gradients flow to the parameters. Call this function for one part of
    the network at a time. The gradients of the part are ready together, so several processes can
    exchange them while the earlier parts compute theirs.
    """
    device = x.device.type
    weights: dict[str, Tensor] = {}  # the compiler cannot follow dict[str, Tensor]()
    if device != "cpu" and torch.is_grad_enabled() and not torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        if torch.is_autocast_enabled(device):
            weights |= _cast_weights(block, torch.get_autocast_dtype(device))
        if torch.compiler.is_compiling():
            weights |= slopes_by_image(block, len(x), weights)
    return call_with(block, x, weights)


class Blocks(nn.Sequential):
    """A Sequential that runs each block by :func:`run_block`; state and result are the same."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 -- torch's own name
        """Apply the blocks in order."""
        for block in self:
            input = run_block(block, input)  # noqa: A001
        return input


def call_cast(block: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``block(x)``, computed with weights of this number type."""
    return call_with(block, x, _cast_weights(block, dtype))


def call_with(block: nn.Module, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Return ``block(x)``, computed with these weights in place of the parameters so named."""
    result: Tensor = torch.func.functional_call(block, dict(weights), (x,), tie_weights=False) if weights else block(x)
    return result


def slopes_by_image(block: nn.Module, images: int, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the trained slopes of all PReLU layers, each (images, C), by name.

    The gradient of a layer is then a sum over the map of each image. The compiler computes it in
    the kernel that computes the gradient of the map. The sum over the images follows once for the
    whole block. A gradient of shape (C,) would need two more launches for each layer.

    Args:
        block: holds the layers.
        images: in the batch.
        weights: used in place of the parameters of their names.
    """
    slopes = {
        name: weights.get(name, value)
        for path, layer in block.named_modules()
        if isinstance(layer, PReLU)
        for name, value in layer.named_parameters(path)
        if value.requires_grad
    }
    return dict(zip(slopes, _ByImage.apply(images, *slopes.values()), strict=True)) if slopes else {}


def _cast_weights(block: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    cast: dict[str, Tensor] = {}
    for trained in (True, False):  # separate calls, so that a fixed weight gets no gradient after the cast
        values = {name: value for name, value in _weights(block) if value.requires_grad == trained}
        if values:
            cast |= zip(values, _Cast.apply(dtype, *values.values()), strict=True)
    return cast


def _weights(block: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, layer in block.named_modules():
        if isinstance(layer, _CAST):
            for name, value in layer.named_parameters(path, recurse=False):
                if not (isinstance(layer, FixedBiasConv2d) and value is layer.bias):  # forward() omits it in most cases
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


class _ByImage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: int, *slopes: Tensor) -> tuple[Tensor, ...]:
        """Return a row for each image, float32 or wider, so that the sums are exact enough."""
        ctx.dtypes, ctx.lengths = [own.dtype for own in slopes], [len(own) for own in slopes]
        wide = [own.to(torch.promote_types(own.dtype, torch.float32)) for own in slopes]
        return tuple(own.expand(images, -1) for own in wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Sum all gradients over the images."""
        sums = torch.split(torch.cat(gradients, 1).sum(0), ctx.lengths)
        return None, *(own.to(dtype) for own, dtype in zip(sums, ctx.dtypes, strict=True))


class FixedBiasConv2d(nn.Conv2d):
    """A convolution with a fixed bias, which is mostly zero.

    State and result are those of :class:`torch.nn.Conv2d`. On CUDA, adding a bias costs one pass
    over the whole map. Training on CUDA omits the bias while it is zero. The host checks its value
    again only after a write to it.
    """

    _seen: tuple[int, int, bool] | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 -- torch's own name
        """Apply the convolution: (B, C, H, W) → (B, C', H', W')."""
        left_out = input.device.type != "cpu" and torch.is_grad_enabled() and not is_followed() and not self.adds_bias()
        result: Tensor = self._conv_forward(input, self.weight, None if left_out else self.bias)
        return result

    def adds_bias(self) -> bool:
        """Return whether the bias is trained or not zero.

        After a write to the bias, this call waits for the device.
        """
        bias = self.bias
        if bias is None or bias.requires_grad:
            return bias is not None
        state = bias.data_ptr(), bias._version
        if self._seen is None or self._seen[:2] != state:
            self._seen = *state, bool(bias.cpu().any())
        return self._seen[2]
