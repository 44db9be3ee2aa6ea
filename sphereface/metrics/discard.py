"""Evaluate a measure of image quality: the errors that remain without the worst images."""

from __future__ import annotations

import numpy as np

from .verification import BoolArray, FloatArray


def error_versus_discard(errors: BoolArray, quality: FloatArray, fractions: FloatArray) -> FloatArray:
    """Return the error rate of the comparisons without those of the lowest quality.

    This is the error-versus-discard characteristic (Grother and Tabassi, "Performance of biometric
    quality measures", 2007). Of comparisons with equal quality, a random part would be discarded;
    the function returns the expected value.

    Args:
        errors: (P,) bool, whether each comparison is wrong, at one threshold for all.
        quality: (P,) float, higher is better; for a pair, the lower quality of its two images. NaN
            ranks lowest.
        fractions: (K,) fractions of the comparisons to discard, each in [0, 1). ⌊fraction · P⌋
            comparisons are discarded.

    Returns:
        (K,) error rates in [0, 1].

    Raises:
        ValueError: there are no comparisons, or a fraction discards all.
    """
    num = len(errors)
    discarded = np.floor(fractions * num + 1e-9).astype(np.int64)  # 0.29 × 100 is 28.999999999999996
    if not num or (discarded >= num).any() or (discarded < 0).any():
        raise ValueError(f"fractions: got {fractions} of {num} comparisons · allowed: 0 to less than 1, of one or more")
    ranked = np.where(np.isnan(quality), -np.inf, quality)
    _, group, size = np.unique(ranked, return_inverse=True, return_counts=True)
    share = np.bincount(group, weights=errors) / size  # mean error of each group of equal quality, lowest first
    lost = np.append(0.0, np.cumsum(np.repeat(share, size)))  # errors among the n lowest, for n = 0 … P
    return np.asarray((lost[-1] - lost[discarded]) / (num - discarded))


def partial_area(fractions: FloatArray, errors: FloatArray) -> float:
    """Return the area under a curve divided by its width: the mean error rate over the fractions.

    Args:
        fractions: (K,) ascending, two or more.
        errors: (K,) error rates, joined by straight lines.
    """
    area = np.sum(np.diff(fractions) * (errors[1:] + errors[:-1]) / 2)
    return float(area / (fractions[-1] - fractions[0]))
