"""The result of IJB-B or IJB-C: this package's figures, then those of InsightFace's scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...errors import count_of
from ...metrics import Interval, OperatingPoint, Roc
from ...metrics.identification import FPIRS, RANKS, FieldPoint, OpenSetPoint, SearchIntervals
from ...metrics.ijb import IJB_FARS, SortedScores
from ...metrics.subjects import REPLICATES
from ..charts import draw_roc
from ..result import Chart, Result, Rows
from ..words import figure, finite, layman_rates, percent, plain_interval, plain_points, scientific, span, tar_rows

_POINTS = 2000


@dataclass(frozen=True)
class GalleryFigures:
    """Identification in one gallery.

    Attributes:
        name: G1, G2, S1 or S2.
        num_enrolled: number of templates in the gallery.
        num_mated, num_nonmated: numbers of probes whose subject is in the gallery, and of others.
        ranks: rates at rank 1, 5 and 10.
        points: FNIR at FPIR 0.01 and 0.1.
        intervals: intervals of ``ranks`` and ``points``.
    """

    name: str
    num_enrolled: int
    num_mated: int
    num_nonmated: int
    ranks: tuple[float, ...]
    points: tuple[OpenSetPoint, ...]
    intervals: SearchIntervals


@dataclass(frozen=True)
class SearchFigures:
    """Identification in each gallery, and the intervals of the mean over galleries."""

    galleries: tuple[GalleryFigures, ...]
    intervals_of_mean: SearchIntervals

    @property
    def mean_ranks(self) -> tuple[float, ...]:
        """Mean over galleries of the rates at rank 1, 5 and 10."""
        return tuple(np.mean([gallery.ranks for gallery in self.galleries], axis=0).tolist())

    @property
    def mean_fnir(self) -> tuple[float, ...]:
        """Mean over galleries of FNIR at FPIR 0.01 and 0.1; NaN if a gallery cannot resolve it."""
        rates = [[p.fnir if p.resolvable else math.nan for p in gallery.points] for gallery in self.galleries]
        return tuple(np.mean(rates, axis=0).tolist())


@dataclass(frozen=True)
class FieldFigures:
    """The figures of InsightFace's scripts for one test mode.

    Attributes:
        mode: the test mode, such as N1D1F2.
        tpr: TPR at the point of the ROC curve whose FPR is nearest to 1e-6 … 1e-1, above or below.
        top: top 1, 5 and 10 of all probes in both galleries together; None without the lists of 1:N
            search.
        recall: recall at InsightFace's "far" 0.01 and 0.1, which is not an FPIR.
    """

    mode: str
    tpr: tuple[float, ...]
    top: tuple[float, ...] | None
    recall: tuple[FieldPoint, ...] | None


@dataclass(frozen=True)
class Ijb(Result):
    """The outcome of IJB-B or IJB-C.

    All figures except ``field`` are of the test mode ``mode``. ``curve`` has as many points of the
    ROC curve as a chart can show. ``left_out`` has a line for each figure that was not computed.
    """

    key: ClassVar[str] = "ijb"

    benchmark: str
    pairs: Path
    num_images: int
    num_templates: int
    num_subjects: int
    num_genuine: int
    num_impostor: int
    num_undefined_templates: int
    mode: str
    points: tuple[OperatingPoint, ...]
    intervals: tuple[Interval, ...]
    auc: float
    eer: float
    search: SearchFigures | None
    field: tuple[FieldFigures, ...]
    curve: Roc
    left_out: tuple[str, ...] = ()

    def headline(self) -> tuple[str, float]:
        """Return TAR at FAR 1e-4, as papers do, or at the next higher resolvable FAR."""
        usable = [point for point in self.points if point.resolvable and point.far >= 1e-4 * (1 - 1e-9)]
        if not usable:
            return "AUC", self.auc
        return f"TAR at FAR {scientific(usable[0].far)}", usable[0].tar

    def heading(self) -> list[str]:
        """Return what was compared, and how the templates were made."""
        lines = [
            f"{self.benchmark}, {self.num_genuine + self.num_impostor:,} pairs of {self.num_templates:,} templates "
            f"({self.num_genuine:,} genuine), {self.num_images:,} images of {self.num_subjects:,} subjects",
            f"templates by test mode {self.mode} of InsightFace, cosines of embeddings that are not centred",
        ]
        if self.num_undefined_templates:
            number = count_of(self.num_undefined_templates, "template has", "templates have")
            lines.append(f"{number} no direction; no pair of them is accepted")
        return [*lines, *self.left_out]

    def summary(self) -> list[str]:
        """Return the rates in numbers of pairs and of searches."""
        lines = layman_rates([point for point in self.points if point.far >= 1e-4 * (1 - 1e-9)][::-1])
        if self.search is not None and not math.isnan(self.search.mean_ranks[0]):
            lines.append(
                f"Of 100 searches for a person in the gallery, {100 * self.search.mean_ranks[0]:.0f} find that person "
                "first."
            )
        return lines

    def rows(self) -> Sequence[Rows]:
        """Return the tables of 1:1, of 1:N, and of InsightFace's figures."""
        key = [("AUC", figure(self.auc, ".6f"), ""), ("EER", percent(self.eer), "")]
        if self.search is not None:
            rank = span(self.search.intervals_of_mean.rank[0], ".2%")
            key.insert(0, ("rank 1", percent(self.search.mean_ranks[0]), f"mean of the galleries, {rank}".rstrip(", ")))
        name, value = self.headline()
        if name != "AUC":
            point = next(row for row, p in enumerate(self.points) if p.tar == value and p.resolvable)
            key.insert(0, (name, percent(value), span(self.intervals[point], ".2%")))
        note = f"[ ]: 95 % intervals, {REPLICATES} bootstrap draws of subjects."
        tables = [
            Rows((), tuple(key), self.benchmark, note, key=True),
            replace(tar_rows(self.points[::-1], self.intervals[::-1]), title="1:1 verification, TAR at FAR"),
        ]
        if self.search is not None:
            tables += _search_rows(self.search)
        return [*tables, *self._field_rows()]

    def figures(self) -> Sequence[Chart]:
        """Return the ROC curve."""
        return (Chart("roc", "ROC", lambda axes: draw_roc(axes, self.curve, area=self.auc, eer=self.eer)),)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures; what the pairs cannot resolve is None."""
        return {
            "benchmark": self.benchmark,
            "pairs": str(self.pairs),
            "mode": self.mode,
            "num_images": self.num_images,
            "num_templates": self.num_templates,
            "num_subjects": self.num_subjects,
            "num_genuine": self.num_genuine,
            "num_impostor": self.num_impostor,
            "num_undefined_templates": self.num_undefined_templates,
            "left_out": list(self.left_out),
            "auc": finite(self.auc),
            "eer": finite(self.eer),
            "tar_at_far": plain_points(self.points, self.intervals),
            "identification": None if self.search is None else _plain_search(self.search),
            "insightface": [_plain_field(each) for each in self.field],
        }

    def _field_rows(self) -> list[Rows]:
        header = ("mode", *(f"{scientific(far)}" for far in IJB_FARS))
        cells = tuple((each.mode, *(percent(tpr) for tpr in each.tpr)) for each in self.field)
        note = "TPR at the ROC point whose FPR is nearest to the target. The FPR of that point may be higher."
        tables = [Rows(header, cells, "As InsightFace computes it: TPR at the nearest FPR", note)]
        found = [(each, each.top, each.recall) for each in self.field if each.top and each.recall]
        if found:
            header = ("mode", *(f"top {k}" for k in RANKS), *(f"recall at its far {far:g}" for far in FPIRS))
            cells = tuple(
                (each.mode, *map(percent, top), *(percent(point.recall) for point in recall))
                for each, top, recall in found
            )
            note = (
                "Both galleries together hold the subject of every probe. Its far counts impostor scores, not "
                "searches, so it is not an FPIR."
            )
            tables.append(Rows(header, cells, "As InsightFace computes it: 1:N", note))
        return tables


def thinned_curve(scores: SortedScores) -> Roc:
    """Return as many points of the ROC curve as a chart can show; all 15 million take seconds."""
    number = len(scores.impostor)
    counts = np.unique(np.append(np.geomspace(1, number, _POINTS).astype(np.int64), np.arange(min(number, 100)) + 1))
    threshold = np.append(scores.impostor[number - counts], -np.inf)  # all above it are at most counts − 1
    above = [len(kind) - np.searchsorted(kind, threshold, side="right") for kind in (scores.impostor, scores.genuine)]
    above[0][-1], above[1][-1] = number, len(scores.genuine)
    return Roc(np.append(np.inf, threshold), np.append(0, above[0]), np.append(0, above[1]))


def _search_rows(search: SearchFigures) -> list[Rows]:
    ranks, errors = [], []
    for each in search.galleries:
        counts = (each.num_enrolled, each.num_mated, each.num_nonmated)
        ranks.append((each.name, *(f"{size:,}" for size in counts), *map(percent, each.ranks)))
        rates = [point.fnir if point.resolvable else math.nan for point in each.points]
        errors.append((each.name, *_with_intervals(rates, each.intervals.fnir)))
    intervals = search.intervals_of_mean
    ranks.append(("mean", "", "", "", *map(percent, search.mean_ranks)))
    ranks.append(("95 % interval", "", "", "", *(span(interval, ".1%") for interval in intervals.rank)))
    errors.append(("mean", *_with_intervals(search.mean_fnir, intervals.fnir)))
    note = (
        "FPIR: share of searches for people outside the gallery that return somebody. FNIR: share of searches for "
        "people in the gallery that do not return them first, at or above the threshold (NIST's definition)."
    )
    header = ("gallery", "templates", "mated probes", "others", *(f"rank {k}" for k in RANKS))
    return [
        Rows(header, tuple(ranks), "1:N identification, each gallery separately"),
        Rows(("gallery", *(f"FNIR at FPIR {fpir:g}" for fpir in FPIRS)), tuple(errors), "1:N, open set", note),
    ]


def _with_intervals(rates: Sequence[float], intervals: Sequence[Interval]) -> list[str]:
    """Return rates as text; NaN means that the searches cannot resolve the rate."""
    return [
        f"{percent(rate)} {'' if math.isnan(rate) else span(interval, '.1%')}".strip()
        for rate, interval in zip(rates, intervals, strict=True)
    ]


def _plain_search(search: SearchFigures) -> dict[str, Any]:
    return {
        "galleries": [
            {
                "name": gallery.name,
                "num_enrolled": gallery.num_enrolled,
                "num_mated": gallery.num_mated,
                "num_nonmated": gallery.num_nonmated,
                "rank": {str(k): finite(rate) for k, rate in zip(RANKS, gallery.ranks, strict=True)},
                "fnir_at_fpir": [
                    {
                        "fpir": point.fpir,
                        "fnir": finite(point.fnir) if point.resolvable else None,
                        "threshold": finite(point.threshold) if point.resolvable else None,
                        "interval": plain_interval(interval) if point.resolvable else None,
                    }
                    for point, interval in zip(gallery.points, gallery.intervals.fnir, strict=True)
                ],
                "rank_intervals": [plain_interval(interval) for interval in gallery.intervals.rank],
            }
            for gallery in search.galleries
        ],
        "mean_rank": {str(k): finite(rate) for k, rate in zip(RANKS, search.mean_ranks, strict=True)},
        "mean_fnir": {f"{fpir:g}": finite(rate) for fpir, rate in zip(FPIRS, search.mean_fnir, strict=True)},
    }


def _plain_field(each: FieldFigures) -> dict[str, Any]:
    return {
        "mode": each.mode,
        "tpr_at_nearest_fpr": {scientific(far): tpr for far, tpr in zip(IJB_FARS, each.tpr, strict=True)},
        "top": None if each.top is None else {str(k): rate for k, rate in zip(RANKS, each.top, strict=True)},
        "recall_at_its_far": None
        if each.recall is None
        else [{key: finite(value) for key, value in asdict(point).items()} for point in each.recall],
    }
