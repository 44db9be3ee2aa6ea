"""Figures of 1:N identification: ranks, open-set errors as NIST defines them, and the field's
"recall at far".

A probe is searched in a gallery. The search is mated if the gallery holds the subject of the probe:
that entry is its mate. The scores are inner products of unit vectors. An undefined vector (NaN)
finds nobody: a mated search is a miss, and a non-mated search is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .ijb import num_allowed
from .resampling import Interval, percentile_intervals
from .verification import MIN_IMPOSTORS, BoolArray, FloatArray, IntArray, counted

Ids = npt.NDArray[np.integer[Any]]

RANKS = (1, 5, 10)
FPIRS = (0.01, 0.1)
TIE = 1e-12
"""Float64 scores that differ by this or less tie, because a matrix product rounds equal rows differently by position.

Two sums of the D products of unit vectors differ by at most 2·D·2⁻⁵³, which is 1e-13 for D = 512.
"""
TIE_FLOAT32 = 2e-6
"""The same for float32 scores: four times the largest difference that was measured for equal rows, 5e-7 at D = 2048."""
_CELLS = 2**22  # scores computed at a time: 32 MB


@dataclass(frozen=True)
class Searches:
    """The outcome of searching Q probes in one gallery.

    Attributes:
        mate: (Q,) int64 row of the mate in the gallery; −1 for a non-mated search.
        mate_score: (Q,) float64; −∞ without a mate, and where it is undefined.
        rank: (Q,) int64 from 1: how many entries score at least as high as the mate, less
            :data:`TIE`, so that ties count against it. One more than the gallery holds without a
            mate, and where the score of the mate is undefined.
        rank_in_order: (Q,) int64, the same without a tolerance, and of equal scores the entry that
            stands first in the gallery wins.
        best: (Q,) float64, the highest score of all entries; −∞ if none is defined because of the
            gallery, NaN if the probe itself is undefined.
        top_impostors: (K,) float64, the highest scores of probes with entries other than their
            mates, falling.
    """

    mate: IntArray
    mate_score: FloatArray
    rank: IntArray
    rank_in_order: IntArray
    best: FloatArray
    top_impostors: FloatArray

    @property
    def is_mated(self) -> BoolArray:
        """(Q,) bool."""
        return self.mate >= 0

    @property
    def is_found(self) -> BoolArray:
        """(Q,) bool: mated searches whose mate has a score. The ranks of all others are no ranks of
        an entry.
        """
        return self.mate_score > -np.inf

    @property
    def is_counted_nonmated(self) -> BoolArray:
        """(Q,) bool: non-mated searches of defined probes; all non-mated searches if none of their
        probes is defined.

        This is the rule of :func:`~.verification.counted`.
        """
        return ~self.is_mated & counted(self.best, self.is_mated)


@dataclass(frozen=True)
class OpenSetPoint:
    """The errors of open-set identification at one threshold. A candidate counts if ``score >=
    threshold``.

    Attributes:
        fpir: the wanted false positive identification rate, an upper bound.
        fnir: false negative identification rate: the share of mated searches whose mate does not
            count or has a rank that is too low. NaN without mated searches.
        threshold: the lowest one at which the rate of false positives does not exceed ``fpir``.
        false_positives: non-mated searches with a candidate there.
        num_nonmated: all non-mated searches that count, see :attr:`Searches.is_counted_nonmated`.
    """

    fpir: float
    fnir: float
    threshold: float
    false_positives: int
    num_nonmated: int

    @property
    def resolvable(self) -> bool:
        """Whether ``fpir`` lets 10 non-mated searches or more pass; if not, ``fnir`` depends on a
        few of them.
        """
        return self.fpir * self.num_nonmated + 1e-9 >= MIN_IMPOSTORS


@dataclass(frozen=True)
class FieldPoint:
    """What InsightFace's ``ijb_1n.py`` prints for a "far". It is not an FPIR: see
    :func:`field_recall`.

    Attributes:
        far: its name for a number of impostor scores divided by the number of probes.
        recall: share of the probes whose mate scores above the threshold.
        threshold: a score. Both are NaN where too few impostor scores are defined.
    """

    far: float
    recall: float
    threshold: float


@dataclass(frozen=True)
class SearchIntervals:
    """95 % intervals over subjects.

    Attributes:
        rank: of the rate at each rank, in their order.
        fnir: of the FNIR at each FPIR, in their order.
    """

    rank: tuple[Interval, ...]
    fnir: tuple[Interval, ...]


def mates(probe_subject: Ids, gallery_subject: Ids) -> IntArray:
    """Find the entry of each probe's subject.

    Args:
        probe_subject: (Q,) integers.
        gallery_subject: (G,) integers, each once.

    Returns:
        (Q,) int64 rows into the gallery; −1 where the subject is not enrolled.

    Raises:
        ValueError: a subject is enrolled twice.
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


def search(probes: FloatArray, gallery: FloatArray, mate: IntArray, *, num_impostors: int = 0) -> Searches:
    """Compare each probe with each entry of the gallery.

    Args:
        probes: (Q, d) float64 unit vectors; NaN rows are undefined.
        gallery: (G, d) float64, likewise, with G ≥ 1.
        mate: (Q,) from :func:`mates`.
        num_impostors: K, how many of the highest scores with entries other than the mate to keep.
    """
    score, best = np.full(len(probes), -np.inf), np.empty(len(probes))
    rank, in_order = (np.full(len(probes), len(gallery) + 1) for _ in range(2))
    top: FloatArray = np.empty(0)
    for rows, scores in _score_blocks(probes, gallery):
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


def rank_rates(searches: Searches, ranks: Sequence[int] = RANKS, *, weights: IntArray | None = None) -> FloatArray:
    """Return the share of mated searches whose mate is among the first k, with ties counted against
    it.

    Args:
        searches: from :func:`search`.
        ranks: the values of k.
        weights: (Q,) how often each search counts; once if None.

    Returns:
        (R,) float64 in [0, 1]; NaN without mated searches.
    """
    weights = np.ones(len(searches.mate), dtype=np.int64) if weights is None else weights
    total, found = (weights * searches.is_mated).sum(), weights * searches.is_found
    return np.array([_share(found[searches.rank <= k].sum(), total) for k in ranks])


def field_rank_rates(searches: Searches, ranks: Sequence[int] = RANKS) -> FloatArray:
    """Return top 1, 5 and 10 as InsightFace's ``ijb_1n.py`` counts them: of equal scores the first
    entry wins.
    """
    return np.array([float(np.mean(searches.is_found & (searches.rank_in_order <= k))) for k in ranks])


def field_recall(searches: Searches, fars: Sequence[float] = FPIRS) -> tuple[FieldPoint, ...]:
    """Return the recall at "far" of InsightFace's ``ijb_1n.py``.

    The threshold is the k-th highest of all impostor scores, Q × (G − 1) of them, with k = ⌈Q ×
    far⌉. An impostor
    score is not a search: one probe may have many of these k scores.

    Args:
        searches: from :func:`search` with ``num_impostors`` of at least k; every search mated.
        fars: the values of "far".
    """
    points = []
    for far in fars:
        k = num_impostors_of_field(len(searches.mate), far)
        if k > len(searches.top_impostors):  # undefined scores are not among them
            points.append(FieldPoint(far, math.nan, math.nan))
            continue
        threshold = float(searches.top_impostors[k - 1])
        points.append(FieldPoint(far, float(np.mean(searches.mate_score > threshold)), threshold))
    return tuple(points)


def num_impostors_of_field(num_probes: int, far: float) -> int:
    """How many impostor scores a "far" of the field stands for."""
    return math.ceil(num_probes * far)


def open_set(
    searches: Searches, targets: Sequence[float] = FPIRS, *, rank: int = 1, weights: IntArray | None = None
) -> tuple[OpenSetPoint, ...]:
    """Return FNIR at FPIR, as NIST defines them.

    FPIR(t) is the share of non-mated searches whose best candidate scores t or more. Non-mated
    searches of undefined probes are left out; if all of them are undefined, each is a false
    positive at every threshold. FNIR(t) is the share of mated searches whose mate scores less than
    t or is not among the first ``rank`` entries. NIST's FRVT reports identification with a
    threshold at rank 1.

    Args:
        searches: from :func:`search`.
        targets: upper bounds of FPIR.
        rank: the lowest rank that counts; ties count against the mate.
        weights: (Q,) how often each search counts; once if None.
    """
    weights = np.ones(len(searches.mate), dtype=np.int64) if weights is None else weights
    mated, nonmated = searches.is_mated, np.flatnonzero(searches.is_counted_nonmated)
    best = np.where(np.isnan(searches.best[nonmated]), np.inf, searches.best[nonmated])
    falling = np.argsort(-best, kind="stable")
    best, weight = best[falling], weights[nonmated][falling]
    passed = np.cumsum(weight)
    num_nonmated = int(passed[-1]) if len(passed) else 0
    in_rank = mated & (searches.rank <= rank)
    points = []
    for target in targets:
        first = int(np.searchsorted(passed, num_allowed(target, num_nonmated), side="right"))
        highest_rejected = float(best[first]) if first < len(best) else -np.inf
        found = weights[in_rank & (searches.mate_score > highest_rejected)].sum()
        false_positives = int(weight[best > highest_rejected].sum())
        threshold = float(np.nextafter(highest_rejected, np.inf)) if first < len(best) else -np.inf
        fnir = 1 - _share(found, weights[mated].sum())
        points.append(OpenSetPoint(target, fnir, threshold, false_positives, num_nonmated))
    return tuple(points)


def bootstrap_searches(
    galleries: Sequence[Searches],
    probe_subject: Ids,
    *,
    ranks: Sequence[int] = RANKS,
    targets: Sequence[float] = FPIRS,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[tuple[SearchIntervals, ...], SearchIntervals]:
    """Return 95 % intervals over subjects.

    As many subjects as the probes have are drawn with replacement. Each search counts as often as
    the subject of its probe was drawn. The galleries stay as they are. One draw serves all
    galleries, so that the mean over galleries has an interval too.

    Args:
        galleries: the searches of the same probes in one or more galleries.
        probe_subject: (Q,) integers.
        ranks, targets: of :func:`rank_rates` and :func:`open_set`.
        replicates: how often to draw.
        seed: of the draws.

    Returns:
        The intervals for each gallery, and those of the mean over galleries.
    """
    subjects, probe = np.unique(probe_subject, return_inverse=True)
    rng = np.random.default_rng(seed)
    figures = np.empty((replicates, len(galleries), len(ranks) + len(targets)))
    for replicate in figures:
        times = np.bincount(rng.integers(0, len(subjects), len(subjects)), minlength=len(subjects))
        for row, searches in zip(replicate, galleries, strict=True):
            weights = times[probe]
            row[: len(ranks)] = rank_rates(searches, ranks, weights=weights)
            points = open_set(searches, targets, weights=weights)
            row[len(ranks) :] = [point.fnir if point.num_nonmated else np.nan for point in points]
    each = tuple(_intervals(figures[:, index], len(ranks)) for index in range(len(galleries)))
    return each, _intervals(figures.mean(axis=1), len(ranks))


def _score_blocks(probes: FloatArray, gallery: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    """Scores of some probes with the whole gallery; −∞ where undefined."""
    size = max(1, _CELLS // len(gallery))
    for start in range(0, len(probes), size):
        rows = slice(start, min(start + size, len(probes)))
        scores = probes[rows] @ gallery.T  # (block, G)
        scores[np.isnan(scores)] = -np.inf
        yield rows, scores


def _ranks(scores: FloatArray, mated: IntArray, column: IntArray, own: FloatArray) -> tuple[IntArray, IntArray]:
    """Ranks of the mates of some rows of ``scores``: with ties against them, and with ties in the
    gallery's order.
    """
    bar = np.full((len(scores), 1), np.inf)
    bar[mated, 0] = own
    rank = np.count_nonzero(scores >= bar - TIE, axis=1)[mated]
    in_order = np.count_nonzero(scores > bar, axis=1)[mated] + 1
    for tied in np.flatnonzero(rank > in_order):
        in_order[tied] += np.count_nonzero(scores[mated[tied], : column[tied]] == own[tied])
    return rank, in_order


def _highest(top: FloatArray, scores: FloatArray, number: int) -> FloatArray:
    """The highest ``number`` of the scores kept so far and of a block."""
    if not number:
        return top
    least = top.min() if len(top) == number else -np.inf
    both = np.concatenate([top, scores[scores > least]])
    return both if len(both) <= number else np.partition(both, len(both) - number)[-number:]


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _intervals(figures: FloatArray, num_ranks: int) -> SearchIntervals:
    """Figures: (replicates, ranks + targets)."""
    found = percentile_intervals(figures)
    return SearchIntervals(found[:num_ranks], found[num_ranks:])
