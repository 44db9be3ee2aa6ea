"""Compute the order of training for each batch, without arrays as long as the data set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .identities import places
from .permutation import ROUNDS, Permutation, Words, integers, splitmix64, uniforms
from .slots import MIRROR, ORDER, SHIFT, SLOTS, Augmentation, Balance, Slots, philox


class KeyedOrder:
    """An order in which every number follows from a key and its own place.

    Each purpose has keys in each epoch: the first words of Philox with the key (seed, epoch) and
    the purpose in its counter. The keys of the order define a :class:`Permutation` of the slots.
    Number j of slot i, of c numbers for each slot, is output c·i + j of SplitMix64 with the key of
    its purpose. Memory: 8 bytes an identity with ``balance``, else none.

    Args:
        num_images: N.
        seed: of the order and of every augmentation.
        augmentation: the augmentations and their ranges.
        balance: how often the images of each identity occur; None: each image once an epoch.
    """

    def __init__(self, num_images: int, *, seed: int, augmentation: Augmentation, balance: Balance | None) -> None:
        self._size, self._seed, self._augmentation = num_images, seed, augmentation
        self._balanced = None if balance is None else _Balanced(balance, num_images)
        streams = augmentation.streams()
        self._columns = {MIRROR: 1, SHIFT: 2} | dict(streams.values())  # numbers per slot of each purpose
        widths = list(self._columns.values())
        self._steps = np.repeat(widths, widths)[:, None]
        self._offsets = np.concatenate([np.arange(width) for width in widths])[:, None]
        self._parts = np.cumsum(widths)[:-1].tolist()
        self._names = list(streams)
        self._epoch = -1

    def _begin(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._permutation = Permutation(self._size, philox(self._seed, epoch, ORDER).random_raw(ROUNDS))
        keys = [philox(self._seed, epoch, purpose).random_raw() for purpose in self._columns]
        self._keys = np.repeat(np.array(keys, dtype=np.uint64), list(self._columns.values()))[:, None]
        self._stroke = (philox(self._seed, epoch, SLOTS).random_raw() >> 11) * 2.0**-53
        self._epoch = epoch

    def slots(self, epoch: int, at: npt.NDArray[np.int64]) -> Slots:
        """Return the draws for the slots at some places of an epoch, in ascending order."""
        self._begin(epoch)
        slots = self._permutation(at)
        words: Words = (slots * self._steps + self._offsets).astype(np.uint64)  # (all columns, K)
        mirror, shift, *others = np.split(splitmix64(self._keys, words), self._parts)
        reach = self._augmentation.crop_shift
        return Slots(
            indices=slots
            if self._balanced is None
            else self._balanced.images(np.add(slots, self._stroke, dtype=np.float64)),
            mirror=integers(mirror[0], 2 if self._augmentation.mirror else 1).astype(np.bool_),
            shift=integers(shift.T, 2 * reach + 1) - reach,
            uniforms={name: uniforms(part.T) for name, part in zip(self._names, others, strict=True)},
        )


class _Balanced:
    """Assign an image to each slot: N evenly spaced strokes over the weights, laid end to end.

    So an image occurs as often as its weight, rounded down or up. The first stroke has a random
    offset.
    """

    def __init__(self, balance: Balance, num_images: int) -> None:
        self._firsts, self._strength = balance.firsts, float(balance.strength)
        self._ends = np.cumsum(np.diff(balance.firsts) ** (1 - self._strength))
        self._width = self._ends[-1] / num_images

    def images(self, strokes: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the image under each stroke, whose numbers are in [0, N)."""
        there = strokes * self._width
        identities = np.minimum(places(self._ends, there), len(self._ends) - 1)  # rounding can exceed the last end
        first, end = self._firsts[identities], self._firsts[identities + 1]
        before = np.where(identities > 0, self._ends[identities - 1], 0.0)
        weight = (end - first) ** -self._strength
        return np.asarray(np.minimum(first + np.asarray((there - before) / weight, dtype=np.int64), end - 1))
