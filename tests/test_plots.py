"""Curves and tables of runs."""

from __future__ import annotations

import json

import pytest

from scripts import compare_runs
from sphereface.errors import UserError
from sphereface.plots import curves_figure, read_metrics, summary_table

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


def test_figure_draws_every_run_in_every_panel_that_it_has(run):
    figure = curves_figure({"a": run, "b": run})
    drawn = {axes.get_title(): len(axes.get_lines()) for axes in figure.axes}
    assert drawn["loss"] == drawn["verification accuracy"] == drawn["λ"] == 2
    assert drawn["learning rate"] == 0


def test_program(run, tmp_path, capsys):
    assert compare_runs.main([str(run), "--output", str(tmp_path / "c.png")]) == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert compare_runs.main([str(tmp_path / "nothing")]) == 2
    assert "no metrics.jsonl in it · allowed: a run folder" in capsys.readouterr().err


def test_a_broken_line_is_named(run):
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"ste')
    with pytest.raises(UserError, match="metrics.jsonl, line 2: not a line of metrics"):
        read_metrics(run)
