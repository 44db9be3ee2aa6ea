"""The loss scale of fp16, which only CUDA has: here the CPU computes in fp16 all the same."""

from __future__ import annotations

import itertools
import logging
import math

import pytest
import torch

from sphereface.checkpoint import load_checkpoint
from sphereface.training import learner as learner_module
from sphereface.training import loss_scale
from sphereface.training.loss_scale import LossScale
from sphereface.training.trainer import Trainer

from .runs import CPU, load, metrics_of, train
from .test_deferred import Waiting

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHORT = ("train.steps=4", "train.milestones=[]", "checkpoint.every_steps=2", "eval.every_steps=4")


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Allow fp16, and do not wait for the device."""
    monkeypatch.setattr(learner_module, "precision_on", lambda device, precision: TYPES[precision])
    monkeypatch.setattr(learner_module, "reads_late", lambda device: True)


def test_it_moves_as_torchs_own(monkeypatch):
    monkeypatch.setattr(loss_scale, "_INTERVAL", 3)
    own, other = LossScale(CPU, enabled=True), torch.amp.GradScaler("cpu", growth_interval=3)
    weight = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    for bad in (1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1):
        factor = math.inf if bad else 3.0
        weight.grad = None
        other.scale((weight * factor).sum()).backward()
        other.unscale_(optimizer)
        other.step(optimizer)
        other.update()
        gradient = torch.full((2,), factor) * float(own.scale(torch.ones(())))
        own.unscale([gradient])
        assert torch.equal(gradient, torch.full((2,), factor))
        own.update(torch.tensor(float(bad)))
        assert own.state_dict()["scale"] == other.get_scale()
        assert own.state_dict()["_growth_tracker"] == other.state_dict()["_growth_tracker"]
    monkeypatch.undo()
    assert own.state_dict().keys() == other.state_dict().keys()
    assert LossScale(CPU, enabled=True).state_dict() == torch.amp.GradScaler("cpu").state_dict()


def test_switched_off_it_does_nothing():
    scale = LossScale(CPU, enabled=False)
    loss, gradient = torch.ones(()), torch.ones(2)
    assert scale.scale(loss) is loss
    scale.unscale([gradient])
    scale.update(None)
    assert (gradient.tolist(), scale.tensors(), scale.state_dict()) == ([1.0, 1.0], [], {})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_an_overflow_skips_a_step_and_halves_the_scale_and_nobody_waits(
    config_file, as_on_cuda, monkeypatch, optimizer
):
    plain = torch.optim.AdamW.__init__
    monkeypatch.setattr(torch.optim.AdamW, "__init__", lambda *a, **k: plain(*a, **{**k, "fused": True}))
    monkeypatch.setattr("sphereface.losses.targets.check_labels", lambda *_: None)  # asks on a CPU only
    monkeypatch.setattr("sphereface.data.transforms._mirrored", lambda images, mirror: images)
    trainer = Trainer(load(config_file, "train.precision=fp16", f"train.optimizer={optimizer}", "train.lr=0.001"), CPU)
    learner, feed = trainer.learner, trainer.feed()
    trainer.train_step(next(feed))
    assert not torch.equal(learner.head.weight, Trainer(trainer.config, CPU).learner.head.weight)
    learner.loss_scale.load_state_dict({"scale": 2.0**80})
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    with Waiting() as waiting:
        result = trainer.train_step(next(feed))
    assert waiting.found == []
    assert not math.isfinite(result.grad_norm)
    for name, p in learner.named_parameters():
        if name != "head.weight":  # the caffe gradient renormalises its rows
            assert torch.equal(p, before[name]), name
    assert learner.loss_scale.state_dict()["scale"] == 2.0**79
    assert learner.lost_steps() == 0
    learner.loss_scale.load_state_dict({})
    assert math.isfinite(trainer.train_step(next(feed)).grad_norm)
    assert not torch.equal(learner.model.fc5.weight, before["model.fc5.weight"])


def test_a_loss_that_is_not_finite_leaves_the_scale_alone(config_file, as_on_cuda):
    trainer = Trainer(load(config_file, "train.precision=fp16"), CPU)
    feed = trainer.feed()
    trainer.train_step(next(feed))
    before = trainer.learner.loss_scale.state_dict()
    with torch.no_grad():
        trainer.learner.model.fc5.bias.fill_(math.nan)
    for _ in range(2):
        trainer.train_step(next(feed))
    assert trainer.learner.lost_steps() == 2
    assert trainer.learner.loss_scale.state_dict() == before


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(TYPES, 2)))
def test_a_run_resumes_in_another_precision(config_file, as_on_cuda, caplog, before, after):
    run = train(config_file, *SHORT, f"train.precision={before}", stop_at=2)
    saved = load_checkpoint(run / "step-00000002.pt")["scaler"]
    assert bool(saved) == (before == "fp16")
    with caplog.at_level(logging.WARNING):
        train(config_file, *SHORT, f"train.precision={after}", resume=str(run))
    assert f"resumed with another setting: train.precision: '{before}' → '{after}'" in caplog.text
    assert list(metrics_of(run, "train/loss")) == [1, 2, 3, 4]
    scaler = load_checkpoint(run / "last.pt")["scaler"]
    assert scaler == (torch.amp.GradScaler("cpu").state_dict() | {"_growth_tracker": 2} if after == "fp16" else {})
