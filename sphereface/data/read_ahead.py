"""Yield encoded images in order, and read files in the background while others are decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

from .sources.base import Encoded, Source, read_each, threads_of

_CHUNK = 32  # images per read: a switch to a thread and back costs as much as opening a few files


@contextmanager
def encoded(source: Source, indices: Sequence[int]) -> Iterator[Iterator[Encoded]]:
    """Give an iterator over the images: the bytes, or the error if one cannot be read.

    Opening a file takes a quarter of the time of decoding a crop, ten times that if a disk has to
    find it, and more on a network disk. So threads read the next images while the caller decodes;
    all release the interpreter lock. They end with the context, so they cannot disturb a fork or a
    pickle, and no search for garbage has to end them. Reading from a mapped file is a copy and
    needs no thread.
    """
    if source.mapped:
        yield read_each(source, indices)
        return
    count = threads_of(source)
    with ThreadPoolExecutor(count, thread_name_prefix="read-ahead") as threads:
        yield _read_ahead(threads, count, source, indices)


def _read_ahead(threads: ThreadPoolExecutor, count: int, source: Source, indices: Sequence[int]) -> Iterator[Encoded]:
    chunks = (indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK))
    reading = deque(threads.submit(_read, source, chunk) for chunk in islice(chunks, count))
    while reading:
        done = reading.popleft().result()
        reading.extend(threads.submit(_read, source, chunk) for chunk in islice(chunks, 1))
        yield from done


def _read(source: Source, indices: Sequence[int]) -> list[Encoded]:
    return list(read_each(source, indices))
