"""The stored embeddings of a teacher, and what they must be like."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.crops import CropBatches, unusable
from ..data.identities import Labels
from ..data.sources import Source
from ..errors import UserError, listed, printable
from ..metrics import auc, roc

log = logging.getLogger(__name__)

_ROWS = 4096  # images per block
_SHORTEST = 1e-6  # length of an embedding; the losses divide a length below 1e-12 by 1e-12
_SAME = 1e-5  # largest difference of two equal directions, by rounding
_PAIRS = 2000  # of each kind, at most
_PARTS = 8  # of the set, in its order, which are judged alone
_PAIRS_OF_A_PART = 100  # of each kind, at least
_FEWEST_PAIRS = 20  # of each kind
_LEAST_AUC = 0.85  # of face recognisers: 0.9 and more; 0.999 for dlib's, whose rows slipped by 1, 7 or 50: 0.5 to 0.78

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Table:
    """The teacher's embeddings of the N images of the training set, as they are stored.

    Attributes:
        image: (M, T) float, perhaps mapped from a file.
        mirror: (M, T) float, of the mirrored images; they are added. None without them.
        index: (N,) int64, the row of each image.
        mean: (T,) subtracted from each embedding; None subtracts nothing.
    """

    image: Array
    mirror: Array | None
    index: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float32] | None = None

    def at(self, images: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.float32]:
        """Return the (n, T) embeddings of some of the images."""
        rows = self.index[images]
        values: npt.NDArray[np.float32] = self.image[rows].astype(np.float32)
        if self.mirror is not None:
            values += self.mirror[rows]
        return values if self.mean is None else values - self.mean

    def blocks(self) -> list[slice]:
        """Return slices that divide the images into blocks."""
        return [slice(start, start + _ROWS) for start in range(0, len(self.index), _ROWS)]


def normalized(rows: Array) -> Array:
    """Return rows divided by their lengths; a row of zeros stays a row of zeros."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def checked_mean(table: Table, source: Source, crops: CropBatches | None, *, place: str) -> npt.NDArray[np.float32]:
    """Return (T,), the mean of all embeddings, after checking each of them.

    Args:
        table: of the teacher.
        source: the training set.
        crops: the crops of training. Rows of images that training cannot use either may be NaN.
            None: no row may be NaN.
        place: the teacher and the file with its embeddings, for messages.

    Raises:
        UserError: an embedding has no direction, or all have the same direction.
    """
    total, count = np.zeros(table.image.shape[1], dtype=np.float64), 0
    bad: list[int] = []
    one: Array | None = None  # a direction
    differ = False
    for block in table.blocks():
        with np.errstate(over="ignore", invalid="ignore"):
            rows = table.at(block)
            squares = np.square(rows, dtype=np.float64).sum(axis=1)
            sound = (squares >= _SHORTEST**2) & (squares <= np.finfo(np.float32).max)
            absent = np.asarray(np.isnan(rows).all(axis=1))
        for index in (block.start + np.flatnonzero(~sound)).tolist():
            if crops is None or not absent[index - block.start] or not unusable(crops, [index]):
                bad.append(index)
        total += rows[sound].sum(axis=0, dtype=np.float64)
        count += int(sound.sum())
        if sound.any() and not differ:
            directions = normalized(rows[sound])
            one = directions[0] if one is None else one
            differ = bool(np.abs(directions - one).max() > _SAME)
    if bad:
        lines = [source.name(index) for index in bad[:10]]
        raise UserError(
            f"train.teacher: {place}: {len(bad):,} of {len(table.index):,} embeddings are zero, not finite, too "
            f"short (below {_SHORTEST:g}) or too long"
            f"{'' if crops is None else ', or of images of another size than the teacher reads'} "
            "· allowed: a direction for each image · "
            f"{'' if crops is None else 'delete the file to '}embed these images again, or leave them out of "
            f"data.train:{listed(lines)}"
        )
    if not differ:
        raise UserError(
            f"train.teacher: {place}: all {count:,} embeddings have the same direction, so there is nothing to learn "
            "from them · allowed: embeddings that differ between images · give another teacher"
        )
    return (total / max(count, 1)).astype(np.float32)


def warn_of_strangers(table: Table, source: Source, place: str) -> None:
    """Warn if the embeddings hardly tell which images show one identity.

    So it is with rows in another order than their names, or that slipped from some row on. The
    first and the last image of up to 2,000 identities are compared, and as many pairs of different
    ones, in up to eight parts of the set.

    Args:
        table: of the teacher.
        source: the training set.
        place: the teacher and the file with its embeddings, for messages.
    """
    firsts = Labels.of(source.labels).firsts
    several = np.flatnonzero(np.diff(firsts) > 1)
    if len(several) < _FEWEST_PAIRS:
        return
    chosen = np.sort(np.random.default_rng(0).permutation(several)[:_PAIRS])
    first, last = (normalized(table.at(rows)) for rows in (firsts[chosen], firsts[chosen + 1] - 1))
    others = np.roll(last, len(last) // 2, axis=0)
    genuine, impostor = (np.einsum("ij,ij->i", first, rows).astype(np.float64) for rows in (last, others))
    defined = np.isfinite(genuine) & np.isfinite(impostor)  # images that training cannot use have none
    num_pairs = int(np.count_nonzero(defined))
    if num_pairs < _FEWEST_PAIRS:
        return
    parts = np.array_split(np.flatnonzero(defined), max(1, min(_PARTS, num_pairs // _PAIRS_OF_A_PART)))
    areas = [_auc(genuine[part], impostor[part]) for part in parts]
    worst = int(np.argmin(areas))
    if areas[worst] < _LEAST_AUC:
        begin, end = (source.class_names[chosen[parts[worst][at]]] for at in (0, -1))
        log.warning(
            "train.teacher: %s: the embeddings hardly tell the identities of data.train apart: AUC %.3f over %d pairs, "
            "from %s to %s (0.5: by chance; face recognisers: 0.9 and more) · unless the folders are no identities, "
            "check that each row belongs to its name",
            *(place, areas[worst], 2 * len(parts[worst]), printable(begin), printable(end)),
        )


def _auc(genuine: npt.NDArray[np.float64], impostor: npt.NDArray[np.float64]) -> float:
    return auc(roc(np.concatenate([genuine, impostor]), np.repeat([True, False], [len(genuine), len(impostor)])))
