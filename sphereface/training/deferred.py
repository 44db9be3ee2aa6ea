"""Whether training is still finite: known to the device, read now and then, so that no step waits
for it.

A step whose loss or gradient is not finite changes nothing, nor does any step after it, until the
host reads how many
those were: the weights are then what they were before the first of them, which is made again, this
time waited for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..losses.head import MarginHead


def can_defer(device: torch.device, scaler: torch.amp.GradScaler, optimizer: Any) -> bool:
    """Whether to read late: where reading means waiting, and the optimiser can be told on the
    device to do nothing.

    fp16's scaler looks at the gradients on the host at every step, so that nothing would be gained.
    Several processes come to the same answer without asking each other: loss and norm are those of
    all.
    """
    return device.type == "cuda" and not scaler.is_enabled() and hasattr(optimizer, "found_inf")


class DeferredCheck:
    """Remembers on the device that a step was not finite.

    Args:
        device: of the network.
        optimizer: gets :attr:`tripped` as its ``found_inf``, as torch's fused optimisers take it.
        head: gets it as its ``held``.

    Attributes:
        tripped: () float32: 1 from the first step on that was not finite until that is made again,
            else 0.
    """

    def __init__(self, device: torch.device, optimizer: Any, head: MarginHead) -> None:
        self.tripped = torch.zeros((), device=device)
        self._lost = torch.zeros((), device=device)
        optimizer.found_inf = head.held = self.tripped

    def look(self, *figures: Tensor) -> None:
        """Take in the figures of one step, () each: all must be finite."""
        finite = torch.stack([figure.float() for figure in figures]).isfinite().all()
        self.tripped.copy_(torch.maximum(self.tripped, (~finite).float()))
        self._lost.add_(self.tripped)

    @torch.no_grad()
    def put_back(self, values: Iterable[Tensor], before: Iterable[Tensor]) -> None:
        """Give tensors their values from before the step, in place, if it does not count."""
        for value, old in zip(values, before, strict=True):
            value.copy_(torch.where(self.tripped > 0, old, value))

    def lost_steps(self) -> int:
        """Wait for the device: how many steps changed nothing, the first bad one and those after
        it.
        """
        lost = int(self._lost)
        self._lost.zero_()
        return lost

    def reset(self) -> None:
        """The bad step has been made again as far as its gradients: what follows counts."""
        self.tripped.zero_()
