import math

import numpy as np
import pytest
from sklearn.model_selection import KFold

from sphereface.metrics import best_accuracy, kfold_distance_accuracy


def loop_kfold(distances, same, num_folds):
    """As InsightFace does it, threshold by threshold."""
    thresholds, accuracies = np.arange(0, 4, 0.01), []

    def accuracy(rows, threshold):
        return sum((distances[r] < threshold) == same[r] for r in rows) / len(rows)

    for train, test in KFold(num_folds, shuffle=False).split(np.arange(len(same))):
        on_train = [accuracy(train, threshold) for threshold in thresholds]
        accuracies.append(accuracy(test, thresholds[int(np.argmax(on_train))]))
    return np.mean(accuracies), np.std(accuracies)


@pytest.mark.parametrize(("seed", "num_pairs", "num_folds"), [(0, 60, 10), (1, 53, 5), (2, 47, 10)])
def test_kfold_as_the_loop(seed, num_pairs, num_folds):
    rng = np.random.default_rng(seed)
    same = rng.random(num_pairs) < 0.5
    distances = np.round(np.clip(1.3 - 0.5 * same + 0.4 * rng.standard_normal(num_pairs), 0, 3.99), 2)  # on the grid
    result = kfold_distance_accuracy(distances, same, num_folds=num_folds)
    assert (result.mean, result.deviation) == pytest.approx(loop_kfold(distances, same, num_folds), abs=1e-12)


def test_a_missing_distance_is_wrong():
    same = np.array([True, False] * 10)
    distances = np.where(same, 0.5, 1.5)
    assert kfold_distance_accuracy(distances, same).mean == 1
    distances[3] = math.nan
    assert kfold_distance_accuracy(distances, same).mean == pytest.approx(0.95)


@pytest.mark.parametrize("seed", range(5))
def test_best_accuracy_as_trying_every_threshold(seed):
    rng = np.random.default_rng(seed)
    same = np.arange(50) % 2 == 0
    scores = rng.integers(0, 20, 50) / 20 + 0.2 * same
    scores[rng.integers(0, 50, 3)] = math.nan
    tried = [*np.unique(scores[~np.isnan(scores)]), -1.0]
    best = max(np.mean(np.where(same, scores > t, scores <= t)) for t in tried)
    assert best_accuracy(scores, same) == pytest.approx(best, abs=1e-12)
