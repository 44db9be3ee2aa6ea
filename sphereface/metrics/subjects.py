"""Compute confidence intervals over subjects for millions of pairs of templates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse  # type: ignore[import-untyped]
import scipy.sparse.csgraph  # type: ignore[import-untyped]

from .ijb import IJB_FARS, num_allowed
from .resampling import Interval, draw, percentile_intervals
from .verification import BoolArray, FloatArray, Ids, IntArray, counted

REPLICATES = 200
_CHUNK = 2**21  # pairs counted at a time
_BLOCK = 512  # impostors weighted at a time, for all draws
_MARGIN = 2  # how many of the highest impostors to sort first, as a multiple of those a rate allows


def subjects_of(num_templates: int, left: Ids, right: Ids, same: BoolArray, known: Ids | None = None) -> IntArray:
    """Return the subject of each template.

    Two templates have one subject if a genuine pair joins them or ``known`` gives both the same
    subject. Any other template is its own subject.

    Args:
        num_templates: T.
        left, right: (P,) rows of the pairs' templates, in [0, T).
        same: (P,) bool, True for genuine pairs.
        known: (T,) integers, the subject of each template, or −1 if unknown. IJB-B and IJB-C name
            subjects in the files of 1:N search.

    Returns:
        (T,) int64, numbered from 0 in the order of their first templates.
    """
    a, b = left[same].astype(np.int64), right[same].astype(np.int64)
    size = num_templates
    if known is not None:
        with_subject = np.flatnonzero(known >= 0)
        names, number = np.unique(known[with_subject], return_inverse=True)
        a, b = np.concatenate([a, with_subject]), np.concatenate([b, num_templates + number])
        size += len(names)
    links = scipy.sparse.coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(size, size))
    _, group = scipy.sparse.csgraph.connected_components(links, directed=False)
    _, first, number = np.unique(group[:num_templates], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number].astype(np.int64)


def bootstrap_tar(
    scores: FloatArray,
    same: BoolArray,
    left_subject: Ids,
    right_subject: Ids,
    fars: Sequence[float] = IJB_FARS,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> tuple[Interval, ...]:
    """Return 95 % intervals of TAR at FAR over subjects.

    The draws, the weights and the figures equal those of :func:`~.resampling.bootstrap` with
    ``people``. A genuine pair counts as often as its subject was drawn. An impostor pair counts
    w₁ × w₂ times, where its subjects were drawn w₁ and w₂ times. The function sorts only the
    highest impostors, about twice as many as the largest rate allows, since the thresholds lie
    among them. It takes the weight of all impostors from the number of pairs of any two subjects.

    Args:
        scores: (P,) float. NaN ranks lowest if genuine. :func:`~.verification.counted` defines
            which impostor pairs count.
        same: (P,) bool, with pairs of both kinds.
        left_subject, right_subject: (P,) integers from 0.
        fars: false accept rates.
        replicates: number of draws.
        seed: seed of the draws.

    Returns:
        An interval for each rate, in their order; NaN if no replicate had pairs of both kinds.
    """
    num_subjects = int(max(left_subject.max(), right_subject.max())) + 1
    rng = np.random.default_rng(seed)
    times = np.stack([draw(num_subjects, rng) for _ in range(replicates)])
    impostor = ~same & counted(scores, same)
    totals = _impostor_weights(times, impostor, left_subject, right_subject)
    genuine = _genuine(scores, same, left_subject)
    top = _TopImpostors(scores, impostor, left_subject, right_subject)
    top.extend(math.ceil(_MARGIN * max(fars) * np.count_nonzero(impostor)) + 1000)
    allowed = np.array([[num_allowed(far, total) for far in fars] for total in totals])
    passed = top.passed(times)
    while (passed[-1] <= allowed.max(axis=1)).any() and not top.is_complete:
        top.extend(2 * len(top.scores))
        passed = top.passed(times)
    figures = np.empty((replicates, len(fars)))
    for index, (drawn, total) in enumerate(zip(times, totals, strict=True)):
        thresholds = [top.threshold(drawn, passed[:, index], most) for most in allowed[index]]
        figures[index] = _tars(drawn, genuine, thresholds) if total else np.nan
    return percentile_intervals(figures)


class _TopImpostors:
    """The highest impostor scores, descending, and their subjects; :meth:`extend` adds more."""

    def __init__(self, scores: FloatArray, impostor: BoolArray, left: Ids, right: Ids) -> None:
        self._all, self._impostor, self._left, self._right = scores, impostor, left, right
        self._num_impostors = int(np.count_nonzero(impostor))
        self.scores: FloatArray = np.empty(0)

    @property
    def is_complete(self) -> bool:
        return len(self.scores) == self._num_impostors

    def extend(self, number: int) -> None:
        """Sort the highest ``number`` scores, and all scores that tie with the last of them."""
        number = min(number, self._num_impostors)
        values = self._all[self._impostor]  # all of them NaN, or none
        values.partition(len(values) - number)
        cut = values[len(values) - number]
        del values
        with np.errstate(invalid="ignore"):
            rows = np.flatnonzero(~(self._all < cut) & self._impostor)  # keeps NaN
        found = np.where(np.isnan(self._all[rows]), np.inf, self._all[rows])
        order = np.argsort(-found)
        self.scores, rows = found[order], rows[order]
        self.left, self.right = self._left[rows].astype(np.intp), self._right[rows].astype(np.intp)

    def passed(self, times: IntArray) -> FloatArray:
        """Return the weight of the impostors before each block, and of all: (blocks + 1, R).

        ``times`` holds R draws: (R, S). A block is processed for all draws at once, which is ten
        times as fast as one draw after the other.
        """
        exact = int(times.max()) ** 2 * _BLOCK < 2**24  # sums are integers, without rounding in float32
        table = np.ascontiguousarray(times.T, dtype=np.float32 if exact else np.float64)  # (S, R)
        starts = range(0, len(self.scores), _BLOCK)
        passed = np.zeros((len(starts) + 1, len(times)))
        for number, start in enumerate(starts, start=1):
            rows = slice(start, start + _BLOCK)
            passed[number] = np.einsum("ij,ij->j", table[self.left[rows]], table[self.right[rows]])
        return np.cumsum(passed, axis=0, out=passed)

    def threshold(self, times: IntArray, passed: FloatArray, allowed: int) -> float:
        """Return the highest impostor score to reject if a weight of ``allowed`` may pass.

        Args:
            times: (S,) one draw.
            passed: (blocks + 1,) column of :meth:`passed` for this draw.
            allowed: a weight. If all impostors may pass, the threshold is −∞.
        """
        block = int(np.searchsorted(passed, allowed, side="right")) - 1
        if block == len(passed) - 1:
            return -math.inf
        rows = slice(block * _BLOCK, (block + 1) * _BLOCK)
        weight = np.cumsum(times[self.left[rows]] * times[self.right[rows]])
        return float(self.scores[rows][np.searchsorted(weight, allowed - passed[block], side="right")])


def _genuine(scores: FloatArray, same: BoolArray, subject: Ids) -> tuple[FloatArray, Ids]:
    """Return the genuine scores in descending order, and the subject of each."""
    values, subjects = scores[same], subject[same]
    values[np.isnan(values)] = -np.inf
    order = np.argsort(-values)
    return values[order], subjects[order]


def _tars(times: IntArray, genuine: tuple[FloatArray, Ids], thresholds: Sequence[float]) -> FloatArray:
    """Return TAR at each threshold for one draw; NaN if no genuine pair was drawn.

    A threshold of −∞ accepts everything, −∞ included.
    """
    scores, subject = genuine
    accepted = np.append(0, np.cumsum(times[subject]))
    above = np.searchsorted(-scores, np.negative(thresholds), side="left")
    above[np.isneginf(thresholds)] = len(scores)
    return accepted[above] / accepted[-1] if accepted[-1] else np.full(len(above), np.nan)


def _impostor_weights(times: IntArray, impostor: BoolArray, left: Ids, right: Ids) -> FloatArray:
    """Return the weight of all impostor pairs in each replicate, Σ w[left] × w[right]: (R,).

    Args:
        times: (R, S) how often each subject was drawn.
        impostor: (P,) bool, the impostor pairs that count.
    """
    size = times.shape[1]
    counts = scipy.sparse.csr_array((size, size), dtype=np.float64)
    for start in range(0, len(impostor), _CHUNK):
        chosen = impostor[start : start + _CHUNK]
        sides = left[start : start + _CHUNK][chosen], right[start : start + _CHUNK][chosen]
        counts += scipy.sparse.coo_array((np.ones(len(sides[0])), sides), shape=(size, size)).tocsr()
    weights = times.T.astype(np.float64)  # (S, R); all sums are integers below 2^53, so they are exact
    return np.asarray(np.einsum("sr,sr->r", weights, counts @ weights))
