"""Compute what other code bases report as "LFW accuracy"; SphereFace's protocol differs."""

from __future__ import annotations

import numpy as np

from .verification import BoolArray, FloatArray, IntArray

DISTANCE_GRID: FloatArray = np.arange(0, 4, 0.01)
"""Thresholds on squared distances of unit vectors, which lie in [0, 4]."""


def kfold_distance_accuracy(distances: FloatArray, same: BoolArray, fold: IntArray) -> tuple[float, float]:
    """Return the accuracy of InsightFace, FaceNet and their descendants, on the folds of the list.

    A pair is accepted if distance < threshold. The threshold of a fold is the first value of
    :data:`DISTANCE_GRID` that is best on the other folds. Those code bases cut their lists into
    consecutive folds; this function uses the given folds.

    Args:
        distances: (P,) squared Euclidean distances of unit vectors. NaN counts as wrong.
        same: (P,) bool.
        fold: (P,) the number of each pair's fold, from 1 to K, with K ≥ 2.

    Returns:
        Mean and standard deviation (ddof = 0) of the folds' accuracies, in [0, 1].
    """
    right = np.where(same, distances < DISTANCE_GRID[:, None], distances >= DISTANCE_GRID[:, None])  # (T, P)
    numbers, sizes = np.unique(fold, return_counts=True)
    per_fold = np.stack([right[:, fold == number].sum(axis=1) for number in numbers], axis=1)  # (T, K)
    best = np.argmax(per_fold.sum(axis=1, keepdims=True) - per_fold, axis=0)  # (K,) on the other folds
    accuracies = per_fold[best, np.arange(len(numbers))] / sizes
    return float(accuracies.mean()), float(accuracies.std())


def best_accuracy(scores: FloatArray, same: BoolArray) -> float:
    """Return the highest accuracy of one threshold chosen on the same pairs: an optimistic value.

    Args:
        scores: (P,) float. NaN counts as wrong at every threshold.
        same: (P,) bool.
    """
    defined = ~np.isnan(scores)
    genuine, impostor = (np.sort(scores[defined & kind]) for kind in (same, ~same))
    thresholds = np.append(genuine, impostor)
    accepted = len(genuine) - np.searchsorted(genuine, thresholds, side="right")
    rejected = np.searchsorted(impostor, thresholds, side="right")
    correct = np.append(accepted + rejected, len(genuine))  # the last one is below all scores
    return float(correct.max() / len(same))
