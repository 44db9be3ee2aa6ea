"""Build the tables of pairs in groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...errors import count_of
from ..result import Rows
from ..words import EXCHANGED, NOT_RESOLVABLE, count, figure, percent, scientific, span
from .groups_scores import ACCURACY, COMMON_FAR, COMMON_TAR, EER, FARS, OWN, span_in_points

if TYPE_CHECKING:
    from .groups_result import Groups


def _cells(groups: Groups, group: int, column: int, form: str = ".2%") -> tuple[str, str]:
    """Return a figure and its interval."""
    return figure(groups.figures_of_groups[group, column], form), span(groups.intervals[group][column], form)


def key_rows(groups: Groups) -> Rows:
    """Return the key figures: the mean and the lowest accuracy, and the spread."""
    accuracies = groups.figures_of_groups[:, ACCURACY]
    lowest, spread = int(accuracies.argmin()), groups.spreads[ACCURACY]
    rows = (
        ("mean accuracy", percent(float(accuracies.mean())), "mean of the groups, each counts once"),
        ("lowest accuracy", percent(float(accuracies[lowest])), f"group {groups.groups[lowest].name}"),
        ("spread", f"{100 * spread.difference:.2f} points", "highest − lowest accuracy"),
    )
    return Rows((), rows, "Groups", exchanged_note(groups), key=True)


def exchanged_note(groups: Groups) -> str:
    """Return a note on groups whose scores are worse than chance; empty if there are none."""
    if not (groups.figures_of_groups[:, EER] > 0.5).any():  # the intervals take time
        return ""
    wrong = [group.name for group, row in zip(groups.groups, groups.intervals, strict=True) if row[EER].low > 0.5]
    return f"EER is above 50 % in {', '.join(wrong)}: {EXCHANGED}" if wrong else ""


def group_rows(groups: Groups) -> Rows:
    """Return the table of accuracy and EER of each group."""
    rows = []
    for number, group in enumerate(groups.groups):
        size = f"{group.curve.num_genuine:,} + {group.num_impostor:,}"
        rows.append((group.name, size, *_cells(groups, number, ACCURACY), *_cells(groups, number, EER)))
    note = (
        f"Pairs are genuine + impostor. 95 % intervals: {len(groups.replicates):,} bootstrap draws of {groups.unit} "
        "within each group; the thresholds do not change."
    )
    undefined = sum(group.verification.num_undefined for group in groups.groups)
    if undefined:
        note += (
            f" {count_of(undefined, 'pair has', 'pairs have')} no score (NaN). They count as wrong in the accuracy. "
            "EER, TAR, FAR and the numbers of pairs exclude the impostor pairs among them."
        )
    header = ("group", "pairs", "accuracy", "95 % interval", "EER", "95 % interval")
    return Rows(header, tuple(rows), "Each group", note)


def own_rows(groups: Groups) -> Rows:
    """Return the table of TAR at each group's own threshold."""
    rows = []
    for far_number, far in enumerate(FARS):
        for number, group in enumerate(groups.groups):
            point = group.points[far_number]
            cells = (*_cells(groups, number, OWN + far_number), f"{point.threshold:.5f}")
            cells = cells if point.resolvable else (NOT_RESOLVABLE, "", "")
            used = f"{count(point.impostors_used)} of {point.num_impostor:,}"
            rows.append((group.name, scientific(far), *cells, used))
    header = ("group", "FAR", "TAR", "95 % interval", "threshold", "impostors used")
    return Rows(header, tuple(rows), "TAR at each group's own threshold")


def common_rows(groups: Groups, number: int) -> Rows:
    """Return the table of FAR and TAR of each group at one of the common thresholds."""
    point = groups.common[number]
    used = f"{count(point.impostors_used)} of {point.num_impostor:,}"
    title = f"At the common threshold for FAR {scientific(point.far)} over all groups"
    if not point.resolvable:
        return Rows(("group", "FAR", "impostors used"), (("all", NOT_RESOLVABLE, used),), title)
    rows = []
    for row, group in enumerate(groups.groups):
        far = _cells(groups, row, COMMON_FAR + number)
        tar = _cells(groups, row, COMMON_TAR + number)
        accepted = round(np.nan_to_num(groups.figures_of_groups[row, COMMON_FAR + number]) * group.num_impostor)
        rows.append((group.name, *far, f"{accepted:,} of {group.num_impostor:,}", *tar))
    header = ("group", "FAR", "95 % interval", "impostor pairs accepted", "TAR", "95 % interval")
    note = f"Threshold {point.threshold:.5f}, where {used} impostor pairs of all groups may pass."
    if not groups.figures_of_groups[:, COMMON_FAR + number].all():
        note += " If no pair is accepted, the bootstrap gives an interval of 0, which is too narrow."
    return Rows(header, tuple(rows), title, note)


def spread_rows(groups: Groups) -> Rows:
    """Return the table of the spread of each figure over the groups."""
    rows = tuple(
        (
            spread.name,
            f"{100 * spread.difference:.2f}",
            span_in_points(spread.difference_interval),
            f"{100 * spread.deviation:.2f}",
            span_in_points(spread.deviation_interval),
        )
        for spread in groups.spreads.values()
    )
    note = (
        "In percentage points; standard deviation with ddof = 1. If an interval starts at 0, equal groups could "
        "show this spread by chance."
    )
    header = ("figure", "highest − lowest", "95 % interval", "standard deviation", "95 % interval")
    return Rows(header, rows, "Spread over the groups", note)
