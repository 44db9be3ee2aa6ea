"""Compare two recognisers on the same pairs: test whether their difference is more than noise."""

from __future__ import annotations

import numpy as np

from .resampling import Interval, percentile_intervals
from .verification import BoolArray, FloatArray

_REPLICATES = 10_000


def mcnemar(a_right: BoolArray, b_right: BoolArray) -> tuple[int, int, float]:
    """Apply McNemar's exact test to the pairs that only one of two recognisers decides correctly.

    Args:
        a_right: (P,) bool, whether A decides each pair correctly.
        b_right: (P,) bool, the same for B.

    Returns:
        The number of pairs that only A decides correctly, the number that only B does, and the
        two-sided p-value: 2 P(X ≤ the smaller number), at most 1, where X ~ Binomial(their sum, ½).
    """
    from scipy.special import bdtr  # type: ignore[import-untyped]  # here: verify must not wait for scipy

    only_a, only_b = int(np.sum(a_right & ~b_right)), int(np.sum(b_right & ~a_right))
    total, smaller = only_a + only_b, min(only_a, only_b)
    return only_a, only_b, min(1.0, 2 * float(bdtr(smaller, total, 0.5)))


def mean_difference(differences: FloatArray) -> tuple[float, Interval]:
    """Return a mean with its 95 % bootstrap interval, from draws with replacement.

    Args:
        differences: (K,) float, B − A of each fold, or of each pair if there is only one fold.
    """
    rng = np.random.default_rng(0)
    means = np.array([np.mean(rng.choice(differences, len(differences))) for _ in range(_REPLICATES)])
    (interval,) = percentile_intervals(means[:, None])
    return float(np.mean(differences)), interval
