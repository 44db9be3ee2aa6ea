"""The result of pairs in groups: metrics, charts, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...metrics import FloatArray, Interval, OperatingPoint, roc
from ...metrics.resampling import LEVEL, num_replicates, percentile_intervals, resample
from ..embeddings import Embeddings
from ..result import Chart, Result, Rows
from ..words import finite, plain_interval, plain_point, plain_points, scientific, unscored
from .groups_charts import draw_accuracies, draw_rates
from .groups_scores import ACCURACY, COMMON_FAR, COMMON_TAR, EER, FARS, OWN, GroupScores, Spread, points_of
from .groups_tables import common_rows, exchanged_note, group_rows, key_rows, own_rows, spread_rows
from .pairs_result import mirror_line


@dataclass(frozen=True)
class Groups(Result):
    """The outcome of pairs in two groups or more.

    Attributes:
        source: the list, or the folder of lists.
        groups: the groups, sorted by name.
        embeddings: embeddings of all images.
        subtract_mean: the accuracies are those of centred embeddings, as in the LFW protocol.
    """

    file_name: ClassVar[str] = "groups.json"
    key: ClassVar[str] = "groups"

    source: Path
    groups: tuple[GroupScores, ...]
    embeddings: Embeddings
    subtract_mean: bool = True

    @cached_property
    def common(self) -> tuple[OperatingPoint, ...]:
        """TAR at each of :data:`FARS` over the pairs of all groups, with the common thresholds."""
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
        """What the bootstrap draws: people if the names of all images identify them, else pairs."""
        return "people" if all(group.people is not None for group in self.groups) else "pairs"

    @cached_property
    def replicates(self) -> FloatArray:
        """(R, G, K) figures of bootstrap draws within each group, at fixed common thresholds."""
        thresholds = [point.threshold for point in self.common]
        times = num_replicates(sum(len(each.same) for each in self.groups))
        drawn = []
        for number, group in enumerate(self.groups):
            people = group.people if self.unit == "people" else None
            figures = partial(group.figures, thresholds=thresholds)
            drawn.append(resample(group.scores, group.same, people, figures, replicates=times, seed=number))
        return np.stack(drawn, axis=1)

    @cached_property
    def intervals(self) -> tuple[tuple[Interval, ...], ...]:
        """95 % intervals of :attr:`figures_of_groups`."""
        return tuple(percentile_intervals(self.replicates[:, number]) for number in range(len(self.groups)))

    @cached_property
    def spreads(self) -> dict[int, Spread]:
        """Column → spread of each figure that the pairs can resolve in every group."""
        return {
            column: Spread.of(name, self.figures_of_groups[:, column], self.replicates[:, :, column])
            for column, name in self._names()
        }

    def headline(self) -> tuple[str, float]:
        """Return the mean of the groups' accuracies."""
        return "mean accuracy of groups", float(self.figures_of_groups[:, ACCURACY].mean())

    def scalars(self) -> dict[str, float]:
        """Return the headline, the lowest accuracy, and the accuracy of each group."""
        accuracies = self.figures_of_groups[:, ACCURACY].tolist()
        each = {f"accuracy_{group.name}": value for group, value in zip(self.groups, accuracies, strict=True)}
        return {**super().scalars(), "lowest_accuracy": min(accuracies), **each}

    def heading(self) -> list[str]:
        """Return what was compared, and by which rule."""
        num_pairs = sum(len(group.same) for group in self.groups)
        mean = "threshold and mean" if self.subtract_mean else "NO mean subtracted; threshold"
        return [
            f"{self.source.name}, {len(self.groups)} groups, {num_pairs:,} pairs, {len(self.embeddings):,} images",
            mirror_line(self.embeddings.mirrored, self.embeddings.inside),
            f"accuracy: {mean} of each fold from the group's other folds; "
            "all other figures: cosines of embeddings that are not centred, so that the groups share one scale",
        ]

    def summary(self) -> list[str]:
        """Return the groups with the lowest accuracy and with the most confusions."""
        accuracies = self.figures_of_groups[:, ACCURACY]
        low, high = int(accuracies.argmin()), int(accuracies.argmax())
        return [
            f"The recogniser decides {accuracies[low]:.1%} of the pairs of group {self.groups[low].name} correctly, "
            f"and {accuracies[high]:.1%} of those of group {self.groups[high].name}. "
            f"{self.spreads[ACCURACY].sentence}",
            *self._confusions(),
        ]

    def rows(self) -> Sequence[Rows]:
        """Return key figures, the figures of each group, common thresholds, and the spread."""
        common = [common_rows(self, number) for number in range(len(FARS))]
        return key_rows(self), group_rows(self), own_rows(self), *common, spread_rows(self)

    def doubts(self) -> list[str]:
        """Return the number of pairs without a score, and groups whose labels look exchanged."""
        exchanged = exchanged_note(self)
        undefined = unscored(sum(group.verification.num_undefined for group in self.groups))
        return [*undefined, exchanged] if exchanged else undefined

    def figures(self) -> Sequence[Chart]:
        """Return the accuracies, and the false accept rates at a common threshold."""
        names = [group.name for group in self.groups]
        values, note = self.figures_of_groups, "Lines are 95 % intervals."
        intervals = list(zip(*self.intervals, strict=True))  # of each figure
        draw = partial(draw_accuracies, names=names, values=values[:, ACCURACY], intervals=intervals[ACCURACY])
        charts = [Chart("accuracies", "Accuracy of each group", draw, note)]
        for column, point in enumerate(self.common, COMMON_FAR):
            if point.resolvable:
                title = f"False accept rate of each group at the threshold {point.threshold:.4f}"
                more = f"{note} The dashed line is the rate over all groups."
                rates = values[:, column]
                draw = partial(draw_rates, names=names, values=rates, intervals=intervals[column], wanted=point.far)
                charts.append(Chart(f"far-{scientific(point.far)}", title, draw, more))
        return charts

    def to_dict(self) -> dict[str, Any]:
        """Return all figures; rates are fractions, and what the pairs cannot resolve is None."""
        return {
            "pairs": str(self.source),
            "flip": self.embeddings.flip,
            "mirror": self.embeddings.fusion if self.embeddings.flip else "none",
            "subtract_mean": self.subtract_mean,
            "num_images": len(self.embeddings),
            "mean_accuracy": self.headline()[1],
            "common_thresholds": [plain_point(point) for point in self.common],
            "groups": [self._group_dict(number) for number in range(len(self.groups))],
            "spread": [spread.to_dict() for spread in self.spreads.values()],
            "intervals": {"level": LEVEL, "unit": self.unit, "replicates": len(self.replicates)},
        }

    def _names(self) -> Iterator[tuple[int, str]]:
        """Yield (column, name) of the figures that the pairs resolve in every group."""
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
        """Return the common thresholds that apply to every group."""
        if not all(group.num_impostor for group in self.groups):
            return []
        return [number for number, point in enumerate(self.common) if point.resolvable]

    def _confusions(self) -> Iterator[str]:
        resolvable = self._compared()
        without = [group.name for group in self.groups if not group.num_impostor]
        if without:
            yield (
                f"No pair of two people of group {', '.join(without)} has a score, so the report cannot compare how "
                "often people are confused."
            )
            return
        if not resolvable:
            yield "There are too few pairs of two people to measure how often the recogniser confuses people."
            return
        column = COMMON_FAR + resolvable[0]
        far = self.figures_of_groups[:, column]
        low, high = int(far.argmin()), int(far.argmax())
        worst, best = self.groups[high].name, self.groups[low].name
        spread = self.spreads[column]
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

    def _group_dict(self, number: int) -> dict[str, Any]:
        group, values, intervals = self.groups[number], self.figures_of_groups[number], self.intervals[number]
        common = []
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
            "tar_at_far": plain_points(group.points, intervals[OWN:COMMON_TAR]),
            "at_common_threshold": common,
        }
