import math

import numpy as np
import pytest

from sphereface.metrics import auc, bootstrap, equal_error_rate, roc, tar_at_far
from sphereface.metrics.resampling import (
    _draw_pairs,
    _draw_people,
    bootstrap_means,
    draw,
    num_replicates,
    percentile_intervals,
    rates_at,
    resample,
)
from sphereface.metrics.verification import Ranking


def toy(seed=0, num_pairs=60, levels=12):
    rng = np.random.default_rng(seed)
    same = np.arange(num_pairs) % 2 == 0
    return rng.integers(0, levels, num_pairs) / levels + 0.2 * same, same


@pytest.mark.parametrize("seed", range(5))
def test_a_pair_that_counts_thrice_is_as_three_pairs(seed):
    scores, same = toy(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(scores))
    weighted = Ranking(scores, same).curve(weights)
    repeated = roc(scores.repeat(weights), same.repeat(weights))
    assert (weighted.num_genuine, weighted.num_impostor) == (repeated.num_genuine, repeated.num_impostor)
    assert auc(weighted) == pytest.approx(auc(repeated), abs=1e-12)
    assert equal_error_rate(weighted) == pytest.approx(equal_error_rate(repeated), abs=1e-12)
    got = [(p.tar, p.false_accepts) for p in tar_at_far(weighted, [0.3, 0.1, 0.01])]
    assert got == [(p.tar, p.false_accepts) for p in tar_at_far(repeated, [0.3, 0.1, 0.01])]


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_undefined_pairs_that_are_repeated(seed, share):
    scores, same = toy(seed)
    rng = np.random.default_rng(seed)
    scores[rng.random(len(scores)) < share] = np.nan
    weights = rng.integers(0, 4, len(scores))
    weighted, repeated = Ranking(scores, same).curve(weights), roc(scores.repeat(weights), same.repeat(weights))
    assert weighted.num_genuine == repeated.num_genuine == weights[same].sum()
    defined = ~same & ~np.isnan(scores) if share < 1 else ~same
    assert weighted.num_impostor == repeated.num_impostor == weights[defined].sum()
    assert auc(weighted) == pytest.approx(auc(repeated), abs=1e-12, nan_ok=True)
    got = [(p.tar, p.false_accepts) for p in tar_at_far(weighted, [0.3, 0.1, 0.01])]
    assert got == [(p.tar, p.false_accepts) for p in tar_at_far(repeated, [0.3, 0.1, 0.01])]


def test_a_draw_counts_what_was_drawn():
    drawn = np.random.default_rng(4).integers(0, 50, 50).tolist()
    assert draw(50, np.random.default_rng(4)).tolist() == [drawn.count(k) for k in range(50)]


def test_people_weigh_once_in_genuine_pairs_and_by_product_in_impostor_pairs():
    same = np.array([True, False, False, True])
    people = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 2])
    rng, same_rng = np.random.default_rng(3), np.random.default_rng(3)
    draws = _draw_people(same, people, rng)
    for _ in range(20):
        drawn = same_rng.integers(0, 3, 3).tolist()
        times = [drawn.count(k) for k in range(3)]
        assert next(draws).tolist() == [times[0], times[0] * times[1], times[1] * times[2], times[2]]


def test_drawing_pairs_keeps_the_number_of_each_kind():
    _, same = toy()
    draws = _draw_pairs(same, np.random.default_rng(0))
    for _ in range(10):
        weights = next(draws)
        assert (weights[same].sum(), weights[~same].sum()) == (30, 30)
        assert weights.max() > 1


def test_intervals_hold_the_figure_and_say_what_was_drawn():
    scores, same = toy(num_pairs=400, levels=100)
    result = bootstrap(scores, same, targets=[0.1], replicates=200)
    assert (result.unit, result.replicates, len(result.tar)) == ("pairs", 200, 1)
    curve = roc(scores, same)
    for interval, figure in (
        (result.auc, auc(curve)),
        (result.eer, equal_error_rate(curve)),
        (result.tar[0], tar_at_far(curve, [0.1])[0].tar),
    ):
        assert interval.low < figure < interval.high
    assert result == bootstrap(scores, same, targets=[0.1], replicates=200)
    people = np.arange(400) // 8, np.arange(400) // 8 + 50 * ~same
    assert bootstrap(scores, same, people, replicates=50).unit == "people"


def test_the_interval_of_auc_is_as_wide_as_theory_says():
    rng = np.random.default_rng(1)
    same = np.arange(2000) < 1000
    scores = rng.standard_normal(2000) + same
    result = bootstrap(scores, same, targets=[0.1])
    a = auc(roc(scores, same))  # Hanley and McNeil's standard error
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = math.sqrt((a * (1 - a) + 999 * (q1 - a * a) + 999 * (q2 - a * a)) / 1e6)
    assert (result.auc.high - result.auc.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)


def test_people_who_recur_widen_the_interval():
    rng = np.random.default_rng(2)
    same = np.arange(1000) % 2 == 0
    person = np.arange(1000) // 100  # ten people, each easy or hard as a whole
    scores = same + rng.standard_normal(10)[person] + 0.1 * rng.standard_normal(1000)
    by_people = bootstrap(scores, same, (person, np.where(same, person, (person + 1) % 10)), replicates=200)
    by_pairs = bootstrap(scores, same, replicates=200)
    assert by_people.auc.high - by_people.auc.low > 2 * (by_pairs.auc.high - by_pairs.auc.low)


def test_long_lists_get_fewer_replicates(monkeypatch):
    monkeypatch.setattr("sphereface.metrics.resampling._MOST_WORK", 60 * 70)
    scores, same = toy()
    assert bootstrap(scores, same).replicates == 70
    monkeypatch.setattr("sphereface.metrics.resampling._MOST_WORK", 60)
    assert bootstrap(scores, same).replicates == 50


def test_draws_without_one_kind_are_passed_over():
    same = np.array([True, False])
    people = np.array([0, 0]), np.array([0, 1])  # person 1 alone: no genuine pair
    result = bootstrap(np.array([0.9, 0.1]), same, people, replicates=60)
    assert (result.auc.low, result.auc.high) == (1.0, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_rates_at_a_threshold_are_those_of_a_loop(seed):
    scores, same = toy(seed)
    scores[0] = np.nan  # genuine: never accepted
    scores[1] = np.nan  # impostor: left out
    thresholds = [0.5, -np.inf, 7 / 12, 0.0, 5.0, np.nextafter(7 / 12, 0)]
    far, tar = rates_at(roc(scores, same), thresholds)
    for number, threshold in enumerate(thresholds):
        accepted = [score > threshold for score in scores.tolist()]
        assert tar[number] == pytest.approx(np.mean(np.array(accepted)[same]))
        impostors = [accepted[row] for row in range(2, len(same)) if not same[row]]
        assert far[number] == pytest.approx(np.mean(impostors))


def test_resample_gives_the_curve_and_the_weights_of_each_draw():
    scores, same = toy()
    draws = _draw_pairs(same, np.random.default_rng(5))

    def figures(curve, weights):
        np.testing.assert_array_equal(weights, next(draws))
        return [auc(curve), weights[3]]

    got = resample(scores, same, None, figures, replicates=4, seed=5)
    assert got.shape == (4, 2)
    again = _draw_pairs(same, np.random.default_rng(5))
    for row in got:
        weights = next(again)
        assert row[0] == pytest.approx(auc(roc(scores.repeat(weights), same.repeat(weights))))
        assert row[1] == weights[3]


def test_means_are_drawn_by_subject():
    values = np.array([[1.0, 0.0], [1.0, 4.0], [0.0, 2.0]])
    subject = np.array([7, 7, 3])
    rng = np.random.default_rng(2)
    means = []
    for _ in range(100):
        rows = [row for drawn in rng.integers(0, 2, 2) for row in np.flatnonzero(subject == (3, 7)[drawn])]
        means.append(values[rows].mean(axis=0))
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    got = bootstrap_means(values, subject, replicates=100, seed=2)
    assert [interval.low for interval in got] == pytest.approx(low.tolist())
    assert [interval.high for interval in got] == pytest.approx(high.tolist())


def test_intervals_leave_out_what_is_undefined():
    figures = np.column_stack([np.arange(101.0), np.full(101, np.nan)])
    figures[0, 0] = np.nan
    known, unknown = percentile_intervals(figures)
    assert (known.low, known.high) == pytest.approx((1 + 0.025 * 99, 1 + 0.975 * 99))
    assert math.isnan(unknown.low)
    assert math.isnan(unknown.high)


def test_long_lists_are_drawn_less_often():
    assert (num_replicates(1000), num_replicates(5_000_000), num_replicates(10**9)) == (1000, 200, 50)
    assert num_replicates(1000, 30) == 30
