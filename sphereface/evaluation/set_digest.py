"""A digest of a set: its lists and a sample of its images, wherever they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass

import numpy as np

from ..data.images import read_encoded
from .protocols import EvaluationSet

_SAMPLED = 1000


def digest_of(each: EvaluationSet) -> str:
    """Return the first half of a SHA-256 of what a set was read from, as 32 hexadecimal digits.

    It covers the protocol, names, pairs, labels and folds, and the content of up to 1,000 images,
    evenly spaced. Paths and the set's own name are left out, so copies of a set and a renamed set
    have the same digest. An image that cannot be read counts as empty. A set for a table of
    embeddings has no images on disk, and the digest of its lists.
    """
    sha = hashlib.sha256()
    for part in _parts({**getattr(each, "__dict__", {}), "name": type(each).__name__}):
        sha.update(part)
    files = each.images.files or ()
    count = min(len(files), _SAMPLED)
    for file in (files[index * len(files) // count] for index in range(count)):
        try:
            sha.update(hashlib.sha256(read_encoded(file)).digest())
        except OSError:
            sha.update(b"\0")
    return sha.hexdigest()[:32]


def _parts(value: object) -> Iterator[bytes]:
    """Yield the content of a value in a fixed order, each part with its kind."""
    if isinstance(value, np.ndarray) and value.dtype.hasobject:  # whose bytes are addresses
        yield from _parts(value.tolist())
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype.str}{value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield f"{key}:".encode()
            yield from _parts(value[key])
    elif isinstance(value, (list, tuple)):
        yield f"[{len(value)}]".encode()
        for each in value:
            yield from _parts(each)
    elif isinstance(value, str):
        yield f"{value!r};".encode()
    elif value is None or isinstance(value, (bool, int, float)):
        yield f"{value};".encode()
    elif is_dataclass(value) and not isinstance(value, type) and not hasattr(value, "read_bytes"):
        yield from _parts(getattr(value, "__dict__", {}))
