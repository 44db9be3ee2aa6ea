"""Draw the charts of pairs in groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import PercentFormatter

from ...metrics import FloatArray, Interval
from ..charts import GENUINE, IMPOSTOR, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_accuracies(axes: Axes, names: Sequence[str], values: FloatArray, intervals: Sequence[Interval]) -> None:
    """Draw the accuracy of each group with its interval; the axis does not start at 0.

    Args:
        axes: the axes to draw into.
        names: names of the groups.
        values: (G,) float in [0, 1].
        intervals: intervals of the values.
    """
    _draw_intervals(axes, names, intervals)
    axes.plot(values, np.arange(len(names)), linestyle="", marker="o", markersize=7, color=GENUINE)
    axes.set_xlabel("accuracy")


def draw_rates(
    axes: Axes, names: Sequence[str], values: FloatArray, intervals: Sequence[Interval], wanted: float
) -> None:
    """Draw the false accept rate of each group with its interval, and a line at the overall rate.

    Args:
        axes: the axes to draw into.
        names: names of the groups.
        values: (G,) float in [0, 1].
        intervals: intervals of the values.
        wanted: the rate over all groups.
    """
    axes.barh(np.arange(len(names)), values, height=0.55, color=IMPOSTOR)
    _draw_intervals(axes, names, intervals)
    axes.axvline(wanted, color=INK, linestyle=(0, (4, 3)), linewidth=1.4)
    axes.set_xlim(left=0)
    axes.set_xlabel("false accept rate")


def _draw_intervals(axes: Axes, names: Sequence[str], intervals: Sequence[Interval]) -> None:
    rows = np.arange(len(names))
    axes.hlines(rows, [i.low for i in intervals], [i.high for i in intervals], color=INK, linewidth=1.6, zorder=3)
    axes.set_yticks(rows, labels=[name.replace("$", r"\$") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first group is at the top
    axes.xaxis.set_major_formatter(PercentFormatter(1))
