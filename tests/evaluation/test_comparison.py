import json
from dataclasses import replace

import numpy as np
import pytest

from sphereface.errors import UserError
from sphereface.evaluation.comparison import compare_verifications as compare
from sphereface.evaluation.comparison import format_comparison, write_comparison
from sphereface.evaluation.lfw import Verification


def outcome(wrong, *, folds=10, size=40):
    """Pairs of which those in ``wrong`` are decided wrongly; threshold 0.5 everywhere."""
    same = np.arange(folds * size) % 2 == 0
    right = ~np.isin(np.arange(folds * size), wrong)
    fold = np.arange(folds * size) // size + 1
    accuracies = right.reshape(folds, size).mean(axis=1)
    return Verification(np.full(folds, 0.5), accuracies, np.where(same == right, 0.9, 0.1), same, fold)


def test_correct_is_strict_and_by_the_fold_of_each_pair():
    same = np.array([True, True, False, False, True])
    scores = np.array([0.5, 0.6, 0.5, 0.4, np.nan])
    result = Verification(np.array([0.5, 0.4]), np.zeros(2), scores, same, np.array([1, 1, 1, 2, 2]))
    assert result.correct.tolist() == [False, True, False, False, False]
    view1 = Verification(np.array([0.5]), np.zeros(1), scores, same, np.zeros(5, dtype=np.int64))
    assert view1.correct.tolist() == [False, True, False, True, False]


def test_b_beats_a_and_a_beats_b():
    worse, better = outcome(range(0, 400, 8)), outcome(range(0, 400, 40))
    result = compare(worse, better)
    assert (result.only_a, result.only_b, result.unit) == (0, 40, "folds")
    assert result.difference == pytest.approx(0.1)
    assert 0 < result.interval.low <= result.difference <= result.interval.high
    assert result.verdict == "B beats A"
    assert compare(better, worse).verdict == "A beats B"


def test_noise():
    a, b = outcome(range(0, 400, 8)), outcome(range(4, 400, 8))
    result = compare(a, b)
    assert (result.only_a, result.only_b, result.p_value) == (50, 50, 1.0)
    assert result.verdict.startswith("noise")
    assert compare(a, a).verdict.startswith("noise")


def test_one_test_alone_is_not_enough():
    """All gain in one fold: McNemar is sure, the folds are not."""
    a, b = outcome(range(20)), outcome([])
    result = compare(a, b)
    assert result.p_value < 1e-4
    assert result.interval.low == 0
    assert result.verdict.startswith("noise")


def test_a_single_fold_draws_pairs():
    a, b = outcome(range(0, 400, 5), folds=1, size=400), outcome(range(0, 400, 20), folds=1, size=400)
    result = compare(a, b)
    assert (result.unit, result.verdict) == ("pairs", "B beats A")
    assert result.difference == pytest.approx(0.15)
    assert result.interval.low < result.difference < result.interval.high


def test_pairs_without_folds_cannot_be_compared():
    none = Verification(np.empty(0), np.empty(0), np.zeros(2), np.array([True, False]), np.zeros(2, dtype=np.int64))
    with pytest.raises(UserError, match="--compare: got pairs without folds"):
        compare(none, none)


def test_text_and_file(tmp_path):
    result = compare(outcome(range(0, 400, 8)), outcome(range(0, 400, 40)))
    text = format_comparison("lfw", result)
    assert text.splitlines()[0] == "lfw: B beats A"
    assert "A 87.50%   B 97.50%" in text
    assert "+10.00 points" in text
    assert "correct only by A 0, only by B 40: p = 1.8e-12" in text
    write_comparison(result, "lfw", tmp_path / "new")
    written = json.loads((tmp_path / "new" / "compare.json").read_text(encoding="utf-8"))
    assert (written["name"], written["verdict"], written["only_b"]) == ("lfw", "B beats A", 40)
    assert written["interval"] == {"low": result.interval.low, "high": result.interval.high}


def test_pairs_without_a_score_and_undefined_embeddings_are_counted(tmp_path):
    a, b = outcome([]), outcome([])
    b.scores[:7] = np.nan
    result = replace(compare(a, b), undefined_embeddings=(0, 1234))
    assert result.pairs_without_score == (0, 7)
    (line,) = (line for line in format_comparison("lfw", result).splitlines() if "undefined" in line)
    assert "B: 1,234 images have an embedding that is zero or not finite; 7 pairs have no score" in line
    write_comparison(result, "lfw", tmp_path)
    written = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    assert (written["pairs_without_score"], written["undefined_embeddings"]) == ([0, 7], [0, 1234])
    assert "undefined" not in format_comparison("lfw", compare(a, a))
