"""A moving average of the network's weights, which is often more accurate than the last weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """Exponential moving average of a network's parameters and running statistics (Polyak).

    After update t: average ← d·average + (1 − d)·weights, with d = min(decay, (1 + t) / (10 + t)).
    The small d of the first updates removes the first values quickly.

    Args:
        model: the network to follow; its weights are copied here.
        decay: in (0, 1); the average reaches back over about 1 / (1 − decay) updates.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._model = model
        self._average = {name: value.detach().clone() for name, value in _values(model)}

    @torch.no_grad()
    def update(self, *, unless: Tensor | None = None) -> None:
        """Update the average with the present weights.

        Args:
            unless: () on the device of the weights: where it is 1, the average does not change,
                but the update is counted.
        """
        self.updates += 1
        share = 1.0 - min(self.decay, (1.0 + self.updates) / (10.0 + self.updates))
        average = [self._average[name] for name, _ in _values(self._model)]
        values = [value for _, value in _values(self._model)]
        if unless is not None:
            values = [torch.where(unless > 0, own, value) for own, value in zip(average, values, strict=True)]
        torch._foreach_lerp_(average, values, share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averaged values inside the block and its own values after it."""
        own = {name: value.detach().clone() for name, value in _values(self._model)}
        self._fill(self._average)
        try:
            yield
        finally:
            self._fill(own)

    def weights(self) -> dict[str, Tensor]:
        """Return a whole state dict of the network with averaged values.

        Values that are not floating point are the network's own.
        """
        return {name: self._average.get(name, value) for name, value in self._model.state_dict().items()}

    def restore(self, weights: dict[str, Tensor], updates: int) -> None:
        """Restore what :meth:`weights` and :attr:`updates` returned."""
        self.updates = updates
        for name, value in self._average.items():
            value.copy_(weights[name])

    @torch.no_grad()
    def _fill(self, values: dict[str, Tensor]) -> None:
        for name, value in _values(self._model):
            value.copy_(values[name])


def _values(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and floating buffers by their names in the state dict, without copies."""
    for name, value in model.state_dict(keep_vars=True).items():
        if value.is_floating_point():
            yield name, value.detach()
