"""Define the endless order of training, shuffled again in each epoch.

Each draw is a function of (seed, epoch, index) alone. Nothing is drawn in sequence, so any batch
can be computed without those before it. So a resume is exact to the image, for any number of
workers or processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from ..augmentation import Kind
from ..errors import UserError
from .keyed_order import KeyedOrder
from .slots import Augmentation, Balance
from .stored_order import StoredOrder

__all__ = ["NEWEST", "ORDERS", "Augmentation", "Balance", "BatchOrder", "Draw", "Selected"]

ORDERS: dict[int, type[KeyedOrder | StoredOrder]] = {1: StoredOrder, 2: KeyedOrder}
"""Orders by the number in a checkpoint's ``meta.order``; without it, the first."""
NEWEST = max(ORDERS)
_TOGETHER = 4096  # images drawn at a time: for 128, a draw costs ten times as much an image


class Selected(NamedTuple):
    """The images of a batch to which one augmentation applies.

    Attributes:
        rows: (k,) int64 in [0, B), increasing.
        strengths: (k, columns) float32, from ``Kind.strengths``.
    """

    rows: npt.NDArray[np.int64]
    strengths: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Draw:
    """The images of one batch and the augmentations of each.

    Attributes:
        indices: (B,) int64 into the source.
        mirror: (B,) bool.
        shift: (B, 2) int64, (down, right) in pixels.
        augment: by the name of each enabled augmentation.
    """

    indices: npt.NDArray[np.int64]
    mirror: npt.NDArray[np.bool_]
    shift: npt.NDArray[np.int64]
    augment: dict[str, Selected] = field(default_factory=dict)


class BatchOrder(Sampler[Draw]):
    """Yield the draws of the batches from position ``start`` on, without end.

    Position p of the stream is place p mod N of epoch p // N. A batch holds the next B positions,
    so it may span two epochs, and none is short. An epoch has N slots in a random order, with one
    image each. Each image occurs once, or, with ``balance``, as often as its weight, rounded down
    or up.

    Args:
        num_images: N, the size of the source.
        batch_size: B, of all processes together.
        seed: of the order and of every augmentation.
        augmentation: the augmentations and their ranges.
        start: position of the first image: the number of images trained on so far, by all
            processes.
        balance: how often the images of each identity occur; None: each image once an epoch.
        version: key of :data:`ORDERS`.
        rank, num_ranks: this process and their number. Each yields its B / num_ranks images of
            every batch. The shares of rank 0, 1, … in order are the batch of a single process.

    Attributes:
        share: B / num_ranks, the number of images that this process yields per batch.

    Raises:
        UserError: the batch cannot be divided evenly.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int,
        augmentation: Augmentation,
        start: int = 0,
        balance: Balance | None = None,
        version: int = NEWEST,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        if batch_size % num_ranks:
            nearest = max(round(batch_size / num_ranks), 1) * num_ranks
            raise UserError(
                f"train.batch_size: got {batch_size} on {num_ranks} processes · allowed: a multiple of {num_ranks}, "
                f"since all processes share the batch · nearest: {nearest}"
            )
        self.num_images = num_images
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.start = start
        self.share = batch_size // num_ranks
        self._offset = rank * self.share
        self._order = ORDERS[version](num_images, seed=seed, augmentation=augmentation, balance=balance)

    def __iter__(self) -> Iterator[Draw]:
        together = max(min(_TOGETHER // self.share, self.num_images // self.batch_size), 1)  # of two epochs at most
        start = self.start
        while True:
            yield from self._draws(start, together)
            start += together * self.batch_size

    def draw(self, start: int) -> Draw:
        """Return this process's share of the batch that begins at a position."""
        return next(self._draws(start, 1))

    def _draws(self, start: int, count: int) -> Iterator[Draw]:
        """Yield the draws of batches in a row, the first of which begins at a position."""
        firsts = start + self._offset + self.batch_size * np.arange(count)[:, None]
        epochs, places = np.divmod((firsts + np.arange(self.share)).ravel(), self.num_images)
        edges = [0, *(np.flatnonzero(np.diff(epochs)) + 1).tolist(), len(epochs)]
        parts = [self._order.slots(int(epochs[a]), places[a:b]) for a, b in itertools.pairwise(edges)]
        indices, mirror, shift = (np.concatenate(columns) for columns in list(zip(*parts, strict=True))[:3])
        kinds = self.augmentation.augment.enabled()
        uniforms = {name: np.concatenate([part.uniforms[name] for part in parts]) for name in kinds}
        for first in range(0, len(indices), self.share):
            own = slice(first, first + self.share)
            augment = {name: _select(kind, uniforms[name][own]) for name, kind in kinds.items()}
            yield Draw(indices[own], mirror[own], shift[own], augment)


def _select(kind: Kind, uniforms: npt.NDArray[np.float32]) -> Selected:
    """Select images by the first number of each; the others set the strength."""
    rows = np.flatnonzero(uniforms[:, 0] < kind.p)
    return Selected(rows, kind.strengths(uniforms[rows, 1:]))
