"""Find which records of a ``.rec`` are images, and their labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .record_index import check_no_gaps, chunks, rising
from .recordio import EXACT_IN_FLOAT, Buffer, Heads, read_heads

_ROUNDED = 1 + 2 / EXACT_IN_FLOAT  # float32 numbers are exact to this factor


class _Header(NamedTuple):
    first_identity: int
    end: int


class Records:
    """All records of one file; it finds the images and their labels.

    Args:
        buffer: the file.
        name: its name in messages.
        keys, offsets: (R,) int64.
    """

    def __init__(self, buffer: Buffer, name: str, keys: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> None:
        self.buffer, self.name, self.keys, self.offsets = buffer, name, keys, offsets
        self.by_key = np.arange(len(keys)) if rising(keys) else np.argsort(keys, kind="stable")
        self._counted = int(keys[self.by_key[-1]]) == len(keys) - 1  # the keys are 0, 1, 2 …

    def images(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows of the images, and their labels."""
        header = self._header()
        if header is None:
            rows = self.by_key
            return rows, self._labels(rows, self._all_heads()[0])
        if header.first_identity - 1 > len(self.keys) * _ROUNDED:
            raise self._other_count(header.first_identity - 1, len(self.keys))
        if header.end > EXACT_IN_FLOAT:  # the numbers of header and identity records are rounded
            labels, empty = self._all_heads()
            rows = self.by_key[~empty]
            self._check_last_key(header)
            if not header.first_identity - 1 <= len(rows) * _ROUNDED <= header.first_identity * _ROUNDED**2:
                raise self._other_count(header.first_identity - 1, len(rows))
            return rows, self._labels(rows, labels[~empty])
        rows = self.rows(np.arange(1, header.first_identity))
        self._check_last_key(header)
        given = self._labels_of_ranges(header)
        return rows, self._labels(rows, self._heads(rows).label) if given is None else given

    def _all_heads(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the label of each record by key, and whether it has no image; check for gaps."""
        count = len(self.by_key)
        labels, empty = np.empty(count, np.float32), np.empty(count, np.bool_)
        for part in chunks(count):
            heads = self._heads(self.by_key[part])
            labels[part], empty[part] = heads.label, heads.empty
        for part in chunks(count):
            check_no_gaps(self.buffer, self.offsets, np.arange(part.start, part.stop), self.name)
        return labels, empty

    def _check_last_key(self, header: _Header) -> None:
        """Check that no record has a key beyond those in the header record."""
        last = int(self.keys[self.by_key[-1]])
        if last >= header.end * _ROUNDED:
            raise UserError(
                f"{self.name}: its header record announces the keys 0 to {header.end - 1}, but the index has the key "
                f"{last} · they belong to two sets: copy .rec and .idx again"
            )

    def _other_count(self, announced: int, found: int) -> UserError:
        return UserError(
            f"{self.name}: its header record announces {announced} images, but has {found} · copy .rec and .idx again"
        )

    def _header(self) -> _Header | None:
        row = self.by_key[0]
        if self.keys[row] != 0:
            return None
        heads = self._heads(self.by_key[:1])
        if heads.flag[0] < 2 or not heads.empty[0]:
            return None
        first, end = float(heads.label[0]), float(heads.second[0])
        if not (1 <= first <= end < 2**62):  # NaN too
            raise UserError(f"{self.name}: its header record has the keys ({first:g}, {end:g}) · allowed: 1 or more")
        return _Header(int(first), int(end))

    def rows(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows of ascending keys. Raises UserError if one is missing."""
        if self._counted and len(keys) and keys[0] >= 0 and keys[-1] < len(self.by_key):
            return self.by_key[keys]
        places = np.minimum(np.searchsorted(self.keys, keys, sorter=self.by_key), len(self.keys) - 1)
        rows = self.by_key[places]
        missing = self.keys[rows] != keys
        if missing.any():
            raise UserError(
                f"{self.name}: its header record announces {len(keys)} records, but the index lacks "
                f"{missing.sum()}, the first with key {keys[missing.argmax()]} · copy .rec and .idx again"
            )
        return rows

    def _labels_of_ranges(self, header: _Header) -> npt.NDArray[np.int64] | None:
        """Return the labels of the keys 1 … a − 1 by the identity records; None if ambiguous."""
        identities = np.arange(header.first_identity, header.end)
        if len(identities) == 0 or not np.isin(identities, self.keys).all():
            return None
        ranges = self._heads(self.rows(identities))
        if not (ranges.empty & (ranges.flag >= 2)).all():
            return None
        order = np.argsort(ranges.label, kind="stable")
        edges = np.append(ranges.label[order], ranges.second[order][-1])
        if not (np.array_equal(edges[1:], ranges.second[order]) and (edges == np.floor(edges)).all()):  # NaN too
            return None
        if edges[0] != 1 or edges[-1] != header.first_identity or not (edges[:-1] < edges[1:]).all():
            return None
        keys = edges.astype(np.int64)
        labels, last = (
            self._labels(rows, self._heads(rows).label) for rows in map(self.rows, (keys[:-1], keys[1:] - 1))
        )
        return np.repeat(labels, np.diff(keys)) if (labels == last).all() else None

    def _heads(self, rows: npt.NDArray[np.int64]) -> Heads:
        return read_heads(self.buffer, self.offsets[rows], self.name)

    def _labels(self, rows: npt.NDArray[np.int64], given: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        with np.errstate(invalid="ignore"):
            wrong = ~((given >= 0) & (given < 2**31) & (given == np.floor(given)))
        if wrong.any():
            row = wrong.argmax()
            raise UserError(
                f"{self.name}: record {self.keys[rows[row]]} has the label {given[row]:g} · "
                "allowed: whole numbers of 0 or more"
            )
        return given.astype(np.int64)
