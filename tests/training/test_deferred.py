"""Training that does not wait for the device: the same as that which does, also where a step is not finite."""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sphereface.checkpoint import load_checkpoint
from sphereface.data.batch import Batch
from sphereface.errors import Stopped, UserError
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin
from sphereface.training.average import MovingAverage
from sphereface.training.deferred import FiniteCheck, NotFinite, reads_late
from sphereface.training.loop import Loop
from sphereface.training.optimizer import SGD
from sphereface.training.run_folder import RunFolder
from sphereface.training.trainer import Trainer

from .runs import CPU, load, metrics_of, train_with

COMMON = (
    *("train.steps=20", "model.norm=batch", "train.ema=0.9", "train.on_nonfinite=skip", "log.every_steps=6"),
    *("log.histogram_every_steps=9", "eval.every_steps=10", "checkpoint.every_steps=8"),
)
OPTIMISERS = {
    "caffe": (),
    "torch": ("train.momentum=torch", "train.clip_grad_norm=0.5"),
    "adamw": ("train.optimizer=adamw", "train.lr=0.001"),
    "muon": ("train.optimizer=muon",),
    "sampled": ("loss.sample_rate=0.5", "train.batch_size=2"),
    "adaface": ("loss.name=adaface",),
}


@pytest.fixture
def deferring(monkeypatch):
    """Switches it on, or off; with torch's fused AdamW, as on CUDA, in any case."""
    plain = torch.optim.AdamW.__init__
    monkeypatch.setattr(torch.optim.AdamW, "__init__", lambda *a, **k: plain(*a, **{**k, "fused": True}))

    def switch(on: bool) -> None:
        monkeypatch.setattr("sphereface.training.learner.reads_late", lambda device: on)

    return switch


def poison(*batches: int, then: Callable[[Trainer], None] = lambda trainer: None) -> Callable[[Trainer], None]:
    """Make the images of some batches, counted from 0, infinite."""

    def before(trainer: Trainer) -> None:
        then(trainer)
        inputs = type(trainer.learner).inputs.__get__(trainer.learner)
        bad = trainer.progress.images_seen // trainer.config.train.batch_size in batches

        def poisoned(batch: Any, *size: Any) -> Any:
            images, labels = inputs(batch, *size)
            return (images * math.inf if bad else images), labels

        trainer.learner.inputs = poisoned

    return before


def assert_same(a: Any, b: Any, place: str = "") -> None:
    """To the bit, but for what tells of the clock, of the folder, and of how often the feed was opened."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a.keys() - {"id", "seconds", "run", "rng"}:
            assert_same(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, place
        assert torch.equal(a, b), place
    else:
        assert a == b, place


def assert_same_runs(one: Path, other: Path, *, step: int, images: int) -> None:
    """And a kept step each, the same but for an optimiser that never moved: it has no velocity, or one of zeros."""
    a, b = load_checkpoint(one / "last.pt"), load_checkpoint(other / "last.pt")
    assert (a["meta"]["step"], a["meta"]["images_seen"]) == (step, images)
    assert all(value.isfinite().all() for value in a["model"].values())
    assert_same(a, b)
    for name in ("loss", "accuracy", "grad_norm", "lr", "lambda", "embedding_similarity", "embedding_norm_mean"):
        assert metrics_of(one, f"train/{name}") == metrics_of(other, f"train/{name}"), name
    assert metrics_of(one, "eval/mine/accuracy") == metrics_of(other, "eval/mine/accuracy")
    kept, others = ([load_checkpoint(path) for path in sorted(run.glob("nonfinite-*.pt"))] for run in (one, other))
    assert len(kept) == len(others) == 1
    if kept[0]["meta"]["step"] == 0:
        assert not any(kept[0].pop("optimizer").values())
        assert not any(value.any() for entries in others[0].pop("optimizer").values() for value in entries.values())
    assert_same(kept[0], others[0])


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_skipping_a_bad_step_gives_the_same_run_to_the_bit(config_file, deferring, optimiser):
    runs = []
    for on in (False, True):
        deferring(on)
        runs.append(train_with(config_file, *COMMON, *OPTIMISERS[optimiser], before_step=poison(12)))
    batch = load_checkpoint(runs[0] / "last.pt")["meta"]["config"]["train"]["batch_size"]
    assert_same_runs(*runs, step=20, images=21 * batch)
    assert list(metrics_of(runs[1], "train/loss")) == [6, 12, 18]


@pytest.mark.parametrize("bad", [(0,), (19,), (7, 8, 13), (3, 5)])
def test_wherever_the_bad_steps_are(config_file, deferring, bad):
    runs = []
    for on in (False, True):
        deferring(on)
        runs.append(train_with(config_file, *COMMON, before_step=poison(*bad)))
    assert_same_runs(*runs, step=20, images=(20 + len(bad)) * 8)


def test_a_bad_step_stops_the_run_with_the_same_words_and_the_same_file(config_file, deferring):
    kept, words = [], []
    for on in (False, True):
        deferring(on)
        with pytest.raises(UserError, match=r"step 13: the loss is nan; .* · last checkpoint: .*step-000000") as error:
            train_with(config_file, *COMMON, "train.on_nonfinite=stop", before_step=poison(12))
        run = max((config_file.parent / "runs" / "tiny").iterdir())
        words.append(str(error.value).replace(run.name, "RUN"))
        kept.append(load_checkpoint(run / "nonfinite-00000013.pt"))
    assert words[0] == words[1]
    assert kept[1]["meta"]["step"] == 12
    assert_same(*kept)


def test_the_limit_of_bad_steps_in_a_row_holds(config_file, deferring, caplog):
    deferring(True)
    limits = ("train.nonfinite_limit=2", *COMMON)
    with caplog.at_level(logging.INFO):
        run = train_with(config_file, *limits, before_step=poison(7, 8))
    assert "step 8 was not finite: 1 step is repeated" in caplog.text  # a checkpoint was due
    assert "skipped, 2 in a row of at most 2" in caplog.text
    assert load_checkpoint(run / "last.pt")["meta"]["images_seen"] == 22 * 8
    caplog.clear()
    with caplog.at_level(logging.INFO):
        train_with(config_file, *limits, before_step=poison(2, 9))
    assert [line for line in caplog.messages if " repeated" in line] == [  # between the two it was read late again
        "step 3 was not finite: 4 steps are repeated",
        "step 9 was not finite: 1 step is repeated",
    ]
    with pytest.raises(UserError, match="3 in a row, train.nonfinite_limit is 2"):
        train_with(config_file, *limits, before_step=poison(8, 9, 10))


def test_a_stop_saves_nothing_of_the_steps_that_do_not_count(config_file, deferring):
    def interrupt(trainer: Trainer) -> None:
        if trainer.progress.step == 11:
            os.kill(os.getpid(), signal.SIGTERM)

    deferring(True)
    rarely = [f"{key}=20" for key in ("log.every_steps", "log.histogram_every_steps", "eval.every_steps",
                                      "checkpoint.every_steps")]  # fmt: skip
    with pytest.raises(Stopped, match="at step 9"):  # in the second step after the bad one
        train_with(config_file, *COMMON, *rarely, before_step=poison(9, then=interrupt))
    run = max((config_file.parent / "runs" / "tiny").iterdir())
    meta = load_checkpoint(run / "last.pt")["meta"]
    assert (meta["step"], meta["images_seen"]) == (9, 10 * 8)  # repeated and skipped; then it stopped


WAITED_FOR = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Waiting(TorchDispatchMode):
    """Collects operations whose result the host needs, or whose size it must know: on a GPU it waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        indices = args[1] if str(func).startswith(("aten.index.", "aten.index_put")) else None
        by_mask = indices and any(index is not None and index.dtype == torch.bool for index in indices)
        if by_mask or (indices is None and WAITED_FOR & set(func.tags)):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def waits_of_a_step(config_file: Path, *overrides: str) -> list[str]:
    trainer = Trainer(load(config_file, *overrides), CPU)
    batch = next(trainer.feed())
    trainer.train_step(batch)
    with Waiting() as waiting:
        trainer.train_step(batch)
    return waiting.found


@pytest.mark.parametrize("loss", ["a-softmax", "adaface", "magface", "sphereface2", "cosface"])
def test_a_step_waits_for_nothing(config_file, deferring, monkeypatch, loss):
    options = (f"loss={{name: {loss}}}", "model.norm=batch", "train.ema=0.9", "train.clip_grad_norm=1",
               "data.augment={grey: {p: 1}}")  # fmt: skip
    monkeypatch.setattr("sphereface.losses.targets.check_labels", lambda *_: None)  # asks on a CPU only
    monkeypatch.setattr("sphereface.data.transforms._mirrored", lambda images, mirror: images)  # as well
    monkeypatch.setattr(Batch, "split", lambda batch, size: [batch])  # by what is in main memory
    deferring(False)
    waits = waits_of_a_step(config_file, *options)
    assert waits == ["aten._local_scalar_dense.default"] * 3  # loss, norm of the gradient, ‖x‖
    deferring(True)
    assert waits_of_a_step(config_file, *options) == []


# ---------------------------------------------------------------- parts


def test_the_flag_stays_until_it_is_read():
    optimizer, head = SGD([torch.zeros(1, requires_grad=True)], lr=1.0), MarginHead(2, 3, make_margin("cosface"))
    check = FiniteCheck(CPU, optimizer, head, late=True)
    good, bad, lengths = torch.tensor(1.0), torch.tensor(math.inf), torch.ones(4)
    for figures in ((good, good), (good, bad), (good, good), (good, good)):
        check.look(*figures, lengths)
    assert optimizer.found_inf is head.held is check.tripped
    assert check.lost_steps() == 3
    assert (float(check.tripped), check.lost_steps()) == (1.0, 0)
    check.look(good, good, lengths, at_once=True)
    assert (float(check.tripped), check.lost_steps()) == (0.0, 0)
    for figures in ((bad, good, lengths), (good, good, torch.tensor([1.0, math.inf, 1.0]))):
        check.look(*figures)
        assert check.lost_steps() == 1
    with pytest.raises(NotFinite, match="the loss is inf"):
        check.look(bad, good, lengths, at_once=True)
    assert (float(good), float(bad), lengths.tolist()) == (1.0, math.inf, [1.0] * 4)  # a look leaves the figures alone


@pytest.mark.parametrize("late", [False, True])
def test_an_overflow_of_half_precision_skips_the_optimiser_alone(late):
    optimizer, head = SGD([torch.zeros(1, requires_grad=True)], lr=1.0), MarginHead(2, 3, make_margin("cosface"))
    check = FiniteCheck(CPU, optimizer, head, late=late, overflow=True)
    good, bad, lengths = torch.tensor(1.0), torch.tensor(math.inf), torch.full((3,), 6e4)
    check.look(good, bad, lengths, at_once=True)  # no fault
    if late:
        check.look(good, bad, lengths)
        assert (float(optimizer.found_inf), float(head.held), check.lost_steps()) == (1.0, 0.0, 0)
        check.look(good, good, lengths)
        assert float(optimizer.found_inf) == 0.0
        for figures in ((bad, good, lengths), (good, good, lengths * math.inf)):
            check.look(*figures)
            check.look(good, good, lengths)
            assert (float(optimizer.found_inf), float(head.held), check.lost_steps()) == (1.0, 1.0, 2)
            check.look(good, good, lengths, at_once=True)
    with pytest.raises(NotFinite, match="the loss is inf"):
        check.look(bad, good, lengths, at_once=True)
    with pytest.raises(NotFinite, match="the largest ‖x‖ is nan"):
        check.look(good, good, torch.tensor([1.0, math.nan, math.inf]), at_once=True)


@pytest.mark.parametrize("bad", [False, True])
def test_what_is_kept_comes_back_where_the_step_does_not_count(bad):
    check = FiniteCheck(
        CPU, SGD([torch.zeros(1, requires_grad=True)], lr=1.0), MarginHead(2, 3, make_margin("cosface")), late=True
    )
    values = [torch.arange(6.0).view(2, 3), torch.tensor(5), torch.tensor([7.0]), torch.tensor(3, dtype=torch.int32)]
    before = [value.clone() for value in values]
    check.keep(values)
    for value in values:
        value.add_(1)
    values[0][0, 0] = math.nan
    moved = [value.clone() for value in values]
    check.look(torch.tensor(math.nan if bad else 1.0), torch.tensor(1.0), torch.ones(3))
    check.put_back()
    for value, wanted in zip(values, before if bad else moved, strict=True):
        torch.testing.assert_close(value, wanted, rtol=0, atol=0, equal_nan=True)


def test_a_flag_leaves_the_rows_of_the_head_alone():
    head = MarginHead(4, 3, make_margin("a-softmax", gradient="caffe"))
    stored = head.weight.detach().clone()
    for held, lengths in ((1.0, torch.linalg.vector_norm(stored, dim=1)), (0.0, torch.ones(3))):
        head.held = torch.tensor(held)
        head(torch.randn(2, 4), torch.tensor([0, 2]), 5.0)
        torch.testing.assert_close(torch.linalg.vector_norm(head.weight.detach(), dim=1), lengths)
        assert torch.equal(head.weight, stored) == bool(held)


def test_it_is_read_before_anything_is_written(config_file, tmp_path):
    trainer = Trainer(load(config_file, *COMMON), CPU)
    loop, due = Loop(trainer, RunFolder(tmp_path)), []
    for step in range(1, 21):
        trainer.progress.step = step
        due += [step] * loop.writes_now()
    assert due == [6, 8, 9, 10, 12, 16, 18, 20]


@pytest.mark.parametrize("bad", ["loss", "gradient", "length"])
def test_a_loss_a_gradient_or_a_length_alone_is_enough(config_file, deferring, bad):
    deferring(True)
    trainer = Trainer(load(config_file), CPU)
    learner, batch = trainer.learner, next(trainer.feed())
    gradients = learner.gradients

    def spoilt(*args):
        given = gradients(*args)
        if bad == "gradient":
            learner.model.fc5.bias.grad[0] = math.inf
        loss = given.output.loss * (math.inf if bad == "loss" else 1)
        norms = given.output.norms.clone()
        norms[3] *= math.inf if bad == "length" else 1
        return given._replace(output=given.output._replace(loss=loss, norms=norms))

    learner.gradients = spoilt
    before = learner.model.fc5.weight.detach().clone()
    trainer.train_step(batch)
    assert torch.equal(learner.model.fc5.weight, before)
    assert learner.lost_steps() == 1


def test_waiting_for_the_device_counts_as_training(config_file, deferring, tmp_path):
    deferring(True)
    trainer = Trainer(load(config_file, *COMMON), CPU)
    trainer.stopwatch.lap = lambda: 1.5
    loop = Loop(trainer, RunFolder(tmp_path))
    for trainer.progress.step in (5, 6):  # it is read at the sixth
        assert not loop.take_back()
    assert trainer.progress.seconds == 1.5


def test_a_flag_leaves_the_average_alone_to_the_bit():
    layer = torch.nn.Linear(3, 2)
    average = MovingAverage(layer, 0.9)
    before = average.weights()["weight"].clone()
    with torch.no_grad():
        layer.weight += 1.0
    average.update(unless=torch.ones(()))
    assert torch.equal(average.weights()["weight"], before)
    average.update(unless=torch.zeros(()))
    assert not torch.equal(average.weights()["weight"], before)


@pytest.mark.parametrize(("device", "expected"), [("cuda", True), ("cpu", False)])
def test_where_it_is_read_late(device, expected):
    assert reads_late(torch.device(device)) is expected
