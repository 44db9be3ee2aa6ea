"""Platt scaling (1999): a logistic regression that turns scores of pairs into probabilities."""

from __future__ import annotations

import math

import numpy as np

from ..metrics import BoolArray, FloatArray

_STEPS = 100


def platt(scores: FloatArray, same: BoolArray) -> tuple[float, float]:
    """Return slope and offset of the logistic regression with Platt's targets t.

    It minimises −Σ t log p + (1 − t) log(1 − p), p = 1 / (1 + exp(−(slope × score + offset))), by
    Newton's method.

    Args:
        scores: (P,) float.
        same: (P,) bool.
    """
    genuine = int(same.sum())
    target = np.where(same, (genuine + 1) / (genuine + 2), 1 / (len(same) - genuine + 2))
    design = np.stack([scores, np.ones_like(scores)], axis=1)  # (P, 2)
    weights = np.array([0.0, logit(float(target.mean()))])
    loss = _cross_entropy(design @ weights, target)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-(design @ weights)))
        gradient = design.T @ (p - target)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while (new := _cross_entropy(design @ (weights - step), target)) > loss:  # the step is too long
            step /= 2
            if np.abs(step).max() < 1e-12:
                break
        weights, loss = weights - step, min(loss, new)
        if np.abs(step).max() < 1e-10:
            break
    return float(weights[0]), float(weights[1])


def logit(p: float) -> float:
    """Return log(p / (1 − p)), p between 0 and 1."""
    return math.log(p / (1 - p))


def _cross_entropy(logits: FloatArray, target: FloatArray) -> float:
    return float(np.sum(np.logaddexp(0, logits) - target * logits))
