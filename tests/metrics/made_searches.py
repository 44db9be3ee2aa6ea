"""Random probes and galleries for the tests of searches and of identification."""

import numpy as np


def units(rng, count, dim=3, steps=None):
    """Unit vectors, or their nearest points on a grid with so many steps to 1: then products are exact, and tie."""
    x = rng.standard_normal((count, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x if steps is None else np.round(x * steps) / steps


def made(seed, steps=None, enrolled=12, probes=80, subjects=20):
    rng = np.random.default_rng(seed)
    gallery_subject = rng.permutation(subjects)[:enrolled] + 100
    probe_subject = rng.integers(0, subjects, probes) + 100
    return (
        units(rng, probes, steps=steps),
        units(rng, enrolled, steps=steps),
        probe_subject,
        gallery_subject,
    )
