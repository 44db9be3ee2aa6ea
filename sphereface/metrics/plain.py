"""Accuracies that other code bases report as "LFW accuracy", which are not the one of SphereFace's protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .verification import BoolArray, FloatArray, roc

DISTANCE_GRID: FloatArray = np.arange(0, 4, 0.01)
"""Thresholds on squared distances of unit vectors, which lie in [0, 4]."""


@dataclass(frozen=True)
class FoldAccuracy:
    """Mean and plain standard deviation (ddof = 0) of the folds' accuracies, in [0, 1]."""

    mean: float
    deviation: float


def kfold_distance_accuracy(distances: FloatArray, same: BoolArray, *, num_folds: int = 10) -> FoldAccuracy:
    """Accuracy as InsightFace, FaceNet and their descendants compute it.

    The list is cut into consecutive folds; each is decided with the first threshold of :data:`DISTANCE_GRID` that is
    best on the others: one person where distance < threshold.

    Args:
        distances: (P,) squared Euclidean distances of unit vectors. NaN is wrong.
        same: (P,) bool.
        num_folds: 2 to P.
    """
    right = np.where(same, distances < DISTANCE_GRID[:, None], distances >= DISTANCE_GRID[:, None])  # (T, P)
    sizes = np.array([len(part) for part in np.array_split(same, num_folds)])
    starts = np.cumsum(sizes) - sizes
    per_fold = np.add.reduceat(right.astype(np.int64), starts, axis=1)  # (T, K)
    best = np.argmax(per_fold.sum(axis=1, keepdims=True) - per_fold, axis=0)  # (K,) on the other folds
    accuracies = per_fold[best, np.arange(num_folds)] / sizes
    return FoldAccuracy(float(accuracies.mean()), float(accuracies.std()))


def best_accuracy(scores: FloatArray, same: BoolArray) -> float:
    """The highest accuracy of a single threshold chosen on these very pairs: an optimistic figure.

    Args:
        scores: (P,) float. NaN is wrong.
        same: (P,) bool, with pairs of both kinds.
    """
    curve = roc(scores, same)
    finite = curve.threshold < np.inf  # at +inf, NaN impostors would count as rejected
    correct = curve.true_accepts + (curve.num_impostor - curve.false_accepts)
    return float(correct[finite].max() / len(same))
