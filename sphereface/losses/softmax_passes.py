"""What a softmax does to a block of logits: one pass in the forward, one in the backward.

:class:`EagerSoftmax` does it by torch's operations, on any device.
:class:`~sphereface.losses.fused_layer.FusedSoftmax` does it by two kernels on CUDA. The engine in
:mod:`sphereface.losses.margin_softmax` calls both in the same way, and no margin is known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .last_layer import LastLayer
    from .targets import Targets


class EagerSoftmax:
    """Softmax over the classes other than the target. A block of logits becomes its exponentials,
    and these its gradient, in place.

    Args:
        layer: gives the blocks.
        targets: are left out.

    Attributes:
        maxima: (P, N) the highest other logit in each part of the classes; the lowest finite number
            where a part has none.
        sums: (P, N) the sums of exp(z − maximum) of these parts.
        unit: () what all gradients are to be multiplied by; None for 1.
    """

    unit: Tensor | None = None
    parts = 1
    """Rows of ``maxima`` for each block, at most."""

    def __init__(self, layer: LastLayer, targets: Targets) -> None:
        self.layer, self.targets = layer, targets
        self.maxima = layer.x.new_empty(len(layer.blocks), len(layer.x))
        self.sums = torch.empty_like(self.maxima)

    def reduce(self, index: int, z: Tensor) -> None:
        """The forward's pass over the logits of a block, (B, N)."""
        highest = self.maxima[index]
        self.targets.put(index, z, float("-inf"))
        torch.amax(z, 0, out=highest)
        highest.clamp_(min=torch.finfo(z.dtype).min)  # a block of nothing but the target has no other maximum
        torch.sum(z.sub_(highest).exp_(), 0, out=self.sums[index])

    def reduce_again(self, index: int, z: Tensor) -> None:
        """Bring logits that were computed again to the state in which :meth:`reduce` left them."""
        z.sub_(self.maxima[index]).exp_()
        self.targets.put(index, z, 0.0)

    def totals(self) -> tuple[Tensor, Tensor]:
        """The highest of all ranks' other logits and the sum of exp(z − highest) of this rank's.

        Both are (N,).
        """
        best = self.targets.highest(self.maxima.amax(0))
        return best, (self.sums * (self.maxima - best).exp_()).sum(0)

    def begin_backward(self, log_sum: Tensor, scale: Tensor) -> None:
        """Prepare :meth:`to_gradient`, given the logarithms of all sums (N,) and dL/d(mean) ()."""
        self.factors = (self.maxima - log_sum).exp_().mul_(scale)

    def to_gradient(self, index: int, z: Tensor) -> None:
        """Turn what :meth:`reduce` left into dL/dZ / ``unit``, 0 at the targets."""
        z.mul_(self.factors[index])
