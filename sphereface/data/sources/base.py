"""Define the interface of sources of images, and share code between sources with paths."""

from __future__ import annotations

import errno
import logging
import os
import stat
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...errors import UserError, count_of, first_line, printable
from ..identities import Labels
from ..images import JPEG_END

log = logging.getLogger(__name__)


class Source(Protocol):
    """A set of labelled images with random access, grouped by identity in ascending labels.

    A source can be pickled and used in any number of processes; it carries no open files.

    Attributes:
        labels: (N,) in [0, C), the class of each image, without gaps, stored by identity.
        class_names: the C identities; label = position.
        named: whether some of these are names; False if the data have only numbers of identities.
        mapped: whether all images are in memory or in mapped files, so that reading one is a copy;
            False if reading may open a file.
    """

    named: bool

    @property
    def labels(self) -> Labels: ...

    @property
    def class_names(self) -> Sequence[str]: ...

    @property
    def mapped(self) -> bool: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises OSError if it cannot be read."""
        ...

    def name(self, index: int) -> str:
        """Return the name of this image in messages: its path."""
        ...


Encoded = bytes | OSError
"""The bytes of an image, or the error if it cannot be read."""
EACH_ALLOWED = (
    "allowed: for each index, in the given order, the image that read returns, or its OSError; also for an index that "
    "is there twice · see docs/extend.md, or delete read_each"
)
_PACKAGE = f"{__name__.partition('.')[0]}."
_NONE = object()


def read_each(source: Source, indices: Sequence[int]) -> Iterator[Encoded]:
    """Return an iterator over images, each read when it is requested.

    A source may have a method of this name, without the first argument, that costs less than
    ``read`` for each image. That of a plugin is counted.

    Raises:
        UserError: while iterating, a plugin yields fewer or more images, or raises OSError.
    """
    own: Callable[[Sequence[int]], Iterator[Encoded]] | None = getattr(source, "read_each", None)
    if own is None:
        return map(partial(read_one, source), indices)
    return own(indices) if type(source).__module__.startswith(_PACKAGE) else _counted(source, own, indices)


def _counted(
    source: Source, own: Callable[[Sequence[int]], Iterable[Encoded]], indices: Sequence[int]
) -> Iterator[Encoded]:
    place, last = f"{type(source).__name__}, a plugin: its read_each", len(indices) - 1
    wanted = count_of(len(indices), "index", "indices")
    try:
        images = iter(own(indices))
        for number in range(len(indices)):
            try:
                image = next(images)
            except StopIteration:
                raise UserError(f"{place} yields {number:,} for {wanted} · {EACH_ALLOWED}") from None
            if number == last and next(images, _NONE) is not _NONE:  # here, since the caller may stop at the last one
                raise UserError(f"{place} yields more than {number + 1:,} for {wanted} · {EACH_ALLOWED}")
            yield image
    except OSError as error:
        raise UserError(f"{place} raises {type(error).__name__} ({first_line(error)}) · {EACH_ALLOWED}") from error


def read_one(source: Source, index: int) -> Encoded:
    """Return the bytes of an image, or the error if it cannot be read."""
    try:
        return source.read(index)
    except OSError as error:
        return error


def threads_of(source: Source) -> int:
    """Return how many threads may read a source at once: 1 without an attribute ``threads``."""
    threads: int = getattr(source, "threads", 1)
    return threads


class Labelled:
    """The part that all sources of this package share; see :class:`Source` for the attributes."""

    labels: Labels
    class_names: Sequence[str]
    named: bool

    def __len__(self) -> int:
        return len(self.labels)


_CHUNK = 1 << 14  # bytes; nearly every crop fits
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # do not wait for a FIFO
_LONGEST = 2**29  # bytes of an image file; no camera writes more, and a device has no end


class TextTable:
    """Strings in one block of memory: the UTF-8 bytes and 4 more for each (8 above 4 GiB).

    A list of ``str`` would take about 60 more for each, and forked workers would copy it page by
    page.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        block, ends = bytearray(), array("Q", [0])
        for text in texts:
            block += text.encode("utf-8", "surrogateescape")  # a file's name may not be UTF-8
            ends.append(len(block))
        self._block = bytes(block)
        self._ends = array("I", ends) if len(block) < 2**32 else ends  # numpy is slower for single numbers

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return self._block[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")


def grouped(given: npt.NDArray[np.int64]) -> tuple[Labels, npt.NDArray[np.int64]]:
    """Convert labels to classes without gaps.

    Args:
        given: (N,) labels in ascending order.

    Returns:
        The classes, and (C,) int64 their labels, ascending.
    """
    starts = np.flatnonzero(np.append(True, given[1:] != given[:-1]))
    values = given[starts]
    return Labels(np.append(starts, len(given))), values


def numbers_of(source: Source) -> npt.NDArray[np.int64]:
    """Return (C,) int64, the number of each identity in a file that is written, ascending.

    It is the identity's own number if the source has only numbers, so that settings such as
    ``data.exclude`` name the same identity afterwards. Otherwise it is the identity's position.
    """
    names = source.class_names
    if not source.named and all(name.isascii() and name.isdecimal() for name in names):
        numbers = np.array([int(name) for name in names], dtype=np.int64)
        if (numbers[1:] > numbers[:-1]).all():
            return numbers
    return np.arange(len(names))


def log_gaps(values: npt.NDArray[np.int64], name: str) -> None:
    """Log gaps between labels and before the first one, which are closed.

    Args:
        values: (C,) labels, ascending, none negative.
        name: of the file with these labels.
    """
    if values[-1] != len(values) - 1:
        how = "have gaps" if values[-1] - values[0] != len(values) - 1 else f"begin at {values[0]}, not at 0"
        rest = (name, values[0], values[-1], how, len(values))
        log.info("data: %s: labels from %d to %d %s: its %d identities are renumbered from 0", *rest)


def smallest_index(indices: npt.NDArray[np.int64]) -> npt.NDArray[np.unsignedinteger]:
    """Return indices (none negative) in the smallest type that can store them."""
    return indices.astype(np.min_scalar_type(int(indices.max(initial=0))))


def read_file(path: str) -> bytes:
    """Return the bytes of a file by system calls alone.

    For the few kB of a crop, this takes a quarter of the time of ``Path.read_bytes``.
    """
    descriptor = os.open(path, _READ)
    try:
        data = os.read(descriptor, _CHUNK)
        if len(data) < _CHUNK and data.endswith(JPEG_END):  # nearly always; saves one more read
            return data
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        parts, length = [data], len(data)
        while part := os.read(descriptor, _CHUNK if length < _CHUNK else length):  # doubles
            parts.append(part)
            length += len(part)
            if length > _LONGEST:
                raise OSError(errno.EFBIG, f"more than {_LONGEST:,} bytes", path)
        return b"".join(parts)
    finally:
        os.close(descriptor)


class FileSource(Labelled):
    """Images that are separate files.

    Args:
        root: the folder to which paths are relative.
        paths: of the images.
    """

    mapped = False
    threads = 4  # from a disk that is read for the first time, three times as fast as one; eight gain little

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        self.root = root
        self._folder = str(root)
        self._paths = TextTable(paths)

    def read(self, index: int) -> bytes:
        return read_file(os.path.join(self._folder, self._paths[index]))  # noqa: PTH118 -- a third of the time of /

    def name(self, index: int) -> str:
        return printable(str(self.root / self._paths[index]))

    def real_folders(self) -> dict[str, str]:
        """Return the folders of the images, and the path of each without links."""
        given = {self._paths[row].rpartition("/")[0] for row in range(len(self))}
        return {folder: os.path.realpath(self.root / folder) for folder in given}

    def files_in(self, folders: Collection[str]) -> set[str]:
        """Return the images in some folders; all paths are without links to folders."""
        real = self.real_folders()
        parts = (self._paths[row].rpartition("/") for row in range(len(self)))
        return {f"{real[folder]}/{name}" for folder, _, name in parts if real[folder] in folders}
