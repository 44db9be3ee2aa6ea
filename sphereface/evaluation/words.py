"""Convert figures to text, and to plain types for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..errors import count_of
from ..metrics import Interval, OperatingPoint
from .result import Rows

EXCHANGED = "the labels may be exchanged. A label of 1 means one person."
"""The end of a note on pairs whose scores are worse than chance."""
NOT_RESOLVABLE = "not resolvable"
"""The text for a figure that the pairs cannot resolve."""


def unscored(number: int) -> list[str]:
    """Return a sentence on the number of pairs without a score; nothing if all have one."""
    one = "pair has no score (NaN): it counts as wrong and is not accepted."
    more = "pairs have no score (NaN): they count as wrong and are not accepted."
    return [count_of(number, one, more)] if number else []


def figure(value: float, form: str) -> str:
    """Return a figure as text in a format; NaN → not resolvable."""
    return NOT_RESOLVABLE if math.isnan(value) else f"{value:{form}}"


def scientific(far: float) -> str:
    """Return a rate as text: 0.001 → 1e-3."""
    return np.format_float_scientific(far, exp_digits=1, trim="-")


def count(value: float) -> str:
    """Return a number of pairs as text: 8730.7 → 8,730; numbers below ten keep their fraction."""
    return f"{math.floor(value + 1e-9):,}" if value >= 10 else f"{value:.2g}"


def percent(value: float, spread: float | None = None) -> str:
    """Return a share as text: 90.00 ± 1.00%, or 90.00% without a spread; NaN → not resolvable."""
    if math.isnan(value):
        return NOT_RESOLVABLE
    without = spread is None or math.isnan(spread)
    return f"{100 * value:.2f}%" if without else f"{100 * value:.2f} ± {100 * (spread or 0):.2f}%"


def span(interval: Interval, form: str) -> str:
    """Return an interval as text: [low, high]; empty if it is NaN."""
    if math.isnan(interval.low):
        return ""
    return f"[{interval.low:{form}}, {interval.high:{form}}]"


def finite(value: float) -> float | None:
    """Return a number for JSON: None if it is not finite."""
    return value if math.isfinite(value) else None


def plain_interval(interval: Interval) -> list[float | None]:
    """Return an interval for JSON."""
    return [finite(interval.low), finite(interval.high)]


def plain_point(point: OperatingPoint) -> dict[str, Any]:
    """Return an operating point for JSON; figures that the pairs cannot resolve are None."""
    plain = {**asdict(point), "threshold": finite(point.threshold), "rests_on": point.impostors_used}
    return plain if point.resolvable else {**plain, "tar": None, "threshold": None, "false_accepts": None}


def plain_points(points: Sequence[OperatingPoint], intervals: Sequence[Interval]) -> list[dict[str, Any]]:
    """Return operating points for JSON, each with the interval of its true accept rate."""
    return [
        {**plain_point(point), "interval": plain_interval(interval) if point.resolvable else None}
        for point, interval in zip(points, intervals, strict=True)
    ]


def tar_headline(points: Sequence[OperatingPoint], area: float) -> tuple[str, float]:
    """Return name and value of TAR at the lowest FAR that the pairs resolve, or else of AUC."""
    resolvable = [point for point in points if point.resolvable]
    return (f"TAR at FAR {resolvable[-1].far:g}", resolvable[-1].tar) if resolvable else ("AUC", area)


def tar_rows(
    points: Sequence[OperatingPoint], intervals: Sequence[Interval] = (), rates: tuple[str, str] = ("FAR", "TAR")
) -> Rows:
    """Return the table of accept rates: one row for each false accept rate.

    Args:
        points: the operating points.
        intervals: intervals of the true accept rates, in the same order; may be empty.
        rates: names of the two rates.
    """
    rows = []
    for number, point in enumerate(points):
        used = f"{count(point.impostors_used)} of {point.num_impostor:,}"
        middle = [span(intervals[number], ".2%")] if intervals else []
        figures = [f"{point.tar:.2%}", *middle, f"{point.threshold:.5f}"]
        if not point.resolvable:
            figures = [NOT_RESOLVABLE, *("" for _ in figures[1:])]
        rows.append((scientific(point.far), *figures, used))
    header = (rates[0], rates[1], *(["95 % interval"] if intervals else []), "threshold", "impostors used")
    return Rows(header, tuple(rows))


def layman_rates(points: Sequence[OperatingPoint]) -> list[str]:
    """Return sentences that express the lowest resolvable false accept rate in numbers of pairs."""
    resolvable = [point for point in points if point.resolvable and math.isfinite(point.threshold)]
    if not resolvable:
        return ["This list has too few pairs of two people to measure how often the recogniser confuses people."]
    point = resolvable[-1]
    accepted, of = _in_whole_numbers(point.tar)
    return [
        f"Of {of:,} pairs of one person, the recogniser accepts {accepted:,}. "
        f"Of {round(1 / point.far):,} pairs of two people, it accepts 1 by mistake.",
        f"Both hold at the threshold {point.threshold:.4f}: it accepts a pair whose cosine is higher.",
    ]


def _in_whole_numbers(share: float) -> tuple[int, int]:
    """Return a share as a part of a whole number: 0.84 → (84, 100).

    A share near 0 or 1 gets a larger whole, so that the part is neither 0 nor the whole.
    """
    for power in range(2, 10):
        if 0 < round(share * 10**power) < 10**power:
            return round(share * 10**power), 10**power
    return round(share * 100), 100
