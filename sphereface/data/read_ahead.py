"""Yield encoded images in order, and read files in the background while others are decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from .sources.base import Encoded, Source, read_each

_CHUNK = 64  # images per read: a switch to the thread and back costs as much as opening a few files


@contextmanager
def encoded(source: Source, indices: Sequence[int]) -> Iterator[Iterator[Encoded]]:
    """Give an iterator over the images: the bytes, or the error if one cannot be read.

    Opening a file takes a quarter of the time of decoding a crop, and many times that on a network
    disk. So a thread reads the next images while the caller decodes; both release the interpreter
    lock. The thread ends with the context, so it cannot disturb a fork or a pickle, and no search
    for garbage has to end it. Reading from a mapped file is a copy and needs no thread.
    """
    if source.mapped:
        yield read_each(source, indices)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        yield _read_ahead(thread, source, indices)


def _read_ahead(thread: ThreadPoolExecutor, source: Source, indices: Sequence[int]) -> Iterator[Encoded]:
    reading = thread.submit(_read, source, indices[:_CHUNK])
    for start in range(0, len(indices), _CHUNK):
        done = reading.result()
        reading = thread.submit(_read, source, indices[start + _CHUNK : start + 2 * _CHUNK])
        yield from done


def _read(source: Source, indices: Sequence[int]) -> list[Encoded]:
    return list(read_each(source, indices))
