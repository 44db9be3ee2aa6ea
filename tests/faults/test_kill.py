"""Training survives ``kill -9``: whatever the moment, ``--resume auto`` ends with the weights of a run never killed."""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import yaml

from sphereface.checkpoint import load_checkpoint

from ..images import make_training_set
from .session import train

KILLS = int(os.environ.get("SPHEREFACE_KILLS", "200"))
STEPS_A_KILL = 15  # a session lives for about five


def write_config(path: Path, data: Path, runs: Path, steps: int) -> Path:
    values = {
        "name": "killed",
        "runs_dir": str(runs),
        "model": {"depth": 4, "widths": [4, 8, 8, 8], "embedding_dim": 8, "input_size": [32, 32], "norm": "batch"},
        "data": {"train": str(data), "workers": 0, "crop_shift": 1},
        "train": {"batch_size": 8, "steps": steps, "lr": 0.01, "ema": 0.9},
        "log": {"tensorboard": False},
        "checkpoint": {"every_steps": 1, "keep": 2},  # so that most kills hit a save
    }
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def start(server, config: Path) -> BaseProcess:
    process = server.Process(target=train, args=(str(config),))
    process.start()
    return process


def final_state(runs: Path) -> dict:
    (run,) = (runs / "killed").iterdir()  # one folder: every session resumed in place
    return load_checkpoint(run / "last.pt")


def steps_saved(runs: Path) -> set[str]:
    return {path.name for path in runs.glob("killed/*/step-*.pt")}


def wait_until_it_trains(process: BaseProcess, runs: Path) -> None:
    before = steps_saved(runs)
    while process.is_alive() and steps_saved(runs) == before:
        time.sleep(0.002)


@pytest.mark.parametrize("kills", [5, pytest.param(KILLS, marks=pytest.mark.slow)])
def test_kills_at_random_moments(tmp_path, server, kills):
    steps = STEPS_A_KILL * kills
    data = make_training_set(tmp_path / "train", 4, 6, size=(32, 32))
    whole = start(server, write_config(tmp_path / "whole.yaml", data, tmp_path / "whole", steps))
    whole.join(600)
    assert whole.exitcode == 0
    runs = tmp_path / "runs"
    config = write_config(tmp_path / "killed.yaml", data, runs, steps)
    moments, killed = random.Random(kills), 0
    while killed < kills:
        process = start(server, config)
        if moments.random() < 0.8:  # else at any moment of the start
            wait_until_it_trains(process, runs)
        time.sleep(moments.uniform(0.0, 0.15))
        process.kill()
        process.join()
        if process.exitcode == 0:  # a busy machine held this process up until the run had ended
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    else:
        last = start(server, config)
        last.join(600)
        assert last.exitcode == 0
    assert killed
    expected, found = final_state(tmp_path / "whole"), final_state(runs)
    assert expected["meta"]["step"] == found["meta"]["step"] == steps
    for part in ("model", "head", "average"):
        assert all(torch.equal(value, found[part][name]) for name, value in expected[part].items()), part
