"""Encoded images one after another, read ahead of their decoding where each of them is a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from .sources import Source

Encoded = bytes | OSError
_CHUNK = 64  # images read at a time: handing over to the thread and back costs as much as opening a few files


def encoded(source: Source, indices: Sequence[int]) -> Iterator[Encoded]:
    """For each image its bytes, or why it cannot be read.

    Opening a file takes a quarter of the time of decoding a crop, on a network's disk many times
    that. So a thread reads the next images while the caller decodes; neither holds the interpreter
    meanwhile. The thread ends with
    the last image: nothing stays that a fork or a pickle could trip over. From a mapped file,
    reading is a copy.
    """
    if source.mapped:
        yield from (_read_one(source, index) for index in indices)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        reading = thread.submit(_read, source, indices[:_CHUNK])
        for start in range(0, len(indices), _CHUNK):
            done = reading.result()
            reading = thread.submit(_read, source, indices[start + _CHUNK : start + 2 * _CHUNK])
            yield from done


def _read(source: Source, indices: Sequence[int]) -> list[Encoded]:
    return [_read_one(source, index) for index in indices]


def _read_one(source: Source, index: int) -> Encoded:
    try:
        return source.read(index)
    except OSError as error:
        return error
