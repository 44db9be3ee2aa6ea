"""Two recognisers on the same pairs: whether one is better, or it is noise."""

from __future__ import annotations

import numpy as np

from .resampling import LEVEL, Interval
from .verification import BoolArray, FloatArray


def mcnemar(a_right: BoolArray, b_right: BoolArray) -> tuple[int, int, float]:
    """McNemar's exact test on pairs that one recogniser decides rightly and the other wrongly.

    Args:
        a_right: (P,) bool, whether A decides each pair rightly.
        b_right: (P,) bool, of B.

    Returns:
        Pairs that only A decides rightly, pairs that only B does, and the two-sided probability of
        a split at least as uneven if each were as likely to fall to either: 2 P(X ≤ the smaller), X
        ~ Binomial(their sum, ½), at most 1.
    """
    only_a, only_b = int(np.sum(a_right & ~b_right)), int(np.sum(b_right & ~a_right))
    total, smaller = only_a + only_b, min(only_a, only_b)
    ks = np.arange(1, smaller + 1)
    log_choose = np.append(0, np.cumsum(np.log((total - ks + 1) / ks)))  # log C(total, k), k = 0 … smaller
    return only_a, only_b, min(1.0, 2 * float(np.exp(log_choose - total * np.log(2)).sum()))


def mean_difference(differences: FloatArray, *, replicates: int = 10_000, seed: int = 0) -> tuple[float, Interval]:
    """A mean with its 95 % bootstrap interval.

    Args:
        differences: (K,) float, B − A of each fold (or of each pair, where there is only one fold).
        replicates: how often K of them are drawn with replacement.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    means = [float(np.mean(rng.choice(differences, len(differences)))) for _ in range(replicates)]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(np.mean(differences)), Interval(float(low), float(high))
