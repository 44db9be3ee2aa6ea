import math

import numpy as np
import pytest

from sphereface.metrics import bootstrap
from sphereface.metrics import subjects as module
from sphereface.metrics.resampling import Interval
from sphereface.metrics.subjects import bootstrap_tar, subjects_of

FARS = (1e-3, 0.01, 0.1, 0.5, 1.0)


def made(seed, decimals=16, subjects=25, templates=70, pairs=3000):
    """Pairs of templates with scores that depend on the subjects, so that draws matter."""
    rng = np.random.default_rng(seed)
    subject = np.append(np.arange(subjects), rng.integers(0, subjects, templates - subjects))
    left, right = rng.integers(0, templates, (2, pairs))
    same = subject[left] == subject[right]
    lift = rng.standard_normal(subjects)
    scores = np.round(rng.standard_normal(pairs) + 2 * same + lift[subject[left]], decimals)
    return scores, same, subject[left], subject[right]


@pytest.mark.parametrize("decimals", [0, 1, 16])
@pytest.mark.parametrize("seed", range(3))
def test_intervals_equal_those_of_the_whole_curve(seed, decimals):
    scores, same, left, right = made(seed, decimals)
    scores[np.random.default_rng(seed).random(len(scores)) < 0.01] = np.nan
    expected = bootstrap(scores, same, (left, right), targets=FARS, replicates=60, seed=seed)
    assert bootstrap_tar(scores, same, left, right, FARS, replicates=60, seed=seed) == expected.tar


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_intervals_with_many_undefined_impostors(share):
    scores, same, left, right = made(5)
    scores[~same & (np.random.default_rng(5).random(len(scores)) < share)] = np.nan
    expected = bootstrap(scores, same, (left, right), targets=FARS, replicates=60, seed=5)
    found = bootstrap_tar(scores, same, left, right, FARS, replicates=60, seed=5)
    assert found == expected.tar
    kept = same | ~np.isnan(scores)
    if share < 1:  # as without these pairs
        assert found == bootstrap_tar(scores[kept], same[kept], left[kept], right[kept], FARS, replicates=60, seed=5)
        assert found[2].low > 0
    else:
        assert [(interval.low, interval.high) for interval in found[:4]] == [(0, 0)] * 4


@pytest.mark.parametrize(("chunk", "block"), [(100, 1), (700, 7), (2**21, 2**21)])
def test_few_impostors_are_looked_at_and_more_where_a_draw_needs_them(chunk, block, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_MARGIN", 0)
    asked = []
    extend = module._TopImpostors.extend
    monkeypatch.setattr(module._TopImpostors, "extend", lambda self, n: (asked.append(n), extend(self, n))[1])
    scores, same, left, right = made(8, subjects=8)
    expected = bootstrap(scores, same, (left, right), targets=(0.3, 0.45), replicates=20, seed=1)
    assert bootstrap_tar(scores, same, left, right, (0.3, 0.45), replicates=20, seed=1) == expected.tar
    assert asked[0] == 1000
    assert len(asked) > 1


def test_the_draw_decides():
    scores, same, left, right = made(2)
    one, again, other = (bootstrap_tar(scores, same, left, right, (0.01,), replicates=20, seed=s) for s in (1, 1, 2))
    assert one == again != other


def test_scores_are_not_changed():
    scores, same, left, right = made(2)
    scores[5] = np.nan
    before = scores.copy()
    bootstrap_tar(scores, same, left, right, (0.01,), replicates=2)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.filterwarnings("error")
def test_no_replicate_with_both_kinds():
    scores, same = np.array([0.1, 0.2]), np.array([True, False])
    left, right = np.array([0, 1]), np.array([0, 2])

    def nan(found: Interval) -> bool:
        return math.isnan(found.low) and math.isnan(found.high)

    found = bootstrap_tar(scores, same, left, right, (0.1,), replicates=1, seed=0)
    assert all(map(nan, found))


def test_subjects_are_the_components_of_genuine_pairs():
    left, right = np.array([0, 1, 5, 2, 3]), np.array([1, 4, 6, 3, 0])
    same = np.array([True, True, True, False, False])
    assert subjects_of(8, left, right, same).tolist() == [0, 0, 1, 2, 0, 3, 3, 4]


def test_known_subjects_join_templates():
    none = np.array([], dtype=np.int32)
    known = np.array([90, -1, 7, 90, -1, 7])
    assert subjects_of(6, none, none, none.astype(bool), known).tolist() == [0, 1, 2, 0, 3, 2]
    left, right, same = np.array([1], dtype=np.int32), np.array([3], dtype=np.int32), np.array([True])
    assert subjects_of(6, left, right, same, known).tolist() == [0, 0, 1, 0, 2, 1]


@pytest.mark.parametrize("seed", range(5))
def test_subjects_by_merging_sets(seed):
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, 30, (2, 25))
    same = rng.random(25) < 0.6
    group = list(range(30))
    for a, b, genuine in zip(left, right, same, strict=True):
        if genuine:
            old, new = group[b], group[a]
            group = [new if one == old else one for one in group]
    order = list(dict.fromkeys(group))
    assert subjects_of(30, left, right, same).tolist() == [order.index(one) for one in group]
