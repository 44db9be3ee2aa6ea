"""Compute verification metrics on arrays of scores: thresholds, accuracy, ROC, AUC, EER, TAR@FAR.

A high score means a likely match. A pair is accepted if ``score > threshold``. A pair of one
person is genuine; a pair of two people is an impostor pair. A NaN score is undefined. An accuracy
counts it as wrong at every threshold. For a curve, :func:`counted` defines which of the undefined
pairs count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.integer[Any]]
Vectors = npt.NDArray[np.floating[Any]]

# k/10000 for k = −10000 … 10000. The quotients must be correctly rounded, as in the original code.
# np.linspace(-1, 1, 20001) gives other bits for half of them, and misses scores on the grid.
THRESHOLD_GRID: FloatArray = np.arange(-10000, 10001) / 10000
FAR_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4)
MIN_IMPOSTORS = 10
"""A TAR@FAR with fewer impostor pairs used is not resolvable: one pair would change it too much."""


def accuracy_at(scores: FloatArray, same: BoolArray, threshold: float) -> float:
    """Return the share of the pairs that a threshold decides correctly.

    A genuine pair needs score > threshold, an impostor pair score < threshold. A score equal to the
    threshold is wrong for either kind, and so is NaN.

    Args:
        scores: (P,) float.
        same: (P,) bool, True where the pair is of one person.
        threshold: a score.

    Returns:
        A fraction in [0, 1].
    """
    return float(np.mean(np.where(same, scores > threshold, scores < threshold)))


def best_threshold(scores: FloatArray, same: BoolArray, grid: FloatArray = THRESHOLD_GRID) -> float:
    """Return the mean of all grid values at which :func:`accuracy_at` is highest.

    This is the rule of the original code. If these values are not adjacent, the accuracy at their
    mean can be below the maximum. The cost is O(P log P + G log P): the function sorts the scores
    once and looks up each candidate.

    Args:
        scores: (P,) float.
        same: (P,) bool.
        grid: (G,) candidate thresholds.

    Returns:
        The threshold, a score.
    """
    valid = ~np.isnan(scores)  # NaN is wrong at each candidate, so it does not change the maximum
    genuine = np.sort(scores[valid & same])
    impostor = np.sort(scores[valid & ~same])
    genuine_above = len(genuine) - np.searchsorted(genuine, grid, side="right")
    impostor_below = np.searchsorted(impostor, grid, side="left")
    correct = genuine_above + impostor_below
    return float(np.mean(grid[correct == correct.max()]))


@dataclass(frozen=True)
class Roc:
    """A ROC curve: the accepted pairs at each distinct threshold, from none to all.

    Attributes:
        threshold: (K,) float64, descending: the distinct scores, then −inf. A pair is accepted if
            score > threshold.
        false_accepts: (K,) int64, ascending from 0 to ``num_impostor``.
        true_accepts: (K,) int64, ascending from 0 to ``num_genuine``.
    """

    threshold: FloatArray
    false_accepts: IntArray
    true_accepts: IntArray

    @property
    def num_impostor(self) -> int:
        """Number of impostor pairs of the curve: those that :func:`counted` counts."""
        return int(self.false_accepts[-1])

    @property
    def num_genuine(self) -> int:
        """Number of genuine pairs of the curve."""
        return int(self.true_accepts[-1])

    @property
    def is_defined(self) -> bool:
        """Whether any pair has a score; if not, the curve has no area."""
        return bool(np.isfinite(self.threshold).any())

    @property
    def far(self) -> FloatArray:
        """(K,) false accept rate: accepted impostor pairs / all impostor pairs."""
        return self.false_accepts / self.num_impostor

    @property
    def tar(self) -> FloatArray:
        """(K,) true accept rate: accepted genuine pairs / all genuine pairs."""
        return self.true_accepts / self.num_genuine


def counted(scores: FloatArray, same: BoolArray) -> BoolArray:
    """Return which pairs count in a curve and in the number of its pairs.

    An undefined genuine pair counts and is never accepted. An undefined impostor pair does not
    count. If it did, one undefined embedding could use up all the impostor pairs that a false
    accept rate allows. If all impostor pairs are undefined, all of them count and rank highest, so
    a network that has diverged gets a TAR of 0.

    Args:
        scores: (P,) float; NaN is undefined.
        same: (P,) bool.

    Returns:
        (P,) bool.
    """
    defined = ~np.isnan(scores)
    return defined | same if (defined & ~same).any() else np.ones(len(same), dtype=bool)


class Ranking:
    """Pairs in the order of their scores. It is sorted once for the curves of many weights.

    Args:
        scores: (P,) float. A genuine NaN ranks lowest. An impostor NaN does not count, unless all
            impostor pairs are NaN: then they rank highest. See :func:`counted`.
        same: (P,) bool, with at least one pair of each kind.

    Raises:
        ValueError: all pairs are of one kind, so one of the two rates is undefined.
    """

    def __init__(self, scores: FloatArray, same: BoolArray) -> None:
        same = np.asarray(same, dtype=bool)
        if same.all() or not same.any():
            raise ValueError(f"a ROC curve needs genuine and impostor pairs; got {same.sum()} and {(~same).sum()}")
        kept = np.flatnonzero(counted(scores, same))
        ranked = np.where(np.isnan(scores), np.where(same, -np.inf, np.inf), scores).astype(np.float64)[kept]
        order = np.argsort(-ranked, kind="stable")
        ranked, self._rows = ranked[order], kept[order]
        self._same = same[self._rows]
        self._last_of_ties = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        self._threshold = np.append(ranked[self._last_of_ties], -np.inf)

    def curve(self, weights: IntArray | None = None) -> Roc:
        """Return the ROC curve for ``weights``: (P,) int64, how often each pair counts (once)."""
        if weights is None:
            true = np.cumsum(self._same, dtype=np.int64)[self._last_of_ties]
            accepted = self._last_of_ties + 1
        else:
            ranked = weights[self._rows]
            true = np.cumsum(ranked * self._same)[self._last_of_ties]
            accepted = np.cumsum(ranked)[self._last_of_ties]
        return Roc(self._threshold, np.append(0, accepted - true), np.append(0, true))


def roc(scores: FloatArray, same: BoolArray) -> Roc:
    """Return the ROC curve, with one point for each distinct score: equal scores pass together.

    Args:
        scores, same: see :class:`Ranking`.

    Raises:
        ValueError: see :class:`Ranking`.
    """
    return Ranking(scores, same).curve()


def auc(curve: Roc) -> float:
    """Return the area under the ROC curve; NaN if no score is defined.

    It equals P(genuine score > impostor score) + ½ P(equal scores).
    """
    if not curve.is_defined:
        return math.nan
    width = np.diff(curve.far)
    return float(np.sum(width * (curve.tar[1:] + curve.tar[:-1]) / 2))


def equal_error_rate(curve: Roc) -> float:
    """Return the rate at which FAR = 1 − TAR; NaN if no score is defined.

    Straight lines join the points of the curve.
    """
    if not curve.is_defined:
        return math.nan
    far, excess = curve.far, curve.far - (1 - curve.tar)  # excess rises from −1 to 1
    after = int(np.argmax(excess >= 0))
    before = after - 1
    part = -excess[before] / (excess[after] - excess[before])
    return float(far[before] + part * (far[after] - far[before]))


@dataclass(frozen=True)
class OperatingPoint:
    """TAR at a target FAR, with the numbers of impostor pairs.

    Attributes:
        far: the target false accept rate, an upper bound.
        tar: true accept rate at the threshold.
        threshold: a pair is accepted if score > threshold.
        false_accepts: accepted impostor pairs; fewer than ``far`` allows if scores tie.
        num_impostor: all impostor pairs that count, see :func:`counted`.
        num_repeated: how many of them repeat an earlier pair of the list; they add no information.
    """

    far: float
    tar: float
    threshold: float
    false_accepts: int
    num_impostor: int
    num_repeated: int = 0

    @property
    def impostors_used(self) -> float:
        """Number of impostor pairs that ``far`` allows: far × (num_impostor − num_repeated)."""
        return self.far * (self.num_impostor - self.num_repeated)

    @property
    def resolvable(self) -> bool:
        """Whether at least :data:`MIN_IMPOSTORS` are used; else ``tar`` is mostly chance."""
        return self.impostors_used + 1e-9 >= MIN_IMPOSTORS  # a product such as 1e-5 × 1000000 is not exact


def tar_at_far(
    curve: Roc, targets: Iterable[float] = FAR_TARGETS, *, num_repeated: int = 0
) -> tuple[OperatingPoint, ...]:
    """Return the highest TAR whose FAR does not exceed each target, without interpolation.

    Of N impostor pairs, k = ⌊target × N⌋ may pass. The threshold is the (k+1)-th highest impostor
    score: at most k scores are strictly higher, and any lower threshold accepts more. Impostors
    that tie with the threshold are all rejected. With k = 0, it is the highest impostor score.

    Args:
        curve: from :func:`roc`.
        targets: false accept rates in [0, 1].
        num_repeated: impostor pairs of the curve that repeat an earlier pair of the list.

    Returns:
        One point for each target, in their order.
    """
    points = []
    for target in targets:
        allowed = np.floor(target * curve.num_impostor + 1e-9)  # 0.29 × 100 is 28.999999999999996
        at = int(np.searchsorted(curve.false_accepts, allowed, side="right")) - 1
        tar, threshold, accepted = float(curve.tar[at]), float(curve.threshold[at]), int(curve.false_accepts[at])
        points.append(OperatingPoint(target, tar, threshold, accepted, curve.num_impostor, num_repeated))
    return tuple(points)
