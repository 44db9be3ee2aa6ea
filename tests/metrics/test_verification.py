import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sphereface.metrics import (
    THRESHOLD_GRID,
    accuracy_at,
    auc,
    best_threshold,
    equal_error_rate,
    roc,
    tar_at_far,
)
from sphereface.metrics.verification import counted

GOLDEN = Path(__file__).parent.parent / "golden" / "lfw_protocol.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


def arrays(genuine, impostor):
    """Scores and flags, genuine first."""
    scores = np.array([*genuine, *impostor], dtype=np.float64)
    return scores, np.arange(len(scores)) < len(genuine)


def random_ties(rng, num_pairs, levels):
    """Scores on few levels, so that many are equal, and flags of both kinds."""
    scores = rng.integers(0, levels, num_pairs) / levels
    same = rng.random(num_pairs) < 0.5
    same[:2] = True, False
    return scores, same


# ---------------------------------------------------------------- thresholds


def test_every_grid_value_is_the_correctly_rounded_quotient():
    assert THRESHOLD_GRID.tolist() == [k / 10000 for k in range(-10000, 10001)]


@pytest.mark.parametrize("case", range(1, 11))
def test_ties_as_in_the_original(golden, case):
    scores, same = golden[f"tie_{case}_scores"], golden[f"tie_{case}_flags"] == 1
    threshold = best_threshold(scores, same)
    assert threshold == pytest.approx(float(golden[f"tie_{case}_threshold"]), abs=1e-12)
    assert accuracy_at(scores, same, threshold) == pytest.approx(float(golden[f"tie_{case}_accuracy"]), abs=1e-12)


def loop_accuracy(scores, same, threshold):
    correct = 0
    for score, genuine in zip(scores.tolist(), same.tolist(), strict=True):
        if (genuine and score > threshold) or (not genuine and score < threshold):
            correct += 1
    return correct / len(scores)


def loop_threshold(scores, same, grid):
    accuracies = [loop_accuracy(scores, same, threshold) for threshold in grid]
    highest = max(accuracies)
    best = [t for t, accuracy in zip(grid, accuracies, strict=True) if accuracy == highest]
    return math.fsum(best) / len(best)


@pytest.mark.parametrize("seed", range(40))
def test_thresholds_equal_a_slow_loop(seed):
    rng = np.random.default_rng(seed)
    scores, same = random_ties(rng, rng.integers(2, 30), levels=int(rng.integers(1, 12)))
    scores[rng.random(len(scores)) < 0.1] = np.nan
    grid = np.arange(-4, 25) / 24
    threshold = best_threshold(scores, same, grid)
    assert threshold == pytest.approx(loop_threshold(scores, same, grid.tolist()), abs=1e-14)
    for candidate in grid:
        assert accuracy_at(scores, same, candidate) == loop_accuracy(scores, same, candidate)


def test_maximisers_that_are_not_adjacent_are_averaged():
    scores, same = arrays(genuine=[0.0], impostor=[0.0])
    # either side of 0 decides one of the two correctly, 0 itself none
    assert best_threshold(scores, same, np.array([-0.5, 0.0, 0.1, 0.2, 0.4])) == pytest.approx(0.05)


def test_a_score_on_the_threshold_is_wrong_for_either_kind():
    scores, same = arrays(genuine=[0.5, 0.6], impostor=[0.5, 0.4])
    assert accuracy_at(scores, same, 0.5) == 0.5


def test_nan_is_wrong_and_counts():
    scores, same = arrays(genuine=[0.9, math.nan], impostor=[0.1, math.nan])
    assert accuracy_at(scores, same, 0.5) == 0.5
    assert best_threshold(scores, same, np.array([0.0, 0.5, 1.0])) == 0.5


# ---------------------------------------------------------------- ROC


def test_roc_points_by_hand():
    curve = roc(*arrays(genuine=[0.9, 0.5, 0.5], impostor=[0.5, 0.1]))
    assert curve.threshold.tolist() == [0.9, 0.5, 0.1, -math.inf]
    assert curve.true_accepts.tolist() == [0, 1, 3, 3]
    assert curve.false_accepts.tolist() == [0, 0, 1, 2]
    assert curve.tar.tolist() == [0, 1 / 3, 1, 1]
    assert curve.far.tolist() == [0, 0, 0.5, 1]
    assert (curve.num_genuine, curve.num_impostor) == (3, 2)


@pytest.mark.parametrize("seed", range(20))
def test_each_roc_point_counts_the_scores_above_its_threshold(seed):
    scores, same = random_ties(np.random.default_rng(seed), 50, levels=8)
    curve = roc(scores, same)
    for threshold, true, false in zip(curve.threshold, curve.true_accepts, curve.false_accepts, strict=True):
        assert true == sum(scores[same] > threshold)
        assert false == sum(scores[~same] > threshold)


@pytest.mark.parametrize("same", [True, False])
def test_roc_of_one_kind_is_refused(same):
    with pytest.raises(ValueError, match="needs genuine and impostor pairs; got"):
        roc(np.array([0.1, 0.2]), np.array([same, same]))


def test_a_nan_genuine_pair_is_never_accepted_and_a_nan_impostor_pair_is_left_out():
    curve = roc(*arrays(genuine=[0.9, math.nan], impostor=[0.1, math.nan]))
    assert (curve.num_genuine, curve.num_impostor) == (2, 1)
    assert auc(curve) == 0.5  # of two comparisons 0.9 > 0.1 is won
    assert tar_at_far(curve, [0.4])[0] == tar_at_far(roc(*arrays([0.9, -math.inf], [0.1])), [0.4])[0]
    assert tar_at_far(curve, [0.4])[0].tar == 0.5


def test_without_a_defined_impostor_pair_nothing_is_found():
    curve = roc(*arrays(genuine=[0.9, math.nan, 0.8], impostor=[math.nan, math.nan]))
    assert (curve.num_genuine, curve.num_impostor, auc(curve)) == (3, 2, 0.0)
    for point in tar_at_far(curve, [0.0, 0.1, 0.5]):
        assert (point.tar, point.threshold, point.num_impostor) == (0.0, math.inf, 2)
    curve = roc(*arrays(genuine=[math.nan] * 3, impostor=[math.nan] * 20))  # a network that has diverged
    assert [point.tar for point in tar_at_far(curve, [0.1, 0.01])] == [0.0, 0.0]


@pytest.mark.parametrize("share", [0.2, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(10))
def test_counted_as_a_loop(seed, share):
    rng = np.random.default_rng(seed)
    scores, same = random_ties(rng, 12, levels=4)
    scores[rng.random(12) < share] = np.nan
    defined = [not math.isnan(score) for score, genuine in zip(scores, same, strict=True) if not genuine]
    expected = [
        bool(genuine or not any(defined) or not math.isnan(score))
        for score, genuine in zip(scores.tolist(), same, strict=True)
    ]
    assert counted(scores, same).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_figures_with_undefined_pairs_by_loops(seed):
    rng = np.random.default_rng(seed)
    scores, same = random_ties(rng, 60, levels=20)
    scores[rng.random(60) < 0.3] = np.nan
    impostor = [score for score in scores[~same].tolist() if not math.isnan(score)]
    genuine = [-1.0 if math.isnan(score) else score for score in scores[same].tolist()]  # below all scores
    curve = roc(scores, same)
    won = [1.0 if g > i else 0.5 if g == i else 0.0 for g in genuine for i in impostor]
    assert auc(curve) == pytest.approx(sum(won) / len(won), abs=1e-12)
    for point in tar_at_far(curve, [0.5, 0.1, 0.05, 0.01]):
        threshold = sorted(impostor, reverse=True)[int(point.far * len(impostor) + 1e-9)]
        assert (point.threshold, point.num_impostor) == (threshold, len(impostor))
        assert point.tar == np.mean([score > threshold for score in genuine])
        assert point.false_accepts == sum(score > threshold for score in impostor)


def test_one_undefined_embedding_costs_its_own_pairs():
    """It has 30 impostor pairs, more than the 10 that FAR 0.01 lets pass."""
    rng = np.random.default_rng(0)
    scores, same = arrays(genuine=rng.standard_normal(200) + 4, impostor=rng.standard_normal(1000))
    (before,) = tar_at_far(roc(scores, same), [0.01])
    scores[np.r_[0, 500:530]] = np.nan
    (after,) = tar_at_far(roc(scores, same), [0.01])
    assert after.threshold == pytest.approx(before.threshold, abs=0.1)
    assert after.tar > 0.9 > 0
    assert (after.num_impostor, after.false_accepts) == (970, 9)


def test_infinite_scores_are_scores():
    curve = roc(*arrays(genuine=[math.inf, math.inf, 0.0], impostor=[-math.inf, 0.0]))
    assert auc(curve) == (2 * 2 + 1 + 0.5) / 6


@pytest.mark.parametrize("seed", range(20))
def test_auc_counts_the_comparisons_won(seed):
    scores, same = random_ties(np.random.default_rng(seed), 40, levels=10)
    won = [1.0 if g > i else 0.5 if g == i else 0.0 for g in scores[same] for i in scores[~same]]
    assert auc(roc(scores, same)) == pytest.approx(sum(won) / len(won), abs=1e-12)
    assert auc(roc(scores, same)) == pytest.approx(roc_auc_score(same, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("genuine", "impostor", "expected"),
    [
        ([0.8, 0.9], [0.1, 0.2], 0.0),
        ([0.1, 0.2], [0.8, 0.9], 1.0),
        ([0.5, 0.5], [0.5, 0.5], 0.5),
        (
            [0.9, 0.8, 0.7, 0.3],
            [0.6, 0.2, 0.1, 0.0],
            0.25,
        ),  # at 0.3 < t < 0.6: one of four wrong of each kind
        # (FAR, TAR) goes (0, 0) (0, ½) (½, ½) (½, 1): FAR = 1 − TAR at (½, ½)
        ([0.9, 0.4], [0.6, 0.1], 0.5),
        # (0, ⅔) to (½, 1) in one step, since 0.5 is of both kinds: ⅔ + ⅔·FAR = 1 − FAR at FAR = ⅕
        ([0.9, 0.8, 0.5], [0.5, 0.1], 0.2),
    ],
)
def test_equal_error_rate_by_hand(genuine, impostor, expected):
    assert equal_error_rate(roc(*arrays(genuine, impostor))) == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------- TAR@FAR


def test_tar_at_far_by_hand():
    impostor = [0.10, 0.20, 0.30, 0.40, 0.50, 0.55, 0.60, 0.65, 0.70, 0.80]
    curve = roc(*arrays(genuine=[0.95, 0.90, 0.75, 0.70, 0.65, 0.05], impostor=impostor))
    tenth, fifth, none, whole = tar_at_far(curve, [0.1, 0.2, 0.01, 1.0])
    assert (tenth.threshold, tenth.tar, tenth.false_accepts) == (
        0.70,
        3 / 6,
        1,
    )  # 0.70 itself is not accepted
    assert (fifth.threshold, fifth.tar, fifth.false_accepts) == (0.65, 4 / 6, 2)
    assert (none.threshold, none.tar, none.false_accepts) == (0.80, 2 / 6, 0)
    assert (whole.threshold, whole.tar, whole.false_accepts) == (-math.inf, 1.0, 10)
    assert [point.impostors_used for point in (tenth, fifth, none)] == [1.0, 2.0, 0.1]
    assert {point.num_impostor for point in (tenth, fifth, none, whole)} == {10}


def test_impostors_that_tie_are_rejected_together():
    curve = roc(*arrays(genuine=[0.9, 0.6], impostor=[0.7, 0.7, 0.7, 0.1]))
    (half,) = tar_at_far(curve, [0.5])
    assert (half.threshold, half.tar, half.false_accepts) == (0.7, 0.5, 0)


def test_a_product_just_below_a_whole_number_is_that_number():
    assert 0.29 * 100 < 29
    curve = roc(*arrays(genuine=[2.0], impostor=np.arange(100) / 100))
    assert tar_at_far(curve, [0.29])[0].false_accepts == 29


@pytest.mark.parametrize("seed", range(20))
def test_tar_at_far_is_the_best_that_any_threshold_reaches(seed):
    rng = np.random.default_rng(seed)
    scores, same = random_ties(rng, 60, levels=20)
    candidates = [-math.inf, *scores.tolist()]
    for point in tar_at_far(roc(scores, same), [0.5, 0.1, 0.05, 0.01]):
        allowed = [t for t in candidates if np.mean(scores[~same] > t) <= point.far]
        assert point.tar == max(np.mean(scores[same] > t) for t in allowed)
        assert point.threshold == min(allowed)
