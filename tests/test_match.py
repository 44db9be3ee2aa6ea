"""A comparison of two embeddings, beside sums that are written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.evaluation.calibration import Calibration, Threshold
from sphereface.match import Match, compare, unit_vector

STRONG, WEAK = Threshold(0.1, 0.5, 0.95, 1000), Threshold(0.01, 0.7, 0.6, 1000)
A, B = np.array([1.0, 0.0]), np.array([0.6, 0.8])  # their cosine is 0.6


def calibration(*thresholds: Threshold) -> Calibration:
    return Calibration("ab" * 32, True, "pairs.txt", 9.0, -3.0, 0.5, thresholds, "join")


def test_without_a_calibration_there_is_only_the_cosine():
    assert compare(A, B, None, far=None, prior=None) == Match(pytest.approx(0.6))


def test_a_cosine_stays_within_one():
    longer = A * (1 + 1e-4)  # as rounding to float16 may leave it
    assert compare(longer, longer, None, far=None, prior=None) == Match(1.0)
    assert compare(longer, -longer, None, far=None, prior=None) == Match(-1.0)


@pytest.mark.parametrize(("far", "same", "point"), [(None, True, STRONG), (0.1, True, STRONG), (0.01, False, WEAK)])
def test_the_decision_at_each_rate(far, same, point):
    match = compare(A, B, calibration(STRONG, WEAK), far=far, prior=None)
    assert (match.same, match.threshold, match.far, match.tar) == (same, point.threshold, point.far, point.tar)
    assert match.prior == 0.5
    assert match.probability == pytest.approx(1 / (1 + math.exp(-(9 * 0.6 - 3))))


def test_a_prior_moves_the_probability_by_its_odds():
    match = compare(A, B, calibration(STRONG), far=None, prior=0.001)
    odds = math.exp(9 * 0.6 - 3) * 0.001 / 0.999
    assert match.prior == 0.001
    assert match.probability == pytest.approx(odds / (1 + odds))


def test_a_weak_checkpoint_decides_only_at_a_rate_that_the_caller_gives():
    weak = calibration(WEAK)
    assert compare(A, B, weak, far=None, prior=None).same is None
    assert compare(A, B, weak, far=0.01, prior=None).same is False


def test_a_unit_vector_is_returned_as_float64():
    vector = unit_vector("a", [0.6, 0.8], 2)
    assert vector.dtype == np.float64
    assert vector.tolist() == [0.6, 0.8]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "a: got 'text' · allowed: a unit vector of 2 numbers"),
        ([[1.0], [1.0, 0.0]], "a: got .* · allowed: a unit vector of 2 numbers"),
        ([1.0, 0.0, 0.0], r"a: got shape \(3,\) · allowed: a unit vector of 2 numbers"),
        ([0.6, 0.81], "a: got a vector of length 1.00802 · allowed: a unit vector of 2 numbers"),
        (np.array([1 + 0j, 0]), r"a: got array\(.* · allowed: a unit vector of 2 numbers"),
        ([1j, 0.0], "a: got .* · allowed: a unit vector of 2 numbers"),
        ([math.nan, 0.0], "a: got a vector of length nan · allowed: "),
    ],
)
def test_other_values_are_refused(value, message):
    with pytest.raises(UserError, match=f"^{message}"):
        unit_vector("a", value, 2)
