import numpy as np
import pytest
from sklearn.metrics import roc_curve

from sphereface.metrics import auc, equal_error_rate, roc, tar_at_far
from sphereface.metrics.ijb import (
    SortedScores,
    auc_sorted,
    equal_error_rate_sorted,
    tar_at_far_sorted,
    tpr_at_nearest_fpr,
)

from .. import ijb_golden as golden

FARS = (0.0, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.29, 0.5, 0.9, 1.0)


def field_rule(scores, same, fars):
    """As eval_ijbc.py writes it."""
    fpr, tpr, _ = roc_curve(same, scores)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    return [tpr[min(zip(abs(fpr - far), range(len(fpr))))[1]] for far in fars]  # noqa: B905


def made(seed, count, decimals, genuine=0.3):
    """Random scores, tied where ``decimals`` are few."""
    rng = np.random.default_rng(seed)
    same = rng.random(count) < genuine
    same[:2] = True, False
    return np.round(rng.standard_normal(count) + same, decimals), same


CASES = [(seed, count, decimals) for seed in range(6) for count in (2, 5, 40, 3000) for decimals in (0, 1, 2, 16)]


@golden.in_each_mode
def test_tpr_at_nearest_fpr_equals_insightface(mode, whole):
    values = golden.load(whole)
    rows = golden.rows_of_mode(mode, values["features"], golden.detector_score())
    media = "ijbx_face_tid_mid.txt"
    ids, templates = golden.pool_by_loops(rows, golden.column(media, 1), golden.column(media, 2))
    left, right = (np.searchsorted(ids, golden.column("ijbx_template_pair_label.txt", side)) for side in (0, 1))
    scores = values[f"{mode}.scores"] if whole else np.einsum("ij,ij->i", templates[left], templates[right])
    same = golden.column("ijbx_template_pair_label.txt", 2) == 1
    found = tpr_at_nearest_fpr(SortedScores.of(scores, same), values["far"])
    np.testing.assert_array_equal(found, values[f"{mode}.tpr_at_nearest_fpr"])


@pytest.mark.parametrize(("seed", "count", "decimals"), CASES)
@pytest.mark.parametrize("genuine", [0.3, 0.003])  # with few, ties of impostors alone bend the curve
def test_tpr_at_nearest_fpr_equals_roc_curve(seed, count, decimals, genuine):
    scores, same = made(seed, count, decimals, genuine)
    found = tpr_at_nearest_fpr(SortedScores.of(scores, same), FARS)
    assert found.tolist() == field_rule(scores, same, FARS)


def test_long_straight_stretches_of_the_curve():
    """Where no genuine score lies among thousands of impostors, roc_curve keeps no point there."""
    rng = np.random.default_rng(5)
    scores = np.concatenate([np.linspace(0, 1, 5000), rng.uniform(1, 2, 20), [0.5, 0.5, 0.1]])
    same = np.arange(len(scores)) >= 5000
    found = tpr_at_nearest_fpr(SortedScores.of(scores, same), FARS)
    assert found.tolist() == field_rule(scores, same, FARS)


def test_of_equally_near_points_the_largest_tpr_counts():
    scores, same = np.array([5.0, 4, 3, 2, 1, 0]), np.array([False, True, True, False, True, False])
    assert tpr_at_nearest_fpr(SortedScores.of(scores, same), [1 / 3]) == [2 / 3]
    assert tpr_at_nearest_fpr(SortedScores.of(scores, same), [0.5]).tolist() == field_rule(scores, same, [0.5])


@pytest.mark.parametrize(("seed", "count", "decimals"), CASES)
def test_honest_figures_equal_those_of_the_curve(seed, count, decimals):
    scores, same = made(seed, count, decimals)
    scores[np.random.default_rng(seed).random(count) < 0.1] = np.nan
    curve, found = roc(scores, same), SortedScores.of(scores, same)
    assert tar_at_far_sorted(found, FARS) == tar_at_far(curve, FARS)
    assert auc_sorted(found) == pytest.approx(auc(curve), abs=1e-12)
    assert equal_error_rate_sorted(found) == pytest.approx(equal_error_rate(curve), abs=1e-12)


def test_without_a_defined_impostor_pair_the_figures_are_those_of_the_curve():
    scores, same = np.array([0.3, np.nan, np.nan, np.nan, 0.2]), np.array([True, True, False, False, True])
    curve, found = roc(scores, same), SortedScores.of(scores, same)
    assert found.impostor.tolist() == [np.inf, np.inf]
    assert tar_at_far_sorted(found, FARS) == tar_at_far(curve, FARS)
    assert [point.tar for point in tar_at_far_sorted(found, (0.1, 0.5))] == [0, 0]
    assert tpr_at_nearest_fpr(found, (1e-3,)).tolist() == [0]


@pytest.mark.parametrize("gap", [-3.0, 3.0])
def test_kinds_that_do_not_overlap(gap):
    scores = np.array([0.0, 0.1, 0.2, gap, gap + 0.1])
    same = np.array([False, False, False, True, True])
    curve, found = roc(scores, same), SortedScores.of(scores, same)
    assert tar_at_far_sorted(found, FARS) == tar_at_far(curve, FARS)
    assert auc_sorted(found) == auc(curve) == float(gap > 0)
    assert equal_error_rate_sorted(found) == equal_error_rate(curve) == float(gap < 0)


def test_scores_are_sorted_by_kind_and_not_changed():
    scores, same = np.array([0.3, np.nan, 0.1, np.nan, 0.2]), np.array([True, True, False, False, True])
    found = SortedScores.of(scores, same)
    assert found.genuine.tolist() == [-np.inf, 0.2, 0.3]
    assert found.impostor.tolist() == [0.1]  # an undefined impostor pair is left out
    np.testing.assert_array_equal(scores, [0.3, np.nan, 0.1, np.nan, 0.2])


@pytest.mark.parametrize("same", [[True, True], [False, False]])
def test_pairs_of_one_kind_have_no_rates(same):
    with pytest.raises(ValueError, match="genuine and impostor pairs are needed; got"):
        SortedScores.of(np.array([0.1, 0.2]), np.array(same))
