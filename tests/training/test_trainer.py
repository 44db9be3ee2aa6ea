"""Whole small runs: learning, resuming bit for bit, stopping, run folders."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
import torch
import yaml
from matplotlib.figure import Figure

from sphereface.checkpoint import BadCheckpoint, load_checkpoint
from sphereface.config import Config, load_config
from sphereface.errors import UserError
from sphereface.losses.margins import MARGINS
from sphereface.models import SphereNet, load_model
from sphereface.training.run import dry_run, multiply_adds
from sphereface.training.run_folder import RunFolder
from sphereface.training.trainer import Trainer
from sphereface.training.watch import CollapseWatch

from ..pictures import make_pairs, make_training_set

CPU = torch.device("cpu")
TINY = """
name: tiny
model: {depth: 10, widths: [4, 8, 8, 8], embedding_dim: 8, input_size: [32, 32]}
loss: {name: a-softmax, m: 4, gradient: caffe, lambda_gamma: 10}
train: {batch_size: 8, steps: 12, lr: 0.05, milestones: [6, 9], lr_decay: 0.5}
data: {workers: 0, crop_shift: 2}
log: {every_steps: 1, histogram_every_steps: 5}
checkpoint: {every_steps: 4, keep: 2}
eval: {every_steps: 6}
"""


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    make_training_set(root / "train", 5, 7, size=(32, 32))
    make_pairs(root / "pairs", size=(32, 32))
    return root


@pytest.fixture
def config_file(tmp_path, faces) -> Path:
    values = yaml.safe_load(TINY)
    values["runs_dir"] = str(tmp_path / "runs")
    values["data"]["train"] = str(faces / "train")
    values["eval"] |= {"sets": {"mine": str(faces / "pairs")}, "select": "mine"}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def load(path: Path, *overrides: str) -> Config:
    return load_config(str(path), overrides, losses=MARGINS)


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


def test_a_run_writes_all_that_it_promises(config_file):
    run = train(config_file)
    assert (run / "config.yaml").is_file()
    about = json.loads((run / "run.json").read_text())
    assert about["status"] == "finished"
    assert about["step"] == 12
    assert about["torch"] == torch.__version__
    assert sorted(p.name for p in run.glob("*.pt")) == [
        "best.pt",
        "last.pt",
        "step-00000008.pt",
        "step-00000012.pt",
    ]
    assert list(run.glob("events.out.tfevents.*"))
    assert (run / "crops.png").is_file()
    assert list(metrics_of(run, "train/loss")) == list(range(1, 13))
    assert list(metrics_of(run, "eval/mine/accuracy")) == [6, 12]
    assert metrics_of(run, "train/lambda")[1] == pytest.approx(1000 / 11)  # t = 1 at the first step
    assert metrics_of(run, "train/lr")[6] == pytest.approx(0.05)
    assert metrics_of(run, "train/lr")[7] == pytest.approx(0.025)
    assert metrics_of(run, "train/images_seen")[12] == 96


def test_training_learns(config_file):
    run = train(config_file, "train.steps=60", "model.norm=batch", "train.milestones=[]", "loss.gradient=exact")
    losses = metrics_of(run, "train/loss")
    assert metrics_of(run, "train/accuracy")[60] > 0.9
    assert losses[60] < 0.5 * losses[1]


@pytest.mark.parametrize("stop_at", [1, 5, 9, 11])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_resume_is_bit_for_bit(config_file, stop_at, norm):
    overrides = (f"model.norm={norm}", "checkpoint.every_steps=1", f"data.workers={stop_at % 2}")
    whole = train(config_file, *overrides)
    part = train(config_file, *overrides, stop_at=stop_at)
    again = train(config_file, *overrides, resume="auto")
    assert again == part
    a, b = load_checkpoint(whole / "last.pt"), load_checkpoint(part / "last.pt")
    for key in ("model", "head"):
        assert all(torch.equal(a[key][name], b[key][name]) for name in a[key]), key
    for x, y in zip(a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True):
        assert torch.equal(x["velocity"], y["velocity"])
    for name in ("train/loss", "train/lambda", "train/lr", "eval/mine/accuracy"):
        assert metrics_of(whole, name) == metrics_of(part, name)


def test_resume_drops_what_was_logged_past_the_checkpoint(config_file):
    part = train(config_file, stop_at=7)  # checkpoint at 6 (best), log up to 7
    assert max(metrics_of(part, "train/loss")) == 7
    train(config_file, resume=str(part))
    steps = [json.loads(line)["step"] for line in (part / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert len(metrics_of(part, "train/loss")) == 12


def test_auto_ignores_finished_runs_and_other_configs(config_file):
    finished = train(config_file)
    unfinished = train(config_file, "seed=1", stop_at=5)
    config = load(config_file)
    run, checkpoint = RunFolder.of_resume("auto", config)
    assert run.path not in (finished, unfinished)
    assert checkpoint is None
    run, checkpoint = RunFolder.of_resume("auto", load(config_file, "seed=1"))
    assert run.path == unfinished
    assert checkpoint == unfinished / "step-00000004.pt"


def test_auto_steps_back_from_a_damaged_checkpoint(config_file, caplog):
    part = train(config_file, stop_at=10)
    newest = part / "step-00000008.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        logging.getLogger("sphereface").propagate = True
        _, checkpoint = RunFolder.of_resume("auto", load(config_file))
    assert checkpoint == part / "step-00000006.pt"
    assert "step-00000008.pt: truncated" in caplog.text


@pytest.mark.parametrize("resume", ["nowhere", "."])
def test_resume_from_nothing_says_so(config_file, resume, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--resume: (got 'nowhere' · allowed: auto|. holds no checkpoint)"):
        RunFolder.of_resume(resume, load(config_file))


def test_resume_refuses_another_network_and_other_data(config_file, tmp_path):
    run = train(config_file, "train.steps=2")
    with pytest.raises(BadCheckpoint, match=r"another architecture: fc5.bias is \(8,\) in the file, \(16,\)"):
        Trainer(load(config_file, "model.embedding_dim=16"), CPU).restore(run / "last.pt")
    other = make_training_set(tmp_path / "other", 5, 6, size=(32, 32))
    with pytest.raises(BadCheckpoint, match="trained on 35 pictures of 5 identities, data.train now has 30 of 5"):
        Trainer(load(config_file, f"data.train={other}"), CPU).restore(run / "last.pt")


def test_the_clock_ends_a_run_and_drives_the_schedules(config_file):
    run = train(
        config_file,
        "train.max_minutes=0.02",
        "train.steps=1000",
        "train.schedule=cosine",
        "train.milestones=[]",
        "train.lr=0.001",
        "eval.sets={}",
        "eval.select=null",
    )
    minutes, rates = metrics_of(run, "train/minutes"), metrics_of(run, "train/lr")
    assert list(minutes.values())[-1] >= 0.02
    assert list(minutes.values())[-2] < 0.02
    for step in list(rates)[1:]:
        share = min(minutes[step - 1] / 0.02, 1.0)
        assert rates[step] == pytest.approx(0.001 * 0.5 * (1 + math.cos(math.pi * share)), abs=1e-9)


def test_a_loss_that_is_not_finite_stops_before_the_update(config_file):
    trainer = Trainer(load(config_file), CPU)
    batch = next(trainer.feed())
    trainer.train_step(batch)
    with torch.no_grad():
        trainer.model.fc5.bias.fill_(math.inf)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(
        UserError, match=r"step 2: the (loss|gradient's norm) is (nan|inf); .* not updated · no checkpoint"
    ):
        trainer.train_step(batch)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_view_two_may_not_select(config_file, monkeypatch):
    monkeypatch.setattr("sphereface.training.validation.is_lfw_view2", lambda pairs: True)
    with pytest.raises(UserError, match="eval.select: got 'mine', which is LFW's view 2"):
        Trainer(load(config_file), CPU)


def test_best_is_the_best_by_the_selecting_set(config_file, monkeypatch):
    accuracies = iter([0.5, 0.9, 0.7, 0.8])

    class Fake:
        standard_error = 0.1

        def __init__(self):
            self.mean = next(accuracies)
            self.accuracies = [self.mean]

    monkeypatch.setattr("sphereface.training.validation.evaluate", lambda *a, **k: Fake())
    monkeypatch.setattr("sphereface.training.watch.roc_figure", lambda *a, **k: Figure())
    run = train(config_file, "eval.every_steps=3")
    assert load_checkpoint(run / "best.pt")["meta"]["step"] == 6
    assert load_checkpoint(run / "last.pt")["meta"]["step"] == 12


def test_checkpoint_serves_evaluation(config_file):
    run = train(config_file, "train.steps=2")
    loaded = load_model(run / "best.pt")
    assert loaded.input_size == (32, 32)
    assert loaded.meta["config"]["name"] == "tiny"
    assert not loaded.model.training
    assert loaded.model(torch.zeros(1, 3, 32, 32)).shape == (1, 8)


def test_evaluation_leaves_training_as_it_was(config_file):
    often, never = (
        train(config_file, "eval.every_steps=1"),
        train(config_file, "eval.sets={}", "eval.select=null"),
    )
    a, b = load_checkpoint(often / "last.pt"), load_checkpoint(never / "last.pt")
    assert all(torch.equal(a["model"][name], b["model"][name]) for name in a["model"])


def test_epochs_are_turned_into_steps(config_file):
    trainer = Trainer(load(config_file, "train.steps=null", "train.epochs=3", "train.milestones=[]"), CPU)
    assert trainer.total_steps == math.ceil(3 * 35 / 8)


def test_a_loss_at_ln_c_is_named_once():
    watch = CollapseWatch(1000)
    said = [watch.look(step, math.log(1000) * 1.01, 0.001) for step in range(20, 1000, 20)]
    warnings = [text for text in said if text]
    assert len(warnings) == 1
    assert "sits at ln C = 6.91" in warnings[0]
    healthy = CollapseWatch(1000)
    assert not any(healthy.look(step, 6.9, 0.2) for step in range(20, 1000, 20))
    assert not any(healthy.look(step, 3.0, 0.001) for step in range(20, 1000, 20))


def test_dry_run_describes_and_writes_nothing(config_file, tmp_path):
    out = dry_run(str(config_file), device="cpu")
    assert "identities                  5" in out
    assert "multiply-adds per picture" in out
    assert yaml.safe_load(out.split("# the resolved configuration\n")[1])["model"]["depth"] == 10
    assert not (tmp_path / "runs").exists()


def test_multiply_adds_of_sphere20():
    assert multiply_adds(SphereNet(20)) == pytest.approx(1.75e9, rel=0.005)  # the recipe's figure


def test_bf16_on_the_cpu_stays_near_fp32(config_file):
    fp32 = Trainer(load(config_file), CPU)
    bf16 = Trainer(load(config_file, "train.precision=bf16"), CPU)
    batch = next(fp32.feed())
    assert float(bf16.forward(batch).loss.detach()) == pytest.approx(float(fp32.forward(batch).loss.detach()), rel=0.02)


def test_fp16_on_a_cpu_is_refused(config_file):
    with pytest.raises(UserError, match="train.precision: got fp16 on a CPU · allowed there: fp32, bf16"):
        Trainer(load(config_file, "train.precision=fp16"), CPU)
