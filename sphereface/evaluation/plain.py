"""A report in plain types, for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from ..metrics import Interval, OperatingPoint, auc, d_prime, equal_error_rate, score_histogram
from .all_pairs import AllPairs
from .identification import Identification
from .report import Report


def to_dict(report: Report) -> dict[str, Any]:
    """Plain types for JSON, in full precision; rates are fractions; what is not finite or not resolvable is None."""
    pair_set, result, curve, intervals = report.pair_set, report.verification, report.curve, report.intervals
    rows = zip(result.thresholds.tolist(), result.accuracies.tolist(), strict=True)
    genuine, impostor = score_histogram(result.scores, result.same)
    return {
        **report.about,
        "name": pair_set.name,
        "view": 2 if pair_set.dev_train is None else 1,
        "pairs": str(pair_set.pairs.path),
        "dev_train": None if pair_set.dev_train is None else str(pair_set.dev_train.path),
        "templates": None if pair_set.templates is None else str(pair_set.templates.path),
        "images": str(pair_set.root),
        "flip": report.flip,
        "subtract_mean": report.subtract_mean,
        "num_images": len(pair_set.files),
        "num_genuine": curve.num_genuine,
        "num_impostor": curve.num_impostor,
        "num_undefined": result.num_undefined,
        "accuracy": _finite(result.mean),
        "standard_error": _finite(result.standard_error),
        "folds": [{"fold": k, "threshold": t, "accuracy": a} for k, (t, a) in enumerate(rows, start=1)],
        "auc": auc(curve),
        "auc_interval": _plain(intervals.auc),
        "eer": equal_error_rate(curve),
        "eer_interval": _plain(intervals.eer),
        "tar_at_far": [
            {**_plain_point(point), "interval": _plain(interval) if point.resolvable else None}
            for point, interval in zip(report.points, intervals.tar, strict=True)
        ],
        "intervals": {"level": 0.95, "unit": intervals.unit, "replicates": intervals.replicates},
        "d_prime": _finite(d_prime(result.scores, result.same)),
        "angular_fisher_score": None if report.fisher is None else _finite(report.fisher),
        "histogram": {"from": -1, "to": 1, "genuine": genuine.tolist(), "impostor": impostor.tolist()},
        "other_rules": [asdict(variant) for variant in report.variants],
        "identification": _plain_identification(report.identification),
        "all_pairs": _plain_all_pairs(report.all_pairs),
    }


def _plain(interval: Interval) -> list[float | None]:
    return [_finite(interval.low), _finite(interval.high)]


def _plain_point(point: OperatingPoint) -> dict[str, Any]:
    plain = {**asdict(point), "threshold": _finite(point.threshold), "rests_on": point.rests_on}
    return plain if point.resolvable else {**plain, "tar": None, "threshold": None, "false_accepts": None}


def _plain_identification(result: Identification | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return {**asdict(result), "open_set": [_plain_point(point) for point in result.open_set]}


def _plain_all_pairs(result: AllPairs | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return {
        "num_images": result.num_images,
        "num_genuine": result.curve.num_genuine,
        "num_impostor": result.curve.num_impostor,
        "subtract_mean": result.subtract_mean,
        "auc": result.auc,
        "eer": result.eer,
        "tar_at_far": [_plain_point(point) for point in result.points],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
