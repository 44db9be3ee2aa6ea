"""``train.py`` as a program: help, errors in one line, exit codes."""

from __future__ import annotations

import runpy
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import eval_lfw
import train
from sphereface.commands import train as command
from sphereface.commands.train import how_to_evaluate
from sphereface.places import Places

from .images import make_pairs, make_training_set

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
        (["--config", "demo", "--resume", "auto", "--dry-run"], "error: --resume: got it with --dry-run or --profile"),
        (["--config", "demo", "--resume", "auto", "--profile", "2"], "error: --resume: got it with --dry-run or"),
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
        (["--config", "demo", "--set", "train.lr=1", "--set", "seed=2", "--resume", "auto"], "run_training",
         ("demo", ["train.lr=1", "seed=2"], {"resume": "auto", "device": "cpu"})),
        (["--config", "demo", "--set", "seed=2", "--dry-run"], "dry_run", ("demo", ["seed=2"], {"device": "cpu"})),
        (["--config", "demo", "--profile", "7"], "profile_run", ("demo", [], {"steps": 7, "device": "cpu"})),
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


def settings(tmp_path, **more) -> list[str]:
    """Command-line options of a tiny run."""
    data = make_training_set(tmp_path / "crops", 3, 4, size=(32, 32))
    values = {
        "runs_dir": tmp_path / "runs",
        "data.train": data,
        "data.workers": 0,
        "model.widths": "[4, 4, 4, 4]",
        "model.input_size": "[32, 32]",
        "train.steps": 3,
        "train.batch_size": 4,
        "train.warmup_steps": 0,
        "eval.sets": "{}",
        **more,
    }
    return ["--device", "cpu", *(part for key, value in values.items() for part in ("--set", f"{key}={value}"))]


def test_a_whole_run_as_a_program(tmp_path, monkeypatch, capsys):
    """As a process of its own, which needs seconds to import all, it is killed and resumed in tests/training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py"), "--config", "demo.yaml", *settings(tmp_path)])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    (run,) = (tmp_path / "runs" / "demo").iterdir()
    said = capsys.readouterr()
    assert said.out == f"evaluate it on LFW: python eval_lfw.py --ckpt {run}/last.pt\n"
    assert "done: 3 steps" in said.err


def test_training_on_a_gpu_without_triton_is_logged(tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("sphereface.training.run.without_triton", lambda device: asked.append(device.type) or "SLOW")
    assert train.main(["--config", "demo.yaml", *settings(tmp_path, **{"log.tensorboard": "false"})]) == 0
    assert asked == ["cpu"]
    (run,) = (tmp_path / "runs" / "demo").iterdir()
    for text in (capsys.readouterr().err, (run / "train.log").read_text(encoding="utf-8")):
        assert text.count("SLOW\n") == 1


def test_the_last_line_evaluates_on_the_runs_own_sets(tmp_path, capsys):
    """As printed, copied into a shell."""
    place = make_pairs(tmp_path / "some pairs", size=(32, 32))
    sets = f"{{own: {place}, again: {{images: {place}, pairs: {place / 'pairs.txt'}}}}}"
    more = {"eval.sets": sets, "eval.select": "own", "log.tensorboard": "false"}
    assert train.main(["--config", "demo.yaml", *settings(tmp_path, **more)]) == 0
    (run,) = (tmp_path / "runs" / "demo").iterdir()
    (line,) = capsys.readouterr().out.splitlines()
    words, given = line.split(": ", 1)
    assert words == "evaluate it on its own sets"
    python, script, *arguments = shlex.split(given)
    assert (python, script) == ("python", "eval_lfw.py")
    assert arguments[:3] == ["--ckpt", f"{run}/best.pt", "--sets"]
    assert eval_lfw.main([*arguments, "--device", "cpu"]) == 0
    assert {folder.name for folder in (run / "eval").iterdir()} == {"own", "again"}


def test_the_command_in_words(monkeypatch):
    sets = {
        "lfw": Places(None, (Path("data/lfw"), Path("data/pairs.txt"))),
        "cfp": Places("pairs", (Path("my crops"), Path("p.txt"), Path("dev.txt"))),
        "odd": Places("pairs", (Path("a,b"), Path("p.txt"))),
        "a=b": Places(None, (Path("lfw"),)),
        "colon": Places(None, (Path("./tiny:x"), Path("p.txt"))),
    }
    monkeypatch.setattr(command, "saved_config", lambda folder: SimpleNamespace(evaluation_sets=lambda: sets))
    assert how_to_evaluate("sphereface train", Path("runs/a/last.pt")) == (
        "evaluate it on its own sets (not on a=b: the command line cannot name a set with '='): sphereface eval "
        "--ckpt runs/a/last.pt --sets lfw=data/lfw,data/pairs.txt 'cfp=pairs:my crops,p.txt,dev.txt' "
        "'odd=pairs:a\\,b,p.txt' colon=./tiny:x,p.txt"
    )
    monkeypatch.setattr(command, "saved_config", lambda folder: SimpleNamespace(evaluation_sets=lambda: {"a=b": 1}))
    assert how_to_evaluate("sphereface train", Path("last.pt")) == (
        "evaluate it on LFW (not on a=b: the command line cannot name a set with '='): sphereface eval --ckpt last.pt"
    )


def test_an_error_in_training_is_told_once(tmp_path, capsys):
    """On the terminal by the program; train.log has it too."""
    more = {"train.lr": "1e30", "train.schedule": "step", "log.tensorboard": "false"}
    assert train.main(["--config", "demo.yaml", *settings(tmp_path, **more)]) == 2
    said = capsys.readouterr().err
    assert said.count("not updated") == 1
    assert said.splitlines()[-1].startswith("error: step ")
    (run,) = (tmp_path / "runs" / "demo").iterdir()
    assert (run / "train.log").read_text(encoding="utf-8").count("not updated") == 1


@pytest.mark.parametrize("more", [["--config", "demo"], ["--set", "train.lr=1"], ["--resume", "auto"]])
def test_a_replay_takes_its_configuration_from_its_file(more, capsys):
    assert train.main(["--replay", "kept.pt", *more]) == 2
    assert capsys.readouterr().err == (
        f"error: {more[0]}: got it with --replay, which uses the configuration in its FILE · omit {more[0]}\n"
    )


@pytest.mark.parametrize("option", ["resume", "replay"])
def test_an_empty_path_is_refused(option, capsys):
    assert train.main(["--config", "sphere20.yaml", f"--{option}", ""]) == 2
    assert capsys.readouterr().err.startswith(f"error: --{option}: got an empty text · allowed: a path")
