import math

import numpy as np
import pytest
from sklearn.model_selection import KFold

from sphereface.metrics import best_accuracy, kfold_distance_accuracy


def loop_kfold(distances, same, fold):
    """As InsightFace does it, threshold by threshold, on given folds."""
    thresholds, accuracies = np.arange(0, 4, 0.01), []

    def accuracy(rows, threshold):
        return sum((distances[r] < threshold) == same[r] for r in rows) / len(rows)

    for number in range(1, max(fold) + 1):
        train = [row for row in range(len(fold)) if fold[row] != number]
        test = [row for row in range(len(fold)) if fold[row] == number]
        on_train = [accuracy(train, threshold) for threshold in thresholds]
        accuracies.append(accuracy(test, thresholds[int(np.argmax(on_train))]))
    return np.mean(accuracies), np.std(accuracies)


def consecutive(num_pairs, num_folds):
    """Folds as InsightFace cuts its lists."""
    fold = np.zeros(num_pairs, dtype=np.int64)
    for number, (_, test) in enumerate(KFold(num_folds, shuffle=False).split(np.arange(num_pairs)), start=1):
        fold[test] = number
    return fold


def made_distances(rng, same):
    """On the grid."""
    return np.round(np.clip(1.3 - 0.5 * same + 0.4 * rng.standard_normal(len(same)), 0, 3.99), 2)


@pytest.mark.parametrize(("seed", "num_pairs", "num_folds"), [(0, 60, 10), (1, 53, 5), (2, 47, 10)])
def test_kfold_as_the_loop(seed, num_pairs, num_folds):
    rng = np.random.default_rng(seed)
    same = rng.random(num_pairs) < 0.5
    distances, fold = made_distances(rng, same), consecutive(num_pairs, num_folds)
    result = kfold_distance_accuracy(distances, same, fold)
    assert result == pytest.approx(loop_kfold(distances, same, fold), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_kfold_takes_the_folds_of_the_list(seed):
    """All genuine pairs come first, and each fold has pairs of both kinds, of uneven numbers."""
    rng = np.random.default_rng(seed)
    same = np.arange(64) < 30
    fold = np.concatenate([np.arange(30) % 5, rng.permutation(np.arange(34) % 5)]) + 1
    distances = made_distances(rng, same)
    result = kfold_distance_accuracy(distances, same, fold)
    assert result == pytest.approx(loop_kfold(distances, same, fold), abs=1e-12)
    assert result != kfold_distance_accuracy(distances, same, consecutive(64, 5))
    order = rng.permutation(64)
    assert result == kfold_distance_accuracy(distances[order], same[order], fold[order])


def test_a_missing_distance_is_wrong():
    same, fold = np.array([True, False] * 10), np.arange(20) // 2 + 1
    distances = np.where(same, 0.5, 1.5)
    assert kfold_distance_accuracy(distances, same, fold)[0] == 1
    distances[3] = math.nan
    assert kfold_distance_accuracy(distances, same, fold)[0] == pytest.approx(0.95)


@pytest.mark.parametrize("seed", range(5))
def test_best_accuracy_as_trying_every_threshold(seed):
    rng = np.random.default_rng(seed)
    same = np.arange(50) % 2 == 0
    scores = rng.integers(0, 20, 50) / 20 + 0.2 * same
    scores[rng.integers(0, 50, 3)] = math.nan
    tried = [*np.unique(scores[~np.isnan(scores)]), -1.0]
    best = max(np.mean(np.where(same, scores > t, scores <= t)) for t in tried)
    assert best_accuracy(scores, same) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(10))
def test_best_accuracy_with_undefined_scores_by_loops(seed, share):
    rng = np.random.default_rng(seed)
    same = np.arange(20) < 15  # to accept everything is often the best
    scores = rng.integers(0, 6, 20) / 6
    scores[rng.random(20) < share] = math.nan
    best = 0.0
    for threshold in [-1.0, *scores.tolist()]:
        right = 0
        for score, genuine in zip(scores.tolist(), same.tolist(), strict=True):
            right += (score > threshold) if genuine else (score <= threshold)  # False for NaN
        best = max(best, right / 20)
    assert best_accuracy(scores, same) == best
    assert share < 1 or best == 0
