"""Read images that lie uncompressed inside a few mapped files, each as a span of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from mmap import mmap
from pathlib import Path
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from ...errors import printable
from ..disk_reads import DISK
from ..mapped import MappedFile
from .base import Encoded, Labelled, Source, TextTable, read_one, smallest_index
from .grouping import Grouped

MOST_BYTES = 2**26
"""Bytes of one image; a larger one is not a face crop."""
_MOST_OPEN = 256  # maps per process; each keeps a file open, and many systems allow 1,024
_MOST_HELD = 64  # more, by the readers of many images
_sets: WeakSet[MappedFiles] = WeakSet()  # of this process, which share these


class MappedFiles:
    """Several files, of which a process maps some.

    Picklable, without open files.

    Args:
        paths: of the files.

    Raises:
        UserError: one is missing or empty.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = [MappedFile(path) for path in paths]
        self._open: OrderedDict[int, MappedFile] = OrderedDict()

    def open(self, number: int) -> MappedFile:
        """Return a file, mapped or to be mapped at its first use."""
        file = self._open.get(number)
        if file is None:
            given = self.files[number]
            file = self._open[number] = MappedFile(given.path, size=given.size)
            new = self not in _sets
            _sets.add(self)  # at its first use, also in another process
            for each in list(_sets) if new else [self]:  # all have less room beside a new one
                while len(each._open) > max(1, _MOST_OPEN // len(_sets)):
                    each._open.popitem(last=False)
        return file

    def read(self, number: int, start: int, size: int) -> bytes:
        """Return bytes of a file. Raises OSError if it cannot be opened or is too short."""
        data = self.open(number).read(start, size)
        if len(data) != size:
            raise OSError(f"the file ends before it, at byte {self.files[number].size}")
        return data

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}


def read_spans(
    source: Source,
    files: MappedFiles,
    indices: Sequence[int],
    spans: tuple[npt.NDArray[np.integer], npt.NDArray[np.int64], npt.NDArray[np.uint32]],
) -> Iterator[Encoded]:
    """Yield images that are spans of mapped files, each when it is requested.

    All are announced to the system first, if they may have to come from a disk.

    Args:
        source: reads the images that are not whole spans, and gives their errors.
        files: of the spans.
        indices: K images in the source.
        spans: (K,) the number of each file, (K,) the first byte, 0 if it is unknown, and (K,) the
            size.
    """
    places = [each.tolist() for each in spans]
    views: dict[int, mmap] = {}
    for number, start, size in zip(*places, strict=True) if DISK.expected() else ():
        if start and size <= MOST_BYTES:
            files.open(number).announce(start, size)
    for index, number, start, size in zip(indices, *places, strict=True):
        data = None
        if start and size <= MOST_BYTES:
            view = views.get(number)
            if view is None:
                if len(views) >= _MOST_HELD // max(1, len(_sets)):
                    views.clear()
                try:
                    view = views[number] = files.open(number).view()
                except OSError as error:
                    yield error
                    continue
            data = view[start : start + size]
        yield data if data is not None and len(data) == size else read_one(source, index)


class SpanSource(Labelled):
    """A source whose images are spans of mapped files.

    Memory: 13 to 16 bytes an image, and its name.

    Args:
        files: the files of the images.
        numbers: (N,) the number of each image's file.
        starts, sizes: (N,) the first byte of each image, and its bytes.
        name: row → the image's name in its file, for messages.
        grouped: the identities of the N images.
    """

    mapped = True

    def __init__(
        self,
        files: Sequence[Path],
        numbers: npt.ArrayLike,
        starts: npt.ArrayLike,
        sizes: npt.ArrayLike,
        name: Callable[[int], str],
        grouped: Grouped,
    ) -> None:
        file, start, size = (np.asarray(each, dtype=np.int64)[grouped.rows] for each in (numbers, starts, sizes))
        self._files = MappedFiles(files)
        self._file, self._start = smallest_index(file), start
        self._size = np.minimum(size, 2**32 - 1).astype(np.uint32)
        self._names = TextTable(map(name, grouped.rows.tolist()))
        self.labels, self.class_names, self.named = grouped.labels, grouped.class_names, grouped.named

    @property
    def files(self) -> list[Path]:
        """The files of the images."""
        return [file.path for file in self._files.files]

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises OSError if it cannot be read."""
        size = int(self._size[index])
        if size > MOST_BYTES:
            raise OSError(f"{size:,} bytes, allowed: at most {MOST_BYTES:,}")
        return self._files.read(int(self._file[index]), int(self._start[index]), size)

    def read_each(self, indices: Sequence[int]) -> Iterator[Encoded]:
        """Return an iterator over images, each read when it is requested."""
        rows = np.asarray(indices, dtype=np.int64)
        return read_spans(self, self._files, indices, (self._file[rows], self._start[rows], self._size[rows]))

    def name(self, index: int) -> str:
        """Return the name of the image in messages: its file, and its name inside."""
        return printable(f"{self._files.files[self._file[index]].path}/{self._names[index]}")
