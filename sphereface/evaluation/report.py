"""A verification as a table for people, JSON for programs, and a ROC picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..errors import UserError
from ..metrics import OperatingPoint, Roc, auc, equal_error_rate, roc, tar_at_far
from .lfw import PairSet, Verification

MIN_IMPOSTORS = 10  # a TAR@FAR that rests on fewer impostor pairs is marked


@dataclass(frozen=True)
class Report:
    """A verification with what it was made from.

    Attributes:
        pair_set: the pairs and pictures.
        verification: the outcome.
        flip: features are of picture and mirror image.
        subtract_mean: features were centred, as the protocol wants.
        about: where the features come from, in plain values for table and JSON: checkpoint, step, ….
    """

    pair_set: PairSet
    verification: Verification
    flip: bool = True
    subtract_mean: bool = True
    about: Mapping[str, Any] = field(default_factory=dict)


def write_report(report: Report, directory: str | Path) -> None:
    """Write ``table.txt``, ``lfw.json`` and ``roc.png`` into a folder, which is made if need be."""
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made a folder for the results ({error.strerror})") from error
    (directory / "table.txt").write_text(format_table(report) + "\n", encoding="utf-8")
    text = json.dumps(to_dict(report), indent=2, ensure_ascii=False, allow_nan=False)
    (directory / "lfw.json").write_text(text + "\n", encoding="utf-8")
    figure = roc_figure(report.verification, title=report.pair_set.name)
    figure.savefig(directory / "roc.png", dpi=150)


def format_table(report: Report) -> str:
    """The whole outcome as text, at most 80 columns wide."""
    result, curve = report.verification, _roc(report.verification)
    lines = [*_heading(report), ""]
    if report.pair_set.dev_train is None:
        lines += [" fold   threshold   accuracy"]
        rows = zip(result.thresholds, result.accuracies, strict=True)
        lines += [f"{k:5d}  {t:10.5f}  {a:8.2%}" for k, (t, a) in enumerate(rows, start=1)]
        lines += ["", f"accuracy  {_accuracy(result)}  (mean ± standard error)"]
    else:
        lines += [f"accuracy  {_accuracy(result)}  at threshold {result.thresholds[0]:.5f}"]
    lines += [f"AUC       {auc(curve):.5f}", f"EER       {equal_error_rate(curve):.2%}", ""]
    lines += _tar_rows(tar_at_far(curve))
    if result.num_undefined:
        lines += ["", f"{result.num_undefined} pairs have no score (NaN) and count as wrong."]
    return "\n".join(lines)


def to_dict(report: Report) -> dict[str, Any]:
    """Plain types for JSON, in full precision; rates are fractions, what is not finite is None."""
    pair_set, result, curve = report.pair_set, report.verification, _roc(report.verification)
    rows = zip(result.thresholds.tolist(), result.accuracies.tolist(), strict=True)
    return {
        **report.about,
        "name": pair_set.name,
        "view": 2 if pair_set.dev_train is None else 1,
        "pairs": str(pair_set.pairs.path),
        "dev_train": None if pair_set.dev_train is None else str(pair_set.dev_train.path),
        "images": str(pair_set.root),
        "flip": report.flip,
        "subtract_mean": report.subtract_mean,
        "num_images": len(pair_set.files),
        "num_genuine": curve.num_genuine,
        "num_impostor": curve.num_impostor,
        "num_undefined": result.num_undefined,
        "accuracy": result.mean,
        "standard_error": _finite(result.standard_error),
        "folds": [{"fold": k, "threshold": t, "accuracy": a} for k, (t, a) in enumerate(rows, start=1)],
        "auc": auc(curve),
        "eer": equal_error_rate(curve),
        "tar_at_far": [
            {**asdict(point), "threshold": _finite(point.threshold), "rests_on": point.rests_on}
            for point in tar_at_far(curve)
        ],
    }


def roc_figure(verification: Verification, *, title: str = "") -> Figure:
    """The ROC curve, twice: FAR on a log axis, where recognisers differ, and on a linear one.

    Returns:
        A figure of 10 × 4.5 inches, ready to save or to hand to TensorBoard; no global state is touched.
    """
    curve = _roc(verification)
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
    parts = (title, f"accuracy {_accuracy(verification)}", pairs)
    figure.suptitle(" · ".join(part for part in parts if part))
    return figure


def _draw_log(axes: Any, curve: Roc) -> None:
    lowest = 1 / curve.num_impostor  # no lower FAR but 0 can be measured
    far = np.maximum(curve.far, lowest / 2)
    axes.step(far, curve.tar, where="post", color="tab:blue")
    points = [point for point in tar_at_far(curve) if point.far >= lowest]
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


def _heading(report: Report) -> list[str]:
    pair_set = report.pair_set
    pairs, dev_train = pair_set.pairs, pair_set.dev_train
    num_each = len(pairs) // 2 // max(1, pairs.num_folds)
    if dev_train is None:
        what = f"{pairs.num_folds} folds of {num_each} + {num_each} pairs"
        rule = "threshold and mean of each fold from the other folds"
    else:
        what = f"view 1, {num_each} + {num_each} pairs"
        rule = f"threshold and mean from {dev_train.path.name}"
    if not report.subtract_mean:
        rule = rule.replace("threshold and mean", "threshold") + "; NO mean subtracted"
    mirror = "picture and mirror image" if report.flip else "picture only, NO mirror image"
    about = [f"{key} {report.about[key]}" for key in ("checkpoint", "step") if report.about.get(key) is not None]
    return [
        f"{pair_set.name}: {pairs.path.name}, {what}, {len(pair_set.files):,} pictures",
        f"features of {mirror}",
        rule,
        *([", ".join(about)] if about else []),
    ]


def _tar_rows(points: tuple[OperatingPoint, ...]) -> list[str]:
    lines = [" FAR       TAR   threshold   impostor pairs it rests on"]
    for point in points:
        mark = " *" if point.rests_on < MIN_IMPOSTORS else ""
        count = f"{point.rests_on:g} of {point.num_impostor:,}"
        far = np.format_float_scientific(point.far, exp_digits=1, trim="-")  # 1e-1
        lines.append(f" {far}  {point.tar:8.2%}  {point.threshold:10.5f}   {count}{mark}")
    if any(point.rests_on < MIN_IMPOSTORS for point in points):
        lines.append(f"* fewer than {MIN_IMPOSTORS}: mostly luck")
    return lines


def _accuracy(verification: Verification) -> str:
    mean, error = 100 * verification.mean, 100 * verification.standard_error
    return f"{mean:.2f}%" if math.isnan(error) else f"{mean:.2f} ± {error:.2f}%"


def _roc(verification: Verification) -> Roc:
    return roc(verification.scores, verification.same)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
