import numpy as np
import pytest
from scipy.stats import binomtest

from sphereface.metrics import mcnemar, mean_difference


def right(only_a, only_b, both=10, neither=5):
    a = np.repeat([True, False, True, False], [only_a, only_b, both, neither])
    b = np.repeat([False, True, True, False], [only_a, only_b, both, neither])
    return a, b


@pytest.mark.parametrize(
    ("only_a", "only_b"), [(0, 0), (1, 0), (3, 9), (9, 3), (0, 6), (40, 41), (300, 380), (2000, 2200)]
)
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    got_a, got_b, p = mcnemar(*right(only_a, only_b))
    assert (got_a, got_b) == (only_a, only_b)
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert p == pytest.approx(expected, rel=1e-8)


def test_mcnemar_by_hand():
    assert mcnemar(*right(1, 5))[2] == pytest.approx(2 * (1 + 6) / 64)


def test_mean_difference_and_its_interval():
    differences = np.array([0.01, 0.03, 0.02, 0.00, 0.04, 0.02, 0.01, 0.03, 0.02, 0.02])
    mean, interval = mean_difference(differences)
    assert mean == pytest.approx(0.02)
    half = 1.96 * differences.std() / np.sqrt(10)
    assert interval.low == pytest.approx(0.02 - half, abs=1e-3)
    assert interval.high == pytest.approx(0.02 + half, abs=1e-3)
    assert mean_difference(-differences)[1].high < 0
    assert mean_difference(np.full(10, 0.5)) == (0.5, type(interval)(0.5, 0.5))
