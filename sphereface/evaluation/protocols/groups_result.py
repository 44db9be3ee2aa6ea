"""The result of pairs in groups: tables, charts, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...metrics import FloatArray, IntArray, Interval, OperatingPoint, Roc, roc
from ...metrics.resampling import LEVEL, num_replicates, percentile_intervals, resample
from ..embeddings import Embeddings
from ..result import Chart, Result, Rows
from ..words import count, figure, finite, percent, plain_interval, plain_point, scientific, span
from .groups_charts import draw_accuracies, far_drawer
from .groups_scores import (
    ACCURACY,
    COMMON_FAR,
    COMMON_TAR,
    EER,
    FARS,
    OWN,
    GroupScores,
    Spread,
    points_of,
    span_in_points,
)
from .pairs_result import mirror_line

_UNRESOLVABLE = "not resolvable"


@dataclass(frozen=True)
class Groups(Result):
    """The outcome of pairs in two groups or more.

    Attributes:
        source: the list, or the folder of lists.
        groups: the groups, by name.
        embeddings: of all images.
        subtract_mean: accuracies are those of the LFW protocol with means subtracted.
    """

    file_name: ClassVar[str] = "groups.json"
    key: ClassVar[str] = "groups"

    source: Path
    groups: tuple[GroupScores, ...]
    embeddings: Embeddings
    subtract_mean: bool = True

    @cached_property
    def common(self) -> tuple[OperatingPoint, ...]:
        """TAR at each of :data:`FARS` over all pairs of all groups: the common thresholds."""
        scores = np.concatenate([group.scores for group in self.groups])
        same = np.concatenate([group.same for group in self.groups])
        return points_of(roc(scores, same), scores, same, sum(group.num_repeated for group in self.groups))

    @cached_property
    def figures_of_groups(self) -> FloatArray:
        """(G, K) figures of each group, in the order of :meth:`GroupScores.figures`."""
        thresholds = [point.threshold for point in self.common]
        ones = (np.ones(len(group.same), dtype=np.int64) for group in self.groups)
        return np.array([g.figures(g.curve, weights, thresholds) for g, weights in zip(self.groups, ones, strict=True)])

    @property
    def unit(self) -> str:
        """What the bootstrap draws: people where the names of all images say who is on them, else
        pairs.
        """
        return "people" if all(group.people is not None for group in self.groups) else "pairs"

    @cached_property
    def replicates(self) -> FloatArray:
        """(R, G, K) figures of the bootstrap draws, each group drawn on its own; common thresholds
        stay as they are.
        """
        thresholds = [point.threshold for point in self.common]
        drawn = []
        for number, group in enumerate(self.groups):
            people = group.people if self.unit == "people" else None

            def figures(curve: Roc, weights: IntArray, group: GroupScores = group) -> FloatArray:
                return group.figures(curve, weights, thresholds)

            times = num_replicates(sum(len(each.same) for each in self.groups))
            drawn.append(resample(group.scores, group.same, people, figures, replicates=times, seed=number))
        return np.stack(drawn, axis=1)

    @cached_property
    def intervals(self) -> tuple[tuple[Interval, ...], ...]:
        """95 % intervals of :attr:`figures_of_groups`."""
        return tuple(percentile_intervals(self.replicates[:, number]) for number in range(len(self.groups)))

    @cached_property
    def spreads(self) -> tuple[Spread, ...]:
        """Spread of each figure that the pairs can resolve in every group."""
        return tuple(
            Spread.of(name, self.figures_of_groups[:, column], self.replicates[:, :, column])
            for column, name in self._names()
        )

    def headline(self) -> tuple[str, float]:
        """Mean of the groups' accuracies."""
        return "mean accuracy of groups", float(self.figures_of_groups[:, ACCURACY].mean())

    def scalars(self) -> dict[str, float]:
        """The headline, the lowest accuracy, and that of each group."""
        accuracies = self.figures_of_groups[:, ACCURACY].tolist()
        each = {f"accuracy_{group.name}": value for group, value in zip(self.groups, accuracies, strict=True)}
        return {**super().scalars(), "lowest_accuracy": min(accuracies), **each}

    def heading(self) -> list[str]:
        """What was compared, and by which rule."""
        num_pairs = sum(len(group.same) for group in self.groups)
        mean = "threshold and mean" if self.subtract_mean else "NO mean subtracted; threshold"
        return [
            f"{self.source.name}, {len(self.groups)} groups, {num_pairs:,} pairs, {len(self.embeddings):,} images",
            mirror_line(self.embeddings.mirrored),
            f"accuracy: {mean} of each fold from the group's other folds; "
            "all other figures: cosines without a mean subtracted, so that the groups share one scale",
        ]

    def summary(self) -> list[str]:
        """Which group the recogniser knows worst, and at a common threshold confuses most."""
        accuracies = self.figures_of_groups[:, ACCURACY]
        low, high = int(accuracies.argmin()), int(accuracies.argmax())
        return [
            f"The recogniser decides {accuracies[low]:.1%} of the pairs of group {self.groups[low].name} correctly, "
            f"and {accuracies[high]:.1%} of those of group {self.groups[high].name}. {self.spreads[0].sentence}",
            *self._confusions(),
        ]

    def rows(self) -> Sequence[Rows]:
        """Key figures, each group on its own, common thresholds, and the spread."""
        common = [self._common_rows(number) for number in range(len(FARS))]
        return self._key_rows(), self._group_rows(), self._own_rows(), *common, self._spread_rows()

    def figures(self) -> Sequence[Chart]:
        """Accuracies, and false accept rates at a common threshold."""
        names = [group.name for group in self.groups]
        accuracy, note = self._column(ACCURACY), "Lines are 95 % intervals."
        charts = [
            Chart(
                "accuracies", "Accuracy of each group", lambda axes: draw_accuracies(axes, names, *accuracy), note=note
            )
        ]
        for number, point in enumerate(self.common):
            if point.resolvable:
                rates = self._column(COMMON_FAR + number)
                title = f"False accept rate of each group at the threshold {point.threshold:.4f}"
                more = f"{note} The dashed line is the rate over all groups."
                draw = far_drawer(names, *rates, point.far)
                charts.append(Chart(f"far-{scientific(point.far)}", title, draw, note=more))
        return charts

    def to_dict(self) -> dict[str, Any]:
        """All figures; rates are fractions, and what the pairs cannot resolve is None."""
        return {
            "pairs": str(self.source),
            "flip": self.embeddings.flip,
            "mirror": self.embeddings.fusion if self.embeddings.flip else "none",
            "subtract_mean": self.subtract_mean,
            "num_images": len(self.embeddings),
            "mean_accuracy": self.headline()[1],
            "common_thresholds": [plain_point(point) for point in self.common],
            "groups": [self._group_dict(number) for number in range(len(self.groups))],
            "spread": [spread.to_dict() for spread in self.spreads],
            "intervals": {"level": LEVEL, "unit": self.unit, "replicates": len(self.replicates)},
        }

    def _names(self) -> Iterator[tuple[int, str]]:
        """(column, name) of the figures that the pairs resolve in every group."""
        yield ACCURACY, "accuracy"
        if all(group.num_impostor for group in self.groups):
            yield EER, "EER"
        for number, far in enumerate(FARS):
            if all(group.points[number].resolvable for group in self.groups):
                yield OWN + number, f"TAR at FAR {scientific(far)}, own threshold"
        for number in self._compared():
            point = self.common[number]
            yield COMMON_TAR + number, f"TAR, common threshold for FAR {scientific(point.far)}"
            yield COMMON_FAR + number, f"FAR, common threshold for FAR {scientific(point.far)}"

    def _compared(self) -> list[int]:
        """Which of the common thresholds say something of every group."""
        if not all(group.num_impostor for group in self.groups):
            return []
        return [number for number, point in enumerate(self.common) if point.resolvable]

    def _confusions(self) -> Iterator[str]:
        resolvable = self._compared()
        without = [group.name for group in self.groups if not group.num_impostor]
        if without:
            yield (
                f"No pair of two people of group {', '.join(without)} has a score, so nothing says how often people "
                "are confused there."
            )
            return
        if not resolvable:
            yield "There are too few pairs of two people to say how often the recogniser confuses people of each group."
            return
        column = COMMON_FAR + resolvable[0]
        far = self.figures_of_groups[:, column]
        low, high = int(far.argmin()), int(far.argmax())
        worst, best = self.groups[high].name, self.groups[low].name
        spread = next(spread for number, spread in zip(self._columns(), self.spreads, strict=True) if number == column)
        if far[low] > 0:
            yield (
                f"The recogniser confuses two people of group {worst} {far[high] / far[low]:.1f} times as often as two "
                f"of group {best} at the same threshold. {spread.sentence}"
            )
        else:
            yield (
                f"At the same threshold, the recogniser confuses {far[high]:.2%} of the pairs of two people of group "
                f"{worst}, and none of group {best}. {spread.sentence}"
            )

    def _columns(self) -> list[int]:
        return [column for column, _ in self._names()]

    def _column(self, column: int) -> tuple[FloatArray, tuple[Interval, ...]]:
        return self.figures_of_groups[:, column], tuple(intervals[column] for intervals in self.intervals)

    def _cells(self, group: int, column: int, form: str = ".2%") -> tuple[str, str]:
        """A figure and its interval."""
        return figure(self.figures_of_groups[group, column], form), span(self.intervals[group][column], form)

    def _key_rows(self) -> Rows:
        accuracies = self.figures_of_groups[:, ACCURACY]
        lowest, spread = int(accuracies.argmin()), self.spreads[0]
        rows = (
            ("mean accuracy", percent(float(accuracies.mean())), "mean of the groups, each counts once"),
            ("lowest accuracy", percent(float(accuracies[lowest])), f"group {self.groups[lowest].name}"),
            ("spread", f"{100 * spread.difference:.2f} points", "highest − lowest accuracy"),
        )
        return Rows((), rows, "Groups", key=True)

    def _group_rows(self) -> Rows:
        rows = []
        for number, group in enumerate(self.groups):
            size = f"{group.curve.num_genuine:,} + {group.num_impostor:,}"
            rows.append((group.name, size, *self._cells(number, ACCURACY), *self._cells(number, EER)))
        note = (
            f"Pairs are genuine + impostor. 95 % intervals: {len(self.replicates):,} bootstrap draws of {self.unit} "
            "within each group; the thresholds of folds and the common thresholds stay as they are."
        )
        undefined = sum(group.verification.num_undefined for group in self.groups)
        if undefined:
            note += (
                f" {undefined:,} pairs have no score (NaN). They count as wrong in the accuracy; EER, TAR, FAR and the "
                "numbers of pairs leave out the impostor pairs among them."
            )
        header = ("group", "pairs", "accuracy", "95 % interval", "EER", "95 % interval")
        return Rows(header, tuple(rows), "Each group", note)

    def _own_rows(self) -> Rows:
        rows = []
        for far_number, far in enumerate(FARS):
            for number, group in enumerate(self.groups):
                point = group.points[far_number]
                cells = (*self._cells(number, OWN + far_number), f"{point.threshold:.5f}")
                cells = cells if point.resolvable else (_UNRESOLVABLE, "", "")
                rows.append((group.name, scientific(far), *cells, f"{count(point.rests_on)} of {point.num_impostor:,}"))
        header = ("group", "FAR", "TAR", "95 % interval", "threshold", "impostors used")
        return Rows(header, tuple(rows), "TAR at each group's own threshold")

    def _common_rows(self, number: int) -> Rows:
        point = self.common[number]
        used = f"{count(point.rests_on)} of {point.num_impostor:,}"
        title = f"At the common threshold for FAR {scientific(point.far)} over all groups"
        if not point.resolvable:
            return Rows(("group", "FAR", "impostors used"), (("all", _UNRESOLVABLE, used),), title)
        rows = []
        for row, group in enumerate(self.groups):
            far = self._cells(row, COMMON_FAR + number)
            tar = self._cells(row, COMMON_TAR + number)
            accepted = round(np.nan_to_num(self.figures_of_groups[row, COMMON_FAR + number]) * group.num_impostor)
            rows.append((group.name, *far, f"{accepted:,} of {group.num_impostor:,}", *tar))
        header = ("group", "FAR", "95 % interval", "impostor pairs accepted", "TAR", "95 % interval")
        note = f"Threshold {point.threshold:.5f}, where {used} impostor pairs of all groups may pass."
        if not self.figures_of_groups[:, COMMON_FAR + number].all():
            note += " Where no pair is accepted, the bootstrap gives an interval of 0, which is too narrow."
        return Rows(header, tuple(rows), title, note)

    def _spread_rows(self) -> Rows:
        rows = tuple(
            (
                spread.name,
                f"{100 * spread.difference:.2f}",
                span_in_points(spread.difference_interval),
                f"{100 * spread.deviation:.2f}",
                span_in_points(spread.deviation_interval),
            )
            for spread in self.spreads
        )
        note = (
            "In percentage points; standard deviation with ddof = 1. An interval that starts at 0 means that groups "
            "which do not differ could show this spread by chance."
        )
        header = ("figure", "highest − lowest", "95 % interval", "standard deviation", "95 % interval")
        return Rows(header, rows, "Spread over the groups", note)

    def _group_dict(self, number: int) -> dict[str, Any]:
        group, values, intervals = self.groups[number], self.figures_of_groups[number], self.intervals[number]
        own, common = [], []
        for at, point in enumerate(group.points):
            interval = plain_interval(intervals[OWN + at]) if point.resolvable else None
            own.append({**plain_point(point), "interval": interval})
        for at, point in enumerate(self.common):
            known = point.resolvable
            rates: dict[str, Any] = {}
            for name, column in (("tar", COMMON_TAR + at), ("far", COMMON_FAR + at)):
                rates[name] = finite(float(values[column])) if known else None
                rates[f"{name}_interval"] = plain_interval(intervals[column]) if known else None
            common.append({"far_over_all_groups": point.far, **rates})
        return {
            "name": group.name,
            "num_genuine": group.curve.num_genuine,
            "num_impostor": group.num_impostor,
            "num_undefined": group.verification.num_undefined,
            "accuracy": float(values[ACCURACY]),
            "accuracy_interval": plain_interval(intervals[ACCURACY]),
            "standard_error": finite(group.verification.standard_error),
            "eer": finite(float(values[EER])),
            "eer_interval": plain_interval(intervals[EER]),
            "tar_at_far": own,
            "at_common_threshold": common,
        }
