"""Find which records of a ``.rec`` are images, and their labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError, count_of
from .record_index import check_no_gaps, chunks, in_threads, rising
from .recordio import EXACT_IN_FLOAT, Buffer, Heads, read_heads

_ROUNDED = 1 + 2 / EXACT_IN_FLOAT  # float32 numbers are exact to this factor
_BITS = 24  # of the whole numbers that float32 stores exactly


def _spacing(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the distance between the whole numbers that float32 can store near each number."""
    powers = np.frexp(numbers.astype(np.float64))[1].astype(np.int64)
    return np.left_shift(1, np.maximum(powers - _BITS, 0), dtype=np.int64)


def _rounded(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the numbers as float32 stores them."""
    spacing = _spacing(numbers)
    return np.multiply(np.rint(numbers / spacing), spacing).astype(np.int64)


class _Header(NamedTuple):
    first_identity: int
    end: int


class Contrary(NamedTuple):
    """Identity records whose images have several labels.

    Attributes:
        several: how many records.
        total: of so many.
        key, label: of one of these images.
        other_key, other_label: of another image of the same record.
    """

    several: int
    total: int
    key: int
    label: int
    other_key: int
    other_label: int


class Records:
    """All records of one file; it finds the images and their labels.

    Args:
        buffer: the file.
        name: its name in messages.
        keys: (R,) int64, no two equal.
        offsets: (R,) int64.

    Attributes:
        contrary: identity records whose images have several labels, after :meth:`images`.
    """

    contrary: Contrary | None = None

    def __init__(self, buffer: Buffer, name: str, keys: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> None:
        self.buffer, self.name, self.keys, self.offsets = buffer, name, keys, offsets
        self._counted = bool(keys.min() == 0 and keys.max() == len(keys) - 1)  # the keys are 0, 1, 2 …
        if rising(keys):
            self.by_key = np.arange(len(keys))
        elif self._counted:  # faster than argsort
            self.by_key = np.empty(len(keys), np.int64)
            self.by_key[keys] = np.arange(len(keys))
        else:
            self.by_key = np.argsort(keys, kind="stable")

    def images(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows of the images, and their labels."""
        header = self._header()
        if header is None:
            rows = self.by_key
            return rows, self._labels(rows, self._all_heads()[0])
        if header.first_identity - 1 > len(self.keys) * _ROUNDED:
            raise self._other_count(header.first_identity - 1, len(self.keys))
        if header.end > EXACT_IN_FLOAT:  # the numbers of header and identity records are rounded
            exact = self._unrounded(header)
            given = None if exact is None else self._labels_of_ranges(exact)
            if exact is None or given is None:
                return self._images_of_heads(header)
            return self.by_key[1 : exact.first_identity], given
        rows = self.rows(np.arange(1, header.first_identity))
        self._check_last_key(header)
        given = self._labels_of_ranges(header)
        if given is None:
            given = self._labels_of_heads(rows)
            self.contrary = self._contrary(header, given)
        return rows, given

    def _images_of_heads(self, header: _Header) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows of the images, and their labels, by the head of each record."""
        labels, empty = self._all_heads()
        rows = self.by_key[~empty]
        self._check_last_key(header)
        if not header.first_identity - 1 <= len(rows) * _ROUNDED <= header.first_identity * _ROUNDED**2:
            raise self._other_count(header.first_identity - 1, len(rows))
        return rows, self._labels(rows, labels[~empty])

    def _unrounded(self, header: _Header) -> _Header | None:
        """Return a header with its exact numbers; None if the records do not show them.

        The end is the number of records, and the first identity record is one of the few that the
        rounded number can mean. The id of the last record shows that the index lacks none.
        """
        if not self._counted:
            return None
        announced = np.array(header)
        near = header.first_identity + np.arange(-_spacing(announced)[0], _spacing(announced)[0] + 1)
        near = np.append(near[(near > 0) & (near < len(self.keys))], len(self.keys) - 1)
        heads = self._heads(self.rows(near))
        identities = near[heads.empty & (heads.flag >= 2)]
        if len(identities) == 0 or heads.id[-1] != near[-1]:
            return None
        exact = _Header(int(identities[0]), len(self.keys))
        return exact if (_rounded(np.array(exact)) == announced).all() else None

    def _all_heads(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the label of each record by key, and whether it has no image; check for gaps."""
        count = len(self.by_key)
        labels, empty = np.empty(count, np.float32), np.empty(count, np.bool_)

        def read(part: slice) -> None:
            heads = self._heads(self.by_key[part])
            labels[part], empty[part] = heads.label, heads.empty

        def check(part: slice) -> None:
            check_no_gaps(self.buffer, self.offsets, np.arange(part.start, part.stop), self.name)

        in_threads(read, chunks(count))
        in_threads(check, chunks(count))
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
            f"{self.name}: its header record announces {count_of(announced, 'image', 'images')}, but has {found:,} · "
            "copy .rec and .idx again"
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
                f"{self.name}: its header record announces {count_of(len(keys), 'record', 'records')}, but the "
                f"index lacks {missing.sum()}, the first with key {keys[missing.argmax()]} · copy .rec and .idx again"
            )
        return rows

    def _labels_of_ranges(self, header: _Header) -> npt.NDArray[np.int64] | None:
        """Return the labels of the keys 1 … a − 1 by the identity records; None if ambiguous.

        The labels change at the edges of the ranges. The heads of the images beside an edge show
        where exactly, among the few places that a rounded number can mean. If labels differ in
        between, they seem to change at a place that no edge can mean.
        """
        edges = self._edges(header)
        if edges is None:
            return None
        known = _beside(edges, header.first_identity)
        rows = self.rows(known)
        labels = self._labels_of_heads(rows)
        steps = np.diff(known, append=header.first_identity)
        changes = known[1:][labels[1:] != labels[:-1]]
        return np.repeat(labels, steps) if np.array_equal(_rounded(changes), edges[1:-1]) else None

    def _contrary(self, header: _Header, labels: npt.NDArray[np.int64]) -> Contrary | None:
        """Compare the labels of the keys 1 … a − 1 with the identity records, of exact numbers."""
        edges = self._edges(header)
        if edges is None:
            return None
        starts = np.unique(edges)[:-1] - 1
        several = np.flatnonzero(np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts))
        if len(several) == 0:
            return None
        first = int(starts[several[0]])
        other = first + int((labels[first:] != labels[first]).argmax())
        numbers = (first + 1, int(labels[first]), other + 1, int(labels[other]))
        return Contrary(len(several), len(starts), *numbers)

    def _edges(self, header: _Header) -> npt.NDArray[np.int64] | None:
        """Return where ranges of keys begin and the last one ends; None if they leave a gap.

        Large numbers are rounded, so short ranges may seem to be empty.
        """
        identities = np.arange(header.first_identity, header.end)
        present = header.end <= len(self.keys) if self._counted else np.isin(identities, self.keys).all()
        if len(identities) == 0 or not present:
            return None
        ranges = self._heads(self.rows(identities))
        if not (ranges.empty & (ranges.flag >= 2)).all():
            return None
        order = np.argsort(ranges.label, kind="stable")
        edges = np.append(ranges.label[order], ranges.second[order][-1])
        if not (np.array_equal(edges[1:], ranges.second[order]) and (edges == np.floor(edges)).all()):  # NaN too
            return None
        if edges[0] != 1 or not edges[-2] <= edges[-1] == _rounded(np.array([header.first_identity]))[0]:
            return None
        return edges.astype(np.int64)

    def _heads(self, rows: npt.NDArray[np.int64]) -> Heads:
        return read_heads(self.buffer, self.offsets[rows], self.name)

    def _labels_of_heads(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        parts = in_threads(lambda part: self._heads(rows[part]).label, chunks(len(rows)))
        return self._labels(rows, np.concatenate([np.empty(0, np.float32), *parts]))

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


def _beside(edges: npt.NDArray[np.int64], end: int) -> npt.NDArray[np.int64]:
    """Return the keys of 1 … end − 1 beside each edge, and all between its possible places."""
    reach = _spacing(edges) // 2
    beside = np.zeros(end, np.bool_)
    for step in range(-int(reach.max()) - 1, int(reach.max()) + 1):
        keys = edges[(-reach - 1 <= step) & (step <= reach)] + step
        beside[keys[(keys > 0) & (keys < end)]] = True
    return np.flatnonzero(beside)
