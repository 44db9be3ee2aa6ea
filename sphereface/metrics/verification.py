"""Verification metrics on arrays of scores: thresholds, accuracy, ROC, AUC, EER, TAR@FAR.

A score is high for a likely match. A pair is accepted when ``score > threshold``. A pair of one
person is genuine, a pair of two people an impostor pair. A NaN score is undefined. In an accuracy
it is wrong at every threshold and still counts. In a curve, :func:`counted` says which of the
undefined pairs count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# k/10000 for k = −10000 … 10000. The quotients must be correctly rounded, as the original's are:
# np.linspace(-1, 1, 20001) gives other bits for half of them, and then misses scores that lie on
# the grid.
THRESHOLD_GRID: FloatArray = np.arange(-10000, 10001) / 10000
FAR_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4)
MIN_IMPOSTORS = 10
"""A TAR@FAR that rests on fewer impostor pairs is not resolvable: one lucky pair would move it too far."""


def accuracy_at(scores: FloatArray, same: BoolArray, threshold: float) -> float:
    """Share of the pairs decided correctly: genuine with score > threshold, impostor with score <
    threshold.

    Both comparisons are strict, so a score equal to the threshold is wrong for either kind, and so
    is NaN.

    Args:
        scores: (P,) float.
        same: (P,) bool, True where the pair is of one person.
        threshold: a score.

    Returns:
        A fraction in [0, 1].
    """
    return float(np.mean(np.where(same, scores > threshold, scores < threshold)))


def best_threshold(scores: FloatArray, same: BoolArray, grid: FloatArray = THRESHOLD_GRID) -> float:
    """The mean of all grid values at which :func:`accuracy_at` is highest, whether adjacent or not.

    This is the original's rule. Where the maximisers are not adjacent, the accuracy at their mean
    can be below the maximum. Costs O(P log P + G log P): the scores are sorted once and each
    candidate is looked up.

    Args:
        scores: (P,) float.
        same: (P,) bool.
        grid: (G,) candidate thresholds.

    Returns:
        The threshold, a score.
    """
    valid = ~np.isnan(scores)  # a NaN is wrong at each candidate, so it moves no maximum
    genuine = np.sort(scores[valid & same])
    impostor = np.sort(scores[valid & ~same])
    genuine_above = len(genuine) - np.searchsorted(genuine, grid, side="right")
    impostor_below = np.searchsorted(impostor, grid, side="left")
    correct = genuine_above + impostor_below
    return float(np.mean(grid[correct == correct.max()]))


@dataclass(frozen=True)
class Roc:
    """Every distinct decision that thresholding a set of scores allows, from accepting nothing to
    everything.

    Attributes:
        threshold: (K,) float64, falling: the distinct scores, then −inf. Accept score > threshold.
        false_accepts: (K,) int64, rising from 0 to ``num_impostor``.
        true_accepts: (K,) int64, rising from 0 to ``num_genuine``.
    """

    threshold: FloatArray
    false_accepts: IntArray
    true_accepts: IntArray

    @property
    def num_impostor(self) -> int:
        """Impostor pairs behind the curve: those that :func:`counted` counts."""
        return int(self.false_accepts[-1])

    @property
    def num_genuine(self) -> int:
        """Genuine pairs behind the curve."""
        return int(self.true_accepts[-1])

    @property
    def is_defined(self) -> bool:
        """Whether a pair has a score; if not, the curve has no area."""
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
    """Say which pairs count in a curve and in the number of its pairs.

    An undefined genuine pair counts, and is never accepted. An undefined impostor pair has no score
    that could be
    accepted or rejected, so it is left out: otherwise, a single undefined embedding could use up
    all the impostor pairs that a false accept rate lets pass. If no impostor pair is defined, all
    of them count and rank highest, so that a network that has diverged gets a TAR of 0.

    Args:
        scores: (P,) float; NaN is undefined.
        same: (P,) bool.

    Returns:
        (P,) bool.
    """
    defined = ~np.isnan(scores)
    return defined | same if (defined & ~same).any() else np.ones(len(same), dtype=bool)


def roc(scores: FloatArray, same: BoolArray) -> Roc:
    """The ROC curve, with one point for each distinct score: equal scores are accepted together.

    Args:
        scores: (P,) float. A NaN ranks lowest if genuine. If impostor, :func:`counted` leaves it
            out, or it ranks highest where no impostor pair is defined.
        same: (P,) bool, with at least one pair of each kind.

    Raises:
        ValueError: all pairs are of one kind, so one of the two rates is undefined.
    """
    same = np.asarray(same, dtype=bool)
    if same.all() or not same.any():
        raise ValueError(f"a ROC needs genuine and impostor pairs; got {same.sum()} and {(~same).sum()}")
    kept = counted(scores, same)
    scores, same = scores[kept], same[kept]
    ranked = np.where(np.isnan(scores), np.where(same, -np.inf, np.inf), scores).astype(np.float64)
    order = np.argsort(-ranked, kind="stable")
    ranked, same = ranked[order], same[order]
    last_of_ties = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    return Roc(
        threshold=np.append(ranked[last_of_ties], -np.inf),
        false_accepts=np.append(0, np.cumsum(~same)[last_of_ties]),
        true_accepts=np.append(0, np.cumsum(same)[last_of_ties]),
    )


def auc(curve: Roc) -> float:
    """Area under the ROC curve: P(genuine score > impostor score) + ½ P(equal). NaN if no score is
    defined.
    """
    if not curve.is_defined:
        return math.nan
    width = np.diff(curve.far)
    return float(np.sum(width * (curve.tar[1:] + curve.tar[:-1]) / 2))


def equal_error_rate(curve: Roc) -> float:
    """The rate at which FAR = 1 − TAR, on the straight lines between the points. NaN if no score is
    defined.
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
    """TAR at a wanted FAR, with what it rests on.

    Attributes:
        far: the wanted false accept rate, an upper bound.
        tar: true accept rate there.
        threshold: accept score > threshold.
        false_accepts: impostor pairs accepted there; fewer than ``far`` allows where scores tie.
        num_impostor: all impostor pairs that count, see :func:`counted`.
        num_repeated: those of them that the list has before, which resolve nothing.
    """

    far: float
    tar: float
    threshold: float
    false_accepts: int
    num_impostor: int
    num_repeated: int = 0

    @property
    def rests_on(self) -> float:
        """How many distinct impostor pairs ``far`` lets through: far × (num_impostor −
        num_repeated).
        """
        return self.far * (self.num_impostor - self.num_repeated)

    @property
    def resolvable(self) -> bool:
        """Whether that is at least :data:`MIN_IMPOSTORS`; if not, ``tar`` is mostly luck and no
        report prints it.
        """
        return self.rests_on + 1e-9 >= MIN_IMPOSTORS  # 1e-5 × 1000000 is 10.000000000000002, or a bit less elsewhere


def tar_at_far(
    curve: Roc, targets: Iterable[float] = FAR_TARGETS, *, num_repeated: int = 0
) -> tuple[OperatingPoint, ...]:
    """The highest TAR whose FAR does not exceed the target; nothing is interpolated.

    Of N impostor pairs, k = ⌊target × N⌋ may pass. The threshold is the (k+1)-th highest impostor
    score: it lets at most k pass, since acceptance is strict, and any lower one lets more pass.
    Impostors that tie with it are therefore rejected together. With k = 0 it is the highest
    impostor score.

    Args:
        curve: from :func:`roc`.
        targets: false accept rates in [0, 1].
        num_repeated: impostor pairs of the curve that the list has before.

    Returns:
        One point for each target, in their order.
    """
    points = []
    for target in targets:
        allowed = np.floor(target * curve.num_impostor + 1e-9)  # 0.29 × 100 is 28.999999999999996
        at = int(np.searchsorted(curve.false_accepts, allowed, side="right")) - 1
        points.append(
            OperatingPoint(
                far=target,
                tar=float(curve.tar[at]),
                threshold=float(curve.threshold[at]),
                false_accepts=int(curve.false_accepts[at]),
                num_impostor=curve.num_impostor,
                num_repeated=num_repeated,
            )
        )
    return tuple(points)
