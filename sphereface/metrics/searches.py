"""Search probes in a gallery: the rank of each mate and the highest scores.

A search is mated if the gallery holds the subject of the probe: that entry is the mate. The scores
are inner products of unit vectors. An undefined vector (NaN) finds no entry: a mated search is then
a miss, and a non-mated search does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .verification import BoolArray, FloatArray, Ids, IntArray, Vectors, counted

TIE = 1e-12
"""Float64 scores tie if they differ by this or less.

A matrix product can round equal rows differently, depending on their position. Two sums of the D
products of unit vectors differ by at most 2·D·2⁻⁵³, which is 1e-13 for D = 512.
"""
TIE_FLOAT32 = 2e-6
"""The same for float32 scores: four times the largest difference measured for equal rows.

That difference is 5e-7 at D = 2048.
"""
_CELLS = 2**22  # scores computed at a time: 32 MB


@dataclass(frozen=True)
class Searches:
    """The outcome of searching Q probes in one gallery.

    Attributes:
        mate: (Q,) int64 row of the mate in the gallery; −1 for a non-mated search.
        mate_score: (Q,) float64; −∞ without a mate or with an undefined score.
        rank: (Q,) int64 from 1: the number of entries that score at least as high as the mate minus
            :data:`TIE` (:data:`TIE_FLOAT32` for float32 vectors), so ties count against the mate.
            It is the size of the gallery plus one if there is no mate, or if the score of the mate
            is undefined.
        rank_in_order: (Q,) int64, the same without a tolerance; of equal scores the first entry in
            the gallery wins.
        best: (Q,) float64, the highest score of all entries; NaN if the probe is undefined, −∞ if
            all entries are.
        top_impostors: (K,) float64, descending: the highest scores of probes with entries other
            than their mates.
    """

    mate: IntArray
    mate_score: FloatArray
    rank: IntArray
    rank_in_order: IntArray
    best: FloatArray
    top_impostors: FloatArray

    @property
    def is_mated(self) -> BoolArray:
        """(Q,) bool: searches with a mate in the gallery."""
        return self.mate >= 0

    @property
    def is_found(self) -> BoolArray:
        """(Q,) bool: mated searches whose mate has a score. Other searches have no real rank."""
        return self.mate_score > -np.inf

    @property
    def is_counted_nonmated(self) -> BoolArray:
        """(Q,) bool: the non-mated searches that count.

        Searches of defined probes count. If no non-mated search has a defined probe, all count.
        This is the rule of :func:`~.verification.counted`.
        """
        return ~self.is_mated & counted(self.best, self.is_mated)


def mates(probe_subject: Ids, gallery_subject: Ids) -> IntArray:
    """Return the gallery row of each probe's subject.

    Args:
        probe_subject: (Q,) integers.
        gallery_subject: (G,) integers, each once.

    Returns:
        (Q,) int64 rows of the gallery; −1 if the subject is not in the gallery.

    Raises:
        ValueError: a subject is in the gallery twice.
    """
    order = np.argsort(gallery_subject)
    enrolled = gallery_subject[order]
    if (enrolled[1:] == enrolled[:-1]).any():
        again = enrolled[1:][enrolled[1:] == enrolled[:-1]]
        raise ValueError(f"subject {again[0]} is in the gallery more than once")
    if not len(enrolled):
        return np.full(len(probe_subject), -1)
    at = np.minimum(np.searchsorted(enrolled, probe_subject), len(enrolled) - 1)
    return np.where(enrolled[at] == probe_subject, order[at], -1)


def search(probes: Vectors, gallery: Vectors, mate: IntArray, *, num_impostors: int = 0) -> Searches:
    """Compare each probe with each entry of the gallery.

    Args:
        probes: (Q, d) unit vectors, float32 or float64; NaN rows are undefined.
        gallery: (G, d) unit vectors of the same type, G ≥ 1; NaN rows are undefined.
        mate: (Q,) from :func:`mates`.
        num_impostors: K, the number of highest scores to keep, of entries other than the mate.
    """
    score, best = np.full(len(probes), -np.inf), np.empty(len(probes))
    rank, in_order = (np.full(len(probes), len(gallery) + 1) for _ in range(2))
    top: FloatArray = np.empty(0)
    for rows, scores in score_blocks(probes, gallery, _CELLS):
        best[rows] = scores.max(axis=1)
        mated = np.flatnonzero(mate[rows] >= 0)
        own = scores[mated, mate[rows][mated]]
        mated, own = mated[own > -np.inf], own[own > -np.inf]
        column = mate[rows][mated]
        rank[rows][mated], in_order[rows][mated] = _ranks(scores, mated, column, own)
        score[rows][mated] = own
        scores[mated, column] = -np.inf
        top = _highest(top, scores, num_impostors)
    best[np.isnan(probes).any(axis=1)] = np.nan
    return Searches(mate, score, rank, in_order, best, np.sort(top)[::-1])


def score_blocks(probes: Vectors, gallery: Vectors, cells: int) -> Iterator[tuple[slice, Vectors]]:
    """Yield the scores of a block of probes with the whole gallery; −∞ if undefined.

    Args:
        probes, gallery: as for :func:`search`.
        cells: largest number of scores in a block.
    """
    size = max(1, cells // len(gallery))
    for start in range(0, len(probes), size):
        rows = slice(start, min(start + size, len(probes)))
        scores = probes[rows] @ gallery.T  # (block, G)
        scores[np.isnan(scores)] = -np.inf
        yield rows, scores


def _ranks(scores: Vectors, mated: IntArray, column: IntArray, own: Vectors) -> tuple[IntArray, IntArray]:
    """Return the ranks of mates: with ties against them, and with ties in the gallery's order."""
    bar = np.full((len(scores), 1), np.inf, dtype=scores.dtype)
    bar[mated, 0] = own
    tie = scores.dtype.type(TIE_FLOAT32 if scores.dtype == np.float32 else TIE)
    rank = np.count_nonzero(scores >= bar - tie, axis=1)[mated]
    in_order = np.count_nonzero(scores > bar, axis=1)[mated] + 1
    for tied in np.flatnonzero(rank > in_order):
        in_order[tied] += np.count_nonzero(scores[mated[tied], : column[tied]] == own[tied])
    return rank, in_order


def _highest(top: FloatArray, scores: Vectors, number: int) -> FloatArray:
    """Return the highest ``number`` of the scores in ``top`` and ``scores``."""
    if not number:
        return top
    least = top.min() if len(top) == number else -np.inf
    both = np.concatenate([top, scores[scores > least]])
    return both if len(both) <= number else np.partition(both, len(both) - number)[-number:]
