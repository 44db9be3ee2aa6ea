import dataclasses
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from sphereface.data.pairs import Pairs
from sphereface.evaluation import Report, format_table, roc_figure, to_dict, write_report
from sphereface.evaluation.lfw import PairSet, Verification
from sphereface.evaluation.table import count, percent, scientific
from sphereface.evaluation.variants import Variant


def toy_report(*, view=2, nan=False, **flags):
    """Two folds (or view 1) of 1 + 1 pairs: scores 0.9 and 0.1, 0.3 and 0.4, of same and different people."""
    folds = 2 if view == 2 else 0
    num_pairs = 4
    same = np.array([True, False, True, False])
    fold = np.array([1, 1, 2, 2]) if folds else np.zeros(4, dtype=np.int64)
    names = tuple(f"A/A_{k:04d}.jpg" for k in range(8))
    rows = np.arange(num_pairs), np.arange(num_pairs) + 4
    pairs = Pairs(Path("data/pairs.txt"), names, *rows, same, fold, folds)
    dev_train = None if folds else Pairs(Path("data/pairsDevTrain.txt"), names, *rows, same, fold, 0)
    scores = np.array([math.nan if nan else 0.9, 0.1, 0.3, 0.4])
    accuracies = np.array([1.0, 0.0] if folds else [0.75])
    result = Verification(np.array([0.35, 0.5][: len(accuracies)]), accuracies, scores, same, fold)
    pair_set = PairSet("toy", Path("data/toy"), pairs, tuple(map(Path, names)), dev_train)
    return Report(pair_set, result, **flags)


def test_table_of_ten_folds():
    report = toy_report(about={"checkpoint": "runs/toy/best.pt", "step": 12, "run": None})
    assert format_table(report).splitlines() == [
        "toy: pairs.txt, 2 folds of 1 + 1 pairs, 8 pictures",
        "features of picture and mirror image",
        "threshold and mean of each fold from the other folds",
        "checkpoint runs/toy/best.pt, step 12",
        "",
        " fold   threshold   accuracy",
        "    1     0.35000   100.00%",
        "    2     0.50000     0.00%",
        "",
        "accuracy  50.00 ± 50.00%  (mean ± standard error)",
        "AUC       0.75000   [0.00000, 1.00000]",
        "EER       50.00%    [0.00%, 100.00%]",
        "d′        1.476",
        "",
        " FAR       TAR                      threshold   impostors it rests on",
        " 1e-1  not resolvable                            0.2 of 2",
        " 1e-2  not resolvable                            0.02 of 2",
        " 1e-3  not resolvable                            0.002 of 2",
        " 1e-4  not resolvable                            0.0002 of 2",
        "",
        "[ ]: 95 % intervals, pairs drawn anew 1,000 times",
    ]


def test_table_of_view1_has_no_folds():
    table = format_table(toy_report(view=1))
    assert "toy: pairs.txt, view 1, 2 + 2 pairs, 8 pictures" in table
    assert "threshold and mean from pairsDevTrain.txt" in table
    assert "accuracy  75.00%  at threshold 0.35000" in table
    assert "fold" not in table


def test_departures_from_the_protocol_are_said():
    table = format_table(toy_report(flip=False, subtract_mean=False))
    assert "features of picture only, NO mirror image" in table
    assert "threshold of each fold from the other folds; NO mean subtracted" in table


def test_pairs_without_a_score_are_said():
    assert "1 pairs have no score (NaN) and count as wrong." in format_table(toy_report(nan=True))
    assert "NaN" not in format_table(toy_report())


def test_rates_that_rest_on_few_pairs_have_no_figure():
    rng = np.random.default_rng(0)
    same = np.arange(2000) % 2 == 0
    scores = rng.random(2000) + 0.3 * same
    base = toy_report()
    result = Verification(base.verification.thresholds, base.verification.accuracies, scores, same, same * 1)
    report = Report(base.pair_set, result)
    rows = [line.split() for line in format_table(report).splitlines() if line.startswith(" 1e-")]
    assert [row[0] for row in rows] == ["1e-1", "1e-2", "1e-3", "1e-4"]
    assert ["%" in row[1] for row in rows] == [True, True, False, False]  # ten are enough
    assert rows[1][-3:] == ["10", "of", "1,000"]
    assert rows[2][1:] == ["not", "resolvable", "1", "of", "1,000"]
    plain = to_dict(report)["tar_at_far"]
    assert plain[1]["tar"] == report.points[1].tar
    low, high = plain[1]["interval"]
    assert low <= plain[1]["tar"] <= high
    assert [plain[2][key] for key in ("tar", "threshold", "interval", "false_accepts")] == [None] * 4
    log, _ = roc_figure(result).axes
    (marks,) = [line for line in log.lines if line.get_marker() == "o"]
    assert marks.get_xdata().tolist() == [0.1, 0.01]


def test_other_rules_are_named_as_such():
    base = toy_report()
    variants = (
        Variant("insightface", "InsightFace's way", 0.9, 0.01),
        Variant("best-threshold", "optimistic", 0.95, None),
    )
    report = dataclasses.replace(base, variants=variants, fisher=0.25)
    table = format_table(report)
    assert "Not the protocol above, but what other code bases report:\n  90.00 ± 1.00%   InsightFace's way\n" in table
    assert "\n  95.00%          optimistic" in table
    assert "AFS       0.2500" in table
    assert to_dict(report)["other_rules"][1] == {
        "name": "best-threshold",
        "rule": "optimistic",
        "accuracy": 0.95,
        "spread": None,
    }
    assert to_dict(report)["angular_fisher_score"] == 0.25


def test_numbers_as_text():
    assert [scientific(far) for far in (0.1, 1e-6)] == ["1e-1", "1e-6"]
    assert [count(value) for value in (8730.7, 10.0, 9.5, 0.3)] == ["8,730", "10", "9.5", "0.3"]
    assert [percent(0.9, 0.012), percent(0.9, None), percent(0.9, math.nan)] == ["90.00 ± 1.20%", "90.00%", "90.00%"]


def test_dict_is_plain_and_in_full_precision():
    report = toy_report(flip=False, about={"checkpoint": "best.pt", "step": 12})
    plain = to_dict(report)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["checkpoint"] == "best.pt"
    assert plain["step"] == 12
    assert (plain["view"], plain["pairs"], plain["images"]) == (
        2,
        str(Path("data/pairs.txt")),
        str(Path("data/toy")),
    )
    assert (plain["flip"], plain["subtract_mean"], plain["dev_train"]) == (False, True, None)
    assert (plain["num_images"], plain["num_genuine"], plain["num_impostor"]) == (8, 2, 2)
    assert plain["accuracy"] == 0.5
    assert plain["standard_error"] == report.verification.standard_error
    assert plain["folds"] == [
        {"fold": 1, "threshold": 0.35, "accuracy": 1.0},
        {"fold": 2, "threshold": 0.5, "accuracy": 0.0},
    ]
    assert (plain["auc"], plain["eer"]) == (0.75, 0.5)
    assert plain["tar_at_far"][0] == {
        "far": 0.1,
        "tar": None,
        "threshold": None,
        "false_accepts": None,
        "num_impostor": 2,
        "rests_on": 0.2,
        "interval": None,
    }
    assert plain["intervals"] == {"level": 0.95, "unit": "pairs", "replicates": 1000}
    assert sum(plain["histogram"]["genuine"]) == sum(plain["histogram"]["impostor"]) == 2
    assert plain["d_prime"] == pytest.approx(0.35 / math.sqrt((0.09 + 0.0225) / 2))


def test_what_is_not_finite_is_none():
    plain = to_dict(toy_report(view=1))
    assert plain["standard_error"] is None
    assert (plain["view"], plain["dev_train"]) == (1, str(Path("data/pairsDevTrain.txt")))
    report = toy_report()
    swapped = Verification(
        report.verification.thresholds,
        report.verification.accuracies,
        np.array([0.1, math.nan, 0.2, math.nan]),  # NaN impostors: no threshold keeps them out but +inf
        report.verification.same,
        report.verification.fold,
    )
    assert to_dict(Report(report.pair_set, swapped))["tar_at_far"][0]["threshold"] is None


@pytest.mark.parametrize("view", [1, 2])
def test_files_are_written(tmp_path, view):
    report = toy_report(view=view)
    write_report(report, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(file.name for file in folder.iterdir()) == ["roc.png", "table.txt", "verification.json"]
    assert (folder / "table.txt").read_text(encoding="utf-8") == format_table(report) + "\n"
    assert json.loads((folder / "verification.json").read_text(encoding="utf-8")) == to_dict(report)
    height, width, _ = cv2.imread(str(folder / "roc.png")).shape
    assert (width, height) == (1500, 675)


def test_roc_figure_leaves_no_global_state():
    import matplotlib.pyplot as plt

    figure = roc_figure(toy_report().verification, title="toy")
    assert plt.get_fignums() == []
    assert figure.get_suptitle() == "toy · accuracy 50.00 ± 50.00% · 2 genuine and 2 impostor pairs"
    log, linear = figure.axes
    assert (log.get_xscale(), linear.get_xscale()) == ("log", "linear")
    for axes in figure.axes:
        assert "false accept rate" in axes.get_xlabel()
        assert axes.get_ylabel() == "true accept rate (TAR)"
    assert [text.get_text() for text in linear.get_legend().get_texts()] == ["AUC 0.7500", "EER 50.00%"]
