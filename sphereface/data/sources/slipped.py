"""Find labels that slipped by some lines against their images, as after a lost line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ...errors import printable

log = logging.getLogger(__name__)

_FEWEST = 3  # borders between people that are moved by the same number of rows
_MOST_OTHERS = 0.1  # share of the borders below that may be moved by another number, or of values that come back
_MOST_SKIPPED = 3  # people by which labels may slip, or that may be lost where they begin to


def log_slipped(
    names: Sequence[str], labels: Sequence[int] | Sequence[str], parent: Callable[[str], str], place: str
) -> bool:
    """Log labels that change a constant number of rows before or after the folders do.

    The images of each folder and of each label must follow each other, as in a sorted list. Then
    the labels change where the folders do. If one column of a table lost or doubled lines, the
    labels below that line change earlier or later, all by the same number of rows.

    Args:
        names: of the images, in the order of the file.
        labels: of each.
        parent: name of an image → its folder.
        place: the source's name in messages.

    Returns:
        Whether there are such labels.
    """
    of_folders, of_labels = _borders(list(map(parent, names))), _borders(labels)
    found = None if of_folders is None or of_labels is None else _moved(of_folders, of_labels)
    if found is None:
        return False
    row, count, shift = found
    log.warning(
        "data: %s: the labels slipped by %d %s against the images from %s on: %d of %d labels begin that much %s than "
        "a folder, so images have the label of another person · restore the lost or doubled lines of labels",
        *(place, abs(shift), "line" if abs(shift) == 1 else "lines", printable(names[row]), count, len(set(labels))),
        "later" if shift > 0 else "earlier",
    )
    return True


def _borders(values: Sequence[str] | Sequence[int]) -> npt.NDArray[np.int64] | None:
    """Return the rows at which a value differs from the one before it; None if values come back."""
    if values and isinstance(values[0], int):
        rows = np.flatnonzero(np.diff(np.asarray(values, dtype=np.int64))) + 1
    else:
        rows = np.array([row for row in range(1, len(values)) if values[row] != values[row - 1]], dtype=np.int64)
    again = len(rows) + 1 - len(set(values))
    return rows if again <= 1 + _MOST_OTHERS * len(rows) else None


def _moved(of_folders: npt.NDArray[np.int64], of_labels: npt.NDArray[np.int64]) -> tuple[int, int, int] | None:
    """Return (first row, number of borders, shift in rows) of labels that slipped; None without."""
    both = min(len(of_folders), len(of_labels))
    first = next((at for at in range(both) if of_folders[at] != of_labels[at]), both)
    best, row = (0, 0, 0), 0
    for skipped in range(-_MOST_SKIPPED, _MOST_SKIPPED + 1):
        ours, theirs = of_labels[first + max(skipped, 0) :], of_folders[first + max(-skipped, 0) :]
        length = min(len(ours), len(theirs))
        shifts, counts = np.unique(ours[:length] - theirs[:length], return_counts=True)
        if length and (counts.max(), -abs(shift := int(shifts[counts.argmax()])), shift) > best:
            best, row = (int(counts.max()), -abs(shift), shift), int(theirs[0])
    count, _, shift = best
    most = max(len(of_folders), len(of_labels)) - first - _MOST_SKIPPED
    if shift == 0 or count < max(_FEWEST, (1 - _MOST_OTHERS) * most):
        return None
    between = len(np.setdiff1d(of_labels[first:], of_folders))  # labels of several whole folders have none
    return (row, count, shift) if 2 * between > count else None
