"""Metrics of scores and features. They use only numpy and scipy: arrays in, numbers out."""

from .discard import error_versus_discard, partial_area
from .other_accuracies import FoldAccuracy, best_accuracy, kfold_distance_accuracy
from .paired import mcnemar, mean_difference
from .resampling import Interval, Intervals, bootstrap
from .separation import angular_fisher_score, d_prime, score_histogram
from .verification import (
    FAR_TARGETS,
    MIN_IMPOSTORS,
    THRESHOLD_GRID,
    BoolArray,
    FloatArray,
    IntArray,
    OperatingPoint,
    Roc,
    accuracy_at,
    auc,
    best_threshold,
    equal_error_rate,
    roc,
    tar_at_far,
)

__all__ = [
    "FAR_TARGETS",
    "MIN_IMPOSTORS",
    "THRESHOLD_GRID",
    "BoolArray",
    "FloatArray",
    "FoldAccuracy",
    "IntArray",
    "Interval",
    "Intervals",
    "OperatingPoint",
    "Roc",
    "accuracy_at",
    "angular_fisher_score",
    "auc",
    "best_accuracy",
    "best_threshold",
    "bootstrap",
    "d_prime",
    "equal_error_rate",
    "error_versus_discard",
    "kfold_distance_accuracy",
    "mcnemar",
    "mean_difference",
    "partial_area",
    "roc",
    "score_histogram",
    "tar_at_far",
]
