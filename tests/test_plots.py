"""Curves and tables of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from scripts import compare_runs
from sphereface.checkpoint import save_checkpoint
from sphereface.commands.compare_runs import labelled
from sphereface.errors import UserError
from sphereface.plots import curves_figure, learning_figure, read_metrics, summary_table

LINES = [
    {"step": 10, "train/loss": 5.0, "images_seen": 80, "train/minutes": 0.5, "train/lambda": 90.0},
    {"step": 12, "images_seen": 96, "eval/mine/accuracy": 0.6},
    {"step": 20, "train/loss": 4.0, "images_seen": 160, "train/minutes": 1.04, "train/lambda": 50.0},
    {"step": 20, "images_seen": 160, "eval/mine/accuracy": 0.5},
]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return tmp_path


def test_every_figure_stands_at_its_own_place_in_training(run):
    curves = read_metrics(run)
    assert curves["train/loss"] == ([80, 160], [5.0, 4.0])
    assert curves["eval/mine/accuracy"] == ([96, 160], [0.6, 0.5])


def test_table_has_the_last_and_the_best(run):
    header, row = summary_table({"a": run}).splitlines()
    assert header.split() == ["run", "images", "minutes", "loss", "set", "last", "best"]
    assert row.split() == ["a", "160", "1.0", "4.000", "mine", "50.00%", "60.00%"]


def test_a_set_without_accuracy_is_shown_by_its_main_figure(tmp_path):
    result = {"eval/id/rank_1": 0.25, "eval/id/map": 0.5, "eval/a/b/fold_1": 0.1, "eval/a/b/accuracy": 0.75}
    lines = [{"images_seen": 8 * k, "eval/a/b/changed": 1.0, **result} for k in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, *rows = summary_table({"x": tmp_path}).splitlines()
    assert [row.split()[4:] for row in rows] == [["id", "rank", "1", "25.00%", "25.00%"], ["a/b", "75.00%", "75.00%"]]
    lines[0] |= {"eval/all/auc": 0.9, "eval/g/accuracy_A/x": 0.3}  # the main figure was not defined yet
    lines[1] |= {"eval/all/tar_at_far_0.1": 0.2, "eval/g/mean_accuracy_of_groups": 0.4, "eval/g/accuracy_A/x": 0.3}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = {" ".join(row.split()[4:]) for row in summary_table({"x": tmp_path}).splitlines()[1:]}
    assert {"all tar at far 0.1 20.00% 20.00%", "g mean accuracy of groups 40.00% 40.00%"} < shown
    assert len(shown) == 4
    titles = {axes.get_title() for axes in learning_figure({"x": tmp_path}).axes}
    assert {"id rank 1", "a/b", "all tar at far 0.1"} < titles


def test_figure_draws_every_run_in_every_panel_that_it_has(run):
    figure = curves_figure({"a": run, "b": run})
    drawn = {axes.get_title(): len(axes.get_lines()) for axes in figure.axes}
    assert drawn["loss"] == drawn["accuracy, or main figure, of each set"] == drawn["λ"] == 2
    assert drawn["learning rate"] == 0


def test_learning_curves_over_images_and_minutes_one_colour_a_recipe(run, tmp_path):
    figure = learning_figure({"a/1": run, "a/2": run, "b/1": run})
    above, below = figure.axes
    assert [axes.get_xlabel() for axes in (above, below)] == ["images seen", "minutes"]
    first, second, other = above.get_lines()
    assert first.get_color() == second.get_color() != other.get_color()
    assert [line.get_label() for line in (first, other)] == ["a", "b"]
    assert first.get_xydata().tolist() == [[96, 0.6], [160, 0.5]]
    minutes = below.get_lines()[0].get_xydata().tolist()
    assert minutes == [[pytest.approx(0.5 + 0.54 * 16 / 80), 0.6], [1.04, 0.5]]
    assert first.get_linestyle() == "-"
    (tmp_path / "joined").mkdir()
    (tmp_path / "joined" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES[2:]))
    star = learning_figure({"a/1": run, "a/joined": tmp_path / "joined"}).axes[0].get_lines()[1]
    assert (star.get_marker(), star.get_linestyle()) == ("*", "None")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(LINES[0]) + "\n")
    with pytest.raises(UserError, match=r"no set was evaluated \(eval.sets\)"):
        learning_figure({"a/1": tmp_path})


def test_program(run, tmp_path, capsys):
    assert compare_runs.main([str(run), "--output", str(tmp_path / "c.png")]) == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert compare_runs.main([str(run), "--learning", str(tmp_path / "l.png")]) == 0
    assert (tmp_path / "l.png").read_bytes().startswith(b"\x89PNG")
    assert compare_runs.main([str(tmp_path / "nothing")]) == 2
    assert "no metrics.jsonl in it · allowed: a run folder" in capsys.readouterr().err


def test_sets_of_one_name_with_other_content_are_told(tmp_path, capsys):
    """Of a set without figures nothing is said; of a run without digests or checkpoint, that it is not known."""
    digests = {
        "a": {"mine": "1" * 32, "unused": "1" * 32},
        "b": {"mine": "1" * 32, "unused": "2" * 32},
        "c": {"mine": "2" * 32, "own": "1" * 32},
        "older": None,
        "copied": None,
    }
    for name, each in digests.items():
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
        if name != "copied":
            save_checkpoint(run / "last.pt", {"meta": {} if each is None else {"digests": each}}, {})
    unknown = (
        "note: {}: not known whether the lists and images are the same in all runs: no last.pt tells those of {} · "
        "compare figures only if they are the same, or give folders with last.pt\n"
    )
    paths = [str(tmp_path / "runs" / name) for name in digests]
    assert compare_runs.main(paths) == 0
    shown = capsys.readouterr()
    assert shown.err == (
        "note: eval.sets.mine: its lists or images differ between runs: runs/a, runs/b | runs/c · "
        "figures of runs on different sides of | are not to be compared\n"
        + unknown.format("eval.sets.mine", "runs/older, runs/copied")
    )
    assert shown.out.count("\n") == 6
    for some, note in (
        (paths[:2], ""),
        (paths[2:3], ""),
        (paths[4:], ""),
        (paths[2:4], unknown.format("eval.sets.mine", "runs/older")),
        (paths[3:], unknown.format("eval.sets.mine", "any run")),
    ):
        assert compare_runs.main(some) == 0
        assert capsys.readouterr().err == note
    (run / "metrics.jsonl").write_text(json.dumps({"images_seen": 8, "eval/own/accuracy": 0.5}) + "\n")
    assert compare_runs.main([paths[0], paths[4]]) == 0  # no set in common
    assert capsys.readouterr().err == ""
    lines = [json.dumps({"images_seen": 8, "eval/mine/accuracy": 0.5, "eval/id/rank_1": 0.5}) + "\n"] * 2
    for path in paths[3:]:
        Path(path, "metrics.jsonl").write_text("".join(lines))
    assert compare_runs.main(paths[3:]) == 0  # one line for all sets
    assert capsys.readouterr().err == unknown.format("eval.sets.mine, eval.sets.id", "any run")


def test_runs_of_different_training_data_are_told(tmp_path, capsys):
    """Of a run without a sample nothing is said."""
    data = {
        "a": {"class_names": ["x", "y"], "num_images": 4, "sample": ["1" * 32, "2" * 32]},
        "b": {"class_names": ["x", "y"], "num_images": 4, "sample": ["1" * 32, "2" * 32]},
        "older": {"class_names": ["x"], "num_images": 4},
        "more": {"class_names": ["x", "y"], "num_images": 5, "sample": ["1" * 32, "2" * 32]},
        "renamed": {"class_names": ["x", "z"], "num_images": 4, "sample": ["1" * 32, "2" * 32]},
        "replaced": {"class_names": ["x", "y"], "num_images": 4, "sample": ["1" * 32, "3" * 32]},
    }
    for name, each in data.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "metrics.jsonl").write_text('{"images_seen": 8, "train/loss": 1.0}\n')
        save_checkpoint(tmp_path / "runs" / name / "last.pt", {"meta": {**each, "digests": {}}}, {})
    for names, sides in (
        ("a b older", ""),
        ("a more b", "runs/a, runs/b | runs/more"),
        ("a renamed", "runs/a | runs/renamed"),
        ("older replaced a", "runs/replaced | runs/a"),
    ):
        assert compare_runs.main([str(tmp_path / "runs" / name) for name in names.split()]) == 0
        note = f"note: data.train: its images or identities differ between runs: {sides} · compare recipes on the same "
        assert capsys.readouterr().err == (f"{note}data\n" if sides else "")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["_hidden", "a$b$_{", "漢字", "plain"])
def test_names_of_runs_are_shown_as_they_are(tmp_path, name):
    folder = tmp_path / name / "1"
    folder.mkdir(parents=True)
    lines = [
        {"images_seen": k, "train/lambda": 0.0, f"eval/{name}/accuracy": [0.5, float("nan"), 0.25][k]} for k in range(3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    plots = ["--output", str(tmp_path / "c.jpg"), "--learning", str(tmp_path / "l.png")]
    assert compare_runs.main([str(folder), *plots]) == 0
    (above, _) = learning_figure({f"{name}/1": folder}).axes
    assert [text.get_text().strip() for text in above.get_legend().get_texts()] == [name]
    assert "25.00%  50.00%" in summary_table({"a": folder})


def test_runs_of_one_name_and_time_are_told_apart(tmp_path):
    paths = [tmp_path / top / "runs" / "a" / "1" for top in ("x", "y")]
    assert labelled(paths) == {"x/runs/a/1": paths[0], "y/runs/a/1": paths[1]}
    assert labelled([paths[0], paths[0] / ".." / "1"]).keys() == {"a/1"}


def test_two_figures_are_not_drawn_over_each_other(run, tmp_path, capsys):
    path = tmp_path / "c.png"
    assert compare_runs.main([str(run), "--output", str(path), "--learning", str(tmp_path / "x" / ".." / "c.png")]) == 2
    assert f"--output, --learning: got {path} for both · allowed: a file for each figure" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize("option", ["--output", "--learning"])
def test_a_figure_replaces_a_figure_and_no_photograph(run, tmp_path, capsys, option):
    path = tmp_path / "c.png"
    for _ in range(2):
        assert compare_runs.main([str(run), option, str(path)]) == 0
    path.write_bytes(b"a photograph")
    assert compare_runs.main([str(run), option, str(path)]) == 2
    told = capsys.readouterr().err
    assert f"{option}: got {path}, a file that this command did not write · allowed: a new name" in told
    assert path.read_bytes() == b"a photograph"


def test_a_broken_line_is_named(run):
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n')
    with pytest.raises(UserError, match="metrics.jsonl, line 2: not a line of metrics"):
        read_metrics(run)


def test_a_last_line_that_ends_in_its_middle_is_left_out_and_told(run, capsys):
    path = run / "metrics.jsonl"
    whole = path.read_text()
    curves = read_metrics(run)
    for end in range(2, len('{"step": 9, "train/loss": 1.5}')):
        path.write_text(whole + '{"step": 9, "train/loss": 1.5}'[:end])
        assert read_metrics(run) == curves
    assert compare_runs.main([str(run)]) == 0
    assert f"note: {path}: its last line is cut and was left out" in capsys.readouterr().err
    path.write_text(whole.rstrip("\n"))  # an editor that drops the last line end
    assert read_metrics(run) == curves
    assert compare_runs.main([str(run)]) == 0
    assert "is cut" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe", "cannot be read as UTF-8 text"),
        (b"[" * 100_000, "line 1: not a line of metrics"),
        (b'{"train/loss": null}', "line 1: not a line of metrics"),
        (b'{"train/loss": [1]}', "line 1: not a line of metrics"),
        (b'{"train/loss": 1' + b"0" * 400 + b"}", "line 1: not a line of metrics"),
        (b"[1, 2]", "line 1: not a line of metrics"),
    ],
)
def test_metrics_of_something_else_are_one_line(tmp_path, data, message):
    (tmp_path / "metrics.jsonl").write_bytes(data)
    with pytest.raises(UserError, match=message) as told:
        read_metrics(tmp_path)
    assert len(str(told.value)) < 300


def test_a_figure_that_cannot_be_written_leaves_the_earlier_one(run, tmp_path, monkeypatch, capsys):
    def failing(self, file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "c.png").write_bytes(b"earlier, by Matplotlib")
    monkeypatch.setattr(Figure, "savefig", failing)
    assert compare_runs.main([str(run), "--output", str(tmp_path / "c.png")]) == 2
    assert (tmp_path / "c.png").read_bytes() == b"earlier, by Matplotlib"
    assert "cannot write" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*.part"))


def test_figures_before_a_set_changed_are_left_out(tmp_path):
    """The sets of other names keep theirs."""
    lines = [
        {"step": 1, "images_seen": 8, "eval/mine/accuracy": 0.9, "eval/mine2/accuracy": 0.8},
        {"step": 1, "images_seen": 8, "eval/mine/changed": 1.0},
        {"step": 2, "images_seen": 16, "eval/mine/accuracy": 0.6, "eval/mine2/accuracy": 0.7},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, mine2, mine = summary_table({"a": tmp_path}).splitlines()
    assert mine.split()[-3:] == ["mine", "60.00%", "60.00%"]
    assert mine2.split()[-3:] == ["mine2", "70.00%", "80.00%"]
