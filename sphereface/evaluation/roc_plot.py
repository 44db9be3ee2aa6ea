"""The ROC picture of a verification."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..metrics import MIN_IMPOSTORS, Roc, auc, equal_error_rate, roc, tar_at_far
from .lfw import Verification
from .table import percent


def roc_figure(verification: Verification, *, title: str = "") -> Figure:
    """The ROC curve, twice: FAR on a log axis, where recognisers differ, and on a linear one.

    Returns:
        A figure of 10 × 4.5 inches, ready to save or to hand to TensorBoard; no global state is touched.
    """
    curve = roc(verification.scores, verification.same)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    log, linear = figure.subplots(1, 2)
    _draw_log(log, curve)
    _draw_linear(linear, curve)
    for axes in (log, linear):
        axes.set(ylabel="true accept rate (TAR)", ylim=(0, 1.01))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize="small")
    pairs = f"{curve.num_genuine:,} genuine and {curve.num_impostor:,} impostor pairs"
    accuracy = percent(verification.mean, verification.standard_error)
    parts = (title, f"accuracy {accuracy}" if len(verification.accuracies) else "", pairs)
    figure.suptitle(" · ".join(part for part in parts if part))
    return figure


def _draw_log(axes: Any, curve: Roc) -> None:
    lowest = 1 / curve.num_impostor  # no lower FAR but 0 can be measured
    far = np.maximum(curve.far, lowest / 2)
    axes.step(far, curve.tar, where="post", color="tab:blue")
    points = [point for point in tar_at_far(curve) if point.resolvable]
    axes.plot(
        [p.far for p in points],
        [p.tar for p in points],
        "o",
        color="tab:blue",
        label="TAR at FAR 1e-1, 1e-2, …",
    )
    unsure = MIN_IMPOSTORS * lowest
    axes.axvspan(lowest / 2, unsure, color="grey", alpha=0.15, label=f"fewer than {MIN_IMPOSTORS} impostor pairs")
    axes.set(xscale="log", xlim=(lowest / 2, 1), xlabel="false accept rate (FAR), log scale")


def _draw_linear(axes: Any, curve: Roc) -> None:
    eer = equal_error_rate(curve)
    axes.plot(curve.far, curve.tar, color="tab:blue", label=f"AUC {auc(curve):.4f}")
    axes.plot([0, 1], [1, 0], ":", color="grey")
    axes.plot([eer], [1 - eer], "o", color="tab:orange", label=f"EER {eer:.2%}")
    axes.set(xlim=(-0.01, 1), xlabel="false accept rate (FAR)")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
