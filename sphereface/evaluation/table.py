"""A report as text: the lines that programs print and ``table.txt`` holds."""

from __future__ import annotations

import math

import numpy as np

from ..data.bins import is_bin
from ..metrics import Interval, OperatingPoint, auc, d_prime, equal_error_rate
from .all_pairs import AllPairs
from .identification import Identification
from .lfw import PairSet
from .report import Report


def format_table(report: Report) -> str:
    """The whole outcome as text, at most 100 columns wide."""
    result, intervals = report.verification, report.intervals
    lines = [*heading(report), "", *_accuracy_lines(report)]
    separation = d_prime(result.scores, result.same)
    lines += [
        f"AUC       {auc(report.curve):.5f}   {_span(intervals.auc, '.5f')}",
        f"EER       {equal_error_rate(report.curve):<7.2%}   {_span(intervals.eer, '.2%')}",
        f"d′        {separation:.3f}",
    ]
    if report.fisher is not None:
        lines += [f"AFS       {report.fisher:.4f}    (angular Fisher score of the pictures, lower is better)"]
    lines += ["", *_tar_rows(report.points, intervals.tar)]
    lines += ["", f"[ ]: 95 % intervals, {intervals.unit} drawn anew {intervals.replicates:,} times"]
    if report.variants:
        lines += ["", "Not the protocol above, but what other code bases report:"]
        lines += [f"  {percent(v.accuracy, v.spread):15} {v.rule}" for v in report.variants]
    if result.num_undefined:
        lines += ["", f"{result.num_undefined} pairs have no score (NaN) and count as wrong."]
    if report.identification is not None:
        lines += ["", *_identification_lines(report.identification)]
    if report.all_pairs is not None:
        lines += ["", *_all_pairs_lines(report.all_pairs)]
    return "\n".join(lines)


def heading(report: Report) -> list[str]:
    """What was compared, and by which rule: a few lines."""
    pair_set = report.pair_set
    mirror = "picture and mirror image" if report.flip else "picture only, NO mirror image"
    about = [f"{key} {report.about[key]}" for key in ("checkpoint", "step") if report.about.get(key) is not None]
    return [
        f"{pair_set.name}: {pair_set.pairs.path.name}, {_what(pair_set)}, {len(pair_set.files):,} pictures",
        f"features of {mirror}",
        _rule(report),
        *([", ".join(about)] if about else []),
    ]


def _what(pair_set: PairSet) -> str:
    pairs = pair_set.pairs
    genuine, num_each = int(pairs.same.sum()), len(pairs) // 2 // max(1, pairs.num_folds)
    if pair_set.dev_train is not None:
        return f"view 1, {num_each} + {num_each} pairs"
    if pair_set.templates is not None or is_bin(pairs.path):  # folds of any size
        folds = f" in {pairs.num_folds} folds" if pairs.num_folds else ", no folds"
        of = f" of {len(pairs.names):,} templates" if pair_set.templates is not None else ""
        return f"{len(pairs):,} pairs{of}{folds}, {genuine:,} of one person"
    return f"{pairs.num_folds} folds of {num_each} + {num_each} pairs"


def _rule(report: Report) -> str:
    pair_set = report.pair_set
    if pair_set.dev_train is not None:
        rule = f"threshold and mean from {pair_set.dev_train.path.name}"
    elif pair_set.pairs.num_folds:
        rule = "threshold and mean of each fold from the other folds"
    else:
        return "cosines without a mean subtracted; no folds, so no accuracy"
    return rule if report.subtract_mean else rule.replace("threshold and mean", "threshold") + "; NO mean subtracted"


def _accuracy_lines(report: Report) -> list[str]:
    result = report.verification
    if not len(result.accuracies):
        return []
    accuracy = percent(result.mean, result.standard_error)
    if report.pair_set.dev_train is not None:
        return [f"accuracy  {accuracy}  at threshold {result.thresholds[0]:.5f}"]
    rows = enumerate(zip(result.thresholds, result.accuracies, strict=True), start=1)
    return [
        " fold   threshold   accuracy",
        *(f"{k:5d}  {t:10.5f}  {a:8.2%}" for k, (t, a) in rows),
        "",
        f"accuracy  {accuracy}  (mean ± standard error)",
    ]


def _tar_rows(
    points: tuple[OperatingPoint, ...], intervals: tuple[Interval, ...] = (), rates: tuple[str, str] = ("FAR", "TAR")
) -> list[str]:
    wide = 19 if intervals else 0
    spans = [f"   {_span(interval, '.2%'):16}" for interval in intervals] or [""] * len(points)
    lines = [f" {rates[0]}  {rates[1]:>8}{'':{wide}}   threshold   impostors it rests on"]
    for point, span in zip(points, spans, strict=True):
        behind = f"{count(point.rests_on)} of {point.num_impostor:,}"
        figures = f"{point.tar:8.2%}{span}  {point.threshold:10.5f}" if point.resolvable else "not resolvable"
        lines.append(f" {scientific(point.far)}  {figures:{20 + wide}}   {behind}")
    return lines


def _identification_lines(result: Identification) -> list[str]:
    mean = "centred with the gallery's mean" if result.subtract_mean else "NO mean subtracted"
    return [
        f"identification: {result.num_gallery:,} people enrolled with one picture, {result.num_probes:,} probes, "
        f"{result.num_impostors:,} impostors; {mean}",
        f"rank 1    {result.rank1:.2%}",
        f"rank 5    {result.rank5:.2%}",
        *_tar_rows(result.open_set, rates=("FAR", "DIR")),
    ]


def _all_pairs_lines(result: AllPairs) -> list[str]:
    mean = "centred with the mean of all these pictures" if result.subtract_mean else "NO mean subtracted"
    return [
        f"all pairs: {result.num_images:,} pictures, {result.curve.num_genuine:,} + {result.curve.num_impostor:,} "
        f"pairs; {mean}",
        f"AUC       {result.auc:.5f}",
        f"EER       {result.eer:.2%}",
        *_tar_rows(result.points),
    ]


def scientific(far: float) -> str:
    """0.001 → 1e-3."""
    return np.format_float_scientific(far, exp_digits=1, trim="-")


def count(value: float) -> str:
    """8730.7 → 8,730: whole pairs; what is less than ten keeps its fraction."""
    return f"{math.floor(value + 1e-9):,}" if value >= 10 else f"{value:.2g}"


def percent(value: float, spread: float | None) -> str:
    """0.9 and 0.01 → 90.00 ± 1.00%; without a spread 90.00%."""
    without = spread is None or math.isnan(spread)
    return f"{100 * value:.2f}%" if without else f"{100 * value:.2f} ± {100 * (spread or 0):.2f}%"


def _span(interval: Interval, form: str) -> str:
    return f"[{interval.low:{form}}, {interval.high:{form}}]"
