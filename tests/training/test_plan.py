"""The schedules of a run as its configuration has them, and settings that lie beyond its end."""

from __future__ import annotations

import logging

import pytest

from sphereface.training.dry_run import dry_run
from sphereface.training.plan import Plan, doubtful

from .runs import load, train

TEACHER = ("train.teacher.embeddings=x.npz", "train.teacher.losses={cosine: 1}", "train.milestones=[]")
FLAT = "train.milestones=[]"


def rates(config_file, *overrides: str, steps: int = 12) -> list[float]:
    plan = Plan(load(config_file, *overrides), steps)
    return [plan.at(position).lr for position in range(steps)]


def test_the_rate_rises_in_the_warm_up(config_file):
    found = rates(config_file, "train.lr=0.8", "train.warmup_steps=3")
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.8, 0.6, 0.4, 0.2]),
        ("cosine", [0.8, 0.682842712, 0.4, 0.117157288]),
        ("step", [0.8, 0.8, 0.8, 0.8]),
    ],
)
def test_each_schedule_is_the_one_named(config_file, schedule, expected):
    overrides = ("train.lr=0.8", f"train.schedule={schedule}", FLAT)
    assert rates(config_file, *overrides, steps=4) == pytest.approx(expected)
    warm = rates(config_file, *overrides, "train.warmup_steps=1", steps=4)
    assert warm == pytest.approx([expected[0] / 2, *expected[1:]])


def test_stages_with_their_shares(config_file):
    stages = "train.stages=[{until: 0.25, input_size: [16, 16], loss: {m: 1}}, {until: 0.5}]"
    found = Plan(load(config_file, stages), 12).stages()
    assert [share for share, _ in found] == pytest.approx([0.25, 0.25, 0.5])
    assert [setting.step for _, setting in found] == [0, 3, 6]
    assert [setting.input_size for _, setting in found] == [(16, 16), None, None]
    assert [setting.margin.m for _, setting in found] == [1, 4, 4]


def test_small_images_are_less_of_the_work(config_file):
    """32×32 crops; a quarter of the steps at a quarter of the pixels."""
    plan = Plan(load(config_file, "train.stages=[{until: 0.25, input_size: [16, 16]}, {until: 0.5}]"), 12)
    pixels = [*[16 * 16] * 3, *[32 * 32] * 9]  # of each step
    expected = [sum(pixels[:steps]) / sum(pixels) for steps in range(13)]
    assert [plan.pixels(steps / 12) for steps in range(13)] == pytest.approx(expected)
    assert Plan(load(config_file), 12).pixels(0.3) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        ((), []),
        (("train.milestones=[6, 11]",), []),
        (("train.milestones=[6, 12]",), ["train.milestones: 12 is never reached"]),
        (("train.milestones=[12, 90]",), ["train.milestones: 12, 90 are never reached"]),
        (("train.warmup_steps=11",), []),
        (("train.warmup_steps=12",), ["train.warmup_steps: got 12, so the learning rate never reaches train.lr"]),
        (("train.stages=[{until: 0.51}, {until: 0.55}]",), ["train.stages[1]: this stage has no step"]),
        (("train.stages=[{until: 0.5}, {until: 0.6}]",), []),
        (("train.stages=[{until: 0.99}]",), ["loss: this stage has no step"]),
        (("loss.lambda_gamma=0.12",), ["loss.lambda_min: got 5, but λ is still 409.8 at the end"]),
        (("loss.lambda_gamma=0.12", "loss.m=1"), []),
        (("loss.lambda_gamma=0.12", "train.lambda_start=5000"), []),
        (("loss.name=arcface",), []),
        (("eval.every_steps=13",), ["eval.every_steps: got 13, so the run is evaluated at its end only"]),
        (("eval.every_steps=13", "eval.sets={}", "eval.select=null"), []),
        (("log.every_steps=12",), []),
        (("log.every_steps=13",), ["log.every_steps: got 13, so no figures are written"]),
    ],
)
def test_settings_beyond_the_end_are_named(config_file, overrides, lines):
    found = doubtful(load(config_file, *overrides), 12)
    assert len(found) == len(lines)
    assert all(
        got.startswith(line) and got.endswith(" · the run has 12 steps") for got, line in zip(found, lines, strict=True)
    )


@pytest.mark.parametrize(("lr", "warned"), [("0.1", True), ("0.011", True), ("0.01", False), ("0.001", False)])
def test_a_learning_rate_of_sgd_is_named_with_adamw(config_file, lr, warned):
    found = doubtful(load(config_file, "train.optimizer=adamw", f"train.lr={lr}"), 12)
    assert found == [f"train.lr: got {lr} with train.optimizer adamw, which usually needs 0.001 or less"] * warned
    assert doubtful(load(config_file, f"train.lr={lr}"), 12) == []


@pytest.mark.parametrize(
    ("epochs", "milestones", "steps", "line"),
    [
        ("20", "[10, 15]", 200, "got [10, 15], all below train.epochs 20, but they count steps; of epochs, they would "
                                "be [100, 150] · the run has 200 steps"),
        ("20", "[10]", 60, "got [10], all below train.epochs 20, but they count steps; of epochs, they would be [30]"),
        ("20", "[10, 20]", 200, None),
        ("20", "[10, 15]", 59, None),
        ("20", "[]", 200, None),
        (None, "[6, 9]", 200, None),
    ],
)  # fmt: skip
def test_milestones_in_epochs_are_named(config_file, epochs, milestones, steps, line):
    length = () if epochs is None else (f"train.epochs={epochs}", "train.steps=null")
    found = doubtful(load(config_file, *length, f"train.milestones={milestones}"), steps)
    assert len(found) == (line is not None)
    assert all(got.startswith(f"train.milestones: {line}") for got in found)


def test_a_warm_up_of_the_teacher_beyond_the_end_is_named(config_file):
    found = doubtful(load(config_file, *TEACHER, "train.teacher.warmup_steps=12"), 12)
    assert found == [
        "train.teacher.warmup_steps: got 12, so the losses of the teacher never reach their full weights · the run has "
        "12 steps"
    ]
    assert doubtful(load(config_file, *TEACHER, "train.teacher.warmup_steps=11"), 12) == []


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (("train.momentum=torch", "train.mu=0.8"), []),
        (("train.optimizer=adamw", "train.betas=[0.9, 0.98]"), []),
        (("train.optimizer=muon", "train.muon.lr=0.03", "train.muon.weight_decay=0.1", "train.mu=0.95"), []),
        (("train.lr_decay=0.3",), []),
        (("train.muon.lr=0.03",), ["muon.lr: got 0.03, which a run with train.optimizer sgd"]),
        (("train.muon.weight_decay=0.1",), ["muon.weight_decay: got 0.1, which a run with train.optimizer sgd"]),
        (("train.betas=[0.9, 0.98]",), ["betas: got [0.9, 0.98], which a run with train.optimizer sgd"]),
        (
            ("train.optimizer=adamw", "train.mu=0.8", "train.momentum=torch"),
            [f"{got}, which a run with train.optimizer adamw" for got in ("momentum: got 'torch'", "mu: got 0.8")],
        ),
        (("train.optimizer=muon", "train.momentum=torch"), []),  # the form that it uses for the rest
        (
            ("train.schedule=cosine", "train.milestones=[]", "train.lr_decay=0.3"),
            ["lr_decay: got 0.3, which a run with train.schedule cosine"],
        ),
        (("train.on_nonfinite=skip", "train.nonfinite_limit=2"), []),
        (("train.nonfinite_limit=2",), ["nonfinite_limit: got 2, which a run with train.on_nonfinite stop"]),
        (("loss={name: a-softmax, m: 4}", "train.lambda_start=3"), []),
        (("loss={name: cosface}", "train.lambda_start=3"), ["lambda_start: got 3, which a run with loss cosface"]),
        ((*TEACHER, "train.teacher.losses={queue: 1}", "train.teacher.queue_size=64"), []),
        (
            (*TEACHER, "train.teacher.losses={cosine: 1}", "train.teacher.queue_size=64"),
            ["teacher.queue_size: got 64, which a run with train.teacher.losses {'cosine': 1.0}"],
        ),
    ],
)
def test_changed_settings_that_another_choice_makes_useless_are_named(config_file, overrides, lines):
    found = [line for line in doubtful(load(config_file, "train.lr=0.001", *overrides), 12) if "does not use" in line]
    assert found == [f"train.{line} does not use" for line in lines]


def test_a_run_and_a_dry_run_warn(config_file, caplog, capsys):
    with caplog.at_level(logging.WARNING):
        train(config_file, "train.steps=2")
    assert "train.milestones: 6, 9 are never reached · the run has 2 steps" in caplog.text
    dry_run(str(config_file), ["train.steps=2"], device="cpu")
    assert "train.milestones: 6, 9 are never reached · the run has 2 steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        (("loss.lambda_min=20", "loss.lambda_base=5"), ["got 20, above loss.lambda_base 5: λ is 20 throughout"]),
        (
            ("train.stages=[{until: 0.5, loss: {lambda_min: 2000}}]",),
            ["got 2000, above loss.lambda_base 1000: λ is 2000 th"],
        ),
        (("loss.lambda_min=5", "loss.lambda_base=5"), []),
        (("loss.name=arcface",), []),
    ],
)
def test_a_floor_of_lambda_above_its_start_is_named(config_file, overrides, warned):
    found = [line for line in doubtful(load(config_file, *overrides), 10**6) if "above" in line]
    assert len(found) == len(warned)
    assert all(line.startswith(f"loss.lambda_min: {start}") for line, start in zip(found, warned, strict=True))
