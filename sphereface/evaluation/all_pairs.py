"""Every picture against every other: false accept rates that a list of a few thousand pairs cannot resolve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..metrics import IntArray, OperatingPoint, Roc, auc, equal_error_rate, tar_at_far
from .people import Features, People, unit_rows

FAR_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
BINS = 1 << 16
"""Scores are told apart to 2 / 65,536 = 3.1e-5."""
_ROWS = 256  # pictures compared with all later ones at a time: 256 × 13,233 scores are 14 MB


@dataclass(frozen=True)
class AllPairs:
    """The outcome of comparing N pictures with each other, N (N − 1) / 2 pairs.

    Attributes:
        curve: the ROC of the binned scores. Its points are points of the exact curve, those at the edges of bins; so at
            any wanted FAR its TAR is at most the exact one.
        points: TAR at each of :data:`FAR_TARGETS`.
        num_images: N.
        subtract_mean: features were centred with the mean of all N pictures, each counted once.
    """

    curve: Roc
    points: tuple[OperatingPoint, ...]
    num_images: int
    subtract_mean: bool

    @property
    def auc(self) -> float:
        """Area under the curve; pairs in one bin count half."""
        return auc(self.curve)

    @property
    def eer(self) -> float:
        """Equal error rate."""
        return equal_error_rate(self.curve)


def all_pairs(features: Features, people: People, *, subtract_mean: bool = True) -> AllPairs:
    """Compare all pictures by cosine, centred with the mean of all of them.

    That mean knows the pictures that are tested (not who is on them), unlike the fold means of the LFW protocol:
    figures with and without it are not to be mixed. Held are 2 × :data:`BINS` counts and one block of scores, no pairs.

    Args:
        features: (N, F) float, a row for each of ``people.files``. One without a direction scores 0 with all.
        people: who is on them; the pictures of one person stand together.
        subtract_mean: False compares uncentred features.

    Raises:
        UserError: no two pictures are of one person, or all are.
    """
    check_kinds(people)
    rows = unit_rows(features, features.mean(axis=0, dtype=np.float64) if subtract_mean else None)
    every, genuine = np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64)
    ends = np.searchsorted(people.person, people.person, side="right")  # first picture of the next person
    for start, bins in _binned_blocks(rows):
        every += np.bincount(bins.ravel(), minlength=BINS)
        genuine += np.bincount(_genuine(bins, start, ends), minlength=BINS)
        every -= np.bincount(_twice(bins), minlength=BINS)
    curve = _curve(genuine, every - genuine)
    return AllPairs(curve, tar_at_far(curve, FAR_TARGETS), len(rows), subtract_mean)


def check_kinds(people: People) -> None:
    """Refuse people without pairs of both kinds.

    Raises:
        UserError: no two pictures are of one person, or all are.
    """
    pictures = np.bincount(people.person)
    genuine, every = int((pictures * (pictures - 1)).sum()) // 2, len(people.files) * (len(people.files) - 1) // 2
    if not 0 < genuine < every:
        raise UserError(
            f"{people.root}: {genuine:,} pairs of one person and {every - genuine:,} of two · "
            "comparing all pictures needs both"
        )


def _binned_blocks(rows: Features) -> Iterator[tuple[int, IntArray]]:
    """(first row, bin of each of up to ``_ROWS`` pictures against all from the first row on)."""
    for start in range(0, len(rows), _ROWS):
        scores = (rows[start : start + _ROWS] * np.float32(BINS / 2)) @ rows[start:].T
        scores += np.float32(BINS / 2)  # −1 … 1 is now 0 … BINS
        np.clip(scores, 0, BINS - 1, out=scores)
        yield start, scores.astype(np.int64)


def _genuine(bins: IntArray, start: int, ends: IntArray) -> IntArray:
    """Bins of the pairs of one person, each pair once."""
    spans = [bins[row, row + 1 : ends[start + row] - start] for row in range(len(bins))]
    return np.concatenate(spans)


def _twice(bins: IntArray) -> IntArray:
    """What a block counts too much: each picture with itself, and with the earlier ones of the block again."""
    square = bins[:, : len(bins)]
    return square[np.tril_indices(len(bins))]


def _curve(genuine: IntArray, impostor: IntArray) -> Roc:
    """Accept all bins from one on, for each bin that holds a score."""
    used = np.flatnonzero(genuine + impostor)[::-1]
    return Roc(
        threshold=np.append(np.inf, used * (2 / BINS) - 1),  # lower edges of the bins
        false_accepts=np.append(0, np.cumsum(impostor[used])),
        true_accepts=np.append(0, np.cumsum(genuine[used])),
    )
