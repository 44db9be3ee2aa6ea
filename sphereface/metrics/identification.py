"""Compute the metrics of 1:N identification from the outcome of searches.

They are the rates at each rank, the open-set errors as NIST defines them, and the "recall at far"
of InsightFace. :mod:`.searches` compares the probes with the gallery.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .ijb import num_allowed
from .resampling import Interval, draw, percentile_intervals
from .searches import Searches
from .verification import MIN_IMPOSTORS, FloatArray, Ids, IntArray

RANKS = (1, 5, 10)
FPIRS = (0.01, 0.1)


@dataclass(frozen=True)
class OpenSetPoint:
    """The errors of open-set identification at one threshold; it accepts ``score >= threshold``.

    Attributes:
        fpir: the target false positive identification rate, an upper bound.
        fnir: false negative identification rate: the share of mated searches whose mate is not
            accepted or ranks too low. NaN without mated searches.
        threshold: the lowest threshold whose false positive rate does not exceed ``fpir``.
        false_positives: non-mated searches with an accepted candidate.
        num_nonmated: all non-mated searches that count, see :attr:`Searches.is_counted_nonmated`.
    """

    fpir: float
    fnir: float
    threshold: float
    false_positives: int
    num_nonmated: int

    @property
    def resolvable(self) -> bool:
        """Whether ``fpir`` allows ten false positives or more; else ``fnir`` is mostly chance."""
        return self.fpir * self.num_nonmated + 1e-9 >= MIN_IMPOSTORS


@dataclass(frozen=True)
class FieldPoint:
    """One "far" of InsightFace's ``ijb_1n.py``. It is not an FPIR: see :func:`field_recall`.

    Attributes:
        far: a number of impostor scores divided by the number of probes.
        recall: share of the probes whose mate scores above the threshold.
        threshold: a score. Both are NaN if too few impostor scores are defined.
    """

    far: float
    recall: float
    threshold: float


@dataclass(frozen=True)
class SearchIntervals:
    """95 % intervals over subjects.

    Attributes:
        rank: intervals of the rate at each rank, in their order.
        fnir: intervals of the FNIR at each FPIR, in their order.
    """

    rank: tuple[Interval, ...]
    fnir: tuple[Interval, ...]


def rank_rates(searches: Searches, ranks: Sequence[int] = RANKS, *, weights: IntArray | None = None) -> FloatArray:
    """Return the share of mated searches whose mate is among the first k; ties count against it.

    Args:
        searches: from :func:`~.searches.search`.
        ranks: the values of k.
        weights: (Q,) how often each search counts; once if None.

    Returns:
        (R,) float64 in [0, 1]; NaN without mated searches.
    """
    weights = np.ones(len(searches.mate), dtype=np.int64) if weights is None else weights
    total, found = (weights * searches.is_mated).sum(), weights * searches.is_found
    return np.array([_share(found[searches.rank <= k].sum(), total) for k in ranks])


def field_rank_rates(searches: Searches, ranks: Sequence[int] = RANKS) -> FloatArray:
    """Return the rank rates of InsightFace's ``ijb_1n.py``: the first of equal scores wins."""
    return np.array([float(np.mean(searches.is_found & (searches.rank_in_order <= k))) for k in ranks])


def field_recall(searches: Searches, fars: Sequence[float] = FPIRS) -> tuple[FieldPoint, ...]:
    """Return the recall at "far" of InsightFace's ``ijb_1n.py``.

    The threshold is the k-th highest of all Q × (G − 1) impostor scores, with k = ⌈Q × far⌉. An
    impostor score is not a search: one probe may have many of these k scores.

    Args:
        searches: from :func:`~.searches.search` with ``num_impostors`` of at least k; every search
            must be mated.
        fars: the values of "far".
    """
    points = []
    for far in fars:
        k = num_impostors_of_field(len(searches.mate), far)
        if k > len(searches.top_impostors):  # it has no undefined scores
            points.append(FieldPoint(far, math.nan, math.nan))
            continue
        threshold = float(searches.top_impostors[k - 1])
        points.append(FieldPoint(far, float(np.mean(searches.mate_score > threshold)), threshold))
    return tuple(points)


def num_impostors_of_field(num_probes: int, far: float) -> int:
    """Return the number of impostor scores that a "far" of InsightFace allows."""
    return math.ceil(num_probes * far)


def open_set(
    searches: Searches, targets: Sequence[float] = FPIRS, *, rank: int = 1, weights: IntArray | None = None
) -> tuple[OpenSetPoint, ...]:
    """Return FNIR at FPIR, as NIST defines them.

    FPIR(t) is the share of non-mated searches whose best candidate scores t or more. Non-mated
    searches of undefined probes do not count. If all of them are undefined, each counts as a false
    positive at every threshold. FNIR(t) is the share of mated searches whose mate scores less than
    t or is not among the first ``rank`` entries. NIST's FRVT reports identification with a
    threshold at rank 1.

    Args:
        searches: from :func:`~.searches.search`.
        targets: upper bounds of FPIR.
        rank: the worst rank that counts as found; ties count against the mate.
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

    Each replicate draws the subjects of the probes with replacement. Each search counts as often as
    the subject of its probe was drawn. The galleries do not change. All galleries use the same
    draw, so the mean over galleries has an interval too.

    Args:
        galleries: the searches of the same probes in one or more galleries.
        probe_subject: (Q,) integers.
        ranks, targets: as for :func:`rank_rates` and :func:`open_set`.
        replicates: number of draws.
        seed: seed of the draws.

    Returns:
        The intervals for each gallery, and those of the mean over galleries.
    """
    subjects, probe = np.unique(probe_subject, return_inverse=True)
    rng = np.random.default_rng(seed)
    figures = np.empty((replicates, len(galleries), len(ranks) + len(targets)))
    for replicate in figures:
        weights = draw(len(subjects), rng)[probe]
        for row, searches in zip(replicate, galleries, strict=True):
            row[: len(ranks)] = rank_rates(searches, ranks, weights=weights)
            points = open_set(searches, targets, weights=weights)
            row[len(ranks) :] = [point.fnir if point.num_nonmated else np.nan for point in points]
    each = tuple(_intervals(figures[:, index], len(ranks)) for index in range(len(galleries)))
    return each, _intervals(figures.mean(axis=1), len(ranks))


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _intervals(figures: FloatArray, num_ranks: int) -> SearchIntervals:
    """Return the intervals of ``figures``: (replicates, ranks + targets)."""
    found = percentile_intervals(figures)
    return SearchIntervals(found[:num_ranks], found[num_ranks:])
