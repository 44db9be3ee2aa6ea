"""``train.py`` as a program: help, errors in one line, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import train
from sphereface.commands import train as command

from .pictures import make_training_set

ROOT = Path(__file__).parents[1]


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as left:
        train.main(["--help"])
    assert left.value.code == 0
    assert "python train.py --config sphere20.yaml" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--config", "sphere21"], "error: --config: no file 'sphere21' here or in configs/ · did you mean"),
        (["--config", "sphere20", "--set", "train.lr=-1"], "train.lr: got -1 · allowed: a number above 0"),
        (["--config", "sphere20", "--device", "tpu"], "error: --device: got 'tpu'"),
        (["--config", "demo", "--set", "data.train=/nowhere"], "error: data.train: got '/nowhere' (nothing there)"),
    ],
)
def test_an_error_is_one_line_and_exit_code_two(arguments, error, capsys):
    assert train.main(arguments) == 2
    captured = capsys.readouterr()
    assert error in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("more", "called", "given"),
    [
        (["--config", "a", "--set", "train.lr=1", "--set", "seed=2", "--resume", "auto"], "run_training",
         ("a", ["train.lr=1", "seed=2"], {"resume": "auto", "device": "cpu"})),
        (["--config", "a", "--set", "seed=2", "--dry-run"], "dry_run", ("a", ["seed=2"], {"device": "cpu"})),
        (["--config", "a", "--profile", "7"], "profile_run", ("a", [], {"steps": 7, "device": "cpu"})),
        (["--replay", "kept.pt"], "replay_step", ("kept.pt", {"device": "cpu"})),
    ],
)  # fmt: skip
def test_options_reach_what_they_are_for(monkeypatch, capsys, more, called, given):
    calls = []
    for name in ("run_training", "dry_run", "profile_run", "replay_step"):
        monkeypatch.setattr(command, name, lambda *a, name=name, **k: calls.append((name, (*a, k))) or "told")
    assert train.main([*more, "--device", "cpu"]) == 0
    assert calls == [(called, given)]
    assert "told" in capsys.readouterr().out


def test_a_whole_run_as_a_process(tmp_path):
    data = make_training_set(tmp_path / "crops", 3, 4, size=(32, 32))
    settings = {
        "runs_dir": tmp_path / "runs",
        "data.train": data,
        "data.workers": 1,
        "model.widths": "[4, 4, 4, 4]",
        "model.input_size": "[32, 32]",
        "train.steps": 3,
        "train.batch_size": 4,
        "train.warmup_steps": 0,
        "eval.sets": "{}",
    }
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, str(ROOT / "train.py"), "--config", "demo.yaml", "--device", "cpu", *overrides]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs" / "demo").iterdir()
    assert f"python eval_lfw.py --ckpt {run}/last.pt" in done.stdout
    assert "done: 3 steps" in done.stderr
