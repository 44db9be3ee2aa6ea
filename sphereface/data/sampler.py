"""The order of training: endless, shuffled anew each epoch, and a function of (seed, epoch, index) alone.

Nothing is drawn in sequence, so any batch can be computed without those before it: that is what makes a resume
exact to the image, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

_ORDER, _MIRROR, _SHIFT = range(3)  # one stream of random numbers a purpose


@dataclass(frozen=True)
class Draw:
    """The pictures of one batch and how each is augmented.

    Attributes:
        indices: (B,) int64 into the source.
        mirror: (B,) bool.
        shift: (B, 2) int64, (down, right) in pixels.
    """

    indices: npt.NDArray[np.int64]
    mirror: npt.NDArray[np.bool_]
    shift: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training crop; the recipe's is the mirror alone.

    Attributes:
        mirror: each picture is mirrored left-right with probability ½.
        crop_shift: each picture is moved by up to so many pixels either way, its border replicated.
    """

    mirror: bool = True
    crop_shift: int = 0


class BatchOrder(Sampler[Draw]):
    """Yields the draws of the batches from position ``start`` on, without end.

    Position p of the stream is picture ``permutation(epoch)[p mod N]`` of epoch p // N. A batch holds the next B
    positions, so it may span two epochs and none is ever short.

    Args:
        num_images: N, the size of the source.
        batch_size: B.
        seed: of the order and of every augmentation.
        start: position of the first picture: the number of pictures that were trained on.
    """

    def __init__(
        self, num_images: int, batch_size: int, *, seed: int, augmentation: Augmentation, start: int = 0
    ) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.start = start
        self._epoch: tuple[int, Draw] | None = None

    def __iter__(self) -> Iterator[Draw]:
        start = self.start
        while True:
            yield self.draw(start)
            start += self.batch_size

    def draw(self, start: int) -> Draw:
        """The draw of the batch that begins at a position."""
        stop = start + self.batch_size
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self.num_images)
            end = min(self.num_images, offset + stop - start)
            whole = self._draw_epoch(epoch)
            parts.append(Draw(whole.indices[offset:end], whole.mirror[offset:end], whole.shift[offset:end]))
            start += end - offset
        return Draw(
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.mirror for part in parts]),
            np.concatenate([part.shift for part in parts]),
        )

    def _draw_epoch(self, epoch: int) -> Draw:
        if self._epoch is None or self._epoch[0] != epoch:
            n, reach = self.num_images, self.augmentation.crop_shift
            indices = self._generator(epoch, _ORDER).permutation(n)
            mirror = np.zeros(n, dtype=np.bool_)
            if self.augmentation.mirror:
                mirror = self._generator(epoch, _MIRROR).integers(0, 2, n).astype(np.bool_)
            shift = self._generator(epoch, _SHIFT).integers(-reach, reach + 1, (n, 2))
            # by picture, not by place in the order: a picture's randomness depends on its own index
            self._epoch = epoch, Draw(indices, mirror[indices], shift[indices])
        return self._epoch[1]

    def _generator(self, epoch: int, purpose: int) -> np.random.Generator:
        key = np.array([self.seed, epoch], dtype=np.uint64)
        counter = np.array([0, 0, 0, purpose], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))
