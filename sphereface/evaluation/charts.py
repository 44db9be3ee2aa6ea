"""Small charts as SVG text, drawn so that they can be read at the width of a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..metrics import FloatArray, IntArray, Roc

WIDTH, HEIGHT = 400.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 10.0, 10.0, 36.0
_MOST_POINTS = 600


@dataclass
class _Chart:
    """A frame with axes; x and y are in data units, which run over the given ranges."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def x_tick(self, value: float, label: str) -> None:
        x = self.x(value)
        self.parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>')
        self.text(x, HEIGHT - _BOTTOM + 14, label, "middle")

    def y_tick(self, value: float, label: str) -> None:
        y = self.y(value)
        self.parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        self.text(_LEFT - 5, y + 4, label, "end")

    def text(self, x: float, y: float, label: str, anchor: str, style: str = "tick") -> None:
        self.parts.append(f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{label}</text>')

    def line(self, xs: Sequence[float], ys: Sequence[float], style: str) -> None:
        points = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(xs, ys, strict=True))
        self.parts.append(f'<polyline class="{style}" points="{points}"/>')

    def box(self, x0: float, x1: float, y0: float, y1: float, style: str, title: str = "") -> None:
        left, top = self.x(x0), self.y(y1)
        tip = f"<title>{title}</title>" if title else ""
        self.parts.append(
            f'<rect class="{style}" x="{left:.1f}" y="{top:.1f}" width="{self.x(x1) - left:.1f}" '
            f'height="{self.y(y0) - top:.1f}">{tip}</rect>'
        )

    def dot(self, x: float, y: float, title: str) -> None:
        self.parts.append(
            f'<circle class="dot" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="4"><title>{title}</title></circle>'
        )

    def svg(self, label: str, x_label: str) -> str:
        self.text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 4, x_label, "middle", "axis")
        body = "".join(self.parts)
        return f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{label}">{body}</svg>'


def roc_chart(curve: Roc, resolvable_from: float, points: Sequence[tuple[float, float]]) -> str:
    """TAR over FAR on a log axis, from the lowest FAR that the pairs can show.

    Args:
        curve: the ROC.
        resolvable_from: the FAR below which too few impostor pairs lie: shaded.
        points: (FAR, TAR) to mark.
    """
    lowest = -max(1, math.ceil(math.log10(curve.num_impostor)))
    chart = _Chart((lowest, 0), (0, 1))
    chart.box(lowest, min(0.0, math.log10(resolvable_from)), 0, 1, "unsure", "too few impostor pairs")
    for power in range(lowest, 1):
        chart.x_tick(power, f"1e{power}" if power else "1")
    for tenth in range(0, 11, 2):
        chart.y_tick(tenth / 10, f"{10 * tenth}%")
    far, tar = _thinned(np.log10(np.maximum(curve.far, 10.0**lowest)), curve.tar)
    chart.line(far.repeat(2)[1:].tolist(), tar.repeat(2)[:-1].tolist(), "curve")
    for rate, share in points:
        chart.dot(math.log10(rate), share, f"TAR {share:.2%} at FAR {rate:g}")
    return chart.svg("ROC curve", "false accept rate, log scale")


def histogram_chart(genuine: IntArray, impostor: IntArray, threshold: float | None) -> str:
    """Scores of genuine and of impostor pairs, each as a share of its kind, with the mean threshold."""
    shares = [counts / max(1, counts.sum()) for counts in (genuine, impostor)]
    used = np.flatnonzero(genuine + impostor)
    edges = np.linspace(-1, 1, len(genuine) + 1)
    low, high = (edges[used[0]], edges[used[-1] + 1]) if len(used) else (-1.0, 1.0)
    top = max(float(share.max()) for share in shares) or 1.0
    chart = _Chart((math.floor(low * 5) / 5, math.ceil(high * 5) / 5), (0, top * 1.05))
    for value in np.arange(chart.x_range[0], chart.x_range[1] + 0.01, 0.2):
        chart.x_tick(float(value), f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−"))
    step = _round_step(top / 4)
    for k in range(int(top * 1.05 / step) + 1):
        chart.y_tick(k * step, f"{100 * k * step:.3g}%")
    for share, style in zip(shares, ("impostor", "genuine")[::-1], strict=True):
        for k in np.flatnonzero(share).tolist():
            chart.box(edges[k], edges[k + 1], 0, float(share[k]), style, f"{edges[k]:.2f}: {share[k]:.2%}")
    if threshold is not None:
        chart.line([threshold, threshold], [0, top * 1.05], "threshold")
    return chart.svg("histograms of scores", "cosine")


def folds_chart(accuracies: FloatArray) -> str:
    """A bar for each fold, from just below the lowest; the dashed line is their mean."""
    low = math.floor((float(accuracies.min()) - 0.01) * 50) / 50
    chart = _Chart((0.4, len(accuracies) + 0.6), (max(0.0, low), 1.0))
    step = _round_step((1 - chart.y_range[0]) / 4)
    for k in range(int((1 - chart.y_range[0]) / step + 1e-9) + 1):
        chart.y_tick(1 - k * step, f"{100 * (1 - k * step):.3g}%")
    mean, folds = float(accuracies.mean()), list(enumerate(accuracies.tolist(), start=1))
    for fold, accuracy in folds:
        chart.box(fold - 0.36, fold + 0.36, chart.y_range[0], accuracy, "bar", f"fold {fold}: {accuracy:.2%}")
        chart.text(chart.x(fold), HEIGHT - _BOTTOM + 14, str(fold), "middle")
    chart.line([0.4, len(accuracies) + 0.6], [mean, mean], "threshold")
    for fold, accuracy in folds if len(folds) <= 10 else ():
        chart.text(chart.x(fold), chart.y(accuracy) - 3, f"{100 * accuracy:.1f}", "middle", "value")
    return chart.svg("accuracy of each fold", "fold")


def _round_step(step: float) -> float:
    """The next larger of 1, 2, 5 × 10ⁿ."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def _thinned(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """At most so many points, chosen evenly along x: more are narrower than a line."""
    if len(x) <= _MOST_POINTS:
        return x, y
    wanted = np.linspace(x[0], x[-1], _MOST_POINTS)
    at = np.unique(np.append(np.searchsorted(x, wanted, side="right") - 1, len(x) - 1))
    return x[at], y[at]
