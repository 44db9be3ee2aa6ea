"""Compute confidence intervals by resampling people or pairs (bootstrap)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .verification import (
    FAR_TARGETS,
    BoolArray,
    FloatArray,
    Ids,
    IntArray,
    Ranking,
    Roc,
    auc,
    equal_error_rate,
    tar_at_far,
)

REPLICATES = 1000
LEVEL = 0.95
_MOST_WORK = 10**9  # pairs × replicates; longer lists get fewer replicates, but at least _FEWEST
_FEWEST = 50

People = tuple[IntArray, IntArray]
"""The people on the left and on the right of each pair: two arrays (P,) of numbers from 0."""


@dataclass(frozen=True)
class Interval:
    """A percentile interval of the replicates; NaN if no replicate has a value."""

    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """95 % intervals of the metrics of one ROC curve.

    Attributes:
        unit: what is drawn with replacement: ``"people"`` or ``"pairs"``.
        replicates: number of draws.
        auc, eer: the intervals of AUC and EER.
        tar: the interval of TAR at each of the targets, in their order.
    """

    unit: str
    replicates: int
    auc: Interval
    eer: Interval
    tar: tuple[Interval, ...]


def bootstrap(
    scores: FloatArray,
    same: BoolArray,
    people: People | None = None,
    *,
    targets: Sequence[float] = FAR_TARGETS,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Intervals:
    """Return intervals of AUC, EER and TAR@FAR.

    Pairs that share a person are not independent. If the people are known, each replicate draws as
    many people as there are, with replacement. A genuine pair whose person was drawn w times counts
    w times; an impostor pair counts w₁ × w₂ times. If the people are unknown, each replicate draws
    the genuine and the impostor pairs with replacement. These intervals are too narrow if people
    occur in several pairs.

    Args:
        scores: (P,) float. NaN ranks as in :func:`roc`. The same pairs count in every replicate.
        same: (P,) bool, with pairs of both kinds.
        people: see :data:`People`; None if unknown.
        targets: false accept rates.
        replicates: number of draws; lists of over a million pairs get fewer, but at least 50.
        seed: seed of the draws.
    """
    replicates = num_replicates(len(same), replicates)
    drawn = resample(scores, same, people, lambda curve, _: _figures(curve, targets), replicates=replicates, seed=seed)
    first, second, *rest = percentile_intervals(drawn)
    return Intervals("pairs" if people is None else "people", replicates, first, second, tuple(rest))


def num_replicates(num_pairs: int, most: int = REPLICATES) -> int:
    """Return the number of draws: fewer for more than a million pairs, but at least 50."""
    return min(most, max(_FEWEST, _MOST_WORK // num_pairs))


def resample(
    scores: FloatArray,
    same: BoolArray,
    people: People | None,
    figures: Callable[[Roc, IntArray], Sequence[float] | FloatArray],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> FloatArray:
    """Return the figures of each bootstrap replicate. :func:`bootstrap` explains the draws.

    Args:
        scores, same, people: as for :func:`bootstrap`.
        figures: computes K figures from the ROC curve of a replicate and from how often each pair
            was drawn: (P,) integers, undefined impostor pairs included. The curve may lack pairs of
            one kind.
        replicates: number of draws.
        seed: seed of the draws.

    Returns:
        (replicates, K) float64.
    """
    rng = np.random.default_rng(seed)
    draws = _draw_pairs(same, rng) if people is None else _draw_people(same, people, rng)
    ranking = Ranking(scores, same)
    rows = [figures(ranking.curve(weights), weights) for _, weights in zip(range(replicates), draws, strict=False)]
    return np.array(rows, dtype=np.float64)


def rates_at(curve: Roc, thresholds: Sequence[float]) -> tuple[FloatArray, FloatArray]:
    """Return the false and the true accept rate of ``score > threshold`` at fixed thresholds.

    Args:
        curve: a curve with pairs of both kinds.
        thresholds: T scores, in any order.

    Returns:
        Two arrays (T,) of rates in [0, 1].
    """
    at = np.searchsorted(-curve.threshold, -np.asarray(thresholds), side="left")
    return curve.far[at], curve.tar[at]


def bootstrap_means(
    values: FloatArray, subject: Ids, *, replicates: int = REPLICATES, seed: int = 0
) -> tuple[Interval, ...]:
    """Return an interval of the mean of each column, over subjects.

    Each replicate draws as many subjects as there are, with replacement. A row counts as often as
    its subject was drawn.

    Args:
        values: (N, K) float, such as 1 for a search that finds the right person and 0 for a miss.
        subject: (N,) integers.
        replicates: number of draws.
        seed: seed of the draws.
    """
    subjects, number = np.unique(subject, return_inverse=True)
    sums = np.zeros((len(subjects), values.shape[1]))
    np.add.at(sums, number, values)
    rng = np.random.default_rng(seed)
    times = np.stack([draw(len(subjects), rng) for _ in range(replicates)])  # (replicates, subjects)
    return percentile_intervals((times @ sums) / (times @ np.bincount(number))[:, None])


def draw(number: int, rng: np.random.Generator) -> IntArray:
    """Return (number,) how often each of ``number`` things is drawn with replacement."""
    return np.bincount(rng.integers(0, number, number), minlength=number)


def percentile_intervals(figures: FloatArray) -> tuple[Interval, ...]:
    """Return the 95 % percentile interval of each column of (replicates, K), without NaN."""
    tail = 100 * (1 - LEVEL) / 2
    intervals = []
    for column in figures.T:
        known = column[~np.isnan(column)]
        low, high = np.percentile(known, [tail, 100 - tail]) if len(known) else (np.nan, np.nan)
        intervals.append(Interval(float(low), float(high)))
    return tuple(intervals)


def _figures(curve: Roc, targets: Sequence[float]) -> FloatArray:
    if not curve.num_genuine or not curve.num_impostor:  # too few people: the draw has no pair of one kind
        return np.full(2 + len(targets), np.nan)
    return np.array([auc(curve), equal_error_rate(curve), *(point.tar for point in tar_at_far(curve, targets))])


def _draw_pairs(same: BoolArray, rng: np.random.Generator) -> Iterator[IntArray]:
    kinds = np.flatnonzero(same), np.flatnonzero(~same)
    while True:
        drawn = np.concatenate([rng.choice(rows, len(rows)) for rows in kinds])
        yield np.bincount(drawn, minlength=len(same))


def _draw_people(same: BoolArray, people: People, rng: np.random.Generator) -> Iterator[IntArray]:
    left, right = people
    num_people = int(max(left.max(), right.max())) + 1
    while True:
        times = draw(num_people, rng)
        yield np.where(same, times[left], times[left] * times[right])
