"""Whole small runs, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from sphereface.config import Config, load_config
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES
from sphereface.training.run_folder import RunFolder
from sphereface.training.trainer import Trainer

CPU = torch.device("cpu")
TINY = """
name: tiny
model: {depth: 4, widths: [4, 8, 8, 8], embedding_dim: 8, input_size: [32, 32]}
loss: {name: a-softmax, m: 4, gradient: caffe, lambda_gamma: 10}
train: {batch_size: 8, steps: 12, lr: 0.05, milestones: [6, 9], lr_decay: 0.5}
data: {workers: 0, crop_shift: 2}
log: {every_steps: 1, histogram_every_steps: 5, sinks: [jsonl]}
checkpoint: {every_steps: 4, keep: 2}
eval: {every_steps: 6}
"""


def write_tiny(folder: Path, faces: Path) -> Path:
    """The file of the configuration for ``faces/train`` and ``faces/pairs``, whose runs are in ``folder``."""
    values = yaml.safe_load(TINY)
    values["runs_dir"] = str(folder / "runs")
    values["data"]["train"] = str(faces / "train")
    values["eval"] |= {"sets": {"mine": str(faces / "pairs")}, "select": "mine"}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def load(path: Path, *overrides: str) -> Config:
    return load_config(str(path), overrides, losses=MARGINS, backbones=BACKBONES)


def metrics_of(run: Path, name: str) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def train(path: Path, *overrides: str, stop_at: int | None = None, resume: str | None = None) -> Path:
    """Run to the end, or until the process "dies" before step ``stop_at`` + 1; returns the run folder."""
    config = load(path, *overrides)
    run, checkpoint = RunFolder.of_resume(resume, config) if resume else (RunFolder.create(config), None)
    trainer = Trainer(config, CPU)
    if stop_at is None:
        trainer.fit(run, checkpoint)
        return run.path
    step = trainer.train_step

    def dying_step(batch):
        if trainer.progress.step == stop_at:
            raise KeyboardInterrupt
        return step(batch)

    trainer.train_step = dying_step
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(run, checkpoint)
    return run.path


def train_with(path: Path, *overrides: str, before_step: Callable[[Trainer], None], resume: str | None = None) -> Path:
    """Run to the end, calling something before each step."""
    config = load(path, *overrides)
    run, checkpoint = RunFolder.of_resume(resume, config) if resume else (RunFolder.create(config), None)
    trainer = Trainer(config, CPU)
    step = trainer.train_step

    def hooked(batch):
        before_step(trainer)
        return step(batch)

    trainer.train_step = hooked
    trainer.fit(run, checkpoint)
    return run.path
