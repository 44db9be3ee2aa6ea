"""A source less some of its identities."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from .base import Source, nfc, smallest_index


class SelectedSource:
    """Some identities of a source, their labels without gaps. Memory: up to 8 bytes a picture beside the source's.

    Args:
        source: the whole.
        keep: (C,) bool, which of its classes stay.
    """

    def __init__(self, source: Source, keep: npt.NDArray[np.bool_]) -> None:
        self._source = source
        rows = np.flatnonzero(keep[source.labels])
        self.labels = (np.cumsum(keep, dtype=np.int32) - 1)[source.labels[rows]].astype(np.int32)
        self._rows = smallest_index(rows)
        self.class_names = [name for name, stays in zip(source.class_names, keep.tolist(), strict=True) if stays]
        self.named, self.mapped = source.named, source.mapped

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> bytes:
        return self._source.read(int(self._rows[index]))

    def name(self, index: int) -> str:
        return self._source.name(int(self._rows[index]))


def without(source: Source, names: Collection[str]) -> Source:
    """The source less the identities of these names (in Unicode's composed form)."""
    return _selected(source, np.array([name not in names for name in source.class_names], dtype=np.bool_))


def with_pictures(source: Source, least: int) -> Source:
    """The source less the identities with fewer pictures."""
    return _selected(source, np.bincount(source.labels, minlength=len(source.class_names)) >= least)


def _selected(source: Source, keep: npt.NDArray[np.bool_]) -> Source:
    return source if keep.all() else SelectedSource(source, keep)


def read_names(path: Path | str) -> list[str]:
    """Identities that a file lists, a name a line.

    In a file with tabs, such as LFW's ``people.txt`` (``Name <tab> pictures`` below lines that count), names are what
    stands before the first tab, and lines without one are no names.

    Raises:
        UserError: it cannot be read or lists nobody.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"data.exclude_file: {path}: cannot be read ({error.strerror})") from error
    lines = [line for line in text.split("\n") if "\t" in line or "\t" not in text]
    names = [nfc(name) for line in lines if (name := line.partition("\t")[0].strip())]
    if not names:
        raise UserError(f"data.exclude_file: {path}: got no name · allowed: a name a line, or 'name<tab>…'")
    return names
