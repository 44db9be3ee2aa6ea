"""Divide pairs into folds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError, count_of

NUM_FOLDS = 10
"""Folds of a list without fold numbers, as in LFW and InsightFace."""

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class PairRows(NamedTuple):
    """Pairs in the order of their list.

    Attributes:
        sides: (P,) the names of the left and the right image.
        same: (P,) bool, True for one person.
        fold: (P,) int64 from 1 to the number of folds; all 0 without folds.
    """

    sides: Sequence[tuple[str, str]]
    same: BoolArray
    fold: IntArray


def with_folds(path: Path, sides: Sequence[tuple[str, str]], same: BoolArray) -> PairRows:
    """Divide pairs without folds into ten folds, or fewer if a kind has fewer than ten pairs.

    Each fold gets the same share of the pairs of one person and of two people, in the order of the
    list.

    Raises:
        UserError: a kind has fewer than two pairs.
    """
    num_folds = max(2, min(NUM_FOLDS, int(same.sum()), int((~same).sum())))
    return PairRows(sides, same, checked_folds(path, same, num_folds))


def checked_folds(path: Path, same: BoolArray, num_folds: int) -> IntArray:
    """Return (P,) folds from 1, consecutive for each kind; the first ones may be longer by one."""
    num_genuine, num_impostor = int(same.sum()), int((~same).sum())
    if min(num_genuine, num_impostor) < num_folds:
        raise UserError(
            f"{path}: has {count_of(num_genuine, 'pair', 'pairs')} of one person and {num_impostor} of two people · "
            f"allowed: {num_folds} or more of each for {num_folds} folds, since a fold's threshold comes from the "
            "others · add pairs"
        )
    return consecutive_folds(same, num_folds)


def consecutive_folds(same: BoolArray, num_folds: int) -> IntArray:
    """Return (P,) folds from 1, each with the same share of each kind, in the order of the list."""
    fold = np.zeros(len(same), dtype=np.int64)
    for kind in (True, False):
        for number, rows in enumerate(np.array_split(np.flatnonzero(same == kind), num_folds), start=1):
            fold[rows] = number
    return fold
