"""The order of training: endless, shuffled anew each epoch, and a function of (seed, epoch, index) alone.

Nothing is drawn in sequence, so any batch can be computed without those before it: that is what makes a resume
exact to the image, whatever the number of workers or of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from ..augmentation import Augment, Kind
from ..errors import UserError

_ORDER, _MIRROR, _SHIFT, _SLOTS = range(4)  # one stream of random numbers a purpose
_AUGMENT = 16  # the first of the augmentations' streams


class Selected(NamedTuple):
    """To which pictures of a batch one augmentation happens.

    Attributes:
        rows: (k,) int64 in [0, B), increasing.
        strengths: (k, columns) float32, as ``Kind.strengths`` gives them.
    """

    rows: npt.NDArray[np.int64]
    strengths: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Draw:
    """The pictures of one batch and how each is augmented.

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


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training crop; the recipe's is the mirror alone.

    Attributes:
        mirror: each picture is mirrored left-right with probability ½.
        crop_shift: each picture is moved by up to so many pixels either way, its border replicated.
        augment: the others, each with its probability.
    """

    mirror: bool = True
    crop_shift: int = 0
    augment: Augment = field(default_factory=Augment)


@dataclass(frozen=True)
class _Epoch:
    """All that is random in one epoch of N slots; one picture a slot.

    Attributes:
        number: which epoch.
        order: (N,) the slots in the order of training.
        pictures: (N,) the picture in each slot, an index into the source.
        mirror, shift, uniforms: by slot. ``uniforms``: (N, 1 + columns) float32 for each enabled augmentation.
    """

    number: int
    order: npt.NDArray[np.int64]
    pictures: npt.NDArray[np.int64]
    mirror: npt.NDArray[np.bool_]
    shift: npt.NDArray[np.int64]
    uniforms: dict[str, npt.NDArray[np.float32]]


class BatchOrder(Sampler[Draw]):
    """Yields the draws of the batches from position ``start`` on, without end.

    Position p of the stream is slot ``permutation(epoch)[p mod N]`` of epoch p // N. A batch holds the next B
    positions, so it may span two epochs and none is ever short. A slot is a picture: slot i is picture i, unless
    ``weights`` say that some come more often than others. Costs O(N) memory.

    Args:
        num_images: N, the size of the source.
        batch_size: B, of all processes together.
        seed: of the order and of every augmentation.
        augmentation: what may happen to a picture.
        start: position of the first picture: the number of pictures that were trained on, by all processes.
        weights: (N,) how often a picture comes, relative to the others; None: each once an epoch.
        rank, num_ranks: this process and how many there are; each yields its B / num_ranks of every batch, and those
            of rank 0, 1, … one after the other are the batch of a single process.

    Attributes:
        share: B / num_ranks, the length of what this process yields.

    Raises:
        UserError: the batch cannot be shared out evenly.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int,
        augmentation: Augmentation,
        start: int = 0,
        weights: npt.NDArray[np.float64] | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        if batch_size % num_ranks:
            raise UserError(
                f"train.batch_size: got {batch_size} on {num_ranks} processes · allowed: a multiple of {num_ranks}, "
                f"for it is the batch of all processes together · nearest: {_nearest(batch_size, num_ranks)}"
            )
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.start = start
        self.weights = weights
        self.share = batch_size // num_ranks
        self._offset = rank * self.share
        self._epoch: _Epoch | None = None

    def __iter__(self) -> Iterator[Draw]:
        start = self.start
        while True:
            yield self.draw(start)
            start += self.batch_size

    def draw(self, start: int) -> Draw:
        """What is this process's of the batch that begins at a position."""
        start += self._offset
        stop = start + self.share
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self.num_images)
            end = min(self.num_images, offset + stop - start)
            whole = self._draw_epoch(epoch)
            slots = whole.order[offset:end]
            uniforms = {name: u[slots] for name, u in whole.uniforms.items()}
            parts.append((whole.pictures[slots], whole.mirror[slots], whole.shift[slots], uniforms))
            start += end - offset
        indices, mirror, shift, uniforms_of = zip(*parts, strict=True)
        augment = {
            name: _select(kind, np.concatenate([u[name] for u in uniforms_of]))
            for name, kind in self.augmentation.augment.enabled().items()
        }
        return Draw(np.concatenate(indices), np.concatenate(mirror), np.concatenate(shift), augment)

    def _draw_epoch(self, epoch: int) -> _Epoch:
        if self._epoch is None or self._epoch.number != epoch:
            n, reach = self.num_images, self.augmentation.crop_shift
            mirror = np.zeros(n, dtype=np.bool_)
            if self.augmentation.mirror:
                mirror = self._generator(epoch, _MIRROR).integers(0, 2, n).astype(np.bool_)
            # by slot, not by place in the order: a picture's randomness depends on its own index
            self._epoch = _Epoch(
                epoch,
                self._generator(epoch, _ORDER).permutation(n),
                self._pictures(epoch),
                mirror,
                self._generator(epoch, _SHIFT).integers(-reach, reach + 1, (n, 2)),
                {
                    name: self._generator(epoch, _AUGMENT + number).random((n, 1 + kind.columns), dtype=np.float32)
                    for number, (name, kind) in enumerate(self.augmentation.augment.kinds().items())
                    if kind.p > 0
                },
            )
        return self._epoch

    def _pictures(self, epoch: int) -> npt.NDArray[np.int64]:
        """(N,) the picture of each slot: as often as its weight says, rounded down or up by chance."""
        n = self.num_images
        if self.weights is None:
            return np.arange(n)
        ends = np.cumsum(self.weights)  # N even strokes over the weights laid end to end
        strokes = (np.arange(n) + self._generator(epoch, _SLOTS).random()) * (ends[-1] / n)
        pictures = np.searchsorted(ends, strokes, side="right").astype(np.int64)
        return np.asarray(np.minimum(pictures, n - 1))  # rounding may put the last stroke past the end

    def _generator(self, epoch: int, purpose: int) -> np.random.Generator:
        key = np.array([self.seed, epoch], dtype=np.uint64)
        counter = np.array([0, 0, 0, purpose], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))


def identity_weights(labels: npt.NDArray[np.integer], balance: float) -> npt.NDArray[np.float64] | None:
    """How often each picture is to come so that identities with few pictures are seen more.

    Args:
        labels: (N,) integers, the identity of each picture.
        balance: 0: every picture equally often; 1: every identity equally often; between: n^(−balance) a picture,
            of an identity with n of them.

    Returns:
        (N,) weights of mean 1, or None for balance 0.
    """
    if balance == 0:
        return None
    weights = np.bincount(labels)[labels] ** -float(balance)
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def _select(kind: Kind, uniforms: npt.NDArray[np.float32]) -> Selected:
    """The first number of a picture decides whether it happens, the others how strongly."""
    rows = np.flatnonzero(uniforms[:, 0] < kind.p)
    return Selected(rows, kind.strengths(uniforms[rows, 1:]))


def _nearest(batch_size: int, num_ranks: int) -> int:
    return max(round(batch_size / num_ranks), 1) * num_ranks
