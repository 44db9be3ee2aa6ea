"""Each shipped recipe trains two steps, with its own network, loss and optimiser, on a tiny set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sphereface.config import load_config
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES
from sphereface.training.trainer import Trainer

from ..images import make_training_set


def make_teacher(faces: Path, path: Path) -> None:
    """A table of random embeddings, where the recipes with a teacher expect one."""
    names = [str(image.relative_to(faces)) for image in sorted(faces.rglob("*.png"))]
    path.parent.mkdir()
    np.savez(path, names=names, embeddings=np.random.default_rng(0).standard_normal((len(names), 128)))


CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_two_steps(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape = load_config(path.name, losses=MARGINS, backbones=BACKBONES).model.input_spec.size
    make_training_set(tmp_path / "faces", 4, 3, size=shape)
    make_teacher(tmp_path / "faces", tmp_path / "data/teacher.npz")
    more = ["data.train=faces", "data.exclude=[]", "data.workers=0", "train.batch_size=3", "model.networks=1"]
    config = load_config(path.name, [*more, "eval.sets={}", "eval.select=null"], losses=MARGINS, backbones=BACKBONES)
    trainer = Trainer(config, torch.device("cpu"))
    feed = trainer.feed()
    before = [p.detach().clone() for _, p in trainer.learner.named_parameters()]
    results = [trainer.train_step(next(feed)) for _ in range(2)]
    assert all(torch.isfinite(result.output.loss) for result in results)
    changed = [not torch.equal(p, old) for (_, p), old in zip(trainer.learner.named_parameters(), before, strict=True)]
    assert all(changed)
