"""Dropout that a resume repeats, and which parameters weight decay acts on."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from sphereface.checkpoint import load_checkpoint
from sphereface.config_sections import DecayConfig
from sphereface.errors import UserError
from sphereface.training.parts import parameter_groups
from sphereface.training.trainer import Trainer

from .runs import CPU, load, train

DROPPING = (
    "model={name: iresnet, depth: 18, input_size: [32, 32], embedding_dim: 8, dropout: 0.4}",
    *("train.steps=4", "train.milestones=[]", "checkpoint.every_steps=2", "train.lr=0.001", "loss.lambda_base=10"),
)


def test_a_resumed_run_drops_the_same(config_file):
    whole = train(config_file, *DROPPING, "eval.sets={}", "eval.select=null")
    part = train(config_file, *DROPPING, "eval.sets={}", "eval.select=null", stop_at=2)
    torch.manual_seed(1234)  # whatever was drawn before
    train(config_file, *DROPPING, "eval.sets={}", "eval.select=null", resume=str(part))
    a, b = load_checkpoint(whole / "last.pt"), load_checkpoint(part / "last.pt")
    assert all(torch.equal(value, b["model"][name]) for name, value in a["model"].items())


def test_each_step_piece_and_process_drops_something_else(config_file):
    trainer = Trainer(load(config_file, *DROPPING), CPU)
    learner, batch, setting = trainer.learner, next(trainer.feed()), trainer.setting()

    def dropped(step=0, piece=0, rank=0):
        masks = []
        handle = learner.model.dropout.register_forward_hook(lambda _m, _i, out: masks.append(out == 0))
        learner.world = replace(learner.world, rank=rank)
        learner.forward(batch, replace(setting, step=step), piece)
        handle.remove()
        return masks[0]

    first = dropped()
    assert 0.3 < float(first.float().mean()) < 0.5
    assert torch.equal(first, dropped())
    for other in ({"step": 1}, {"piece": 1}, {"rank": 1}):
        assert not torch.equal(first, dropped(**other))


@pytest.mark.parametrize(("batch", "piece"), [(8, 1), (8, 7), (9, 8), (9, 2)])
def test_a_piece_of_one_image_is_refused_with_batch_normalisation(config_file, batch, piece):
    more = ("model.norm=batch", f"train.batch_size={batch}", f"train.micro_batch={piece}")
    with pytest.raises(UserError, match="which leaves a piece of one image · allowed with batch normalisation"):
        Trainer(load(config_file, *more), CPU)
    Trainer(load(config_file, "model.norm=none", *more[1:]), CPU)


class Everything(nn.Module):
    """One parameter of each kind, two of some."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.prelu = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.PReLU(2)
        self.layer_norm = nn.LayerNorm(2)
        self.gamma = nn.Parameter(torch.ones(2))  # a layer scale
        self.token = nn.Parameter(torch.ones(1, 1, 2))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)

    def no_weight_decay(self):
        return {"token"}


@pytest.mark.parametrize(
    ("decay", "decayed"),
    [
        (DecayConfig(), {"conv.weight", "prelu.weight"}),
        (DecayConfig(slopes=False), {"conv.weight"}),
        (DecayConfig(biases=True), {"conv.weight", "prelu.weight", "conv.bias"}),
        (
            DecayConfig(norms=True, biases=True),
            {"conv.weight", "prelu.weight", "conv.bias", "gamma"}
            | {f"{layer}.{name}" for layer in ("norm", "layer_norm") for name in ("weight", "bias")},
        ),
    ],
)
def test_weight_decay_acts_on_what_is_asked(decay, decayed):
    module = Everything()
    names = {id(p): name for name, p in module.named_parameters()}
    groups = parameter_groups({"model": module}, {}, bias_rate=3.0, decay=decay)
    found = {names[id(p)]: (group["lr_mult"], group["decay_mult"]) for group in groups for p in group["params"]}
    assert {name for name, (_, share) in found.items() if share} == decayed
    assert {name for name, (rate, _) in found.items() if rate == 3.0} == {"conv.bias"}
    assert found.keys() == {name for name, p in module.named_parameters() if p.requires_grad}


class Wrapping(nn.Module):
    """The usual slip: it passes on the names of its body, which lack the name of the body itself."""

    def __init__(self, names: object) -> None:
        super().__init__()
        self.body, self.names = Everything(), names

    def no_weight_decay(self):
        return self.names


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"body.token"}, None),
        (["body.frozen", "body.conv.weight"], None),
        ((), None),
        ({"token", "body.gamma"}, "got 'token', which no parameter has, .* allowed: a whole name, such as body.token$"),
        ({"body.token", "dist_token"}, None),  # as timm lists parts that a network does not have
        ({"dist_token"}, "got 'dist_token', which no parameter has"),
        ({"body.token", "dist_token", "gamma"}, "got 'gamma', which .* such as body.gamma$"),
        (["body.conv"], "got 'body.conv', which .* such as body.gamma, body.token, "),
        ([f"p{k}" for k in range(9)], "got 'p0', 'p1', 'p2', 'p3', 'p4', …, which "),
    ],
)
def test_names_that_no_parameter_has_are_told(names, told, caplog):
    parameter_groups({"model": Wrapping(names)}, {})
    assert len(caplog.messages) == (told is not None)
    assert told is None or re.search(r"^Wrapping: no_weight_decay\(\): " + told, caplog.messages[0])


def test_the_settings_reach_the_optimiser(config_file):
    trainer = Trainer(load(config_file, "train.decay.slopes=false", "train.bias_lr_mult=1.5"), CPU)
    groups = trainer.learner.optimizer.param_groups
    assert sorted({(group["lr_mult"], group["decay_mult"]) for group in groups}) == [(1.0, 0.0), (1.0, 1.0), (1.5, 0.0)]


def test_batch_norm_settings_reach_every_layer(config_file):
    more = "model={name: iresnet, depth: 18, input_size: [32, 32], batch_norm: {momentum: 0.2, eps: 2.0e-5}}"
    layers = [m for m in Trainer(load(config_file, more), CPU).learner.model.modules() if "BatchNorm" in str(type(m))]
    assert len(layers) > 20
    assert {(layer.momentum, layer.eps) for layer in layers} == {(0.2, 2e-5)}
