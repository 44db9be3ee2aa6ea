"""Whole small runs: learning, resuming bit for bit, stopping, run folders."""

from __future__ import annotations

import itertools
import json
import logging
import math
import shutil

import cv2
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sphereface.checkpoint import BadCheckpoint, load_checkpoint
from sphereface.data.sampler import Augmentation, BatchOrder
from sphereface.errors import UserError
from sphereface.evaluation import Result
from sphereface.models import SphereNet, load_model
from sphereface.training.deferred import NotFinite
from sphereface.training.dry_run import dry_run
from sphereface.training.measuring import multiply_adds
from sphereface.training.run import run_training
from sphereface.training.run_folder import RunFolder
from sphereface.training.trainer import Trainer

from ..images import make_pairs, make_training_set
from .runs import CPU, load, metrics_of, train


def test_a_run_writes_all_that_it_promises(config_file):
    run = train(config_file, "log.sinks=[jsonl, tensorboard]")
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
    assert metrics_of(run, "images_seen")[12] == 96


def test_a_resumed_run_draws_the_same_negatives(config_file):
    overrides = ("loss.sample_rate=0.5", "train.batch_size=2", "train.clip_grad_norm=1", "checkpoint.every_steps=1")
    whole = train(config_file, *overrides)
    part = train(config_file, *overrides, stop_at=5)
    train(config_file, *overrides, resume="auto")
    a, b = load_checkpoint(whole / "last.pt"), load_checkpoint(part / "last.pt")
    assert torch.equal(a["head"]["weight"], b["head"]["weight"])
    velocities = (state["optimizer"]["head.weight"]["velocity"] for state in (a, b))
    assert torch.equal(*velocities)


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
    assert a["optimizer"].keys() == b["optimizer"].keys()
    for name, state in a["optimizer"].items():
        assert torch.equal(state["velocity"], b["optimizer"][name]["velocity"]), name
    for name in ("train/loss", "train/lambda", "train/lr", "eval/mine/accuracy"):
        assert metrics_of(whole, name) == metrics_of(part, name)


def test_resume_drops_what_was_logged_past_the_checkpoint(config_file):
    part = train(config_file, stop_at=7)  # checkpoint at 6 (best), log up to 7
    assert max(metrics_of(part, "train/loss")) == 7
    train(config_file, resume=str(part))
    steps = [json.loads(line)["step"] for line in (part / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert len(metrics_of(part, "train/loss")) == 12


def test_a_kill_before_the_first_checkpoint_leaves_no_seam(config_file):
    part = train(config_file, "checkpoint.every_steps=100", "eval.every_steps=100", stop_at=3)
    train(config_file, "checkpoint.every_steps=100", "eval.every_steps=100", resume="auto")
    steps = [json.loads(line)["step"] for line in (part / "metrics.jsonl").read_text().splitlines()]
    assert steps == [*range(1, 13), 12]


def test_a_kill_between_the_checkpoint_and_best_does_not_lose_best(config_file, monkeypatch):
    def killed(self, step):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "mark_best", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config_file)
    (part,) = (config_file.parent / "runs" / "tiny").iterdir()
    assert not (part / "best.pt").exists()
    train(config_file, resume="auto")
    best = load_checkpoint(part / "best.pt")["meta"]
    assert best["step"] == best["best_step"]
    assert best["best"] == load_checkpoint(part / "last.pt")["meta"]["best"]


def test_an_older_checkpoint_sets_the_newer_ones_aside(config_file):
    run = train(config_file)  # checkpoints of steps 8 and 12
    train(config_file, resume=str(run / "step-00000008.pt"), stop_at=9)
    assert not (run / "step-00000012.pt").exists()
    assert (run / "abandoned" / "step-00000012.pt").is_file()
    assert RunFolder.of_resume("auto", load(config_file))[1] == run / "step-00000008.pt"


def test_a_checkpoint_outside_a_run_folder_is_refused(config_file, tmp_path):
    run = train(config_file, "train.steps=2")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text("mine")
    copy = shutil.copy(run / "last.pt", mine / "mine.pt")
    with pytest.raises(UserError, match="--resume: .*mine is not a run folder: its run.json is missing or damaged"):
        RunFolder.of_resume(str(copy), load(config_file))
    assert (mine / "config.yaml").read_text() == "mine"


def test_a_finished_run_goes_on_with_more_steps_and_other_settings(config_file, caplog):
    run = train(config_file)
    with caplog.at_level(logging.WARNING):
        train(config_file, "train.steps=20", "train.weight_decay=0.25", "train.mu=0.5", resume=str(run))
    assert list(metrics_of(run, "train/loss")) == list(range(1, 21))
    for line in ("train.steps: 12 → 20", "train.weight_decay: 0.0005 → 0.25", "train.mu: 0.9 → 0.5"):
        assert f"resumed with another setting: {line}" in caplog.text
    trainer = Trainer(load(config_file, "train.weight_decay=0.25", "train.mu=0.5"), CPU)
    trainer.restore(run / "last.pt")
    assert {(group["weight_decay"], group["mu"]) for group in trainer.learner.optimizer.param_groups} == {(0.25, 0.5)}


def test_another_batch_size_goes_on_at_the_next_image(config_file):
    run = train(config_file, "train.steps=5", "checkpoint.every_steps=5")
    trainer = Trainer(load(config_file, "train.batch_size=4"), CPU)
    trainer.restore(run / "last.pt")
    order = BatchOrder(35, 1, seed=0, augmentation=Augmentation())
    expected = [order.draw(place).indices[0] // 7 for place in range(40, 44)]
    assert next(trainer.feed()).labels.tolist() == expected


def test_a_full_disk_does_not_end_the_run(config_file, monkeypatch, caplog):
    save, calls = RunFolder.save, []

    def full_at_first(self, *args, **kwargs):
        calls.append(kwargs["step"])
        if kwargs["step"] <= 6:  # the first of the regular ones, and the first best
            raise OSError(28, "No space left on device")
        return save(self, *args, **kwargs)

    monkeypatch.setattr(RunFolder, "save", full_at_first)
    run = train(config_file)
    assert calls == [4, 6, 8, 12, 12]
    assert "step 4: the checkpoint could not be written" in caplog.text
    assert "tries again; nothing is saved yet" in caplog.text
    assert load_checkpoint(run / "last.pt")["meta"]["step"] == 12
    assert load_checkpoint(run / "best.pt")["meta"]["best_step"] == 12


@pytest.mark.parametrize(
    ("first", "advice"), [(0, "start a new run: nothing was saved"), (8, "resume with --resume .*/runs/tiny/")]
)
def test_a_full_disk_at_the_end_says_how_to_go_on(config_file, monkeypatch, caplog, first, advice):
    """The printed way works: a run without a checkpoint cannot be resumed."""
    save = RunFolder.save

    def full(self, *args, **kwargs):
        if kwargs["step"] > first:
            raise OSError(28, "No space left on device")
        return save(self, *args, **kwargs)

    monkeypatch.setattr(RunFolder, "save", full)
    with pytest.raises(
        UserError, match=f"could not be written .*No space left on device · .* · make room, then {advice}"
    ):
        train(config_file)
    assert "the last checkpoint is kept" not in caplog.text or first


def test_what_ends_a_run_is_written_down(config_file, tmp_path):
    with pytest.raises(UserError, match="the (loss|gradient's norm) is"):
        run_training(str(config_file), ["train.lr=1e30", "train.milestones=[]"], device="cpu")
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    about = json.loads((run / "run.json").read_text())
    assert about["status"] == "stopped"
    assert "not updated" in about["reason"]
    assert "stopped at step" in (run / "train.log").read_text()


def test_verification_images_of_another_size_end_the_run_at_its_start(config_file, tmp_path):
    pairs = make_pairs(tmp_path / "large", size=(48, 48))
    with pytest.raises(UserError, match=r"(?s)^eval.sets.mine: .*48×48 pixels .*--set eval.sets=\{\}"):
        Trainer(load(config_file, f"eval.sets.mine={pairs}"), CPU)


def test_bad_images_are_replaced_in_a_whole_run_with_workers(config_file, tmp_path, caplog):
    data = make_training_set(tmp_path / "some-bad", 5, 7, size=(32, 32))
    (data / "id03" / "002.png").write_bytes(b"")
    overrides = (f"data.train={data}", "data.workers=1")
    run = train(config_file, *overrides, "data.max_bad_share=0.1")
    assert len({m for m in caplog.messages if m.startswith("unusable image")}) == 1
    assert "id03/002.png: the file is empty (0 bytes) (another one takes its place)" in caplog.text
    assert "1 image was unusable" in caplog.text
    assert load_checkpoint(run / "last.pt")["meta"]["step"] == 12
    with pytest.raises(UserError, match="data.max_bad_share: 1 of"):
        train(config_file, *overrides, "data.max_bad_share=0.01")


def test_tensorboard_shows_all_that_the_readme_says(config_file):
    run = train(config_file, "log.sinks=[jsonl, tensorboard]")
    events = EventAccumulator(str(run))
    events.Reload()
    tags = events.Tags()
    for name in ("loss", "accuracy", "lambda", "lr", "grad_norm", "embedding_norm_mean", "target_angle_deg_mean"):
        assert f"train/{name}" in tags["scalars"]
    assert {"train/images_per_s", "eval/mine/accuracy", "eval/mine/fold_1", "eval/mine/fold_3"} <= set(tags["scalars"])
    assert {"train/target_angle_deg", "train/embedding_norm"} <= set(tags["histograms"])
    assert {"train/crops_as_the_network_sees_them", "eval/mine/roc"} <= set(tags["images"])
    assert "config/text_summary" in tags["tensors"]
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 13))


def test_inputs_are_mirrored_where_the_batch_says(config_file):
    trainer = Trainer(load(config_file), CPU)
    batch = next(trainer.feed())
    assert batch.mirror.any()
    images, _ = trainer.learner.inputs(batch)
    plain, _ = trainer.learner.inputs(batch._replace(mirror=torch.zeros_like(batch.mirror)))
    for row, mirrored in enumerate(batch.mirror):
        assert torch.equal(images[row], plain[row].flip(2) if mirrored else plain[row])


def test_gradients_are_clipped_to_the_norm_that_is_asked_for(config_file):
    trainer = Trainer(load(config_file, "train.clip_grad_norm=0.05"), CPU)
    result = trainer.train_step(next(trainer.feed()))
    assert result.grad_norm > 0.1
    gradients = torch.cat([p.grad.flatten() for g in trainer.learner.optimizer.param_groups for p in g["params"]])
    assert float(gradients.norm()) == pytest.approx(0.05, rel=1e-4)


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


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("data.workers=1", True),
        ("data.keep_mb=7", True),
        ("log.every_steps=3", True),
        ("checkpoint.keep=9", True),
        ("data.max_bad_share=0.5", True),
        ("eval.every_steps=5", True),
        ("eval.batch_size=5", True),
        ("eval.precision=bf16", True),
        ("train.on_nonfinite=skip", True),
        ("data.mirror=false", False),
        ("eval.select=null", False),
        ("train.steps=13", False),
    ],
)
def test_auto_goes_on_with_settings_that_train_the_same(config_file, setting, found):
    unfinished = train(config_file, stop_at=5)
    run, _ = RunFolder.of_resume("auto", load(config_file, setting))
    assert (run.path == unfinished) == found


def test_auto_finds_a_run_of_before_a_setting_was_there(config_file):
    unfinished = train(config_file, stop_at=5)
    values = yaml.safe_load((unfinished / "config.yaml").read_text())
    del values["model"]["networks"], values["data"]["keep_mb"], values["train"]["recompute"]
    (unfinished / "config.yaml").write_text(yaml.safe_dump(values))
    assert RunFolder.of_resume("auto", load(config_file))[0].path == unfinished
    assert RunFolder.of_resume("auto", load(config_file, "train.recompute=true"))[0].path != unfinished


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a mapping of keys"),
        ("[1, 2]", "not a mapping of keys"),
        ("{model: 3}", "model: got 3"),
        ("a: [", "cannot be read"),
        ("{name: tiny}", "data.train"),
        ("{trian: 3, modell: 4}", "problems: - trian: unknown key"),
    ],
)
def test_auto_passes_over_a_damaged_configuration(config_file, text, reason, caplog):
    unfinished = train(config_file, stop_at=5)
    (unfinished / "config.yaml").write_text(text)
    caplog.clear()
    assert RunFolder.of_resume("auto", load(config_file))[0].path != unfinished
    (line,) = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert reason in line
    assert "\n" not in line


def test_auto_steps_back_from_a_damaged_checkpoint(config_file, caplog):
    part = train(config_file, stop_at=10)
    newest = part / "step-00000008.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        _, checkpoint = RunFolder.of_resume("auto", load(config_file))
    assert checkpoint == part / "step-00000006.pt"
    assert "step-00000008.pt: truncated" in caplog.text


def test_a_damaged_run_json_is_named_with_the_checkpoint_that_is_left(config_file):
    run = train(config_file, "train.steps=2")
    (run / "run.json").write_text("[" * 100_000, encoding="utf-8")
    message = r"its run\.json is missing or damaged · put it back, or .* train\.init_from=.*step-00000002\.pt, without"
    with pytest.raises(UserError, match=message):
        RunFolder.of_resume(str(run), load(config_file))


@pytest.mark.parametrize("resume", ["nowhere", "."])
def test_resume_from_nothing_says_so(config_file, resume, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match="--resume: (got 'nowhere' · allowed: auto|.: got a folder without a checkpoint)"
    ):
        RunFolder.of_resume(resume, load(config_file))


def test_resume_refuses_another_network_and_other_data(config_file, tmp_path):
    run = train(config_file, "train.steps=2")
    with pytest.raises(BadCheckpoint, match=r"another architecture: fc5.bias is \(8,\) in the file, \(16,\)"):
        Trainer(load(config_file, "model.embedding_dim=16"), CPU).restore(run / "last.pt")
    other = make_training_set(tmp_path / "other", 5, 6, size=(32, 32))
    with pytest.raises(BadCheckpoint, match="trained on 35 images of 5 identities, data.train now has 30 of 5"):
        Trainer(load(config_file, f"data.train={other}"), CPU).restore(run / "last.pt")


def test_the_clock_ends_a_run_and_drives_the_schedules(config_file, monkeypatch):
    now = itertools.count(0, 0.09)  # seconds: how long a step takes does not depend on the machine
    monkeypatch.setattr("sphereface.training.progress.time.perf_counter", lambda: next(now))
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


def test_a_clock_that_is_behind_the_steps_changes_no_bit(config_file):
    plain, clocked = (
        load_checkpoint(train(config_file, *more) / "last.pt") for more in ([], ["train.max_minutes=600"])
    )
    for part in ("model", "head"):
        assert all(torch.equal(value, clocked[part][name]) for name, value in plain[part].items())


def test_stages_and_schedules_follow_whichever_is_ahead(config_file):
    stages = "train.stages=[{until: 0.5, loss: {m: 1}}]"
    trainer = Trainer(load(config_file, "train.max_minutes=1", "train.steps=1000", "train.milestones=[]", stages), CPU)
    for step, seconds, position, stage in [
        (3, 0.0, 3, 0),
        (3, 0.18, 3, 0),
        (3, 29.94, 499, 0),
        (3, 30.06, 501, 1),
        (900, 30.06, 900, 1),
        (3, 90.0, 1000, 1),
    ]:
        trainer.progress.step, trainer.progress.seconds = step, seconds
        setting = trainer.setting()
        assert (trainer.position(), setting.stage, setting.step) == (pytest.approx(position), stage, step)
    trainer.progress.step, trainer.progress.seconds = 7, 0.1
    assert trainer.position() == 7  # not 1000 · (7 / 1000), which may be another number


def test_a_loss_that_is_not_finite_stops_before_the_update(config_file):
    trainer = Trainer(load(config_file), CPU)
    batch = next(trainer.feed())
    trainer.train_step(batch)
    with torch.no_grad():
        trainer.learner.model.fc5.bias.fill_(math.inf)
    before = {name: value.clone() for name, value in trainer.learner.model.state_dict().items()}
    with pytest.raises(NotFinite, match=r"the (loss|gradient's norm) is (nan|inf)"):
        trainer.train_step(batch)
    for name, value in trainer.learner.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_view_two_may_not_select(config_file, monkeypatch):
    monkeypatch.setattr("sphereface.training.validation.is_lfw_view2", lambda pairs: True)
    with pytest.raises(UserError, match="eval.select: got 'mine', which is LFW's view 2"):
        Trainer(load(config_file), CPU)


def test_best_is_the_best_by_the_selecting_set(config_file, monkeypatch):
    accuracies = iter([0.5, 0.9, 0.7, 0.8])

    class Fake(Result):
        def __init__(self, accuracy):
            self.accuracy = accuracy

        def headline(self):
            return "accuracy", self.accuracy

        def rows(self):
            return ()

        def to_dict(self):
            return {}

    monkeypatch.setattr("sphereface.training.validation.evaluate", lambda *a, **k: Fake(next(accuracies)))
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


def test_dry_run_describes_and_writes_a_contact_sheet_alone(config_file, tmp_path):
    out = dry_run(str(config_file), device="cpu")
    assert "identities                  5" in out
    assert "multiply-adds per image" in out
    assert yaml.safe_load(out.split("# the resolved configuration\n")[1])["model"]["depth"] == 4
    sheet = tmp_path / "runs" / "tiny-dry-run.png"
    assert list((tmp_path / "runs").rglob("*")) == [sheet]
    assert f"augmentation, to look at    {sheet}\n" in out
    assert cv2.imread(str(sheet)).shape == (4 * 36, 120 + 8 * 36, 3)  # original, mirror, crop_shift, as trained


def test_multiply_adds_of_sphere20():
    assert multiply_adds(SphereNet(20)) == pytest.approx(1.75e9, rel=0.005)  # the recipe's figure


def test_bf16_on_the_cpu_stays_near_fp32(config_file):
    fp32 = Trainer(load(config_file), CPU)
    bf16 = Trainer(load(config_file, "train.precision=bf16"), CPU)
    batch = next(fp32.feed())
    assert float(bf16.learner.forward(batch, fp32.setting()).total.detach()) == pytest.approx(
        float(fp32.learner.forward(batch, fp32.setting()).total.detach()), rel=0.02
    )


def test_fp16_on_a_cpu_is_refused(config_file):
    with pytest.raises(UserError, match="train.precision: got fp16 on cpu · allowed there: fp32, bf16"):
        Trainer(load(config_file, "train.precision=fp16"), CPU)


@pytest.mark.parametrize("matmul", ["fp32", "tf32"])
def test_the_process_gets_the_arithmetic_of_the_configuration(config_file, monkeypatch, matmul):
    given = {}
    monkeypatch.setattr("sphereface.training.trainer.use_machine", lambda device, **options: given.update(options))
    Trainer(load(config_file, f"train.matmul={matmul}"), CPU)
    assert given == {"deterministic": False, "matmul": matmul}
