import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from sphereface.data.pairs import Pairs
from sphereface.errors import UserError
from sphereface.evaluation import Embeddings, Images, PairsResult, Report, format_table, to_dict, write_report
from sphereface.evaluation import write as module
from sphereface.evaluation.comparison import compare, format_comparison
from sphereface.evaluation.lfw import Verification
from sphereface.evaluation.result import Rows
from sphereface.evaluation.table import WIDTH, format_rows, prose_columns
from sphereface.evaluation.words import count, layman_rates, percent, scientific, tar_headline
from sphereface.metrics import OperatingPoint

NAMES = tuple(f"{k:06d}.jpg" for k in range(8))


def toy_result(*, view=2, scores=(0.9, 0.1, 0.3, 0.4), flip=True, subtract_mean=True):
    """Two folds (or view 1) of 1 + 1 pairs: scores 0.9 and 0.1, 0.3 and 0.4, of same and different people."""
    folds = 2 if view == 2 else 0
    same = np.array([True, False] * (len(scores) // 2))
    fold = np.array([1, 1, 2, 2]) if folds else np.zeros(4, dtype=np.int64)
    if len(scores) > 4:
        fold = same * 1
    half = max(4, len(same))
    rows = np.arange(len(same)), np.arange(len(same)) + half
    names = NAMES if half == 4 else tuple(f"{k:04d}/{k:04d}_0001.jpg" for k in range(2 * half))
    pairs = Pairs(Path("data/pairs.txt"), names, *rows, same, fold, folds)
    dev_train = None if folds else Pairs(Path("data/pairsDevTrain.txt"), names, *rows, same, fold, 0)
    accuracies = np.array([1.0, 0.0] if folds else [0.75])
    outcome = Verification(np.array([0.35, 0.5][: len(accuracies)]), accuracies, np.array(scores), same, fold)
    x = np.random.default_rng(3).standard_normal((len(names), 6))
    embeddings = Embeddings(x, x[:, ::-1] if flip else None)
    return PairsResult(outcome, pairs, embeddings, dev_train, subtract_mean, num_images=8)


def toy_report(*, about=None, num_undefined=0, **options):
    images = Images(Path("data/toy"), NAMES, tuple(map(Path, NAMES)))
    return Report("toy", images, (toy_result(**options),), about or {}, num_undefined)


@pytest.mark.parametrize(
    ("same", "fold", "words"),
    [
        ([1, 0, 1, 0], [1, 1, 2, 2], "2 folds of 1 + 1 pairs"),
        ([1, 1, 0, 0], [1, 1, 2, 2], "4 pairs in 2 folds, 2 of one person"),
        ([1, 0, 1, 0], [1, 1, 1, 2], "4 pairs in 2 folds, 2 of one person"),
    ],
)
def test_only_equal_folds_are_told_by_one_size(same, fold, words):
    result = toy_result()
    folds = replace(result, pairs=replace(result.pairs, same=np.array(same, dtype=bool), fold=np.array(fold)))
    assert folds._size() == words


@pytest.mark.whole_report
def test_table_of_two_folds():
    report = toy_report(about={"checkpoint": "runs/toy/best.pt", "step": 12, "run": None})
    lines = format_table(report).splitlines()
    assert lines[:12] == [
        "toy: pairs.txt, 2 folds of 1 + 1 pairs, 8 images",
        "embeddings of image and mirror image, joined",
        "threshold and mean of each fold from the other folds",
        "checkpoint runs/toy/best.pt, step 12",
        "",
        " accuracy   50.00 ± 50.00%   mean ± standard error of the folds",
        " AUC        0.75000          [0.00000, 1.00000]",
        " EER        50.00%           [0.00%, 100.00%]",
        " d′         1.476",
        "[ ]: 95 % intervals, 1,000 bootstrap draws of pairs.",
        "",
        "TAR at FAR",
    ]
    folds = lines.index("Folds")
    assert lines[folds + 1 : folds + 4] == [
        " fold   threshold   accuracy",
        "    1     0.35000    100.00%",
        "    2     0.50000      0.00%",
    ]
    assert ["1e-1", "not", "resolvable", "0.2", "of", "2"] in [line.split() for line in lines]
    assert max(map(len, lines)) <= WIDTH


def test_table_of_view1_has_no_folds():
    table = format_table(toy_report(view=1))
    assert "toy: pairs.txt, view 1, 2 + 2 pairs, 8 images" in table
    assert "threshold and mean from pairsDevTrain.txt" in table
    assert " accuracy   75.00%    at threshold 0.35000" in table
    assert "fold" not in table


def test_departures_from_the_protocol_are_said():
    table = format_table(toy_report(flip=False, subtract_mean=False))
    assert "embeddings of the image only, NO mirror image" in table
    assert "threshold of each fold from the other folds; NO mean subtracted" in table


def test_pairs_and_embeddings_without_a_direction_are_said():
    table = format_table(toy_report(scores=(math.nan, 0.1, 0.3, 0.4), num_undefined=3))
    assert "1 pair has no score (NaN): it counts" in table
    assert "3 of 8 images have an embedding that is zero or not finite" in table
    assert to_dict(toy_report(num_undefined=3))["num_undefined_embeddings"] == 3
    assert "NaN" not in format_table(toy_report())
    assert "not finite" not in format_table(toy_report())


def test_rates_that_rest_on_few_pairs_have_no_figure():
    rng = np.random.default_rng(0)
    same = np.arange(2000) % 2 == 0
    report = toy_report(scores=tuple(rng.random(2000) + 0.3 * same))
    (result,) = report.results
    rows = [line.split() for line in format_table(report).splitlines() if line.startswith(" 1e-")]
    assert [row[0] for row in rows] == ["1e-1", "1e-2", "1e-3", "1e-4"]
    assert ["%" in row[1] for row in rows] == [True, True, False, False]  # ten are enough
    assert rows[1][-3:] == ["10", "of", "1,000"]
    assert rows[2][1:] == ["not", "resolvable", "1", "of", "1,000"]
    plain = to_dict(report)["tar_at_far"]
    assert plain[1]["tar"] == result.points[1].tar
    low, high = plain[1]["interval"]
    assert low <= plain[1]["tar"] <= high
    assert [plain[2][key] for key in ("tar", "threshold", "interval", "false_accepts")] == [None] * 4


def test_other_rules_are_named_as_such():
    table, plain = format_table(toy_report()), to_dict(toy_report())
    assert "Accuracies by the rules of other code bases\n" in table
    assert [rule["name"] for rule in plain["other_rules"]] == ["insightface", "uncentred", "best-threshold"]
    assert "InsightFace: image + mirror image, threshold on" in table  # and on, in the next line


def test_long_text_goes_on_in_lines_of_its_own():
    lines = format_rows(Rows(("a", "what"), (("1", "word " * 40),))).splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= WIDTH
    assert all(line.startswith("     word") for line in lines[2:])


def test_a_table_without_rows_has_its_header():
    assert format_rows(Rows(("set", "accuracy"), ())) == " set   accuracy"
    assert prose_columns(Rows(("set", "accuracy"), ())) == [False, False]
    assert prose_columns(Rows((), (("1", "a" * 25), ("b" * 25, "2")))) == [True, True]
    assert prose_columns(Rows((), (("1", "a" * 24),))) == [False, False]


def test_what_a_terminal_would_obey_is_escaped():
    rows = Rows(("group\x1b[2J", "a"), (("x\n\x9b\udcff", "1"),), title="t\x1b", note="n\x07")
    lines = format_rows(rows).splitlines()
    assert [" ".join(line.split()) for line in lines] == [r"t\x1b", r"group\x1b[2J a", r"x\n\x9b\udcff 1", r"n\x07"]


def test_the_headline_is_the_lowest_rate_that_the_pairs_resolve():
    points = [OperatingPoint(far, tar, 0.5, 0, 5000) for far, tar in ((1e-1, 0.9), (1e-2, 0.8), (1e-4, 0.7))]
    assert tar_headline(points, 0.6) == ("TAR at FAR 0.01", 0.8)
    assert tar_headline(points[2:], 0.6) == ("AUC", 0.6)


def test_numbers_as_text():
    assert [scientific(far) for far in (0.1, 1e-6)] == ["1e-1", "1e-6"]
    assert [count(value) for value in (8730.7, 10.0, 9.5, 0.3)] == ["8,730", "10", "9.5", "0.3"]
    assert [percent(0.9, 0.012), percent(0.9, None), percent(0.9, math.nan)] == ["90.00 ± 1.20%", "90.00%", "90.00%"]


@pytest.mark.parametrize(
    ("tar", "sentence"),
    [
        (0.84, "Of 100 pairs of one person, the recogniser accepts 84."),
        (0.9962, "Of 1,000 pairs of one person, the recogniser accepts 996."),
        (0.00004, "Of 100,000 pairs of one person, the recogniser accepts 4."),
        (0.99999, "Of 100,000 pairs of one person, the recogniser accepts 99,999."),
        (0.0, "Of 100 pairs of one person, the recogniser accepts 0."),
        (1.0, "Of 100 pairs of one person, the recogniser accepts 100."),
    ],
)
def test_rates_in_numbers_of_pairs(tar, sentence):
    points = [OperatingPoint(1e-2, 0.99, 0.2, 100, 10_000), OperatingPoint(1e-3, tar, 0.312, 10, 10_000)]
    first, second = layman_rates([*points, OperatingPoint(1e-4, 0.1, 0.4, 1, 10_000)])
    assert first == f"{sentence} Of 1,000 pairs of two people, it accepts 1 by mistake."
    assert "threshold 0.3120" in second
    (none,) = layman_rates([OperatingPoint(1e-2, 0.5, 0.2, 1, 100)])
    assert "too few pairs of two people" in none


@pytest.mark.whole_report
def test_dict_is_plain_and_in_full_precision():
    report = toy_report(flip=False, about={"checkpoint": "best.pt", "step": 12})
    plain = to_dict(report)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["checkpoint"] == "best.pt"
    assert plain["step"] == 12
    assert (plain["view"], plain["pairs"], plain["images"]) == (2, str(Path("data/pairs.txt")), str(Path("data/toy")))
    assert (plain["flip"], plain["mirror"], plain["subtract_mean"]) == (False, "none", True)
    assert (plain["num_images"], plain["num_genuine"], plain["num_impostor"]) == (8, 2, 2)
    assert plain["accuracy"] == 0.5
    assert plain["standard_error"] == report.results[0].verification.standard_error
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
        "num_repeated": 0,
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
    nan = to_dict(toy_report(scores=(0.1, math.nan, 0.2, math.nan)))  # no impostor is defined
    assert nan["tar_at_far"][0]["threshold"] is None


@pytest.mark.whole_report
@pytest.mark.parametrize("view", [1, 2])
def test_files_are_written(tmp_path, view):
    report = toy_report(view=view)
    folder = tmp_path / "new" / "folder"
    names = write_report(report, folder)
    charts = ["roc.png", "scores.png"] + ["folds.png"] * (view == 2)
    assert sorted(file.name for file in folder.iterdir()) == sorted(["table.txt", "verification.json", *charts])
    assert sorted(names) == sorted(file.name for file in folder.iterdir())
    assert (folder / "table.txt").read_text(encoding="utf-8") == format_table(report) + "\n"
    written = json.loads((folder / "verification.json").read_text(encoding="utf-8"))
    assert sorted(written.pop("files")) == sorted(names)
    assert written == to_dict(report)
    for chart in charts:
        assert min(cv2.imread(str(folder / chart)).shape[:2]) > 400


def test_a_full_disk_leaves_the_earlier_files(tmp_path, monkeypatch):
    """Results are replaced as a whole; what cannot be written is one line."""
    write_report(toy_report(), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(path, data, **_):
        path.with_name(f".{path.name}.part").write_bytes(bytes(data)[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_whole", full)
    with pytest.raises(
        UserError, match=r"verification\.json: cannot be written \(No space left on device\) · an earlier"
    ):
        write_report(toy_report(view=1), tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_nothing_is_written_before_everything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(PairsResult, "to_dict", lambda self: {"set": {1, 2}})
    with pytest.raises(UserError, match=r"got \{1, 2\} · allowed for JSON: texts, numbers, lists, mappings and None"):
        write_report(toy_report(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_charts_leave_no_global_state(tmp_path):
    import matplotlib.pyplot as plt

    write_report(toy_report(), tmp_path)
    assert plt.get_fignums() == []


def test_the_hardest_pairs_come_first():
    genuine, impostor = toy_result().examples()
    assert [example.images for example in genuine.items] == [(2, 6), (0, 4)]  # scores 0.3, 0.9
    assert [example.images for example in impostor.items] == [(3, 7), (1, 5)]  # 0.4, 0.1
    assert [example.text[0] for example in genuine.items] == ["0.300 ✗", "0.900 ✓"]


def test_what_a_training_log_shows():
    result = toy_result()
    assert result.headline() == ("accuracy", 0.5)
    assert result.line() == "accuracy 50.00 ± 50.00 %"
    assert result.scalars() == {"accuracy": 0.5, "fold_1": 1.0, "fold_2": 0.0}
    assert toy_result(view=1).scalars() == {"accuracy": 0.75}
    assert toy_result(view=1).line() == "accuracy 75.00 %"


def test_the_json_file_has_the_line_of_a_log():
    assert to_dict(toy_report())["headline"] == toy_result().line()


def test_a_training_log_says_why_an_accuracy_is_doubtful():
    line = toy_result(scores=(0.9, 0.1, float("nan"), 0.4)).line()
    assert line == "accuracy 50.00 ± 50.00 % · 1 pair has no score (NaN): it counts as wrong and is not accepted."
    exchanged = toy_result(scores=tuple(np.tile([0.1, 0.9], 30) + np.linspace(0, 0.1, 60))).line()
    assert exchanged.endswith(" % · AUC is below 0.5: the labels may be exchanged. A label of 1 means one person.")


def test_a_comparison_says_that_the_labels_may_be_exchanged():
    good, bad = (
        toy_result(scores=tuple(side * x for x in np.linspace(0.9, 0.1, 40) * np.tile([1, -1], 20))) for side in (1, -1)
    )
    told = "is below 0.5: the labels may be exchanged. A label of 1 means one person."
    for sides, lines in (((good, good), []), ((bad, good), ["A"]), ((bad, bad), ["A", "B"])):
        outcome = compare(*sides)
        found = [line for line in format_comparison("own", outcome).splitlines() if "exchanged" in line]
        assert found == [f"  AUC          {side} {told}" for side in lines]
        assert outcome.exchanged == tuple(side in lines for side in "AB")


def test_results_replace_results_and_nothing_else(tmp_path):
    for _ in range(2):
        names = write_report(toy_report(), tmp_path)
    for name in names:
        ours = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"of somebody else")
        if name.endswith(".json"):
            with pytest.raises(UserError, match=r"--output: got .*, a file that this command did not write"):
                write_report(toy_report(), tmp_path)
            assert (tmp_path / name).read_bytes() == b"of somebody else"
        (tmp_path / name).write_bytes(ours)
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "roc.png").write_bytes(b"of somebody else")
    with pytest.raises(UserError, match="roc.png, a file that this command did not write"):
        write_report(toy_report(), tmp_path / "stranger")
    assert [path.name for path in (tmp_path / "stranger").iterdir()] == ["roc.png"]


def test_exchanged_labels_are_asked_about():
    good, bad = (
        toy_result(scores=tuple(side * x for x in np.linspace(0.9, 0.1, 40) * np.tile([1, -1], 20))) for side in (1, -1)
    )
    assert "the labels may be exchanged. A label of 1 means one person" in bad.rows()[0].note
    assert "exchanged" not in good.rows()[0].note


def test_a_number_that_is_not_finite_is_null(tmp_path, monkeypatch):
    odd = {"a": math.nan, "b": [math.inf, 1.5, {"c": (-math.inf, np.float64("nan"))}], "d": "nan"}
    monkeypatch.setattr(PairsResult, "to_dict", lambda self: odd)
    write_report(toy_report(), tmp_path)
    written = json.loads((tmp_path / "verification.json").read_text(encoding="utf-8"))
    assert (written["a"], written["b"], written["d"]) == (None, [None, 1.5, {"c": [None, None]}], "nan")


def test_files_of_an_earlier_report_are_removed_and_no_others(tmp_path, monkeypatch):
    names = write_report(toy_report(), tmp_path)
    assert "folds.png" in names
    (tmp_path / "mine.png").write_bytes(b"mine")
    (tmp_path / "mine.json").write_text('{"files": ["mine.png"]}')  # of somebody else
    path = tmp_path / "verification.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert sorted(written["files"]) == sorted(names)
    outside = tmp_path.parent / f"{tmp_path.name}.png"
    outside.write_bytes(b"mine")
    written["files"] += [f"../{outside.name}", "..", str(outside), 3]
    path.write_text(json.dumps(written), encoding="utf-8")
    left = set(write_report(toy_report(view=1), tmp_path))
    assert {file.name for file in tmp_path.iterdir()} == left | {"mine.png", "mine.json"}
    assert "folds.png" not in left
    assert outside.read_bytes() == b"mine"
    monkeypatch.setattr(PairsResult, "file_name", "other.json")
    write_report(toy_report(view=1), tmp_path)
    assert not path.exists()
    assert (tmp_path / "other.json").is_file()


def test_a_pair_that_is_there_already_resolves_no_rate():
    result = toy_result(scores=tuple(np.random.default_rng(0).random(200)))
    assert [point.resolvable for point in result.points] == [True, False, False, False]  # 100 impostors
    twice = replace(result.pairs, left=result.pairs.left // 4 * 4 + result.pairs.left % 2)
    twice = replace(twice, right=twice.left + 200)
    again = replace(result, pairs=twice)
    assert [(point.num_impostor, point.num_repeated) for point in again.points] == [(100, 50)] * 4
    assert again.points[0].tar == result.points[0].tar
    assert not any(point.resolvable for point in again.points)
