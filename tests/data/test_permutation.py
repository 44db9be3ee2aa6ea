"""A permutation that is computed place by place: exact for every size, and as even as one that was shuffled."""

from __future__ import annotations

import numpy as np
import pytest

from sphereface.data.permutation import ROUNDS, Permutation, integers, splitmix64, uniforms

from . import order_oracle as oracle

SIZES = [*range(1, 35), 63, 64, 65, 97, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025, 7919, 65535, 65536, 65537]


def keys(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, ROUNDS, dtype=np.uint64)


def whole(size: int, seed: int) -> np.ndarray:
    return Permutation(size, keys(seed))(np.arange(size))


def chi_square(counts: np.ndarray) -> float:
    """How many standard deviations Pearson's statistic of equally likely cells is above its mean."""
    expected = counts.sum() / counts.size
    statistic, freedom = ((counts - expected) ** 2 / expected).sum(), counts.size - 1
    return float((statistic - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize("size", SIZES)
def test_each_number_comes_once(size):
    for seed in range(3):
        assert np.array_equal(np.sort(whole(size, seed)), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 50, 1000, 42_500_000, 2**32, 2**32 + 15, 10**12 + 39, 2**62])
def test_it_is_the_network_of_its_description(size):
    places = [place for place in (0, 1, size // 3, size // 2, size - 1) if place < size]
    found = Permutation(size, keys(5))(np.array(places))
    assert found.tolist() == [oracle.permuted(place, size, [int(key) for key in keys(5)]) for place in places]


def test_splitmix64_gives_the_published_numbers():
    """The first outputs of Vigna's splitmix64.c for the seed 1234567, as Rosetta Code prints them."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(np.uint64(1234567), np.arange(4, dtype=np.uint64)).tolist() == published


def test_numbers_of_words():
    words = np.array([0, 2**64 - 1, 2**63, 2**40, 2**40 - 1], dtype=np.uint64)
    assert integers(words, 5).tolist() == [0, 4, 2, 0, 0]
    assert uniforms(words).tolist() == [0.0, 1 - 2**-24, 0.5, 2**-24, 0.0]
    assert uniforms(words).dtype == np.float32


@pytest.mark.parametrize("size", [2, 3, 5, 16, 17, 50, 67])
def test_each_number_comes_to_each_place_equally_often(size):
    draws = 120 * size
    counts = np.zeros((size, size))
    for seed in range(draws):
        counts[np.arange(size), whole(size, seed)] += 1
    assert abs(chi_square(counts)) < 4


@pytest.mark.parametrize("size", [3, 4])
def test_all_permutations_of_a_few_are_equally_likely(size):
    codes = [int("".join(map(str, whole(size, seed)))) for seed in range(6000)]
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == np.prod(range(1, size + 1))
    assert chi_square(counts) < 4


def test_neighbours_are_no_nearer_than_others():
    """Pairs of places in a row, and pairs with one row or column of the network between them, cell by cell."""
    size, cells = 10_000, 10
    for step in (1, 2, 99, 100, 101):
        counts = np.zeros((cells, cells))
        for seed in range(30):
            found = whole(size, seed) * cells // size
            np.add.at(counts, (found[:-step], found[step:]), 1)
        assert abs(chi_square(counts)) < 5


def test_rises_and_fixed_points_are_those_of_a_random_permutation():
    size, seeds = 5_000, 40
    found = [whole(size, seed) for seed in range(seeds)]
    rises = np.array([(np.diff(each) > 0).sum() for each in found])  # mean (N − 1) / 2, variance (N + 1) / 12
    assert abs(rises.mean() - (size - 1) / 2) < 4 * np.sqrt((size + 1) / 12 / seeds)
    fixed = np.array([(each == np.arange(size)).sum() for each in found])  # mean 1, variance 1
    assert abs(fixed.mean() - 1) < 4 / np.sqrt(seeds)
