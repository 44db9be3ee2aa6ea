"""Map images to identities, in memory proportional to the number of identities, not of images."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt


def places(edges: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return how many edges are at or below each value.

    This is ``searchsorted``, in two thirds of its time for random values.

    Args:
        edges: (E,) ascending.
        values: (K,) in any order; they are looked up in sorted order, so that neighbours share the
            cache.
    """
    order = np.argsort(values)
    found = np.empty(len(values), np.int64)
    found[order] = edges.searchsorted(values[order], side="right")
    return found


class Labels:
    """The labels of N images that are grouped by identity, stored as C + 1 offsets.

    It can be indexed, iterated and passed to numpy like an (N,) int32 array; numpy functions expand
    it to one.

    Args:
        firsts: (C + 1,) ascending; class c has the images from ``firsts[c]`` to ``firsts[c + 1]`` −
            1.

    Attributes:
        firsts: (C + 1,) int64.
    """

    dtype = np.dtype(np.int32)

    def __init__(self, firsts: npt.NDArray[np.int64]) -> None:
        self.firsts = firsts

    @classmethod
    def of(cls, labels: Labels | npt.NDArray[np.integer]) -> Labels:
        """Return labels as an object of this class. An array must be sorted and without gaps."""
        if isinstance(labels, Labels):
            return labels
        num_classes = int(labels[-1]) + 1 if len(labels) else 0
        return cls(np.searchsorted(labels, np.arange(num_classes + 1)).astype(np.int64))

    @classmethod
    def of_counts(cls, counts: npt.ArrayLike) -> Labels:
        """Return the labels of identities with the given numbers of images."""
        return cls(np.append(0, np.cumsum(counts, dtype=np.int64)))

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(C,) int64, the number of images of each identity."""
        return np.diff(self.firsts)

    def __len__(self) -> int:
        return int(self.firsts[-1])

    @overload
    def __getitem__(self, index: int | np.integer) -> np.int32: ...
    @overload
    def __getitem__(self, index: slice | npt.ArrayLike) -> npt.NDArray[np.int32]: ...
    def __getitem__(self, index: Any) -> Any:
        """Return the label of one image, or the labels of several."""
        if isinstance(index, (int, np.integer)):
            row = index + len(self) if index < 0 else index
            if not 0 <= row < len(self):
                raise IndexError(f"image {index} of {len(self)}")
            return np.int32(self.firsts.searchsorted(row, side="right") - 1)
        if isinstance(index, np.ndarray) and index.dtype != np.bool_ and (len(index) == 0 or index.min() >= 0):
            if len(index) and index.max() >= len(self):
                raise IndexError(f"image {index.max()} of {len(self)}")
            return (places(self.firsts, index) - 1).astype(np.int32)
        return np.asarray(self)[index]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Expand to an array. Costs 4 bytes an image."""
        expanded = np.repeat(np.arange(len(self.firsts) - 1, dtype=np.int32), self.counts)
        return expanded if dtype is None else expanded.astype(dtype, copy=False)

    def tolist(self) -> list[int]:
        """Return the labels as a list."""
        numbers: list[int] = np.asarray(self).tolist()
        return numbers


class NumberNames(Sequence[str]):
    """The names of C identities that have only numbers, created on demand.

    Args:
        numbers: (C,) integers.
    """

    def __init__(self, numbers: npt.NDArray[np.integer]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return one name, or several."""
        found = self._numbers[index]
        return [str(number) for number in found.tolist()] if isinstance(index, slice) else str(found)

    def __iter__(self) -> Iterator[str]:
        return map(str, self._numbers.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(other) == len(self) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # as a list


class Runs:
    """Map rows in order of identity to rows of a whole, which holds them in K consecutive runs.

    Args:
        starts: (K,) int64, the first row of each run in the whole.
        counts: (K,) int64, the length of each run.
    """

    def __init__(self, starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> None:
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._shifts = starts + counts - self._ends

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> int:
        """Return the row in the whole."""
        return index + int(self._shifts[self._ends.searchsorted(index, side="right")])

    def of(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows in the whole of several."""
        return indices + self._shifts[self._ends.searchsorted(indices, side="right")]
