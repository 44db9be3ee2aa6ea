"""Keep the encoded images of a source in memory, shared by all data loader processes."""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence

from .base import Encoded, Labelled, Source, read_one, threads_of
from .selection import numbered_of

log = logging.getLogger(__name__)

_FLAGS = {} if sys.platform == "win32" else {"flags": mmap.MAP_SHARED | mmap.MAP_ANONYMOUS}


_SIZE_BITS = 24
_LONGEST = (1 << _SIZE_BITS) - 1  # bytes of an image


def cached(source: Source, limit: int) -> Source:
    """Return a source that keeps images in memory, or the source itself if it is not needed.

    A source that opens no files is returned itself, and so is any source if there is no memory.

    Args:
        source: any.
        limit: bytes of images to keep; 0: none.
    """
    if source.mapped or limit == 0:
        return source
    try:
        return CachedSource(source, limit)
    except (OSError, OverflowError, ValueError) as error:  # the limit is beyond the address space
        why = error.strerror if isinstance(error, OSError) else "too many"
        log.warning("data.keep_mb: no memory for %d MiB (%s): each epoch reads from disk", limit >> 20, why)
        return source


class CachedSource(Labelled):
    """A source that keeps the encoded images it has read, up to a number of bytes.

    Opening a file takes a quarter of the time of decoding a crop, and many times that on a network
    disk. Without this class, every epoch opens each file again. The first process that reads an
    image puts it into memory that forked processes share. A process that receives the source as a
    pickle reads the files. For joined sources all images are kept, also those of mapped files. If
    an image file changes during a run, the old content is used.

    Memory: 8 bytes an image, and the images themselves when they are read.

    Args:
        source: the whole.
        limit: bytes of images to keep, at least 1; the rest are read from disk each time.

    Raises:
        OSError: the system does not provide the memory.
    """

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self.labels, self.class_names, self.named = source.labels, source.class_names, source.named
        self.numbered = numbered_of(source)
        self._images = mmap.mmap(-1, limit, **_FLAGS)
        self._limit = limit
        words = memoryview(mmap.mmap(-1, 8 * len(source) + 16, **_FLAGS)).cast("Q")
        # start and size of each image, 0: absent; totals of bytes and of images
        self._places, self._total = words[:-2], words[-2:]
        self._lock = multiprocessing.Lock()

    @property
    def threads(self) -> int:
        """How many threads may read it at once."""
        return threads_of(self._source)

    @property
    def mapped(self) -> bool:
        """Whether all images are in memory now."""
        return self._total[1] == len(self._places)

    def read(self, index: int) -> bytes:
        place = self._places[index]
        if place:
            start = place >> _SIZE_BITS
            return self._images[start : start + (place & _LONGEST)]
        data = self._source.read(index)
        self._keep(index, data)
        return data

    def read_each(self, indices: Sequence[int]) -> Iterator[Encoded]:
        """Yield images, each read when it is requested."""
        images, places = self._images, self._places
        for index in indices:
            place = places[index]
            start = place >> _SIZE_BITS
            yield images[start : start + (place & _LONGEST)] if place else read_one(self, index)

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
            self._places[index] = start << _SIZE_BITS | len(data)  # one word, written last

    def __reduce__(self) -> tuple[Callable[[Source], Source], tuple[Source]]:
        return _uncached, (self._source,)


def _uncached(source: Source) -> Source:
    return source
