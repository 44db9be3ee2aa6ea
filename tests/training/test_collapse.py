"""A network that learns nothing is named, whatever its margin; a slow start is not."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest

from sphereface.losses.margins import MARGINS
from sphereface.training import collapse
from sphereface.training.collapse import CollapseWatch, collapse_watch

from .runs import load, train

CASIA = 10_572


def warnings(watch: CollapseWatch, windows, *, images: int = 10_240) -> list[str]:
    """What a watch says to windows of (step, loss, accuracy, similarity)."""
    looks = [watch.look(step, loss=loss, accuracy=a, similarity=like, images=images) for step, loss, a, like in windows]
    return [text for text in looks if text]


def constant(loss: float, accuracy: float, similarity: float = 0.1, *, until: int = 2000):
    return [(step, loss, accuracy, similarity) for step in range(20, until, 20)]


@pytest.mark.parametrize(
    ("margin", "loss"),
    [
        ("softmax", 9.27), ("l-softmax", 9.6), ("a-softmax", 9.27), ("sphereface-r", 24.0), ("cosface", 31.67),
        ("arcface", 39.95), ("combined", 41.3), ("magface", 45.2), ("adaface", 30.1), ("curricularface", 38.0),
        ("sphereface2", 35.0),
    ],
)  # fmt: skip
def test_a_collapse_is_named_once_for_every_margin(margin, loss):
    """Of losses that a collapsed network has: they swing by some percent, and stay."""
    windows = [
        (step, loss * (1 + 0.03 * math.sin(step)), (step // 20 % 3) / 10_240, 0.4) for step in range(20, 4000, 20)
    ]
    (text,) = warnings(CollapseWatch(CASIA, warmup_steps=100), windows)
    assert "the accuracy is at chance, and the loss" in text
    assert "nothing is being learned · usual remedies: a lower train.lr" in text
    step = int(text.removeprefix("step ").partition(":")[0])
    assert 300 + 500 <= step < 300 + 700, margin


def test_signs_in_words():
    (text,) = warnings(CollapseWatch(1000), constant(math.log(1000) * 1.01, 0.001))
    assert text.startswith("step 720: the accuracy is at chance, and the loss stays at ln C = 6.91: nothing is being")
    (text,) = warnings(CollapseWatch(1000), constant(30.0, 0.001))
    assert "the loss has not fallen for 500 steps (30 before, 30 now): nothing" in text
    (text,) = warnings(CollapseWatch(1000), constant(3.0, 0.001, 0.99))
    assert text.startswith("step 300: the accuracy is at chance, and the embeddings are all alike (mean cosine 0.990):")


@pytest.mark.parametrize(
    ("loss", "accuracy", "similarity"),
    [
        (6.9, 0.2, 0.1),  # learned something
        (30.0, 0.2, 0.1),
        (3.0, 0.2, 0.99),
    ],
)
def test_who_has_learned_something_is_not_named(loss, accuracy, similarity):
    assert not warnings(CollapseWatch(1000), constant(loss, accuracy, similarity))


def test_a_loss_that_falls_is_not_named():
    """ArcFace at first: no right answer for long, but the loss falls."""
    windows = [(step, 20 + 22 * math.exp(-step / 4000), 0.0, 0.3) for step in range(20, 6000, 20)]
    assert not warnings(CollapseWatch(CASIA), windows)


def test_a_warm_up_is_no_collapse():
    windows = [
        (step, 9.27 if step <= 1000 else 9.27 - (step - 1000) / 400, 1 / CASIA, 0.2) for step in range(20, 3000, 20)
    ]
    assert not warnings(CollapseWatch(CASIA, warmup_steps=1000), windows)
    assert len(warnings(CollapseWatch(CASIA), windows)) == 1  # what the warm-up says is heeded


def test_slow_at_first():
    """A plain network of 64 layers, at ln C until step 600."""
    windows = [
        (step, 9.27 if step <= 600 else 9.27 - (step - 600) / 1000, 1 / CASIA, 0.2) for step in range(20, 4000, 20)
    ]
    assert not warnings(CollapseWatch(CASIA), windows)


def test_a_collapse_after_it_is_mended_is_named_again():
    bad, good = constant(30.0, 0.001), constant(5.0, 0.5)
    windows = [(2000 * k + step, *rest) for k, part in enumerate((bad, good, bad)) for step, *rest in part]
    assert len(warnings(CollapseWatch(1000), windows)) == 2


def test_the_most_frequent_answer_is_chance():
    """A constant answer is right as often as the largest identity comes: 800 of 450,000 images of CASIA."""
    share = 800 / 450_000
    assert not warnings(CollapseWatch(CASIA), constant(30.0, share))
    assert warnings(CollapseWatch(CASIA, chance=share), constant(30.0, share))


def test_few_identities_and_one():
    """2,000 identities fewer: what is five times chance of five people is every answer."""
    assert not warnings(CollapseWatch(5), constant(1.6, 0.6), images=160)
    assert warnings(CollapseWatch(5), constant(1.6, 0.2), images=160)
    assert not warnings(CollapseWatch(2, chance=0.9), constant(0.2, 0.95), images=160)
    assert not warnings(CollapseWatch(2, chance=1.0), constant(0.0, 1.0), images=160)


@pytest.mark.parametrize("name", MARGINS)
def test_a_run_has_its_own_watch(config_file, name):
    rate = 1.0 if name == "sphereface2" else 0.5
    config = load(config_file, f"loss.name={name}", f"loss.sample_rate={rate}", "train.warmup_steps=7")
    watch = collapse_watch(config, 1000, 0.001, 28_000)
    assert watch.chance == 1 / (1000 * rate)
    assert watch.level == pytest.approx(math.log(1000 * rate))
    (text,) = warnings(watch, constant(30.0, 1 / (1000 * rate), until=4000))
    assert text.startswith("step 1620: ")  # 207, and 1,400, a twentieth of the run
    assert ("loss.lambda_min" in text) == hasattr(config.loss, "lambda_min")
    several = {"combined": "loss.m1 or loss.m2 or loss.m3", "magface": "loss.l_m or loss.u_m"}
    margins = "" if name in ("softmax", "modified-softmax") else several.get(name, "loss.m")
    assert (f"a smaller {margins} first (train.stages)" in text) == bool(margins)
    assert ("loss.m" in text) == (margins not in ("", "loss.l_m or loss.u_m"))


@pytest.mark.parametrize(
    ("optimizer", "rate", "remedy"),
    [
        ("sgd", 0.1, "a lower train.lr,"),
        ("sgd", 1e-6, "a higher train.lr (1e-06 is unusually low),"),
        ("adamw", 5e-5, "a lower train.lr,"),
        ("adamw", 1e-6, "a higher train.lr (1e-06 is unusually low),"),
    ],
)
def test_a_far_too_low_rate_is_not_to_be_lowered(config_file, optimizer, rate, remedy):
    watch = collapse_watch(load(config_file, f"train.optimizer={optimizer}", f"train.lr={rate}"), 1000, 0.001, 2000)
    (text,) = warnings(watch, constant(30.0, 0.001, until=4000))
    assert f"usual remedies: {remedy}" in text


def test_a_slow_run_that_learns_is_not_said_to_learn_nothing():
    """CosFace at s = 64 and 2,117 identities: 3 to 4 times as many right answers as by chance."""
    windows = [(step, 30.53 - step * 2e-4, 3.4 / 2117, 0.4) for step in range(20, 2000, 20)]
    (text,) = warnings(CollapseWatch(2117), windows, images=2560)
    assert "the accuracy is only 3.4 times chance, and the loss has not fallen for 500 steps" in text
    assert "very little is being learned · usual remedies: a higher or lower train.lr, " in text
    assert "nothing" not in text
    lucky = [(step, 30.5, 1.4 / 2117, 0.4) for step in range(20, 2000, 20)]
    (text,) = warnings(CollapseWatch(2117), lucky, images=2560)
    assert "nothing is being learned · usual remedies: a lower train.lr" in text


@pytest.mark.parametrize(("steps", "warned"), [(200, 150), (300, 200), (1000, 250)])
def test_short_runs_have_a_shorter_patience(config_file, steps, warned):
    """The demo has 200 steps; its log has a line for each 10."""
    watch = collapse_watch(load(config_file, "train.warmup_steps=0"), 30, 0.04, steps)
    windows = [(step, 20.0, 0.035, 0.998) for step in range(10, steps + 1, 10)]
    (text,) = warnings(watch, windows, images=600)
    assert text.startswith(f"step {warned}: the accuracy is at chance, and the embeddings are all alike")


def said_in_a_run(monkeypatch, caplog, config_file, *overrides: str) -> str:
    """The warnings of a tiny run with ArcFace at s = 64, which is judged after 50 steps."""
    monkeypatch.setattr(collapse, "_PATIENCE", 10)
    monkeypatch.setattr(collapse, "_SHORTEST", 40)
    with caplog.at_level(logging.WARNING):
        train(
            config_file, "loss.name=arcface", "loss.s=64", "train.milestones=[]", "train.steps=100",
            "train.batch_size=35", "model.depth=4", "eval.sets={}", "eval.select=null", "log.every_steps=4",
            "log.histogram_every_steps=100", "checkpoint.every_steps=100", *overrides,
        )  # fmt: skip
    return caplog.text


def test_a_real_run_that_collapses_is_named(config_file, caplog, monkeypatch):
    """A rate that is far too high, as users of ArcFace report. Without clipping, ‖x‖ becomes infinite at step 6."""
    said = said_in_a_run(monkeypatch, caplog, config_file, "train.lr=5", "train.clip_grad_norm=1")
    assert said.count("the accuracy is at chance") == 1


def test_a_real_run_that_learns_is_not(config_file, caplog, monkeypatch):
    assert "chance" not in said_in_a_run(monkeypatch, caplog, config_file, "train.lr=0.005", "model.norm=batch")


RUNS = sorted((Path(__file__).parents[2] / "docs" / "runs").rglob("metrics.jsonl"))


def test_no_run_that_learned_is_named():
    """The real runs of docs/runs: of sphere20, and of recipes for an hour."""
    assert len(RUNS) > 10
    for path in RUNS:
        figures = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        watch, seen = CollapseWatch(CASIA), 0
        for line in (each for each in figures if "train/loss" in each):
            loss, accuracy, similarity = (
                line["train/loss"],
                line["train/accuracy"],
                line.get("train/embedding_similarity", 0),
            )
            images, seen = line["images_seen"] - seen, line["images_seen"]
            assert watch.look(line["step"], loss=loss, accuracy=accuracy, similarity=similarity, images=images) is None
