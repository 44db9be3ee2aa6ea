"""What every source of images offers, and what those that name their images by paths share."""

from __future__ import annotations

import errno
import logging
import os
import stat
from array import array
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..identities import Labels
from ..images import JPEG_END

log = logging.getLogger(__name__)


class Source(Protocol):
    """A set of labelled images with random access, grouped by identity: labels never fall from one
    to the next.

    A source can be pickled and used in any number of processes: nothing open travels along.

    Attributes:
        labels: (N,) in [0, C), the class of each image, without gaps, kept by identity.
        class_names: the C identities; label = position.
        named: whether those are names, of some at least; False where the data know identities by
            number alone.
        mapped: whether all images are in memory, or in files mapped into it, so that reading one is
            a copy; False where a file has to be opened for some.
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
        """The encoded image. Raises OSError where it cannot be read."""
        ...

    def name(self, index: int) -> str:
        """What to call this image in a message: its path."""
        ...


_CHUNK = 1 << 14  # bytes: nearly every crop in one piece
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # a FIFO must not be waited for
_LONGEST = 2**29  # bytes of an image's file: no camera's is as long, and a device has no end


class TextTable:
    """Texts in one block of memory: for each its UTF-8 bytes and 4 more (8 in a table above 4 GiB).

    A list of as many ``str`` would take about 60 more for each, and copy itself page by page into
    every forked worker.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        block, ends = bytearray(), array("Q", [0])
        for text in texts:
            block += text.encode("utf-8", "surrogateescape")  # a file's name may be no UTF-8
            ends.append(len(block))
        self._block = bytes(block)
        self._ends = array("I", ends) if len(block) < 2**32 else ends  # numpy would be slower, one number at a time

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return self._block[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")


def grouped(given: npt.NDArray[np.int64]) -> tuple[Labels, npt.NDArray[np.int64]]:
    """Labels as classes, without gaps.

    Args:
        given: (N,) labels that never fall.

    Returns:
        The classes, and (C,) int64 their labels, rising.
    """
    starts = np.flatnonzero(np.append(True, given[1:] != given[:-1]))
    values = given[starts]
    return Labels(np.append(starts, len(given))), values


def say_gaps(values: npt.NDArray[np.int64], name: str) -> None:
    """Log gaps between labels, which are closed.

    Args:
        values: (C,) labels, rising, none negative.
        name: of the file that has them.
    """
    if values[-1] != len(values) - 1:
        rest = (name, values[0], values[-1], len(values))
        log.info("data: %s: labels from %d to %d with gaps: its %d identities are numbered anew", *rest)


def smallest_index(indices: npt.NDArray[np.int64]) -> npt.NDArray[np.unsignedinteger]:
    """Indices (none negative) in the smallest type that holds them."""
    return indices.astype(np.min_scalar_type(int(indices.max(initial=0))))


def read_file(path: str) -> bytes:
    """The bytes of a file, by system calls alone: for the few kB of a crop a quarter of the time of
    ``Path``'s way.
    """
    descriptor = os.open(path, _READ)
    try:
        data = os.read(descriptor, _CHUNK)
        if len(data) < _CHUNK and data.endswith(JPEG_END):  # nearly always; saves asking for the end of the file
            return data
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no plain file", path)
        parts, length = [data], len(data)
        while part := os.read(descriptor, _CHUNK if length < _CHUNK else length):  # doubled: few parts of a large one
            parts.append(part)
            length += len(part)
            if length > _LONGEST:
                raise OSError(errno.EFBIG, f"more than {_LONGEST:,} bytes", path)
        return b"".join(parts)
    finally:
        os.close(descriptor)
