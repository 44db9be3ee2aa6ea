"""Compute accuracies by the rules of other code bases, for comparison with published results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.pairs import Pairs
from ..metrics import FloatArray, best_accuracy, kfold_distance_accuracy
from .embeddings import Embeddings, undefined_rows
from .lfw import pair_cosines, verify
from .people import unit_rows


@dataclass(frozen=True)
class Variant:
    """An accuracy by another rule.

    Attributes:
        name: short name, for JSON.
        rule: description of the rule.
        accuracy: in [0, 1].
        spread: the spread that the users of this rule report, in the same unit; None without one.
    """

    name: str
    rule: str
    accuracy: float
    spread: float | None


def plain_variants(embeddings: Embeddings, pairs: Pairs) -> tuple[Variant, ...]:
    """Return accuracies by other rules than SphereFace's protocol.

    Args:
        embeddings: M embeddings, one for each of ``pairs.names``.
        pairs: the pairs.
    """
    features = np.asarray(embeddings.features(), dtype=np.float64)
    optimistic = best_accuracy(pair_cosines(features, pairs), pairs.same)
    last = Variant("best-threshold", "the best threshold of the same pairs: optimistic", optimistic, None)
    if not pairs.num_folds:
        return (last,)
    distances = _squared_distances(embeddings, pairs)
    mean, deviation = kfold_distance_accuracy(distances, pairs.same, pairs.fold)
    uncentred = verify(features, pairs, subtract_mean=False)
    inside = {"add": "image + mirror image", "join": "image and mirror image joined"}.get(embeddings.inside, "image")
    added = "image + mirror image" if embeddings.flip else inside
    rule, error = "the protocol without centring; ± standard error", uncentred.standard_error
    return (
        Variant("insightface", f"InsightFace: {added}, threshold on the distance; ± deviation", mean, deviation),
        Variant("uncentred", rule, uncentred.mean, error),
        last,
    )


def _squared_distances(embeddings: Embeddings, pairs: Pairs) -> FloatArray:
    """Return (P,) squared distances of unit vectors; NaN if an embedding is undefined."""
    added = embeddings.features("add")
    units = unit_rows(added, None).astype(np.float64)
    units[undefined_rows(added)] = np.nan
    difference = units[pairs.left] - units[pairs.right]
    distances: FloatArray = np.einsum("ij,ij->i", difference, difference)
    return distances
