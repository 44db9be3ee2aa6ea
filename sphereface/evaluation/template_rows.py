"""Look up the rows of templates by their numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import UserError
from ..metrics import BoolArray, IntArray
from .columns import Int32Array

_LARGEST_TABLE = 2**24


class RowOfTemplate:
    """Looks up the rows of millions of templates; −1 for unknown templates.

    Args:
        templates: (T,) integers, sorted.
    """

    def __init__(self, templates: IntArray) -> None:
        self._templates = templates
        self._table: Int32Array | None = None
        if templates[-1] <= _LARGEST_TABLE:  # a larger table needs too much memory
            self._table = np.full(int(templates[-1]) + 2, -1, dtype=np.int32)  # the last is for all larger numbers
            self._table[templates] = np.arange(len(templates))

    def __call__(self, ids: Int32Array) -> Int32Array:
        if self._table is not None:
            return np.asarray(self._table[np.minimum(ids, len(self._table) - 1)])
        rows = np.minimum(np.searchsorted(self._templates, ids), len(self._templates) - 1)
        return np.where(self._templates[rows] == ids, rows, -1).astype(np.int32)


def rows_of_block(block: Int32Array, row_of: RowOfTemplate) -> tuple[Int32Array, BoolArray]:
    """Return the rows (2, lines) of the templates and the labels (lines,) of a block of pairs.

    Args:
        block: (lines, columns): two templates and the label, then other columns.
        row_of: looks up the templates.

    Raises:
        ValueError: the first three columns are not known templates and labels.
    """
    if block.shape[1] < 3 or block.min() < 0 or block[:, 2].max() > 1:
        raise ValueError
    rows = row_of(np.ascontiguousarray(block[:, :2].T))
    if rows.min() < 0:
        raise ValueError
    return rows, block[:, 2] == 1


def rows_of(templates: IntArray, ids: IntArray, path: Path) -> IntArray:
    """Return the rows of some templates.

    Args:
        templates: (T,) all templates, sorted.
        ids: (n,) the templates to look up.
        path: the file that names them, for errors.

    Returns:
        (n,) int64 rows of ``templates``.

    Raises:
        UserError: a template is not among ``templates``.
    """
    rows = np.minimum(np.searchsorted(templates, ids), len(templates) - 1)
    unknown = ids[templates[rows] != ids]
    if len(unknown):
        raise UserError(f"{path}: template {unknown[0]} is not in *_face_tid_mid.txt · use files of one benchmark")
    return rows.astype(np.int64)
