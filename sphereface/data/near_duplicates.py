"""Find near-duplicates by a perceptual hash of 128 bits: images that look the same.

An image is reduced to 32×32 grey pixels, and these to the signs of the 128 lowest frequencies of
their cosine transform. The usual 64 bits are too few: aligned faces have much in common, and
thousands of different people have equal hashes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import scipy.sparse  # type: ignore[import-untyped]
import scipy.sparse.csgraph  # type: ignore[import-untyped]

BITS = 128
_SIDE = 32
_LOWEST = sorted(((u, v) for u in range(_SIDE) for v in range(_SIDE) if u + v), key=lambda uv: (sum(uv), uv))[:BITS]
_ROWS, _COLUMNS = np.array(_LOWEST).T
_ZERO = 0.05  # the frequencies of a blank image are 0 up to rounding

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]


def perceptual_hash(image: npt.NDArray[np.uint8]) -> Hashes:
    """Return the (2,) uint64 hash of an image, (H, W, 3) uint8 BGR; its mean does not matter."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(cv2.dct(grey.astype(np.float32))[_ROWS, _COLUMNS] > _ZERO).view(np.uint64)


def distances(a: Hashes, b: Hashes) -> npt.NDArray[np.uint8]:
    """Return the (P,) Hamming distances, in [0, 128], of two arrays (P, 2) of hashes."""
    different: npt.NDArray[np.uint8] = np.unpackbits((a ^ b).view(np.uint8), axis=1).sum(axis=1, dtype=np.uint8)
    return different


class Links(NamedTuple):
    """Pairs of hashes within a radius that connect the same groups as all such pairs.

    Attributes:
        left, right: (L,) int64 rows.
        distance: (L,) uint8.
    """

    left: Indices
    right: Indices
    distance: npt.NDArray[np.uint8]


def find_links(hashes: Hashes, radius: int) -> Links:
    """Find which hashes are within a radius of each other, exactly.

    Of r + k bands of bits, two hashes within radius r have k equal ones. So they share a bucket for
    at least one choice of k bands. k grows with N, which keeps buckets small. The cost is about N
    log N for each of the (r + k choose k) choices (91 at r = 12 and a million hashes), plus the
    pairs in the buckets. Memory: about 100 bytes a hash.

    Args:
        hashes: (N, 2) uint64.
        radius: largest Hamming distance, in [0, 64].
    """
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    new = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))[: len(hashes)]
    first = order[np.flatnonzero(new)[np.cumsum(new) - 1]]  # of each group of equal hashes; lexsort is stable
    parts = [Links(first[~new], order[~new], np.zeros(int((~new).sum()), np.uint8))]
    rows = order[new]
    group = np.arange(len(rows))
    for keys in _bucket_keys(ordered[new], radius):
        found = [_within(ordered[new], left, right, radius) for left, right in _same_key(keys, group)]
        if found:
            left, right, distance = (np.concatenate(part) for part in zip(*found, strict=True))
            parts.append(Links(rows[left], rows[right], distance))
            group = _components(len(rows), group, left, right)
    return Links(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def groups_of(links: Links) -> list[tuple[list[int], int]]:
    """Return the groups that links connect, in the order of their rows.

    Returns:
        For each group its rows, and the largest distance of a link.
    """
    rows, ends = np.unique(np.stack([links.left, links.right]), return_inverse=True)
    left, right = ends.reshape(2, -1)
    group = _components(len(rows), np.arange(len(rows)), left, right)
    largest = np.zeros(len(rows), np.uint8)
    np.maximum.at(largest, group[left], links.distance)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    parts = np.split(order, starts[1:]) if len(starts) else []
    return sorted((rows[part].tolist(), int(largest[group[part[0]]])) for part in parts)


def _bucket_keys(hashes: Hashes, radius: int) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield for each choice of bands the (N,) bucket keys of the hashes."""
    wanted = max(math.log2(max(len(hashes), 2)) - 2, 8)  # bits of a key: a few hashes per bucket
    same = next(k for k in range(1, BITS) if k * (BITS // (radius + k)) >= min(wanted, 48))
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    # low and high frequencies in each band
    bands = [_packed(bits[:, start :: radius + same]) for start in range(radius + same)]
    width = np.uint64(-(-BITS // (radius + same)))
    for chosen in combinations(bands, same):
        key = chosen[0]
        for band in chosen[1:]:
            key = (key << width) | band
        yield key


def _packed(bits: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    number = np.zeros(len(bits), np.uint64)
    for column in bits.T:
        number = (number << np.uint64(1)) | column
    return number


def _same_key(keys: npt.NDArray[np.uint64], group: npt.NDArray[Any]) -> Iterator[tuple[Indices, Indices]]:
    """Yield pairs of rows with equal keys that are not connected yet, at most N at a time."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    start, step = np.arange(len(keys)), 1
    while len(start := start[start + step < len(keys)]):
        start = start[ordered[start] == ordered[start + step]]
        left, right = order[start], order[start + step]
        apart = group[left] != group[right]
        yield left[apart], right[apart]
        step += 1


def _within(hashes: Hashes, left: Indices, right: Indices, radius: int) -> tuple[Any, Any, Any]:
    distance = distances(hashes[left], hashes[right])
    near = distance <= radius
    return left[near], right[near], distance[near]


def _components(num: int, group: npt.NDArray[Any], left: Indices, right: Indices) -> npt.NDArray[Any]:
    """Return the (num,) group of each row after connecting rows; ``group`` holds earlier groups."""
    size = max(num, int(group.max(initial=-1)) + 1)
    links = scipy.sparse.coo_array((np.ones(len(left), np.int8), (group[left], group[right])), shape=(size, size))
    joined: npt.NDArray[Any] = scipy.sparse.csgraph.connected_components(links, directed=False)[1][group]
    return joined
