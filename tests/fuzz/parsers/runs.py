"""Run folders: what ``--resume``, ``--replay`` and the curves read."""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import math
import os
from pathlib import Path

import torch
import yaml

from sphereface.commands.checkpoint_option import checkpoint_path
from sphereface.config import load_config
from sphereface.errors import UserError
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES
from sphereface.plots import read_metrics
from sphereface.training.replay import replay
from sphereface.training.run import run_training
from sphereface.training.sinks.written import Written
from sphereface.training.trainer import Trainer

from ...images import make_training_set
from ..registry import register

_VALUES = {
    "name": "tiny",
    "model": {"depth": 4, "widths": [4, 4, 4, 4], "embedding_dim": 4, "input_size": [16, 16]},
    "loss": {"name": "cosface"},
    "data": {"train": "people", "workers": 0},
    "train": {"batch_size": 4, "steps": 4, "lr": 0.01, "ema": 0.9, "on_nonfinite": "stop"},
    "log": {"tensorboard": False, "every_steps": 1},
    "checkpoint": {"every_steps": 2, "keep": 2},
}
importlib.import_module("sphereface.training.versions")._git_revision = lambda: "unknown"  # it starts a process


def _train(folder: Path, **how: str) -> None:
    """Train in a folder, to which all paths are relative."""
    os.chdir(folder)
    run_training("config.yaml", device="cpu", **how)


def _write_config(folder: Path, **train: object) -> None:
    values = copy.deepcopy(_VALUES)
    values["train"].update(train)
    (folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def make_run(folder: Path) -> None:
    """A run killed after two of four steps."""
    make_training_set(folder / "people", 3, 3, (16, 16))
    _write_config(folder)
    _train(folder)
    run = _run(folder)
    for path in run.glob("step-00000004.*"):
        path.unlink()
    for suffix in (".pt", ".json"):
        (run / f"last{suffix}").unlink()
        (run / f"last{suffix}").write_bytes((run / f"step-00000002{suffix}").read_bytes())
    about = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**about, "status": "running"}), encoding="utf-8")


def _run(folder: Path) -> Path:
    (run,) = (folder / "runs" / "tiny").iterdir()
    return run


def parse_run(folder: Path, path: Path) -> None:
    """Resume it: by itself, by its folder, and by the checkpoint."""
    run = _run(folder)
    resume = {".json": "auto", ".yaml": "auto", ".jsonl": str(run)}.get(path.suffix, str(run / "step-00000002.pt"))
    _train(folder, resume=resume)


def parse_run_as_checkpoint(folder: Path, _path: Path) -> None:
    """``--ckpt`` of a folder of runs."""
    checkpoint_path(str(folder / "runs"))


def parse_metrics(_folder: Path, path: Path) -> None:
    read_metrics(path.parent)


def make_teacher(folder: Path) -> None:
    """Kept embeddings of a teacher."""
    make_training_set(folder / "people", 3, 3, (16, 16))
    _write_config(folder)
    _train(folder)
    (_run(folder) / "last.pt").rename(folder / "teacher.pt")
    _write_config(folder, teacher={"checkpoint": "teacher.pt", "losses": {"cosine": 1}})
    parse_teacher(folder, folder)


def parse_teacher(folder: Path, _path: Path) -> None:
    """Open them; what cannot be read is an error, what is of another shape is made again."""
    os.chdir(folder)
    Trainer(load_config("config.yaml", losses=MARGINS, backbones=BACKBONES), torch.device("cpu"))


def make_kept(folder: Path) -> None:
    """A step that was not finite, as training keeps it."""
    make_training_set(folder / "people", 3, 3, (16, 16))
    _write_config(folder, lr=1e30)
    with contextlib.suppress(UserError):
        _train(folder)
    (kept,) = _run(folder).glob("nonfinite-*.pt")
    kept.rename(folder / "nonfinite.pt")


def parse_kept(folder: Path, _path: Path) -> None:
    replay(folder / "nonfinite.pt", torch.device("cpu"))


def make_metrics(folder: Path) -> None:
    lines = [{"step": k, "images_seen": 4 * k, "train/loss": 1.0, "eval/own/accuracy": math.sqrt(k)} for k in range(3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


register(
    "run-folder",
    make_run,
    parse_run,
    files="runs/*/*/[!.]*.*[!g]",
    output="runs",
    reads="training.run_folder training.sinks.jsonl training.same_run",
)
register(
    "run-as-checkpoint",
    make_run,
    parse_run_as_checkpoint,
    files="runs/*/*/run.json",
    output="runs",
    reads="commands.checkpoint_option",
)
register(
    "teacher",
    make_teacher,
    parse_teacher,
    files="runs/teachers/*",
    output="runs",
    reads="training.teacher_table training.teacher",
)
register("replay", make_kept, parse_kept, files="nonfinite.pt", reads="training.replay training.plan")
register("metrics", make_metrics, parse_metrics, reads="plots")
register(
    "sent-figures",
    lambda folder: Written(folder / "wandb.json").add(20, ["train/loss", "eval/own/accuracy"], 3),
    lambda _folder, path: Written(path).has(20, "train/loss"),
    reads="training.sinks.written",
)
