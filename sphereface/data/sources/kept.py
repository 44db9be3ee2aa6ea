"""A source whose files are opened once: what was read stays in memory, for all processes of the
feed.
"""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import sys
from collections.abc import Callable

from .base import Source
from .selection import numbered_of

log = logging.getLogger(__name__)

_FLAGS = {} if sys.platform == "win32" else {"flags": mmap.MAP_SHARED | mmap.MAP_ANONYMOUS}


_SIZE_BITS = 24
_LONGEST = (1 << _SIZE_BITS) - 1  # bytes of an image


def kept(source: Source, limit: int) -> Source:
    """The source as one that opens no file twice; itself where it opens none, or no memory is to be
    had.

    Args:
        source: any.
        limit: bytes of images to keep; 0: none.
    """
    if source.mapped or limit == 0:
        return source
    try:
        return KeptSource(source, limit)
    except (OSError, OverflowError, ValueError) as error:  # more than any system has
        why = error.strerror if isinstance(error, OSError) else "too many"
        log.warning("data.keep_mb: no memory for %d MiB (%s): every image is read anew", limit >> 20, why)
        return source


class KeptSource:
    """A source that keeps the encoded images it has read, up to so many bytes.

    Opening a file takes a quarter of the time of decoding a crop, on a network's disk many times
    that, and each is opened again in every epoch. Here the first process that reads one puts it
    into memory that those forked from this one share. A process that is started otherwise, and so
    gets the source as a pickle, reads the files. Of sources that are joined, all images are kept,
    those of mapped files too. An image that is changed while a run trains on it is seen as it was.

    Memory: 8 bytes an image, and those of the images as they come: none is taken before.

    Args:
        source: the whole.
        limit: bytes of images to keep, at least 1; the rest are read anew each time.

    Raises:
        OSError: the system does not promise so much memory.
    """

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self.labels, self.class_names, self.named = source.labels, source.class_names, source.named
        self.numbered = numbered_of(source)
        self._images = mmap.mmap(-1, limit, **_FLAGS)
        self._limit = limit
        words = memoryview(mmap.mmap(-1, 8 * len(source) + 16, **_FLAGS)).cast("Q")
        self._places, self._total = words[:-2], words[-2:]  # start and size of each, 0: not there; bytes, images
        self._lock = multiprocessing.Lock()

    @property
    def mapped(self) -> bool:
        """Whether all of it is in memory by now."""
        return self._total[1] == len(self._places)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        place = self._places[index]
        if place:
            start = place >> _SIZE_BITS
            return self._images[start : start + (place & _LONGEST)]
        data = self._source.read(index)
        self._keep(index, data)
        return data

    def name(self, index: int) -> str:
        return self._source.name(index)

    def _keep(self, index: int, data: bytes) -> None:
        with self._lock:
            start, count = self._total
            end = start + len(data)
            if end > self._limit or len(data) > _LONGEST or self._places[index]:
                return
            self._images[start:end] = data
            self._total[0], self._total[1] = end, count + 1
            self._places[index] = start << _SIZE_BITS | len(data)  # one word, the last

    def __reduce__(self) -> tuple[Callable[[Source], Source], tuple[Source]]:
        return _unkept, (self._source,)


def _unkept(source: Source) -> Source:
    return source
