"""The result of TinyFace: ranks and mAP, by this package's rule and by that of published code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ...errors import count_of
from ...metrics import FloatArray, IntArray, Interval
from ...metrics.resampling import LEVEL, REPLICATES, bootstrap_means
from ..embeddings import Embeddings
from ..result import Result, Rows
from ..words import percent, plain_interval, span
from .pairs_result import mirror_line
from .tinyface_search import Roles, Searches

RANKS = (1, 5, 20)
OFFICIAL = (3_728, 4_443, 153_428)
"""Numbers of images in Probe, Gallery_Match and Gallery_Distractor of the published TinyFace."""


@dataclass(frozen=True)
class Rates:
    """The rates of all searches with their 95 % intervals.

    Attributes:
        found: number of probes with the right person among the first k, for each of :data:`RANKS`.
        ranks: the same as shares of the probes.
        mean_precision: mAP.
        rank_intervals, mean_precision_interval: intervals over subjects.
    """

    found: tuple[int, ...]
    ranks: tuple[float, ...]
    mean_precision: float
    rank_intervals: tuple[Interval, ...]
    mean_precision_interval: Interval

    @classmethod
    def of(cls, rank: IntArray, precision: FloatArray, subject: IntArray) -> Rates:
        """Count the searches.

        Args:
            rank, precision: (Q,) as in :class:`Searches`.
            subject: (Q,) integers, the subjects that the bootstrap draws.
        """
        hits = (rank[:, None] <= np.array(RANKS)) & (precision > 0)[:, None]  # precision 0 means not found
        *intervals, last = bootstrap_means(np.column_stack([hits, precision]), subject)
        shares = tuple(hits.mean(axis=0).tolist())
        return cls(tuple(hits.sum(axis=0).tolist()), shares, float(precision.mean()), tuple(intervals), last)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures for JSON."""
        columns = zip(RANKS, self.found, self.ranks, self.rank_intervals, strict=True)
        ranks = [{"rank": k, "found": n, "rate": rate, "interval": plain_interval(i)} for k, n, rate, i in columns]
        interval = plain_interval(self.mean_precision_interval)
        return {"ranks": ranks, "map": self.mean_precision, "map_interval": interval}


@dataclass(frozen=True)
class TinyFace(Result):
    """The outcome of searching all probes.

    Attributes:
        roles: the subjects of the probes and of the gallery.
        embeddings: embeddings of all images.
        subtract_mean: ``searches`` use embeddings that are centred with the gallery's mean.
        searches: searches by this package's rule.
        field_searches: searches without centring, as in published code.
    """

    file_name: ClassVar[str] = "tinyface.json"
    key: ClassVar[str] = "tinyface"

    roles: Roles
    embeddings: Embeddings
    subtract_mean: bool
    searches: Searches
    field_searches: Searches

    @cached_property
    def rates(self) -> Rates:
        """Rates by this package's rule."""
        return Rates.of(self.searches.rank, self.searches.precision, self.roles.searched)

    @cached_property
    def field_rates(self) -> Rates:
        """Rates by the rule of published code: no centring, mAP by TinyFace's script."""
        return Rates.of(self.field_searches.rank, self.field_searches.script_precision, self.roles.searched)

    def headline(self) -> tuple[str, float]:
        """Return the rate at rank 1."""
        return "rank 1", self.rates.ranks[0]

    def scalars(self) -> dict[str, float]:
        """Return the rates at all ranks and mAP."""
        ranks = {f"rank_{k}": rate for k, rate in zip(RANKS, self.rates.ranks, strict=True)}
        return {**ranks, "map": self.rates.mean_precision}

    def heading(self) -> list[str]:
        """Return the sizes of the gallery and of the probes."""
        roles = self.roles
        mean = "cosines centred with the gallery's mean" if self.subtract_mean else "cosines; NO mean subtracted"
        return [
            f"TinyFace: {roles.num_probes:,} probes of {len(np.unique(roles.probe_subject)):,} people, gallery of "
            f"{len(roles.match_subject):,} images of them and {roles.num_distractors:,} of others",
            mirror_line(self.embeddings.mirrored, self.embeddings.inside),
            mean,
        ]

    def summary(self) -> list[str]:
        """Return the ranks, in numbers of probes."""
        first, *_, last = self.rates.found
        low, high = self.rates.rank_intervals[0].low, self.rates.rank_intervals[0].high
        return [
            f"For {first:,} of {len(self.searches.rank):,} probes the right person is first, and for {last:,} among "
            f"the first {RANKS[-1]} images.",
            f"With other people, the share found first would probably be between {low:.1%} and {high:.1%}.",
        ]

    def rows(self) -> Sequence[Rows]:
        """Return ranks and mAP by this package's rule, then by the rule of published code."""
        note = (
            f"[ ]: 95 % intervals, {REPLICATES:,} bootstrap draws of the probes' people. Rank k counts images of the "
            "gallery: the best image of the right person is among the first k. Ties count against the right person."
        )
        field = (
            "The embeddings are not centred. mAP is computed as in TinyFace's script, which averages the precision at"
            " an image's rank and at the rank before it. Compare these with published figures."
        )
        header = ("figure", "value", "95 % interval, and how many")
        return (
            Rows((), self._cells(self.rates), "TinyFace", " ".join([note, *self._notes()]), key=True),
            Rows(header, self._cells(self.field_rates), "As published code computes it", field),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all figures; rates are fractions."""
        roles = self.roles
        return {
            "num_probes": roles.num_probes,
            "num_subjects": len(np.unique(roles.probe_subject)),
            "num_without_mate": roles.num_probes - len(roles.searched),
            "num_gallery_match": len(roles.match_subject),
            "num_gallery_distractor": roles.num_distractors,
            "num_undefined": int(self.embeddings.undefined().sum()),
            "flip": self.embeddings.flip,
            "mirror": self.embeddings.fusion if self.embeddings.flip else "none",
            "subtract_mean": self.subtract_mean,
            **self.rates.to_dict(),
            "as_the_field": self.field_rates.to_dict(),
            "intervals": {"level": LEVEL, "unit": "people", "replicates": REPLICATES},
        }

    def _cells(self, rates: Rates) -> tuple[tuple[str, ...], ...]:
        ranks = zip(RANKS, rates.ranks, rates.rank_intervals, rates.found, strict=True)
        total = len(self.searches.rank)
        rows = [(f"rank {k}", percent(rate), f"{span(i, '.2%')}, {n:,} of {total:,} probes") for k, rate, i, n in ranks]
        return *rows, ("mAP", percent(rates.mean_precision), span(rates.mean_precision_interval, ".2%"))

    def _notes(self) -> Iterator[str]:
        without = self.roles.num_probes - len(self.searches.rank)
        if without:
            number = count_of(without, "probe has", "probes have")
            yield f"{number} no image in Gallery_Match; as in published code, no figure counts them."
        undefined = int(self.embeddings.undefined().sum())
        if undefined:
            number = count_of(undefined, "image has", "images have")
            them = "it" if undefined == 1 else "them"
            yield f"{number} no embedding: such a probe finds no image, and no probe finds {them}."
        if self.roles.counts != OFFICIAL:
            probes, match, distractors = OFFICIAL
            yield (
                f"The published TinyFace has {probes:,} probes, {match:,} gallery images of their people and "
                f"{distractors:,} others, so these figures are not comparable with published ones."
            )
