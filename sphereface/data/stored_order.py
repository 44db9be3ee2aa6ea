"""Reproduce the order of runs that versions before ``meta.order`` started, so that they resume.

It draws whole epochs in sequence, with numpy's generators. Each process holds 25 bytes an image, 8
more with ``balance``, and 4 for each number of an augmentation. Each epoch starts with a pause for
the draws.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .slots import MIRROR, ORDER, SHIFT, SLOTS, Augmentation, Balance, Slots, philox


class StoredOrder:
    """The order of earlier versions; the arguments are those of :class:`KeyedOrder`."""

    def __init__(self, num_images: int, *, seed: int, augmentation: Augmentation, balance: Balance | None) -> None:
        self._size, self._seed, self._augmentation = num_images, seed, augmentation
        self._weights = None if balance is None else _weights(balance)
        self._epoch = -1

    def slots(self, epoch: int, at: npt.NDArray[np.int64]) -> Slots:
        """Return the draws for the slots at some places of an epoch, in ascending order."""
        if epoch != self._epoch:
            self._order = self._generator(epoch, ORDER).permutation(self._size)
            self._whole = self._draw(epoch)
            self._epoch = epoch
        slots = self._order[at]
        indices, mirror, shift, uniforms = self._whole
        return Slots(indices[slots], mirror[slots], shift[slots], {name: u[slots] for name, u in uniforms.items()})

    def _draw(self, epoch: int) -> Slots:
        """Draw all N slots of an epoch."""
        n, reach = self._size, self._augmentation.crop_shift
        mirror = np.zeros(n, dtype=np.bool_)
        if self._augmentation.mirror:
            mirror = self._generator(epoch, MIRROR).integers(0, 2, n).astype(np.bool_)
        shift = self._generator(epoch, SHIFT).integers(-reach, reach + 1, (n, 2))
        uniforms = {
            name: self._generator(epoch, purpose).random((n, columns), dtype=np.float32)
            for name, (purpose, columns) in self._augmentation.streams().items()
        }
        return Slots(self._images(epoch), mirror, shift, uniforms)

    def _images(self, epoch: int) -> npt.NDArray[np.int64]:
        n = self._size
        if self._weights is None:
            return np.arange(n)
        ends = np.cumsum(self._weights)  # N evenly spaced strokes over the weights, laid end to end
        strokes = (np.arange(n) + self._generator(epoch, SLOTS).random()) * (ends[-1] / n)
        images = np.searchsorted(ends, strokes, side="right").astype(np.int64)
        return np.asarray(np.minimum(images, n - 1))  # rounding can exceed the last end

    def _generator(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.Generator(philox(self._seed, epoch, purpose))


def _weights(balance: Balance) -> npt.NDArray[np.float64]:
    counts = np.diff(balance.firsts)
    weights = np.repeat(counts, counts) ** -float(balance.strength)
    return np.asarray(weights / weights.mean(), dtype=np.float64)
