"""Compute the metrics of 1:1 verification on millions of pairs, from scores that are sorted once.

The functions give the same values as :mod:`.verification`, which builds a curve with a point for
each distinct score. This module sorts genuine and impostor scores separately, and each metric looks
up the few scores that it needs. :func:`tpr_at_nearest_fpr` is the rule of InsightFace's IJB
scripts, which most published IJB results follow.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .verification import FAR_TARGETS, BoolArray, FloatArray, IntArray, OperatingPoint, counted

IJB_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""The false accept rates of InsightFace's IJB table."""


@dataclass(frozen=True)
class SortedScores:
    """The scores of all pairs, sorted by kind.

    Attributes:
        genuine: (G,) float64, ascending. NaN counts as −∞.
        impostor: (I,) float64, ascending: the impostor pairs that count; +∞ if all are NaN.
    """

    genuine: FloatArray
    impostor: FloatArray

    @classmethod
    def of(cls, scores: FloatArray, same: BoolArray) -> SortedScores:
        """Sort the scores of pairs.

        Args:
            scores: (P,) float. :func:`~.verification.roc` defines where NaN ranks, and which pairs
                count.
            same: (P,) bool, with at least one pair of each kind.

        Raises:
            ValueError: all pairs are of one kind.
        """
        counting = ~same & counted(scores, same)
        genuine, impostor = (_sorted(scores[kind], nan) for kind, nan in ((same, -np.inf), (counting, np.inf)))
        if not len(genuine) or not len(impostor):
            raise ValueError(f"genuine and impostor pairs are needed; got {len(genuine)} and {len(impostor)}")
        return cls(genuine, impostor)

    @property
    def is_defined(self) -> bool:
        """Whether any pair has a score; if not, the curve has no area."""
        return bool(np.isfinite(self.genuine[-1]) or np.isfinite(self.impostor[0]))

    def rates_above(self, threshold: float) -> tuple[float, float]:
        """Return the false and the true accept rate of ``score > threshold``."""
        false, true = (_number_above(kind, threshold) / len(kind) for kind in (self.impostor, self.genuine))
        return false, true


def tpr_at_nearest_fpr(scores: SortedScores, fars: Sequence[float] = IJB_FARS) -> FloatArray:
    """Return the TPR at the ROC point whose FPR is nearest to each target.

    This is the rule of InsightFace's ``eval_ijbc.py``. The points are those of scikit-learn's
    ``roc_curve`` with its default ``drop_intermediate=True``: (0, 0) and each distinct score at
    which the curve bends. The nearest FPR may be above the target. Of equally near points the last
    one counts; it has the largest TPR.

    Returns:
        (F,) float64 in [0, 1], in the order of ``fars``.
    """
    fpr, tpr = _kept_points(scores)
    last = len(fpr) - 1
    return np.array([tpr[last - int(np.argmin(np.abs(fpr - far)[::-1]))] for far in fars])


def tar_at_far_sorted(scores: SortedScores, targets: Sequence[float] = FAR_TARGETS) -> tuple[OperatingPoint, ...]:
    """Return the highest TAR whose FAR does not exceed each target.

    :func:`~.verification.tar_at_far` gives the same points.
    """
    points = []
    for target in targets:
        allowed = num_allowed(target, len(scores.impostor))
        if allowed >= len(scores.impostor):
            points.append(OperatingPoint(target, 1.0, -np.inf, len(scores.impostor), len(scores.impostor)))
            continue
        threshold = float(scores.impostor[len(scores.impostor) - 1 - allowed])
        accepted = _number_above(scores.impostor, threshold)
        tar = scores.rates_above(threshold)[1]
        points.append(OperatingPoint(target, tar, threshold, accepted, len(scores.impostor)))
    return tuple(points)


def auc_sorted(scores: SortedScores) -> float:
    """Return the area under the ROC curve, as :func:`~.verification.auc` does."""
    if not scores.is_defined:
        return math.nan
    below, up_to = (np.searchsorted(scores.impostor, scores.genuine, side=side) for side in ("left", "right"))
    return float((below.mean() + up_to.mean()) / 2 / len(scores.impostor))


def equal_error_rate_sorted(scores: SortedScores) -> float:
    """Return the rate at which FAR = 1 − TAR, as :func:`~.verification.equal_error_rate` does."""
    if not scores.is_defined:
        return math.nan
    after = _highest_with_more_false_accepts(scores)
    low = (1.0, 1.0) if after is None else scores.rates_above(after)
    high = scores.rates_above(_next_above(scores, after))
    (far0, far1), (excess0, excess1) = zip(*((far, far - (1 - tar)) for far, tar in (high, low)), strict=True)
    return float(far0 - excess0 / (excess1 - excess0) * (far1 - far0))


def num_allowed(target: float, total: float) -> int:
    """Return how many of ``total`` impostor pairs may pass at a false accept rate of ``target``."""
    return int(np.floor(target * total + 1e-9))  # 0.29 × 100 is 28.999999999999996


def _sorted(scores: FloatArray, nan: float) -> FloatArray:
    values: FloatArray = np.array(scores, dtype=np.float64, copy=None)
    values[np.isnan(values)] = nan
    values.sort()
    return values


def _number_above(rising: FloatArray, threshold: float) -> int:
    return len(rising) - int(np.searchsorted(rising, threshold, side="right"))


def _kept_points(scores: SortedScores) -> tuple[FloatArray, FloatArray]:
    """Return FPR and TPR of the points that ``roc_curve`` keeps, starting at (0, 0).

    ``roc_curve`` drops a score if the step of the curve to it equals the step after it. Most steps
    are one impostor. So it keeps a point only at a genuine or tied score, at the next score above
    such a score, or at an end.
    """
    genuine, impostor = scores.genuine, scores.impostor
    special = np.unique(np.concatenate([genuine, impostor[1:][impostor[1:] == impostor[:-1]]]))
    ends = [min(genuine[0], impostor[0]), max(genuine[-1], impostor[-1])]
    candidates = np.unique(np.concatenate([special, _neighbour(scores, special, above=True), ends]))
    below = np.append(candidates[0], _neighbour(scores, candidates[1:], above=False))  # none is below the lowest
    kept = (_numbers_at(scores, candidates) != _numbers_at(scores, below)).any(axis=0)
    kept[[0, -1]] = True
    falling = candidates[kept][::-1]
    passed = (len(kind) - np.searchsorted(kind, falling, side="left") for kind in (impostor, genuine))
    fpr, tpr = (np.append(0, count) / len(kind) for count, kind in zip(passed, (impostor, genuine), strict=True))
    return fpr, tpr


def _neighbour(scores: SortedScores, values: FloatArray, *, above: bool) -> FloatArray:
    """Return the next higher or lower score of either kind, for the values that have one."""
    found = []
    for kind in (scores.genuine, scores.impostor):
        at = np.searchsorted(kind, values, side="right") if above else np.searchsorted(kind, values, side="left") - 1
        exists = (at >= 0) & (at < len(kind))
        found.append(np.where(exists, kind[np.clip(at, 0, len(kind) - 1)], np.nan))
    nearest = np.fmin(*found) if above else np.fmax(*found)
    return np.asarray(nearest[~np.isnan(nearest)])


def _numbers_at(scores: SortedScores, values: FloatArray) -> IntArray:
    """Return how many scores of each kind equal each value: (2, V)."""
    kinds = (scores.genuine, scores.impostor)
    return np.stack([np.searchsorted(k, values, side="right") - np.searchsorted(k, values, side="left") for k in kinds])


def _highest_with_more_false_accepts(scores: SortedScores) -> float | None:
    """Return the highest score with FAR ≥ 1 − TAR if all scores above it pass; None if none has."""

    def too_high(score: float) -> bool:
        far, tar = scores.rates_above(score)
        return far - (1 - tar) < 0

    found = []
    for kind in (scores.impostor, scores.genuine):
        number = bisect.bisect_left(kind, True, key=too_high)
        if number:
            found.append(float(kind[number - 1]))
    return max(found, default=None)


def _next_above(scores: SortedScores, score: float | None) -> float:
    """Return the lowest score above ``score``; the lowest of all for None."""
    found = []
    for kind in (scores.impostor, scores.genuine):
        at = 0 if score is None else int(np.searchsorted(kind, score, side="right"))
        if at < len(kind):
            found.append(float(kind[at]))
    return min(found)
