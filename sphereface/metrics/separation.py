"""Measure how well two kinds of scores, or the features of people, are separated."""

from __future__ import annotations

import numpy as np

from .verification import BoolArray, FloatArray, IntArray, Vectors


def d_prime(scores: FloatArray, same: BoolArray) -> float:
    """Return d′, the distance of the two means: |μ_g − μ_i| / √((σ_g² + σ_i²) / 2).

    Args:
        scores: (P,) float; NaN is ignored.
        same: (P,) bool.

    Returns:
        0 or more; infinite if neither kind varies, NaN if a kind is missing.
    """
    valid = ~np.isnan(scores)
    genuine, impostor = scores[valid & same], scores[valid & ~same]
    if not len(genuine) or not len(impostor):
        return float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(abs(genuine.mean() - impostor.mean()) / np.sqrt((genuine.var() + impostor.var()) / 2))


def score_histogram(scores: FloatArray, same: BoolArray, *, bins: int = 100) -> tuple[IntArray, IntArray]:
    """Count genuine and impostor scores in equal bins over [−1, 1]; the last bin includes 1.

    Args:
        scores: (P,) cosines; NaN is ignored. A cosine beyond ±1, by rounding, counts in the outer
            bin.
        same: (P,) bool.
        bins: number of bins.

    Returns:
        Two arrays (bins,) int64.
    """
    valid = ~np.isnan(scores)
    clipped = np.clip(scores, -1, 1)
    genuine, impostor = (
        np.histogram(clipped[valid & kind], bins=bins, range=(-1, 1))[0].astype(np.int64) for kind in (same, ~same)
    )
    return genuine, impostor


def angular_fisher_score(features: Vectors, people: IntArray) -> float:
    """Return the angular Fisher score of the paper's appendix E: lower is better.

    AFS = S_w / S_b with S_w = Σ_i Σ_{x in X_i} (1 − cos⟨x, m_i⟩) and S_b = Σ_i n_i (1 − cos⟨m_i,
    m⟩), where X_i are the n_i features of person i, m_i is their mean and m the mean of all
    features.

    Args:
        features: (N, F) float, not centred: the mean m of centred features has no direction.
        people: (N,) int, the person on each image, from 0.

    Returns:
        0 or more; NaN if S_b is 0 (a single person) or a feature has no direction.
    """
    x = np.asarray(features, dtype=np.float64)
    counts = np.bincount(people)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, people, x)
    present = counts > 0
    people, counts = (np.cumsum(present) - 1)[people], counts[present]
    means = sums[present] / counts[:, None]
    within = np.sum(1 - _cosines(x, means[people]))
    between = np.sum(counts * (1 - _cosines(means, x.mean(axis=0))))
    return float(within / between) if between else float("nan")


def _cosines(x: FloatArray, y: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: FloatArray = (x * y).sum(-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))
    return cosines
