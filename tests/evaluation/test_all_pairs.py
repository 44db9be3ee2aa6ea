import itertools

import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.evaluation.protocols import all_pairs as module
from sphereface.evaluation.protocols.all_pairs import BINS, FAR_TARGETS, all_pairs
from sphereface.metrics import auc, equal_error_rate, roc, tar_at_far

from .folders import LFW, cosine, made_up_features, made_up_people, needs_lfw


def listed(features, people, subtract_mean=True):
    """Every pair once, by loops in float64."""
    x = features - features.mean(axis=0) if subtract_mean else features
    pairs = list(itertools.combinations(range(len(x)), 2))
    same = np.array([people.person[a] == people.person[b] for a, b in pairs])
    return np.array([cosine(x[a], x[b]) for a, b in pairs]), same


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("subtract_mean", [True, False])
def test_as_the_list_of_all_pairs(monkeypatch, rows, subtract_mean):
    monkeypatch.setattr(module, "_ROWS", rows)
    people = made_up_people([1, 5, 2, 9, 3, 1, 12, 4])
    features = made_up_features(people)
    result = all_pairs(features, people, subtract_mean=subtract_mean)
    scores, same = listed(features, people, subtract_mean)
    exact = roc(scores, same)
    assert (result.curve.num_genuine, result.curve.num_impostor) == (exact.num_genuine, exact.num_impostor)
    assert (result.num_images, result.subtract_mean) == (37, subtract_mean)
    assert result.auc == pytest.approx(auc(exact), abs=1e-3)
    assert result.eer == pytest.approx(equal_error_rate(exact), abs=5e-3)
    for got, wanted in zip(result.points, tar_at_far(exact, FAR_TARGETS), strict=True):
        assert got.false_accepts <= got.far * got.num_impostor
        assert got.tar <= wanted.tar
        assert got.tar == pytest.approx(wanted.tar, abs=0.03)


def test_each_point_is_one_of_the_exact_curve():
    people = made_up_people([4] * 12)
    features = made_up_features(people)
    scores, same = listed(features, people)
    curve = all_pairs(features, people).curve
    margin = np.abs(scores[:, None] - curve.threshold[None, :]).min(axis=0) > 1e-6  # away from rounding
    for threshold, false, true in zip(
        curve.threshold[margin], curve.false_accepts[margin], curve.true_accepts[margin], strict=True
    ):
        assert (np.sum(scores[~same] > threshold), np.sum(scores[same] > threshold)) == (false, true)
    assert margin.sum() > 100


def test_bins_make_far_larger_and_never_smaller(monkeypatch):
    """With very coarse bins the wanted FAR is still never exceeded."""
    monkeypatch.setattr(module, "BINS", 16)
    people = made_up_people([3] * 20)
    features = made_up_features(people)
    exact = tar_at_far(roc(*listed(features, people)), FAR_TARGETS)
    for got, wanted in zip(all_pairs(features, people).points, exact, strict=True):
        assert got.false_accepts <= wanted.false_accepts
        assert got.tar <= wanted.tar


def test_there_are_bins_enough():
    assert BINS >= 2**16


def test_a_feature_without_direction_scores_zero():
    people = made_up_people([2, 2])
    features = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    curve = all_pairs(features, people, subtract_mean=False).curve
    assert curve.false_accepts.tolist() == [0, 1, 4]  # cosines 1 and three times 0
    assert curve.true_accepts.tolist() == [0, 0, 2]


@pytest.mark.parametrize("counts", [[5], [1, 1, 1]])
def test_needs_pairs_of_both_kinds(counts):
    people = made_up_people(counts)
    with pytest.raises(UserError, match="of two people · allowed: one or more of each"):
        all_pairs(made_up_features(people), people)


@needs_lfw
def test_all_pairs_of_lfw_are_counted():
    from sphereface.evaluation.people import list_people

    people = list_people(LFW)
    result = all_pairs(np.random.default_rng(0).standard_normal((13233, 4)).astype(np.float32), people)
    assert (result.curve.num_genuine, result.curve.num_impostor) == (242257, 87307271)
    assert 242257 + 87307271 == 13233 * 13232 // 2
    assert result.points[-1].resolvable  # 1e-6
    assert result.points[-1].false_accepts <= 87


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("subtract_mean", [True, False])
def test_features_that_are_all_undefined_have_no_area_as_in_a_list_of_pairs(subtract_mean):
    people = made_up_people([2, 3, 1])
    result = all_pairs(np.zeros((6, 4), dtype=np.float32), people, subtract_mean=subtract_mean)
    curve = roc(np.full(15, np.nan), np.arange(15) < 4)
    assert (result.curve.num_genuine, result.curve.num_impostor) == (4, 11)
    assert np.isnan([result.auc, result.eer, auc(curve), equal_error_rate(curve)]).all()
    assert [point.tar for point in result.points] == [point.tar for point in tar_at_far(curve, FAR_TARGETS)]
    assert (result.to_dict()["auc"], result.rows()[0].rows[0][1]) == (None, "not resolvable")
