"""Compute random numbers and permutations at any place directly, without drawing in sequence.

Numbers are those of SplitMix64 (Steele, Lea and Flood, *Fast splittable pseudorandom number
generators*, OOPSLA 2014), whose output number x costs as much as the first. The permutation is a
Feistel network over a × b ≥ N numbers (Black and Rogaway, *Ciphers with arbitrary finite domains*,
CT-RSA 2002). It maps [0, ab) to itself one to one. A number of N or more is mapped again until it
is below N ("cycle walking"). a and b are about √N, so ab exceeds N by less than a.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

ROUNDS = 10  # as in NIST's format-preserving FF1 (SP 800-38G)
_GAMMA, _MIX_1, _MIX_2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_SHIFT_1, _SHIFT_2, _SHIFT_3, _ONE, _32, _40 = (np.uint64(bits) for bits in (30, 27, 31, 1, 32, 40))
_FLOAT = np.float32(2**-24)


def splitmix64(key: np.uint64 | Words, places: Words) -> Words:
    """Return outputs of SplitMix64 at places from 0 on, with one key or a key for each place."""
    z: Words = places + _ONE
    z *= _GAMMA
    z += key
    z ^= z >> _SHIFT_1
    z *= _MIX_1
    z ^= z >> _SHIFT_2
    z *= _MIX_2
    z ^= z >> _SHIFT_3
    return z


def integers(words: Words, count: int) -> npt.NDArray[np.int64]:
    """Return whole numbers in [0, count) for random words; ``count`` is far below 2³²."""
    return np.asarray((words >> _32) * np.uint64(count) >> _32, dtype=np.int64)


def uniforms(words: Words) -> npt.NDArray[np.float32]:
    """Return numbers in [0, 1), multiples of 2⁻²⁴, for random words."""
    return np.asarray((words >> _40).astype(np.float32) * _FLOAT)


class Permutation:
    """A permutation of [0, N) that a few keys define; it stores nothing of length N.

    Args:
        size: N, from 1 to 2⁶².
        keys: ``ROUNDS`` random words.
    """

    def __init__(self, size: int, keys: Sequence[np.uint64] | Words) -> None:
        self._size, self._keys = np.uint64(size), keys
        left = math.isqrt(size - 1) + 1
        self._sides = np.uint64(left), np.uint64(-(-size // left))

    def __call__(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the numbers at some places.

        Args:
            places: (K,) int64 in [0, N).
        """
        numbers = self._network(places.astype(np.uint64))
        while len(outside := np.flatnonzero(numbers >= self._size)):
            numbers[outside] = self._network(numbers[outside])
        return numbers.astype(np.int64)

    def _network(self, numbers: Words) -> Words:
        a, b = self._sides
        left, right = np.divmod(numbers, b)
        for first, second in zip(self._keys[::2], self._keys[1::2], strict=True):
            left = (left + (splitmix64(first, right) >> _ONE)) % a  # both below 2⁶³
            right = (right + (splitmix64(second, left) >> _ONE)) % b
        return np.asarray(left * b + right)
