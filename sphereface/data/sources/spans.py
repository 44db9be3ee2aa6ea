"""Read images that lie uncompressed inside a few mapped files, each as a span of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from mmap import mmap
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...errors import printable
from ..mapped import MappedFile
from .base import smallest_index
from .grouping import Grouped

MOST_BYTES = 2**26
"""Bytes of one image; a larger one is not a face crop."""
_MOST_OPEN = 256  # maps per process; each keeps a file open, and many systems allow 1,024


class Names(Protocol):
    """The names of images in messages: a table of strings, or a rule."""

    def __getitem__(self, index: int, /) -> str: ...


class MappedFiles:
    """Several files, of which a process maps the recently used ones. Picklable, without open files.

    Args:
        paths: of the files.

    Raises:
        UserError: one is missing or empty.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = [MappedFile(path) for path in paths]
        self._open: OrderedDict[int, MappedFile] = OrderedDict()

    def view(self, number: int) -> mmap:
        """Return a file's bytes. Raises OSError if it cannot be opened or its size changed."""
        file = self._open.pop(number, None) or MappedFile(self.files[number].path, size=self.files[number].size)
        self._open[number] = file
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)
        return file.view()

    def read(self, number: int, start: int, size: int) -> bytes:
        """Return bytes of a file. Raises OSError if it cannot be opened or is too short."""
        data = self.view(number)[start : start + size]
        if len(data) != size:
            raise OSError(f"the file ends before it, at byte {self.files[number].size}")
        return data

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}


class Spans:
    """The places of images.

    Attributes:
        file: (N,) the number of each image's file.
        start: (N,) int64, the first byte.
        size: (N,) uint32, bytes.
    """

    def __init__(self, file: npt.ArrayLike, start: npt.ArrayLike, size: npt.ArrayLike) -> None:
        self.file = smallest_index(np.asarray(file, dtype=np.int64))
        self.start = np.asarray(start, dtype=np.int64)
        self.size = np.minimum(np.asarray(size, dtype=np.int64), 2**32 - 1).astype(np.uint32)

    def ordered(self, order: npt.NDArray[np.int64]) -> Spans:
        """Return the spans in another order."""
        return Spans(self.file[order], self.start[order], self.size[order])


class SpanSource:
    """A source whose images are spans of mapped files.

    Memory: 13 to 16 bytes an image, and its name.

    Args:
        files: the files of the images.
        spans: of the N images, in the order of the source.
        names: of the N images.
        grouped: their identities.
    """

    mapped = True

    def __init__(self, files: MappedFiles, spans: Spans, names: Names, grouped: Grouped) -> None:
        self._files, self._spans, self._names = files, spans, names
        self.labels, self.class_names, self.named = grouped.labels, grouped.class_names, grouped.named

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def files(self) -> list[Path]:
        """The files of the images."""
        return [file.path for file in self._files.files]

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises OSError if it cannot be read."""
        size = int(self._spans.size[index])
        if size > MOST_BYTES:
            raise OSError(f"{size:,} bytes, allowed: at most {MOST_BYTES:,}")
        return self._files.read(int(self._spans.file[index]), int(self._spans.start[index]), size)

    def name(self, index: int) -> str:
        """Return the name of the image in messages: its file, and its name inside."""
        return printable(f"{self._files.files[self._spans.file[index]].path}/{self._names[index]}")
