"""``--dry-run``: it measures the steps that the run would take, and leaves the trainer as it was."""

from __future__ import annotations

import copy
import re

import pytest
import torch

from sphereface.errors import UserError
from sphereface.models import SphereNet
from sphereface.training import dry_run as command
from sphereface.training import measuring
from sphereface.training.deferred import NotFinite
from sphereface.training.distributed import World
from sphereface.training.dry_run import describe, dry_run, run_seconds
from sphereface.training.learner import Learner
from sphereface.training.measuring import RunCost, StageCost, measure, multiply_adds
from sphereface.training.optimizer import SGD
from sphereface.training.progress import duration
from sphereface.training.replicas import check_pieces
from sphereface.training.run_folder import RunFolder
from sphereface.training.trainer import Trainer

from .runs import CPU, load

TWO_STAGES = ("train.stages=[{until: 0.25, input_size: [16, 16]}]", "train.milestones=[]")
BATCH_NORM = "model.norm=batch"


def values_of(state):
    """All leaves of a state, tensors as lists of numbers."""
    if isinstance(state, dict):
        return {key: values_of(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, torch.Tensor) else state


def test_the_steps_are_those_of_training(config_file, monkeypatch):
    """In pieces, through gradients() and an update, each stage at its size, smallest first."""
    seen, updates = [], []
    forward, step = Learner.forward, SGD.step

    def seeing(self, batch, setting, piece=0):
        seen.append((len(batch.labels), setting.input_size, setting.lr))
        return forward(self, batch, setting, piece)

    monkeypatch.setattr(Learner, "forward", seeing)
    monkeypatch.setattr(SGD, "step", lambda self: (updates.append(1), step(self))[1])
    stages = (
        "train.stages=[{until: 0.25}, {until: 0.5, input_size: [16, 16]}, {until: 0.75, input_size: [24, 24]}]",
        "train.milestones=[]",
    )
    dry_run(str(config_file), ["train.micro_batch=3", *stages], device="cpu")
    pieces = [size for size, _, _ in seen]
    assert pieces == [3, 3, 2] * (len(seen) // 3)
    assert list(dict.fromkeys(size for _, size, _ in seen)) == [(16, 16), (24, 24), None]
    assert len(updates) == len(seen) // 3
    assert {lr for _, _, lr in seen} == {0.0}


def test_every_stage_has_a_row_and_the_largest_counts(config_file):
    whole = dry_run(str(config_file), device="cpu")
    out = dry_run(str(config_file), TWO_STAGES, device="cpu")
    full, small = (
        multiply_adds(SphereNet(4, widths=[4, 8, 8, 8], embedding_dim=8, input_size=s)) for s in ((32, 32), (16, 16))
    )
    assert full > 3 * small  # not exactly: the embedding layer is the same
    rows = re.findall(r"(stage \d, to \d+%) +crops (\d+×\d+) · ([\d,]+) multiply-adds", out)
    measured = [int(count.replace(",", "")) for _, _, count in rows]
    assert [row[:2] for row in rows] == [("stage 1, to 25%", "16×16"), ("stage 2, to 100%", "32×32")]
    assert measured[1] == full
    assert measured[0] < full / 3
    for text in (whole, out):
        assert f"multiply-adds per image     {full:,}\n" in text
    assert out.count("peak memory") == 2


@pytest.mark.parametrize(
    "overrides",
    [
        ("loss.gradient=caffe",),
        ("loss.name=magface", "train.optimizer=adamw", "train.lr=0.001", BATCH_NORM, "train.ema=0.5"),
        ("loss.name=adaface", "train.optimizer=muon", BATCH_NORM, "train.momentum=torch"),
        ("loss.name=cosface", "loss.sample_rate=0.5"),
    ],
)
def test_the_trainer_is_left_as_it_was(config_file, overrides):
    trainer = Trainer(load(config_file, *overrides, *TWO_STAGES), CPU)
    before = copy.deepcopy(values_of(trainer.learner.state()))
    measure(trainer)
    assert values_of(trainer.learner.state()) == before
    assert trainer.progress.step == trainer.progress.images_seen == 0
    assert all(p.grad is None for _, p in trainer.learner.named_parameters())


def test_it_says_early_what_it_does(config_file, capsys):
    dry_run(str(config_file), TWO_STAGES, device="cpu")
    assert [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()] == [
        "dry run: loading batches",
        "dry run: stage 1 of 2, crops of 16×16: some steps of 8 images",
        "dry run: stage 2 of 2, crops of 32×32: some steps of 8 images",
    ]


def test_the_size_of_a_checkpoint_is_that_of_a_saved_one(config_file, tmp_path):
    config = load(config_file, BATCH_NORM, "train.ema=0.9", "train.steps=1", "train.milestones=[]")
    trainer = Trainer(config, CPU)
    expected = measure(trainer).checkpoint_bytes
    trainer.fit(RunFolder.create(config))
    assert expected == pytest.approx(next(tmp_path.glob("runs/tiny/*/last.pt")).stat().st_size, rel=1e-2)


# ---------------------------------------------------------------- the estimate


def cost(*stages: tuple[float, float], loading: float = 0.5) -> RunCost:
    return RunCost([StageCost(share, (32, 32), 1, 1.0, step, 1.0) for share, step in stages], loading, 1)


def test_the_estimate_adds_stages_and_loading(config_file, monkeypatch):
    trainer = Trainer(load(config_file, "train.steps=1000", "train.milestones=[]"), CPU)
    assert run_seconds(trainer, cost((0.25, 1.0), (0.75, 3.0))) == pytest.approx(250 * 1.5 + 750 * 3.5)
    trainer.device = torch.device("cuda")
    assert run_seconds(trainer, cost((1.0, 1.0))) == pytest.approx(1500)  # no worker loads beside the steps
    object.__setattr__(trainer.config.data, "workers", 2)
    assert run_seconds(trainer, cost((0.25, 0.1), (0.75, 3.0))) == pytest.approx(250 * 0.5 + 750 * 3.0)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ((), "about 25 min, without evaluations"),
        (("train.max_minutes=30",), "about 25 min, without"),
        (("train.max_minutes=10",), "10 min (train.max_minutes; all steps would take about 25 min), without"),
        (("train.max_minutes=10", "model.networks=3"), "about 25 min), 30 min for 3 networks, without"),
        (("model.networks=3",), "about 25 min, 1 h 15 min for 3 networks, without"),
    ],
)
def test_the_estimated_time_in_words(config_file, monkeypatch, overrides, text):
    monkeypatch.setattr(command, "measure", lambda _: cost((1.0, 1.0)))
    out = dry_run(str(config_file), ["train.steps=1000", "train.milestones=[]", *overrides], device="cpu")
    (row,) = [line for line in out.splitlines() if line.startswith("estimated time")]
    assert text in row


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.012, "0.012 s"), (45, "45 s"), (99, "99 s"), (100, "2 min"), (3569, "59 min"), (3571, "1 h 0 min"),
     (11520, "3 h 12 min"), (2 * 86400 + 3 * 3600, "2 d 3 h")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("train.batch_size=5", "train.micro_batch=2", BATCH_NORM), "train.micro_batch: got 2 for 5 images in each"),
        (("train.micro_batch=1", BATCH_NORM), "train.micro_batch: got 1 for 8 images"),
        (("train.lr_mult={model: 0, head: 0}",), "got 0 for every parameter, so nothing is trained"),
        (("train.lr_mult={model: 0}",), "got 0 for the whole network, which stays random"),
    ],
)
def test_what_cannot_train_is_refused_here_and_at_the_start(config_file, tmp_path, overrides, problem):
    with pytest.raises(UserError, match=re.escape(problem)):
        dry_run(str(config_file), overrides, device="cpu")
    with pytest.raises(UserError, match=re.escape(problem)):
        Trainer(load(config_file, *overrides), CPU)
    assert not (tmp_path / "runs").exists()


def test_a_process_with_one_image_is_refused():
    with pytest.raises(UserError, match=r"^train.batch_size: got 2 for 1 image in each process, which leaves a piece"):
        check_pieces(None, 1, World(size=2), batch_statistics=True)
    check_pieces(None, 1, World(size=2), batch_statistics=False)
    check_pieces(None, 2, World(size=2), batch_statistics=True)


def test_a_fixed_network_with_weights_is_allowed(config_file):
    Trainer(load(config_file, "train.lr_mult={model: 0}", "train.init_from=some.pt"), CPU)


def test_the_weights_to_start_from_are_read(config_file):
    with pytest.raises(UserError, match=r"none.pt: no such checkpoint file"):
        dry_run(str(config_file), ["train.init_from=none.pt"], device="cpu")


def test_a_loss_that_is_not_finite_is_one_line(config_file, monkeypatch):
    def failing(*_, **__):
        raise NotFinite("the loss is nan")

    monkeypatch.setattr(Learner, "step", failing)
    with pytest.raises(UserError, match=r"--dry-run: stage 1 of 1, crops of 32×32: the loss is nan · use"):
        dry_run(str(config_file), device="cpu")


def test_no_memory_is_one_line(config_file, monkeypatch):
    def failing(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(Learner, "step", failing)
    with pytest.raises(UserError, match=r"--dry-run: stage 1 of 1, crops of 32×32: out of memory · use a smaller"):
        dry_run(str(config_file), device="cpu")


def test_slow_steps_are_taken_once(config_file, monkeypatch):
    steps = []
    real = measuring._timed_step
    monkeypatch.setattr(measuring, "_timed_step", lambda *a: (steps.append(1), (11.0, real(*a)[1]))[1])
    assert describe(Trainer(load(config_file), CPU), load(config_file)).count("11 s per step") == 1
    assert len(steps) == 1


def test_a_runs_dir_that_cannot_be_a_folder_is_told_before_the_data_is_read(config_file, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("x")
    monkeypatch.setattr(command, "Trainer", None)
    with pytest.raises(UserError, match=r"runs_dir: .*taken/tiny-dry-run.png: cannot be written"):
        dry_run(str(config_file), [f"runs_dir={tmp_path / 'taken'}"], device="cpu")


@pytest.mark.parametrize(
    ("device", "wanted"), [("cpu", "cpu, bf16"), ("cuda:1", "cuda:1, bf16, products of fp32 numbers in tf32")]
)
def test_the_arithmetic_of_cuda_is_told(config_file, device, wanted):
    config = load(config_file, "train.precision=bf16", "train.matmul=tf32")
    assert command.arithmetic(torch.device(device), config) == wanted
