"""Shards of the classes, and the targets as one rank knows them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError
from .last_layer import LastLayer
from .margins import Margin
from .ranks import Ranks
from .targets import Targets


@dataclass(frozen=True)
class Shard:
    """The classes ``start`` … ``stop`` − 1 of ``num_classes``."""

    start: int
    stop: int
    num_classes: int

    @classmethod
    def of(cls, num_classes: int, rank: int = 0, ranks: int = 1) -> Shard:
        """Return the shard of one of R ranks, in class order. Sizes differ by one class at most.

        Raises:
            UserError: a rank would have no class.
        """
        if num_classes < ranks:
            raise UserError(
                f"head: got {num_classes} classes over {ranks} processes · allowed: at least one class for each · "
                "set loss.distributed replicated, or start fewer processes"
            )
        share, rest = divmod(num_classes, ranks)
        start = rank * share + min(rank, rest)
        return cls(start, start + share + (rank < rest), num_classes)

    def __len__(self) -> int:
        """Return the number of classes."""
        return self.stop - self.start

    def of_whole(self, whole: Tensor) -> Tensor:
        """Return a view of this shard's rows of a tensor with one row for each class."""
        return whole[self.start : self.stop]

    def locate(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N,) rows in this shard, 0 for other labels, and (N,) bool whether it has them."""
        here = (labels >= self.start) & (labels < self.stop)
        return (labels - self.start).masked_fill(~here, 0), here


@dataclass(frozen=True)
class Shared:
    """Describes to an engine which classes its rows are, and which ranks hold the others.

    Attributes:
        ranks: who has them.
        here: (N,) bool: the sample's target class is among these rows; the others count as of row
            0.
        num_classes: C, of all ranks.
    """

    ranks: Ranks
    here: Tensor
    num_classes: int

    def sum_rows(self, rows: Tensor) -> Tensor:
        """All-reduce (N, …) rows of which each rank knows those ``here``."""
        return self.ranks.sum(rows * self.here[:, None])[0]


def targets_of(layer: LastLayer, labels: Tensor, margin: Margin, lam: float, shared: Shared | None) -> Targets:
    """Return the target logits of a batch, on one rank or several."""
    return Targets(layer, labels, margin, lam) if shared is None else _SharedTargets(layer, labels, margin, lam, shared)


class _SharedTargets(Targets):
    """Targets of which this rank holds some. :meth:`total` completes the figures over all ranks."""

    def __init__(self, layer: LastLayer, labels: Tensor, margin: Margin, lam: float, shared: Shared) -> None:
        super().__init__(layer, labels, margin, lam, shared.here)
        self._ranks, self._held = shared.ranks, shared.here

    def own(self, values: Tensor) -> Tensor:
        return values * (self._held if values.ndim == 1 else self._held[:, None])

    def once(self, values: Tensor) -> Tensor:
        return torch.where(self._held, values, values.detach())

    def highest(self, values: Tensor) -> Tensor:
        return self._ranks.max_(values.clone())  # that is in place

    def total(self, *sums: Tensor) -> tuple[Tensor, ...]:
        figures = (self.own(self.logits), self.own(self.plain), self.own(self.cosines))
        *totals, self.logits, self.plain, self.cosines = self._ranks.sum(*sums, *figures)
        return tuple(totals)
