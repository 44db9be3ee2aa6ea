"""The order of training in plain Python, from its description alone, and only its key words from numpy's Philox."""

from __future__ import annotations

import math

import numpy as np

WORD = 2**64


def key_words(seed: int, epoch: int, purpose: int, count: int) -> list[int]:
    key, counter = np.array([seed, epoch], np.uint64), np.array([0, 0, 0, purpose], np.uint64)
    return [int(word) for word in np.random.Philox(key=key, counter=counter).random_raw(count)]


def splitmix64(key: int, place: int) -> int:
    """Output number ``place`` of the generator by Vigna (prng.di.unimi.it/splitmix64.c), seeded with the key."""
    z = (key + (place + 1) * 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def permuted(number: int, size: int, keys: list[int]) -> int:
    a = math.ceil(math.sqrt(size))
    b = math.ceil(size / a)
    while True:
        left, right = divmod(number, b)
        for row, key in enumerate(keys):
            if row % 2 == 0:
                left = (left + splitmix64(key, right) // 2) % a
            else:
                right = (right + splitmix64(key, left) // 2) % b
        number = left * b + right
        if number < size:
            return number


def slot(seed: int, epoch: int, place: int, size: int) -> int:
    return permuted(place, size, key_words(seed, epoch, 0, 10))


def word(seed: int, epoch: int, purpose: int, slot: int, column: int = 0, columns: int = 1) -> int:
    return splitmix64(key_words(seed, epoch, purpose, 1)[0], slot * columns + column)


def balanced(counts: list[int], strength: float, slot: int, offset: float) -> int:
    """The image under stroke ``slot + offset`` of N, images laid end to end with their weights, one by one."""
    weights = [count**-strength for count in counts for _ in range(count)]
    stroke, end = (slot + offset) * sum(weights) / len(weights), 0.0
    for image, weight in enumerate(weights):
        end += weight
        if stroke < end:
            return image
    return len(weights) - 1
