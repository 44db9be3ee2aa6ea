"""Draw the charts of reports with matplotlib: as figures for PNG files, as SVG for HTML."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from ..metrics import MIN_IMPOSTORS, FloatArray, IntArray, Roc, auc, equal_error_rate, tar_at_far

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .result import Chart

GENUINE, IMPOSTOR = "#1f77b4", "#e07b39"
SERIES = (GENUINE, IMPOSTOR, "#2a9d6f", "#8e5bb5", "#b8444f", "#7a6a3f")
"""Colours of curves, in order. They are the defaults of every ``Chart.draw``."""
INK, SOFT, LINE, PAPER = "#1c2430", "#5b6675", "#dde2e8", "#ffffff"

# page.css gives these variables other values in the dark scheme and in print
_VARIABLES = {
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
    **{INK: "var(--ink)", "#000000": "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--paper)"},
}
_FIGURE_SIZE = (6.4, 4.4)  # inches
_SVG_SIZE = (4.3, 3.2)  # one point is about one pixel at the width of a phone, so text keeps its size there
_MOST_POINTS = 400


def draw_roc(
    axes: Axes, curve: Roc, *, area: float | None = None, eer: float | None = None, num_repeated: int = 0
) -> None:
    """Draw TAR over FAR, with a log axis, because recognisers differ at low rates.

    The legend shows AUC and EER. Points mark TAR at the usual false accept rates that the impostor
    pairs resolve. A shaded region marks the rates that allow fewer impostor pairs than
    :data:`~sphereface.metrics.MIN_IMPOSTORS`.

    Args:
        axes: the axes to draw into.
        curve: the ROC curve, or points of it.
        area, eer: AUC and EER for the legend; None computes them from the curve.
        num_repeated: impostor pairs of the curve that repeat an earlier pair of the list.
    """
    lowest = 0.5 / curve.num_impostor  # a log axis has no 0; the lowest rate above it is twice as high
    at = _thinned(curve.false_accepts)
    far = np.maximum(curve.false_accepts[at] / curve.num_impostor, lowest)
    tar = curve.true_accepts[at] / curve.num_genuine
    area, eer = auc(curve) if area is None else area, equal_error_rate(curve) if eer is None else eer
    label = "AUC and EER not resolvable" if math.isnan(area) else f"AUC {area:.4f}, EER {eer:.2%}"
    axes.step(far, tar, where="post", color=GENUINE, linewidth=2, label=label)
    points = [point for point in tar_at_far(curve, num_repeated=num_repeated) if point.resolvable]
    fars, tars = [point.far for point in points], [point.tar for point in points]
    axes.plot(fars, tars, "o", color=GENUINE, markersize=6, markerfacecolor=PAPER, markeredgewidth=1.8)
    unsure = min(1.0, MIN_IMPOSTORS / (curve.num_impostor - num_repeated))
    note = f"fewer than {MIN_IMPOSTORS} impostor pairs"
    axes.axvspan(lowest, unsure, color=SOFT, alpha=0.15, linewidth=0, label=note)
    axes.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1.02))
    axes.set(xlabel="false accept rate (1e-3 is 1 in 1,000)", ylabel="true accept rate")
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: _power(rate)))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(axes, columns=1)


def draw_scores(axes: Axes, genuine_counts: IntArray, impostor_counts: IntArray, threshold: float | None) -> None:
    """Draw the histograms of genuine and of impostor scores, each as a share of its kind.

    Args:
        axes: the axes to draw into.
        genuine_counts: (B,) int, genuine pairs in equal bins over [-1, 1], see
            :func:`~sphereface.metrics.score_histogram`.
        impostor_counts: (B,) int, impostor pairs in the same bins.
        threshold: position of a vertical line; None draws no line.
    """
    edges = np.linspace(-1, 1, len(genuine_counts) + 1)
    for counts, colour, label in ((impostor_counts, IMPOSTOR, "two people"), (genuine_counts, GENUINE, "one person")):
        share = counts / max(1, int(counts.sum()))
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.55, linewidth=0, label=label)
        axes.stairs(share, edges, color=colour, linewidth=1.2)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linestyle=(0, (4, 3)), linewidth=1.4, label=f"threshold {threshold:.3f}")
    used = np.flatnonzero(genuine_counts + impostor_counts)
    low, high = (edges[used[0]], edges[used[-1] + 1]) if len(used) else (-1.0, 1.0)
    axes.set(xlim=(max(-1, low - 0.04), min(1, high + 0.04)), xlabel="cosine", ylabel="share of the pairs of its kind")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(axes, columns=3)


def draw_folds(axes: Axes, accuracies: FloatArray) -> None:
    """Draw the accuracy of each fold and a line at their mean; the axis does not start at 0.

    Args:
        axes: the axes to draw into.
        accuracies: (K,) float in [0, 1].
    """
    folds = np.arange(1, len(accuracies) + 1)
    mean = float(np.mean(accuracies))
    axes.axhline(mean, color=INK, linestyle=(0, (4, 3)), linewidth=1.2, label=f"mean {mean:.2%}")
    axes.plot(folds, accuracies, linestyle="", marker="o", markersize=7, color=GENUINE, label="accuracy of the fold")
    if len(accuracies) <= 10:
        for place in zip(folds.tolist(), accuracies.tolist(), strict=True):
            text = f"{100 * place[1]:.1f}"
            axes.annotate(text, place, xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8, color=INK)
    low, high = float(np.min(accuracies)), float(np.max(accuracies))
    room = max(0.005, 0.18 * (high - low))
    axes.set(xlim=(0.4, len(accuracies) + 0.6), ylim=(low - room, high + 1.5 * room), xlabel="fold", ylabel="accuracy")
    axes.xaxis.set_major_locator(FixedLocator(folds.tolist()) if len(folds) <= 10 else MaxNLocator(10, integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(axes, columns=2)


def draw_discard(axes: Axes, fractions: FloatArray, errors: Mapping[str, FloatArray]) -> None:
    """Draw error-versus-discard curves: the error that is left when the worst images are left out.

    Args:
        axes: where to draw.
        fractions: (K,) share of the images left out, in [0, 1].
        errors: label → (K,) error rate in [0, 1]; NaN leaves a gap.
    """
    for number, (label, error) in enumerate(errors.items()):
        axes.plot(fractions, error, color=SERIES[number % len(SERIES)], linewidth=2, label=label)
    axes.set(xlabel="share of images left out, worst quality first", ylabel="error rate", xlim=(0, max(fractions)))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(axes, columns=2)


def figure_of(chart: Chart, size: tuple[float, float] = _FIGURE_SIZE) -> Figure:
    """Return the chart as a figure with its title; this changes no global state.

    Args:
        chart: chart of a result.
        size: width and height in inches.
    """
    figure = _drawn(chart, size)
    figure.suptitle(chart.title, color=INK, fontsize=12, parse_math=False)
    return figure


def svg_of(chart: Chart, prefix: str = "") -> str:
    """Return the chart as an ``<svg>`` element for a page with the variables of page.css.

    It has no title, because the page shows one above it. Its colours are CSS variables, its text
    remains text, and it is as wide as the element around it.

    Args:
        chart: chart of a result.
        prefix: start of every id, so that a page can hold several charts; ``chart.name`` if empty.
    """
    figure, written = _drawn(chart, _SVG_SIZE), io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # matplotlib reads these two only from its global settings; the context restores them
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sphereface"}):
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _for_page(written.getvalue(), chart.title, prefix or chart.name)


def _drawn(chart: Chart, size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=SERIES)
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(length=0, labelsize=9.5, labelcolor=SOFT)
    chart.draw(axes)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=SOFT, fontsize=10)
    return figure


def _legend(axes: Axes, columns: int) -> None:
    """Place the legend above the axes, where it hides no curve."""
    legend = axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        frameon=False,
        ncols=columns,
        fontsize=9.5,
        labelcolor=SOFT,
        handlelength=1.3,
        handletextpad=0.5,
        columnspacing=1.2,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _power(rate: float) -> str:
    """0.001 → 1e-3, 1 → 1."""
    power = round(math.log10(rate))
    return f"1e{power}" if power else "1"


def _thinned(false_accepts: IntArray) -> IntArray:
    """Return the rows of a curve that a chart with a log axis needs, in ascending order.

    Each is the last row of a number of false accepts. Between two of them, the curve moves by less
    than the width of a line. The curve of all pairs of a folder has millions of points, so the
    function uses a binary search.
    """
    most = int(false_accepts[-1])
    counts = np.append(0, np.unique(np.geomspace(1, max(1, most), _MOST_POINTS).round().astype(np.int64)))
    rows = np.searchsorted(false_accepts, counts, side="right") - 1
    return np.asarray(np.unique(rows), dtype=np.int64)


def _for_page(svg: str, title: str, prefix: str) -> str:
    """Convert matplotlib's SVG document to an element of a page."""
    svg = svg[svg.index("<svg") :].strip().replace("xlink:href", "href")
    view_box = re.search(r'viewBox="([^"]+)"', svg)
    assert view_box is not None
    head = f'<svg viewBox="{view_box[1]}" role="img" aria-label="{escape(title)}">'
    svg = head + svg[svg.index(">") + 1 :]
    svg = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]+;? ?", "", svg)  # the page has a font
    svg = re.sub(r"(font: (?:[a-z]+ |\d{3} )*[\d.]+px) [^;\"]+", r"\1 system-ui", svg)
    svg = _rename_ids(svg, prefix)
    svg = re.sub(r"#[0-9a-f]{6}(?=[;\"])", lambda colour: _VARIABLES.get(colour[0], colour[0]), svg)
    svg = re.sub(r' (?:d|x|y|width|height|transform)="[^"]+"', lambda places: _rounded(places[0]), svg)
    return re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><")


def _rename_ids(svg: str, prefix: str) -> str:
    """Add a prefix to the ids that are used, and remove the other ids."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", prefix)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: f' id="{plain}-{match[1]}"' if match[1] in used else "", svg)
    return re.sub(r'((?:href="|url\()#)([^")]+)', lambda match: f"{match[1]}{plain}-{match[2]}", svg)


def _rounded(places: str) -> str:
    """Truncate coordinates to hundredths of a pixel."""
    return re.sub(r"(\.\d\d)\d+", r"\1", places)
