"""A verification with what it was made from, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..metrics import FloatArray, Intervals, OperatingPoint, Roc, bootstrap, roc, tar_at_far
from .all_pairs import AllPairs
from .identification import Identification
from .lfw import PairSet, Verification
from .sets import people_of
from .variants import Variant


@dataclass(frozen=True)
class Report:
    """A verification with what it was made from.

    Attributes:
        pair_set: the pairs and pictures.
        verification: the outcome.
        flip: features are of picture and mirror image.
        subtract_mean: features were centred, as the protocol wants.
        about: where the features come from, in plain values for table and JSON: checkpoint, step, ….
        variants: accuracies by the rules of other code bases.
        fisher: angular Fisher score of the set's pictures; None where it is not known who is on them.
        cosines: (P,) of the pairs, without a mean subtracted: what a calibration is made from.
        identification, all_pairs: the outcomes of these protocols, if they were run.
    """

    pair_set: PairSet
    verification: Verification
    flip: bool = True
    subtract_mean: bool = True
    about: Mapping[str, Any] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    fisher: float | None = None
    cosines: FloatArray | None = None
    identification: Identification | None = None
    all_pairs: AllPairs | None = None

    @cached_property
    def curve(self) -> Roc:
        """ROC of all scores."""
        return roc(self.verification.scores, self.verification.same)

    @cached_property
    def points(self) -> tuple[OperatingPoint, ...]:
        """TAR at the usual false accept rates, those that are not resolvable too."""
        return tar_at_far(self.curve)

    @cached_property
    def intervals(self) -> Intervals:
        """How far the figures would move with other people (or pairs)."""
        return bootstrap(self.verification.scores, self.verification.same, people_of(self.pair_set.pairs))
