"""Stages, averages, fixed parts, other optimisers, pieces of a batch, starting from another network."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn

from sphereface.checkpoint import BadCheckpoint, load_checkpoint
from sphereface.errors import UserError
from sphereface.losses.margins import MARGINS
from sphereface.models import Resized, load_model
from sphereface.training.average import MovingAverage
from sphereface.training.distributed import World
from sphereface.training.optimizer import AdamW
from sphereface.training.parts import part_factor
from sphereface.training.plan import Plan
from sphereface.training.starting import start_from
from sphereface.training.trainer import Trainer
from sphereface.training.training_set import TrainingSet

from ..images import make_training_set
from .runs import CPU, load, metrics_of, train


def one_step(config_file, *overrides: str) -> Trainer:
    trainer = Trainer(load(config_file, *overrides), CPU)
    trainer.train_step(next(trainer.feed()))
    return trainer


# ---------------------------------------------------------------- stages


STAGES = "train.stages=[{until: 0.5, loss: {m: 1}}, {until: 0.75, loss: {m: 2, lambda_min: 3}}]"


def test_each_stage_has_its_margin_and_anneals_anew(config_file):
    plan = Plan(load(config_file, STAGES, "train.milestones=[]"), 12)
    settings = [plan.at(position) for position in range(12)]
    assert [setting.margin.m for setting in settings] == [1] * 6 + [2] * 3 + [4] * 3
    assert [setting.stage for setting in settings] == [0] * 6 + [1] * 3 + [2] * 3
    expected = [1000 / (1 + 10 * t) for t in (1, 2, 3, 4, 5, 6, 1, 2, 3, 1, 2, 3)]  # lambda_gamma is 10
    assert [setting.lam for setting in settings] == pytest.approx(expected)


def test_a_stage_of_the_same_loss_does_not_repeat_it(config_file, caplog):
    with caplog.at_level(logging.INFO):
        train(config_file, "train.stages=[{until: 0.5, input_size: [16, 16]}]")
    assert [r.message for r in caplog.records if "stage" in r.message] == ["step 7: stage 2: crops of 32×32"]


def test_a_run_in_stages_resumes_bit_for_bit(config_file, caplog):
    with caplog.at_level(logging.INFO):
        whole = train(config_file, STAGES)
    assert "step 7: stage 2: crops of 32×32, loss" in caplog.text
    assert "step 10: stage 3: crops of 32×32, loss" in caplog.text
    part = train(config_file, STAGES, "checkpoint.every_steps=7", stop_at=8)
    train(config_file, STAGES, "checkpoint.every_steps=7", resume=str(part))
    a, b = load_checkpoint(whole / "last.pt"), load_checkpoint(part / "last.pt")
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])
    assert metrics_of(whole, "train/lambda") == metrics_of(part, "train/lambda")


SMALL_FIRST = "train.stages=[{until: 0.5, input_size: [16, 16]}]"


def test_small_crops_first(config_file, monkeypatch):
    """Each step and each evaluation sees crops of its stage's size; the annealing of λ goes on across them."""
    seen = []
    real = Resized.forward

    def forward(model, images):
        if len(images) > 1:  # one crop is tried before the first step
            seen.append((model.training, model.seen_size, tuple(images.shape[2:])))
        return real(model, images)

    monkeypatch.setattr(Resized, "forward", forward)
    train(config_file, SMALL_FIRST, "eval.every_steps=6")
    steps = [size for training, size, _ in seen if training]
    assert steps == [(16, 16)] * 6 + [(32, 32)] * 6
    assert all(given == (size if training else (32, 32)) for training, size, given in seen)
    evaluated = list(dict.fromkeys(size for training, size, _ in seen if not training))
    assert evaluated == [(16, 16), (32, 32)]
    whole, small = Plan(load(config_file), 12), Plan(load(config_file, SMALL_FIRST), 12)
    assert [small.at(p).lam for p in range(12)] == [whole.at(p).lam for p in range(12)]


def test_a_run_of_small_crops_resumes_and_evaluates_at_its_size(config_file):
    whole = train(config_file, SMALL_FIRST, "checkpoint.every_steps=4")
    part = train(config_file, SMALL_FIRST, "checkpoint.every_steps=4", stop_at=4)
    assert load_model(part / "last.pt").model.seen_size == (16, 16)
    assert not isinstance(load_model(whole / "last.pt").model, Resized)
    train(config_file, SMALL_FIRST, "checkpoint.every_steps=4", resume=str(part))
    a, b = load_checkpoint(whole / "last.pt"), load_checkpoint(part / "last.pt")
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ("[{until: 0.5, loss: {name: softmax}}]", "got softmax with bias 'per class' before a-softmax with 'none'"),
        ("[{until: 0.5, loss: {m: 7}}]", r"train.stages\[0\].loss.m: got 7 · allowed: an integer from 1 to 4"),
        ("[{until: 0.5, loss: {}}, {until: 0.4, loss: {}}]", "increasing shares of the run"),
        ("[{until: 1.5, loss: {}}]", r"train.stages\[0\].until: got 1.5 · allowed: a number above 0"),
        ("[3]", r"train.stages: got \[3\] · allowed: a list of mappings"),
        (
            "[{until: 0.5, input_size: [64, 32]}]",
            r"stages\[0\].input_size: got \[64, 32\] · allowed: .*most \[32, 32\]",
        ),
        ("[{until: 0.5, input_size: [16]}]", r"stages\[0\].input_size: got \[16\] · allowed: \[height, width\]"),
    ],
)
def test_stages_that_cannot_be(config_file, stages, problem):
    with pytest.raises(UserError, match=problem):
        load(config_file, f"train.stages={stages}")


# ---------------------------------------------------------------- moving average


def test_the_average_is_the_one_of_a_plain_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = MovingAverage(model, 0.6)
    expected = {name: value.double().clone() for name, value in model.state_dict().items()}
    for t in range(1, 30):
        for value in [*model.parameters(), model[1].running_mean]:
            value.data = torch.randn_like(value)
        model[1].num_batches_tracked += 1
        average.update()
        decay = min(0.6, (1 + t) / (10 + t))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    found = average.weights()
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean"):
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-5, atol=1e-6)
    assert found["1.num_batches_tracked"] == 29
    own = {name: value.clone() for name, value in model.state_dict().items()}
    with average.applied():
        assert torch.equal(model[0].weight, found["0.weight"])
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_the_average_is_evaluated_saved_and_resumed(config_file, monkeypatch):
    overrides = ("train.ema=0.5", "model.norm=batch", "checkpoint.every_steps=1")
    seen = []
    real = __import__("sphereface.training.validation", fromlist=["evaluate"]).evaluate
    monkeypatch.setattr(
        "sphereface.training.validation.evaluate",
        lambda model, *a, **k: (seen.append(model.backbone.fc5.weight.clone()), real(model, *a, **k))[1],
    )
    whole = train(config_file, *overrides)
    state = load_checkpoint(whole / "last.pt")
    assert torch.equal(seen[-1], state["average"]["fc5.weight"])
    assert not torch.equal(seen[-1], state["model"]["fc5.weight"])
    assert torch.equal(load_model(whole / "last.pt").model.fc5.weight, seen[-1])
    part = train(config_file, *overrides, stop_at=7)
    train(config_file, *overrides, resume=str(part))
    again = load_checkpoint(part / "last.pt")
    assert all(torch.equal(value, again["average"][name]) for name, value in state["average"].items())


# ---------------------------------------------------------------- parts


def test_the_longest_part_counts():
    factors = {"model": 0.1, "model.stages.1": 0.0, "head": 2.0}
    assert part_factor("model.fc5.weight", factors) == 0.1
    assert part_factor("model.stages.1.conv.weight", factors) == 0.0
    assert part_factor("model.stages.10.conv.weight", factors) == 0.1
    assert part_factor("head.weight", factors) == 2.0
    assert part_factor("other", factors) == 1.0


def test_fixed_parts_stay_to_the_bit(config_file):
    overrides = ("model.norm=batch", "train.weight_decay=0.1")
    before = Trainer(load(config_file, *overrides), CPU).learner.model.state_dict()
    after = one_step(config_file, *overrides, "train.lr_mult={model.stages.0: 0}").learner.model.state_dict()
    always_fixed = {name for name in before if name.endswith(("conv_a.bias", "conv_b.bias"))}
    unmoved = {name for name, value in before.items() if torch.equal(after[name], value)} - always_fixed
    assert unmoved == {name for name in before if name.startswith("stages.0.")}


def test_a_part_learns_at_its_own_rate(config_file):
    arcface = "loss.name=arcface"  # whose rows are not renormalised before the step
    before = Trainer(load(config_file, arcface), CPU).learner.head.weight.detach()
    plain = one_step(config_file, arcface).learner
    half = one_step(config_file, arcface, "train.lr_mult={head: 0.5}").learner
    torch.testing.assert_close(half.head.weight - before, 0.5 * (plain.head.weight - before), rtol=1e-3, atol=1e-6)
    assert torch.equal(half.model.fc5.weight, plain.model.fc5.weight)


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ("{model.stage: 0}", "train.lr_mult: got 'model.stage' · allowed: the start of a name, such as head.weight"),
        ("{head: -1}", "train.lr_mult.head: got -1 · allowed: a number of at least 0"),
        ("{head: fast}", "train.lr_mult.head: got 'fast'"),
    ],
)
def test_parts_that_cannot_be(config_file, parts, problem):
    with pytest.raises(UserError, match=problem):
        Trainer(load(config_file, f"train.lr_mult={parts}"), CPU)


# ---------------------------------------------------------------- optimisers and pieces


def test_adamw_is_torchs_own_with_the_groups_rates():
    torch.manual_seed(0)
    ours, fixed = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5))
    theirs = nn.Parameter(ours.detach().clone())
    groups = [
        {"params": [ours], "lr_mult": 0.5, "decay_mult": 1.0},
        {"params": [fixed], "lr_mult": 1.0, "decay_mult": 0.0},
    ]
    mine = AdamW(groups, lr=1.0, betas=(0.8, 0.9), weight_decay=0.1)
    other = torch.optim.AdamW([theirs], lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    for _ in range(5):
        ours.grad = torch.randn(5)
        theirs.grad = ours.grad.clone()
        mine.set_lr(0.02)
        mine.step()
        other.step()
    assert torch.equal(ours, theirs)
    assert mine.param_groups[1]["weight_decay"] == 0.0


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_with_another_optimizer_resumes_bit_for_bit(config_file, optimizer):
    overrides = (
        f"train.optimizer={optimizer}",
        "train.lr=0.001",
        "checkpoint.every_steps=1",
        "train.betas=[0.9, 0.99]",
    )
    whole = train(config_file, *overrides)
    part = train(config_file, *overrides, stop_at=5)
    train(config_file, *overrides, resume="auto")
    a, b = load_checkpoint(whole / "last.pt"), load_checkpoint(part / "last.pt")
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
@pytest.mark.parametrize("loss", ["a-softmax", "arcface", "softmax"])
def test_a_batch_in_pieces_is_the_whole_batch(config_file, micro_batch, loss):
    whole = one_step(config_file, f"loss.name={loss}")
    pieces = one_step(config_file, f"loss.name={loss}", f"train.micro_batch={micro_batch}")
    for (name, a), (_, b) in zip(whole.learner.named_parameters(), pieces.learner.named_parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-5, atol=1e-5 * float(a.grad.abs().max()), msg=name)


def test_what_is_reported_of_pieces_is_of_the_whole_batch(config_file):
    whole, pieces = Trainer(load(config_file), CPU), Trainer(load(config_file, "train.micro_batch=3"), CPU)
    a, b = whole.train_step(next(whole.feed())), pieces.train_step(next(pieces.feed()))
    assert b.output.cosines.shape == (8,)
    torch.testing.assert_close(b.output.cosines, a.output.cosines)
    assert float(b.output.loss) == pytest.approx(float(a.output.loss), rel=1e-6)
    assert float(b.similarity) == pytest.approx(float(a.similarity), rel=1e-5)
    assert float(b.grad_norm) == pytest.approx(float(a.grad_norm), rel=1e-5)


def test_similarity_is_the_mean_cosine(config_file):
    trainer = Trainer(load(config_file), CPU)
    seen = []
    trainer.learner.model.register_forward_hook(lambda _m, _i, out: seen.append(out.detach().double()))
    result = trainer.train_step(next(trainer.feed()))
    x = seen[0]
    cosines = [float(x[i] @ x[j] / (x[i].norm() * x[j].norm())) for i in range(len(x)) for j in range(len(x))]
    assert float(result.similarity) == pytest.approx(sum(cosines) / len(cosines), rel=1e-4)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.micro_batch=9", "train.micro_batch: got 9 · allowed: at most batch_size 8"),
        ("train.betas=[0.9]", r"train.betas: got \[0.9\] · allowed: two numbers"),
        ("train.schedule=linear", "train.milestones: got milestones with schedule linear"),
    ],
)
def test_settings_that_cannot_be(config_file, override, problem):
    with pytest.raises(UserError, match=problem):
        load(config_file, override)


# ---------------------------------------------------------------- another network to start from


def test_a_run_starts_from_another_network_with_a_new_head(config_file, tmp_path):
    first = train(config_file, "train.steps=4", "train.milestones=[]")
    other = make_training_set(tmp_path / "other", 3, 6, size=(32, 32))
    overrides = (f"data.train={other}", f"train.init_from={first / 'last.pt'}", "train.lambda_start=9")
    trainer = Trainer(load(config_file, *overrides), CPU)
    head = trainer.learner.head.weight.detach().clone()
    said, _ = start_from(trainer.learner, first / "last.pt", trainer.source.class_names)
    state = load_checkpoint(first / "last.pt")
    assert all(torch.equal(value, state["model"][name]) for name, value in trainer.learner.model.state_dict().items())
    assert torch.equal(trainer.learner.head.weight, head)
    assert "the head is new; λ is 9 updates ahead of its schedule" in said
    assert trainer.setting().lam == pytest.approx(1000 / (1 + 10 * 10))
    run = train(config_file, *overrides, "train.lr=1e-9", "train.milestones=[]")
    for name, value in load_checkpoint(run / "last.pt")["model"].items():
        torch.testing.assert_close(value, state["model"][name], rtol=1e-3, atol=1e-6, msg=name)


def test_another_architecture_is_no_start(config_file, tmp_path):
    first = train(config_file, "train.steps=2", "train.milestones=[]")
    with pytest.raises(BadCheckpoint, match="another architecture: fc5.bias"):
        train(config_file, f"train.init_from={first / 'last.pt'}", "model.embedding_dim=16")
    with pytest.raises(BadCheckpoint, match="no such checkpoint file"):
        train(config_file, f"train.init_from={tmp_path / 'none.pt'}")


def test_deterministic_is_a_switch(config_file):
    Trainer(load(config_file, "deterministic=true"), CPU)
    assert torch.are_deterministic_algorithms_enabled()
    Trainer(load(config_file), CPU)
    assert not torch.are_deterministic_algorithms_enabled()


def test_one_cycle_in_a_run(config_file):
    run = train(config_file, "train.schedule=one-cycle", "train.milestones=[]", "eval.sets={}", "eval.select=null")
    rates = metrics_of(run, "train/lr")
    assert rates[1] == pytest.approx(0.05 / 25)
    assert max(rates.values()) <= 0.05
    assert math.isclose(rates[12], 0.05 / 25e4, rel_tol=1e-6)


# ---------------------------------------------------------------- every loss


@pytest.mark.parametrize("name", MARGINS)
def test_every_loss_trains_saves_and_resumes(config_file, name):
    overrides = (f"loss.name={name}", "train.lr=0.01", "train.steps=4", "train.milestones=[]", "model.norm=batch")
    once = (*overrides, "eval.sets={}", "eval.select=null", "checkpoint.every_steps=2")
    whole = train(config_file, *once)
    part = train(config_file, *once, stop_at=3)
    train(config_file, *once, resume=str(part))
    a, b = load_checkpoint(whole / "last.pt"), load_checkpoint(part / "last.pt")
    for key in ("model", "head"):
        assert all(torch.equal(a[key][entry], b[key][entry]) for entry in a[key]), key
    assert all(math.isfinite(loss) for loss in metrics_of(whole, "train/loss").values())


@pytest.mark.parametrize(("here", "part"), [(None, 64), ("4", 16)])
def test_processes_of_one_machine_share_the_memory_for_images(config_file, monkeypatch, here, part):
    if here is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    source = TrainingSet(load(config_file, "data.keep_mb=64"), World()).source
    assert source._limit == part << 20
