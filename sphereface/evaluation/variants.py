"""The same features by the rules of other code bases, to compare with figures published elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.pairs import Pairs
from ..metrics import best_accuracy, kfold_distance_accuracy
from .lfw import pair_cosines, verify
from .people import Features, unit_rows


@dataclass(frozen=True)
class Variant:
    """An accuracy by another rule.

    Attributes:
        name: short, for JSON.
        rule: what is done, for people.
        accuracy: in [0, 1].
        spread: as that rule's users report it, in the same unit; None where there is none.
    """

    name: str
    rule: str
    accuracy: float
    spread: float | None


def plain_variants(features: Features, pairs: Pairs, *, flip: bool) -> tuple[Variant, ...]:
    """Accuracies by other rules. None of them is SphereFace's protocol.

    Args:
        features: (M, F) float, a row for each of ``pairs.names``, of picture and mirror image if ``flip``.
        pairs: the pairs.
        flip: the two halves of a feature are of the picture and of its mirror image.
    """
    optimistic = best_accuracy(pair_cosines(np.asarray(features, dtype=np.float64), pairs), pairs.same)
    last = Variant("best-threshold", "one threshold, the best on these very pairs: optimistic", optimistic, None)
    if not pairs.num_folds:
        return (last,)
    folds = kfold_distance_accuracy(_squared_distances(features, pairs, flip), pairs.same, num_folds=pairs.num_folds)
    uncentred = verify(features, pairs, subtract_mean=False)
    added = "picture + mirror image" if flip else "picture"
    return (
        Variant(
            "insightface",
            f"InsightFace: {added}, threshold on the distance; ± deviation",
            folds.mean,
            folds.deviation,
        ),
        Variant(
            "uncentred",
            "the protocol without subtracting a mean; ± standard error",
            uncentred.mean,
            uncentred.standard_error,
        ),
        last,
    )


def _squared_distances(features: Features, pairs: Pairs, flip: bool) -> npt.NDArray[np.float64]:
    half = features.shape[1] // 2
    units = unit_rows(features[:, :half] + features[:, half:] if flip else features, None).astype(np.float64)
    difference = units[pairs.left] - units[pairs.right]
    distances: npt.NDArray[np.float64] = np.einsum("ij,ij->i", difference, difference)
    return distances
