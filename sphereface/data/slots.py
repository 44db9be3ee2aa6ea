"""Define the common parts of the orders of training: an epoch of N slots, with draws for each.

:mod:`sphereface.data.keyed_order` is the order of new runs. :mod:`sphereface.data.stored_order` is
the order of runs that an earlier version started. :class:`sphereface.data.sampler.BatchOrder` cuts
either into batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..augmentation import Augment

ORDER, MIRROR, SHIFT, SLOTS = range(4)  # one stream of random numbers per purpose
AUGMENT = 16  # the first of the augmentations' streams


@dataclass(frozen=True)
class Augmentation:
    """The augmentations of training crops; the original recipe uses only the mirror.

    Attributes:
        mirror: mirror each image left-right with probability ½.
        crop_shift: shift each image by up to this many pixels in each direction, with a replicated
            border.
        augment: the others, each with its probability.
    """

    mirror: bool = True
    crop_shift: int = 0
    augment: Augment = field(default_factory=Augment)

    def streams(self) -> dict[str, tuple[int, int]]:
        """Return name → (stream, numbers per image) of each enabled augmentation."""
        kinds = enumerate(self.augment.kinds().items())
        return {name: (AUGMENT + row, 1 + kind.columns) for row, (name, kind) in kinds if kind.p > 0}


class Balance(NamedTuple):
    """How often the images of each identity occur, if not equally often.

    Attributes:
        firsts: (C + 1,) int64; the images of identity c are ``firsts[c]`` … ``firsts[c + 1]`` − 1.
        strength: 1: every identity equally often; between 0 and 1: an image of an identity with n
            images has the weight n^(−strength).
    """

    firsts: npt.NDArray[np.int64]
    strength: float


class Slots(NamedTuple):
    """The draws for K slots of an epoch.

    Attributes:
        indices: (K,) int64 into the source.
        mirror: (K,) bool.
        shift: (K, 2) int64, (down, right) in pixels.
        uniforms: (K, 1 + columns) float32 in [0, 1) for each enabled augmentation.
    """

    indices: npt.NDArray[np.int64]
    mirror: npt.NDArray[np.bool_]
    shift: npt.NDArray[np.int64]
    uniforms: dict[str, npt.NDArray[np.float32]]


def philox(seed: int, epoch: int, purpose: int) -> np.random.Philox:
    """Return the generator of one purpose in one epoch."""
    counter = np.array([0, 0, 0, purpose], dtype=np.uint64)
    return np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64), counter=counter)
