"""``train.py`` as a program: help, errors in one line, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import train

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
