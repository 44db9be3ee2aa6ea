import math

import numpy as np
import pytest

from sphereface.metrics import angular_fisher_score, d_prime, score_histogram


def test_d_prime_by_hand():
    scores = np.array([0.5, 0.7, 0.1, 0.3, math.nan])  # means 0.6 and 0.2, both of standard deviation 0.1
    same = np.array([True, True, False, False, True])
    assert d_prime(scores, same) == pytest.approx(4)
    assert d_prime(-scores, same) == pytest.approx(4)
    assert d_prime(np.array([0.4, 0.8, 0.2, 0.2]), same[:4]) == pytest.approx(0.4 / math.sqrt(0.02))


def test_d_prime_without_one_kind_or_without_spread():
    assert math.isnan(d_prime(np.array([0.1, 0.2]), np.array([True, True])))
    assert d_prime(np.array([0.1, 0.2]), np.array([True, False])) == math.inf


def test_histogram_counts_each_score_once():
    scores = np.array([-1.0, -0.99, 0.0, 0.49, 0.5, 1.0, 1.0000001, math.nan])
    same = np.array([True, False, True, True, True, True, False, True])
    genuine, impostor = score_histogram(scores, same, bins=4)
    assert (genuine.tolist(), impostor.tolist()) == ([1, 0, 2, 2], [1, 0, 0, 1])


def loop_fisher(features, people):
    """The paper's formula, term by term."""

    def cos(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    def mean(rows):
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]

    rows = features.tolist()
    within = between = 0.0
    for person in set(people.tolist()):
        own = [row for row, p in zip(rows, people.tolist(), strict=True) if p == person]
        within += sum(1 - cos(x, mean(own)) for x in own)
        between += len(own) * (1 - cos(mean(own), mean(rows)))
    return within / between


@pytest.mark.parametrize("seed", range(4))
def test_fisher_score_as_the_loop(seed):
    rng = np.random.default_rng(seed)
    people = np.array([0, 0, 0, 1, 2, 2, 5])  # one person with one image, numbers with gaps
    features = rng.standard_normal((7, 6)) + 1.5 * rng.standard_normal((6, 6))[people] + 0.5
    assert angular_fisher_score(features.astype(np.float32), people) == pytest.approx(
        loop_fisher(features, people), rel=1e-5
    )


def test_fisher_score_ranks_compact_people_lower():
    rng = np.random.default_rng(0)
    people = np.arange(40) // 4
    centres, noise = rng.standard_normal((10, 16))[people] + 1, rng.standard_normal((40, 16))
    assert angular_fisher_score(centres + 0.1 * noise, people) < angular_fisher_score(centres + noise, people)
    assert math.isnan(angular_fisher_score(np.ones((3, 4)), np.zeros(3, dtype=np.int64)))
