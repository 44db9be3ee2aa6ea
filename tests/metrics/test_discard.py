import numpy as np
import pytest

from sphereface.metrics import error_versus_discard, partial_area


def by_hand(errors, quality, fraction):
    """Discard the lowest ones, in every order of equal ones equally likely: the mean over many random orders."""
    rng = np.random.default_rng(0)
    number, rates = int(np.floor(fraction * len(errors) + 1e-9)), []
    for _ in range(4000):
        order = np.lexsort([rng.random(len(errors)), quality])
        rates.append(errors[order[number:]].mean())
    return np.mean(rates)


def test_without_ties_the_lowest_are_left_out():
    errors = np.array([True, False, True, False, False, False, False, True, False, False])
    quality = np.array([0, 9, 1, 8, 2, 7, 3, 6, 4, 5], dtype=float)
    fractions = np.array([0.0, 0.1, 0.2, 0.3, 0.5])
    rates = error_versus_discard(errors, quality, fractions)
    # lowest quality first: True, True, False (2), False (3), False (4), False (5), True (6) …
    np.testing.assert_allclose(rates, [3 / 10, 2 / 9, 1 / 8, 1 / 7, 1 / 5])


def test_ties_are_their_expectation():
    rng = np.random.default_rng(5)
    errors, quality = rng.random(60) < 0.4, rng.integers(0, 4, 60).astype(float)
    for fraction in (0.1, 0.33, 0.8):
        (rate,) = error_versus_discard(errors, quality, np.array([fraction]))
        assert rate == pytest.approx(by_hand(errors, quality, fraction), abs=0.01)


def test_an_unknown_quality_is_the_lowest():
    errors = np.array([True, False, False, False])
    (rate,) = error_versus_discard(errors, np.array([np.nan, 1.0, -5.0, 2.0]), np.array([0.25]))
    assert rate == 0


def test_a_fraction_that_is_not_exact_in_binary():
    errors = np.zeros(100, dtype=bool)
    errors[28] = True
    assert error_versus_discard(errors, np.arange(100.0), np.array([0.28, 0.29])).tolist() == [1 / 72, 0]


@pytest.mark.parametrize("fraction", [1.0, -0.1])
def test_fractions_that_leave_nothing(fraction):
    with pytest.raises(ValueError, match="fractions: got"):
        error_versus_discard(np.array([True]), np.array([1.0]), np.array([fraction]))


def test_partial_area_is_a_mean():
    assert partial_area(np.array([0.0, 0.1, 0.2]), np.array([0.3, 0.3, 0.3])) == pytest.approx(0.3)
    assert partial_area(np.array([0.0, 0.2]), np.array([0.4, 0.2])) == pytest.approx(0.3)
