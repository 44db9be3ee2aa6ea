"""Training survives ``kill -9``: whatever the moment, ``--resume auto`` ends with the weights of a run never killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from sphereface.checkpoint import load_checkpoint

from ..pictures import make_training_set

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("SPHEREFACE_KILLS", "20"))


def write_config(path: Path, data: Path, runs: Path) -> Path:
    values = {
        "name": "killed",
        "runs_dir": str(runs),
        "model": {"depth": 4, "widths": [4, 8, 8, 8], "embedding_dim": 8, "input_size": [32, 32], "norm": "batch"},
        "data": {"train": str(data), "workers": 0},
        "train": {"batch_size": 8, "steps": 400, "lr": 0.01},
        "log": {"tensorboard": False},
        "checkpoint": {"every_steps": 1, "keep": 2},  # so that most kills hit a save
    }
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def start(config: Path) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(config), "--resume", "auto", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def final_weights(runs: Path) -> dict[str, torch.Tensor]:
    (run,) = (runs / "killed").iterdir()  # one folder: every sitting went on in place
    state = load_checkpoint(run / "last.pt")
    assert state["meta"]["step"] == 400
    return state["model"]


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path):
    data = make_training_set(tmp_path / "train", 4, 6, size=(32, 32))
    whole = start(write_config(tmp_path / "whole.yaml", data, tmp_path / "whole"))
    assert whole.wait(timeout=600) == 0
    config = write_config(tmp_path / "killed.yaml", data, tmp_path / "killed")
    moments, kills = random.Random(0), 0
    while True:
        process = start(config)
        deadline = time.monotonic() + (moments.uniform(2.0, 6.0) if kills < KILLS else 600)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read().decode()
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills > 0
    expected, found = final_weights(tmp_path / "whole"), final_weights(tmp_path / "killed")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
