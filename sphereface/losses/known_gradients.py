"""For losses whose gradient is known as soon as they are: it is computed with them, block by block,
and kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def with_gradients(value: Tensor, *pairs: tuple[Tensor, Tensor | None]) -> Tensor:
    """A scalar whose gradient towards each tensor is the given one.

    Args:
        value: () the loss.
        pairs: (input, dvalue/dinput); None where it is not needed.
    """
    inputs, gradients = zip(*pairs, strict=True)
    result: Tensor = _Known.apply(value, gradients, *inputs)
    return result


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor | None, ...], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)  # autograd then checks that they were not changed meanwhile
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (None if known is None else known * grad for known in ctx.gradients)
        pairs = zip(scaled, ctx.saved_tensors, strict=True)
        return None, None, *(None if known is None else known.to(given.dtype) for known, given in pairs)
