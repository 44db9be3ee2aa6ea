"""Compute the metrics of groups, at own and at common thresholds, and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...metrics import BoolArray, FloatArray, IntArray, Interval, OperatingPoint, Roc, equal_error_rate, roc, tar_at_far
from ...metrics.resampling import LEVEL, People, rates_at
from ..lfw import Verification
from ..words import plain_interval, span

FARS = (1e-2, 1e-3)
ACCURACY, EER, OWN, COMMON_TAR, COMMON_FAR = 0, 1, 2, 2 + len(FARS), 2 + 2 * len(FARS)
"""Columns of a group's figures; each of the last three starts a block, a column for each FAR."""


@dataclass(frozen=True)
class GroupScores:
    """The scores of one group.

    Attributes:
        name: name of the group.
        verification: outcome of the LFW protocol within the group.
        scores: (P,) float64, cosines of embeddings that are not centred.
        people: the people on the left and on the right of each pair, as for
            :func:`~sphereface.metrics.resampling.bootstrap`; None if unknown.
        num_repeated: impostor pairs with a score that repeat an earlier pair of the list.
    """

    name: str
    verification: Verification
    scores: FloatArray
    people: People | None
    num_repeated: int = 0

    @property
    def same(self) -> BoolArray:
        """(P,) bool: genuine pairs."""
        return self.verification.same

    @cached_property
    def curve(self) -> Roc:
        """ROC curve of ``scores``, without undefined impostor pairs."""
        return roc(self.scores, self.same)

    @property
    def num_impostor(self) -> int:
        """Number of impostor pairs of the curve; 0 if none has a score."""
        return self.curve.num_impostor if has_impostors(self.scores, self.same) else 0

    @cached_property
    def points(self) -> tuple[OperatingPoint, ...]:
        """TAR at each of :data:`FARS` at the group's own threshold."""
        return points_of(self.curve, self.scores, self.same, self.num_repeated)

    def figures(self, curve: Roc, weights: IntArray, thresholds: Sequence[float]) -> FloatArray:
        """Return accuracy, EER, TAR at own thresholds, TAR and FAR at common thresholds.

        All are NaN if the curve lacks pairs of one kind. All except the accuracy are NaN if no
        impostor pair has a score; the curve would then count every impostor pair as accepted.
        """
        figures = np.full(COMMON_FAR + len(FARS), np.nan)
        if not curve.num_genuine or not curve.num_impostor:
            return figures
        figures[ACCURACY] = self._accuracy(weights)
        if self.num_impostor:
            own = [point.tar for point in tar_at_far(curve, FARS)]
            far, tar = rates_at(curve, thresholds)
            figures[EER:] = [equal_error_rate(curve), *own, *tar, *far]
        return figures

    def _accuracy(self, weights: IntArray) -> float:
        """Return the mean accuracy of the folds with weighted pairs; thresholds do not change."""
        fold = self.verification.fold
        correct, total = np.bincount(fold, weights * self.verification.correct), np.bincount(fold, weights)
        return float(np.mean(correct[total > 0] / total[total > 0]))


@dataclass(frozen=True)
class Spread:
    """The spread of one figure over the groups.

    The intervals are value ± c, cut at 0. In 95 % of the bootstrap draws, the errors of the groups
    have a spread of at most c. So an interval starts at 0 if equal groups could show this spread by
    chance.

    Attributes:
        name: name of the figure.
        difference: highest − lowest.
        deviation: standard deviation over the groups (ddof = 1).
        difference_interval, deviation_interval: 95 % intervals.
    """

    name: str
    difference: float
    deviation: float
    difference_interval: Interval
    deviation_interval: Interval

    @property
    def beyond_chance(self) -> bool:
        """Whether the groups differ more than equal groups would by chance."""
        return self.difference_interval.low > 0

    @property
    def sentence(self) -> str:
        """Whether chance could explain the difference, as a sentence."""
        how = "does not" if self.beyond_chance else "could"
        return f"Chance alone {how} explain this difference."

    @classmethod
    def of(cls, name: str, values: FloatArray, replicates: FloatArray) -> Spread:
        """Measure the spread of a figure.

        Args:
            name: name of the figure.
            values: (G,) values of the groups.
            replicates: (R, G) values of the bootstrap draws; NaN if undefined.
        """
        errors = replicates - values
        errors = errors[~np.isnan(errors).any(axis=1)]
        both = []
        for spread in (np.ptp, lambda array, axis=None: np.std(array, axis=axis, ddof=1)):
            value = float(spread(values))
            margin = float(np.quantile(spread(errors, axis=1), LEVEL)) if len(errors) else np.nan
            both.append((value, Interval(float(np.maximum(0.0, value - margin)), value + margin)))
        (difference, first), (deviation, second) = both
        return cls(name, difference, deviation, first, second)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures for JSON."""
        return {
            "figure": self.name,
            "highest_minus_lowest": self.difference,
            "highest_minus_lowest_interval": plain_interval(self.difference_interval),
            "standard_deviation": self.deviation,
            "standard_deviation_interval": plain_interval(self.deviation_interval),
            "beyond_chance": self.beyond_chance,
        }


def has_impostors(scores: FloatArray, same: BoolArray) -> bool:
    """Return whether any impostor pair has a score."""
    return not np.isnan(scores[~same]).all()


def points_of(curve: Roc, scores: FloatArray, same: BoolArray, num_repeated: int) -> tuple[OperatingPoint, ...]:
    """Return TAR at each of :data:`FARS`, not resolvable if no impostor pair has a score."""
    points = tar_at_far(curve, FARS, num_repeated=num_repeated)
    if has_impostors(scores, same):
        return points
    return tuple(replace(point, num_impostor=0, num_repeated=0) for point in points)


def span_in_points(interval: Interval) -> str:
    """Return an interval in percentage points."""
    return span(Interval(100 * interval.low, 100 * interval.high), ".2f")
