"""Resume: everything is compared before anything is written, and what is of another branch is set aside."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import re
import shutil
import typing
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sphereface.checkpoint import BadCheckpoint, load_checkpoint, save_checkpoint
from sphereface.config import Config
from sphereface.data.packing import pack
from sphereface.data.sources import open_source
from sphereface.errors import UserError
from sphereface.files import write_whole
from sphereface.models.timm_net import TimmOptions
from sphereface.plots import read_metrics
from sphereface.training import monitor, run_folder
from sphereface.training.resuming import _check_scaler, network_changes, same_choice
from sphereface.training.run import run_training
from sphereface.training.run_folder import RunFolder
from sphereface.training.same_run import what_trains
from sphereface.training.sinks import Session
from sphereface.training.started import torchrun_job
from sphereface.training.trainer import Trainer
from sphereface.training.training_set import counts_of, more_samples_of, sample_of, sampled_labels
from sphereface.training.validation import Validator

from .runs import CPU, load, train, write_tiny

SHORT = ("train.steps=4", "train.milestones=[]", "checkpoint.every_steps=2", "eval.every_steps=2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, faces) -> Path:
    """The configuration of a run that is finished: checkpoints of steps 2 and 4, the best of step 2."""
    import yaml

    from .runs import TINY

    root = tmp_path_factory.mktemp("finished")
    values = yaml.safe_load(TINY)
    values["runs_dir"] = str(root / "runs")
    values["data"]["train"] = str(faces / "train")
    values["eval"] |= {"sets": {"mine": str(faces / "pairs")}, "select": "mine"}
    (root / "tiny.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    run_training(str(root / "tiny.yaml"), SHORT, device="cpu")
    return root / "tiny.yaml"


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of its folder."""
    (folder,) = (finished.parent / "runs" / "tiny").iterdir()
    return Path(shutil.copytree(folder, tmp_path / "run"))


@pytest.fixture
def trainer(finished) -> Trainer:
    return Trainer(load(finished, *SHORT), CPU)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def altered(checkpoint: Path, change, output: Path | None = None) -> Path:
    state = {key: value for key, value in load_checkpoint(checkpoint).items() if key not in ("format", "id")}
    change(state)
    save_checkpoint(output or checkpoint, state, {})
    return output or checkpoint


# ---------------------------------------------------------------- refused before anything is written


def unfreeze(state):
    del state["optimizer"]["model.stages.0.conv.weight"]


@pytest.mark.parametrize(
    ("setting", "change", "message"),
    [
        ("train.optimizer=adamw", None, "^train.optimizer: got adamw, .* trained with 'sgd', .*train.init_from=/"),
        ("train.optimizer=muon", None, "^train.optimizer: got muon, .* trained with 'sgd', .*train.init_from=/"),
        ("train.momentum=torch", None, "^train.momentum: got torch, .* trained with 'caffe', .*train.init_from=/"),
        ("seed=0", unfreeze, "^train.lr_mult: model.stages.0.conv.weight is trained now, .*train.init_from=/"),
        ("model.embedding_dim=16", None, "another architecture: fc5.bias"),
        ("loss.name=softmax", None, "another architecture: head.bias is missing"),
        ("data.exclude=[id00]", None, "trained on 35 images of 5 identities, data.train now has 28 of 4"),
        (
            "seed=0",
            lambda state: state["meta"]["class_names"].insert(1, state["meta"]["class_names"].pop(2)),
            r"now has 35 of 5, the same ones in another order: 2 have another number \(number 1 was 'id02', now 'id01'",
        ),
        (
            "seed=0",
            lambda state: state["meta"]["class_names"].__setitem__(3, "Anna"),
            r"35 of 5, but 1 of them have other names, and 'Anna' is not there \(number 3 was 'Anna', now 'id03'\) · ",
        ),
    ],
)
def test_a_run_that_cannot_resume_is_left_as_it_was(finished, run, setting, change, message):
    if change is not None:
        altered(run / "step-00000004.pt", change)
    before = contents(run)
    with pytest.raises(UserError, match=message):
        run_training(str(finished), [*SHORT, setting], resume=str(run), device="cpu")
    assert contents(run) == before
    assert json.loads(before["run.json"])["status"] == "finished"


def test_fit_alone_compares_before_it_writes(finished, run):
    before = contents(run)
    with pytest.raises(BadCheckpoint, match="train.optimizer: got adamw"):
        train(finished, *SHORT, "train.optimizer=adamw", resume=str(run))
    assert contents(run) == before


def test_a_disk_that_fails_before_the_start_leaves_a_run_finished(finished, run, monkeypatch):
    before = (run / "run.json").read_bytes()
    monkeypatch.setattr(RunFolder, "branch_at", full)
    with pytest.raises(OSError, match="No space left"):
        run_training(str(finished), [*SHORT, "train.steps=6"], resume=str(run), device="cpu")
    assert (run / "run.json").read_bytes() == before


def test_a_start_that_does_not_fit_makes_no_folder(finished, run, tmp_path):
    more = [f"runs_dir={tmp_path / 'none'}", f"train.init_from={run / 'last.pt'}", "model.embedding_dim=16"]
    with pytest.raises(UserError, match="another architecture"):
        run_training(str(finished), [*SHORT, *more], device="cpu")
    assert not (tmp_path / "none").exists()


def test_a_best_checkpoint_that_is_removed_during_the_run_is_told(config_file, monkeypatch):
    marked = RunFolder.mark_best

    def removed(run, step):
        marked(run, step)
        (run.path / "best.pt").unlink()

    monkeypatch.setattr(RunFolder, "mark_best", removed)
    with pytest.raises(UserError, match=r"best.pt: it was saved, but something removed it"):
        run_training(str(config_file), SHORT, device="cpu")


NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["meta"].update(images_seen=NAN), "meta.images_seen: got nan · allowed: an integer"),
        (lambda s: s["meta"].update(images_seen=-1), "meta.images_seen: got -1"),
        (lambda s: s["meta"].update(step="x"), "meta.step: got 'x'"),
        (lambda s: s["meta"].update(step=True), "meta.step: got True"),
        (lambda s: s["meta"].update(step=10**400), "meta.step: got"),
        (lambda s: s["meta"].update(best=math.inf), "meta.best: got inf"),
        (lambda s: s["meta"].update(best=1e30), r"meta.best: got 1e\+30 · allowed: a number from -1000 to 1 or null"),
        (lambda s: s["meta"].update(best=1.01), "meta.best: got 1.01"),
        (lambda s: s["meta"].update(class_names=None), "meta.class_names: got None · allowed: a list of texts"),
        (lambda s: s["meta"].update(config=None), "meta.config: got None"),
        (lambda s: s["meta"]["config"].update(train=5), "meta.config.train: got 5"),
        (lambda s: s["meta"].update(extra={"a": torch.ones(3)}), "meta.extra: got .* · allowed: texts, numbers"),
        (lambda s: s["meta"].pop("images_seen"), "has no 'images_seen' entry"),
        (lambda s: s["meta"].pop("class_names"), "has no 'class_names' entry"),
        (lambda s: s["meta"].update(sample=["a"]), "meta.sample: got 1 entry · allowed: 5"),
        (lambda s: s.pop("meta"), "has no 'meta' entry"),
        (lambda s: s.update(optimizer=[]), "has no 'optimizer' entry"),
        (lambda s: s.update(optimizer={}), "no state of the optimiser"),
        (lambda s: s["optimizer"].update({"head.weight": {"exp_avg": 1}}), "optimizer.head.weight: got .*: velocity"),
        (lambda s: s["optimizer"]["head.weight"].update(velocity=None), "head.weight.velocity: got None"),
        (lambda s: s["optimizer"]["head.weight"].update(velocity=torch.ones(5, 7)), r"shape \(5, 7\) .* \(5, 8\)"),
        (lambda s: s["optimizer"]["head.weight"]["velocity"].fill_(NAN), "velocity: holds numbers that are not finite"),
        (lambda s: s["optimizer"]["head.weight"].update(velocity=torch.ones(5, 8, device="meta")), "velocity: got"),
        (lambda s: s["model"]["fc5.bias"].fill_(NAN), "fc5.bias holds numbers that are not finite"),
        (lambda s: s["head"]["weight"].fill_(math.inf), "weight holds numbers that are not finite"),
        (lambda s: s.update(average_updates=-1), "average_updates: got -1"),
        (lambda s: s.update(seen_size=5), "seen_size: got 5"),
        (lambda s: s.update(rng={}), "rng.torch: .*missing"),
        (lambda s: s.update(rng={"torch": 7}), "rng.torch: no state of a random generator"),
        (lambda s: s["rng"].update(torch=torch.zeros(9, dtype=torch.uint8)), "rng.torch: no state"),
        (lambda s: s.update(scaler=None), "has no 'scaler' entry"),
    ],
)
def test_a_damaged_leaf_is_one_line_and_changes_nothing(trainer, run, change, message):
    bad = altered(run / "step-00000004.pt", change)
    before = {name: value.clone() for name, value in trainer.learner.model.state_dict().items()}
    with pytest.raises(BadCheckpoint, match=message) as caught:
        trainer.restore(bad)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in trainer.learner.model.state_dict().items())
    assert trainer.progress.step == 0


def test_a_damaged_loss_scale_is_one_line(tmp_path):
    scaler = torch.amp.GradScaler("cpu").state_dict()
    _check_scaler(scaler, tmp_path)
    for key, value in (("scale", 0.0), ("scale", NAN), ("growth_interval", "x"), ("_growth_tracker", -1)):
        with pytest.raises(BadCheckpoint, match=f"scaler.{key}: got"):
            _check_scaler({**scaler, key: value}, tmp_path)


# ---------------------------------------------------------------- what a resumed run has


def test_the_random_generator_and_the_size_of_crops_are_those_of_the_checkpoint(finished, run):
    stages = "train.stages=[{until: 0.5, input_size: [16, 16]}]"
    smaller = altered(run / "step-00000004.pt", lambda s: s.update(seen_size=[16, 16]))
    torch.manual_seed(1234)
    trainer = Trainer(load(finished, *SHORT, stages), CPU)
    trainer.restore(smaller)
    assert torch.equal(torch.get_rng_state(), load_checkpoint(smaller)["rng"]["torch"])
    assert trainer.learner.seen_size == (16, 16)
    images, seen = torch.zeros(1, 3, 32, 32), []
    trainer.learner.model.stages[0].register_forward_hook(lambda _m, given, _o: seen.append(given[0].shape[2:]))
    with trainer.learner.evaluated() as model, torch.no_grad():
        model(images)
    assert seen == [(16, 16)]


def other_pairs(faces: Path, folder: Path) -> Path:
    """A copy of the set with its pairs in another order."""
    pairs = Path(shutil.copytree(faces / "pairs", folder / "pairs"))
    exchange(pairs)
    return pairs


def exchange(pairs: Path) -> None:
    first, *lines = (pairs / "pairs.txt").read_text().splitlines(keepends=True)
    (pairs / "pairs.txt").write_text("".join([first, *lines[::-1]]))


def test_another_set_that_selects_forgets_the_best(finished, run, faces, tmp_path):
    assert load_checkpoint(run / "last.pt")["meta"]["best_step"] == 2
    others = (f"eval.sets={{own: {other_pairs(faces, tmp_path)}}}", "eval.select=own")
    trainer = Trainer(load(finished, *SHORT, *others), CPU)
    trainer.restore(run / "last.pt")
    assert (trainer.progress.best, trainer.progress.best_step) == (None, None)
    altered(run / "step-00000004.pt", lambda s: s["meta"].update(evaluated_step=4))  # by the other one
    result = run_training(str(finished), (*SHORT, *others), resume=str(run), device="cpu")  # only evaluates
    assert load_checkpoint(result)["meta"]["best_step"] == 4


@pytest.mark.parametrize("place", ["slash", "moved", "renamed"])
def test_a_selecting_set_in_another_place_keeps_the_best(finished, run, faces, tmp_path, place):
    moved = shutil.copytree(faces / "pairs", tmp_path / "elsewhere")
    text = {"slash": f"mine: {faces}/pairs/", "moved": f"mine: {moved}", "renamed": f"own: {faces}/pairs"}[place]
    trainer = Trainer(load(finished, *SHORT, f"eval.sets={{{text}}}", f"eval.select={text.split(':')[0]}"), CPU)
    trainer.restore(run / "last.pt")
    assert trainer.progress.best_step == 2
    assert not any("of another set" in line or "its lists or images" in line for _, line in trainer._news)


def test_another_protocol_of_the_same_images_forgets_the_best(config_file, faces, tmp_path):
    """Their main figures are not comparable."""
    people = Path(shutil.copytree(faces / "train", tmp_path / "people"))
    for path in sorted((people / "id01").iterdir())[1:]:
        path.unlink()  # an impostor
    both = f"eval.sets={{one: all-pairs:{people}, two: identification:{people}}}"
    config, other = (load(config_file, both, f"eval.select={name}") for name in ("one", "two"))
    validator = Validator(config, CPU)
    meta = {"config": config.to_dict(), "digests": validator.digests}
    assert same_choice(meta, config, validator)
    assert not same_choice(meta, other, validator)


@pytest.mark.parametrize("select", ["null", "mine"])
def test_a_set_that_was_exchanged_is_told_and_its_figures_are_not_mixed(tmp_path, faces, capsys, select):
    pairs = Path(shutil.copytree(faces / "pairs", tmp_path / "pairs"))
    config = write_tiny(tmp_path, faces)
    sets = f"eval.sets={{mine: {pairs}, other: {faces / 'pairs'}}}"
    own = (*SHORT, sets, f"eval.select={select}", "train.steps=8", "checkpoint.keep=9")
    run = train(config, *own, stop_at=5)
    assert list(read_metrics(run)["eval/mine/accuracy"][0]) == [16.0, 32.0]
    for each in ("kept", "exchanged"):
        if each == "exchanged":
            exchange(pairs)
        capsys.readouterr()
        run_training(str(config), own, resume=str(run / "step-00000004.pt"), device="cpu")
        told = re.findall(r"eval\.sets\.(\w+): its lists or images changed after step 4 ", capsys.readouterr().err)
        assert told == (["mine"] if (each, select) == ("exchanged", "null") else [])  # one line; the other is of select
        curves = read_metrics(run)
        assert curves["eval/mine/accuracy"][0][-2:] == [48.0, 64.0]
        assert (16.0 in curves["eval/mine/accuracy"][0]) == (each == "kept")
        assert curves["eval/other/accuracy"][0] == [16.0, 32.0, 48.0, 64.0]


def test_a_set_that_was_absent_for_a_while_and_returns_with_other_content_is_told(tmp_path, faces, capsys):
    pairs = Path(shutil.copytree(faces / "pairs", tmp_path / "pairs"))
    config = write_tiny(tmp_path, faces)
    own = (*SHORT, "train.steps=10", "checkpoint.keep=9", "eval.select=null")
    run = train(config, *own, f"eval.sets={{mine: {pairs}}}", stop_at=5)
    for resumed in (4, 6):  # twice without it
        train(config, *own, "eval.sets={}", stop_at=resumed + 3, resume=str(run))
    for each, text in (("the same", None), ("other", "exchanged")):
        if text:
            exchange(pairs)
        capsys.readouterr()
        run_training(
            str(config), (*own, f"eval.sets={{mine: {pairs}}}"), resume=str(run / "step-00000008.pt"), device="cpu"
        )
        told = "eval.sets.mine: its lists or images changed after step 8 " in capsys.readouterr().err
        assert told == (each == "other")
        assert list(read_metrics(run)["eval/mine/accuracy"][0]) == [*([] if told else [16.0, 32.0]), 64.0, 80.0]


def test_a_best_checkpoint_that_is_gone_is_told(finished, run, capsys):
    best = load_checkpoint(run / "last.pt")["meta"]["best"]
    for path in (run / "best.pt", run / "step-00000002.pt"):
        path.unlink()
    capsys.readouterr()
    run_training(str(finished), (*SHORT, "train.steps=6"), resume=str(run), device="cpu")
    lines = [line for line in capsys.readouterr().err.splitlines() if "the best checkpoint so far" in line]
    assert len(lines) == 1
    text = f"{run}/best.pt: the best checkpoint so far, {best:.4f} at step 2, is not there · the best of the later "
    more = f"steps takes its place · to keep it instead: stop, move it and its .json to {run}, and resume from {run}"
    assert lines[0].endswith(f"{text}{more}/step-00000004.pt")
    assert load_checkpoint(run / "best.pt")["meta"]["step"] > 2


def test_a_best_that_another_set_moved_is_found_again(tmp_path, faces, capsys):
    """A set was exchanged, the run resumed and stopped before it saved, and the set was put back."""
    pairs = Path(shutil.copytree(faces / "pairs", tmp_path / "pairs"))
    config, text = write_tiny(tmp_path, faces), (pairs / "pairs.txt").read_text()
    own = (*SHORT, f"eval.sets={{mine: {pairs}}}", "train.steps=8", "checkpoint.keep=1")
    run = train(config, *own, stop_at=5)
    first = load_checkpoint(run / "best.pt")["meta"]
    altered(run / "step-00000004.pt", lambda s: s["meta"].update(evaluated_step=4))
    exchange(pairs)
    capsys.readouterr()
    with monkeypatched_steps(), pytest.raises(KeyboardInterrupt):
        run_training(str(config), (*own, "eval.every_steps=8"), resume=str(run), device="cpu")
    said = capsys.readouterr().err
    moved = f"best.pt of step {first['step']} was not chosen by the set that selects now: moved to {run}/abandoned"
    assert moved in said
    assert "is not of the run" not in said
    (pairs / "pairs.txt").write_text(text)
    run_training(str(config), own, resume=str(run), device="cpu")
    aside = run / "abandoned" / "best.pt"
    said = capsys.readouterr().err
    assert f"at step {first['step']}, is not there, but {aside} is that checkpoint · " in said
    assert f"stop, move {aside} and its .json to {run}, and resume from {run}/step-00000004.pt" in said


@contextlib.contextmanager
def monkeypatched_steps():
    """The process dies before its first step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", dies)
        yield


def dies(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("changed", ["pairs", "images", "nothing"])
def test_another_set_under_the_same_path_forgets_the_best(tmp_path, faces, capsys, changed):
    """Its scores say nothing about those of the set before."""
    pairs = Path(shutil.copytree(faces / "pairs", tmp_path / "pairs"))
    config = write_tiny(tmp_path, faces)
    own = (*SHORT, f"eval.sets={{mine: {pairs}}}")
    run = run_training(str(config), own, device="cpu").parent
    before = load_checkpoint(run / "step-00000002.pt")["meta"]
    listed = (pairs / "pairs.txt").read_text()
    if changed == "pairs":
        lines = listed.splitlines(keepends=True)
        (pairs / "pairs.txt").write_text("".join([lines[0], *lines[1:][::-1]]))
    elif changed == "images":
        one, other = sorted(pairs.rglob("*.png"))[:2]
        one.write_bytes(other.read_bytes())
    else:
        (pairs / "pairs.txt").write_text(listed)
    capsys.readouterr()
    trainer = Trainer(load(config, *own), CPU)
    trainer.restore(run / "step-00000002.pt")
    kept = changed == "nothing"
    assert (trainer.progress.best, trainer.progress.best_step) == (
        (before["best"], before["best_step"]) if kept else (None, None)
    )
    told = f"eval.select: the best score so far, {before['best']:.4f} at step 2, is of another set: "
    assert any(level == logging.WARNING and line.startswith(told) for level, line in trainer._news) != kept
    run_training(str(config), own, resume=str(run / "step-00000002.pt"), device="cpu")
    assert capsys.readouterr().err.count(told) == (not kept)


def test_a_checkpoint_without_a_digest_of_its_set_goes_by_the_path(finished, run):
    older = altered(run / "last.pt", lambda s: s["meta"].pop("digests"))
    for every in (2, 1):
        trainer = Trainer(load(finished, *SHORT, f"eval.every_steps={every}"), CPU)
        trainer.restore(older)
        assert trainer.progress.best_step == 2


def test_momentum_that_is_not_there_is_told(trainer, run, caplog):
    """A parameter that no step used has none, so that it is no reason to refuse a checkpoint."""
    trainer.restore(run / "last.pt")
    assert not any("starts from zero" in line for _, line in trainer._news)
    part = altered(run / "last.pt", lambda s: s["optimizer"].update({"head.weight": {}, "model.fc5.bias": {}}))
    trainer.restore(part)
    assert (
        logging.WARNING,
        f"{part}: optimizer: has no state of 2 parameters (model.fc5.bias, head.weight): their optimiser starts from "
        "zero",
    ) in trainer._news


def test_a_finished_run_is_not_written_to_again(finished, run, capsys):
    before = {name: (data, (run / name).stat().st_mtime_ns) for name, data in contents(run).items()}
    for checkpoint in (run, run / "last.pt"):
        result = run_training(str(finished), (*SHORT, "train.lr=0.07"), resume=str(checkpoint), device="cpu")
        assert result == run / "best.pt"
    assert before == {name: (data, (run / name).stat().st_mtime_ns) for name, data in contents(run).items()}
    said = capsys.readouterr().err
    assert f"{run}: the run is finished, nothing is left to train: {run / 'best.pt'}" in said
    assert re.search(r"resumed with another setting: train.lr: [0-9.]+ → 0.07\n", said)


def test_a_checkpoint_past_the_end_of_the_run_is_told(finished, run, capsys):
    shorter = (*SHORT, "train.steps=3")
    run_training(str(finished), shorter, resume=str(run / "last.pt"), device="cpu")
    said = capsys.readouterr().err
    assert f"{run / 'last.pt'}: has step 4, beyond the end of this run at 3: nothing is trained" in said
    assert "resumed with another setting: train.steps: 4 → 3" in said


def test_what_a_kill_left_of_the_end_is_made_up_for(finished, run):
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "status": "running"}))
    run_training(str(finished), SHORT, resume=str(run), device="cpu")
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    (run / "best.pt").unlink()
    run_training(str(finished), SHORT, resume=str(run), device="cpu")
    assert load_checkpoint(run / "best.pt")["meta"]["step"] == 2


@pytest.mark.parametrize(("name", "what"), [("config.yaml", ", a configuration"), ("best.json", ", which is no")])
def test_another_file_of_a_run_is_answered_with_its_folder(finished, run, name, what):
    config = load(finished, *SHORT)
    with pytest.raises(UserError, match=f"^--resume: got {run}/{name}{what}.* · give --resume {run}$"):
        RunFolder.find(str(run / name), config)
    (run / "run.json").unlink()
    with pytest.raises(UserError, match=f"{what}.* · give a checkpoint, such as .*{name.split('.')[0]}.pt$"):
        RunFolder.find(str(run / name), config)


# ---------------------------------------------------------------- damaged checkpoints


def damage(path: Path) -> None:
    """Leave its other names whole, as a copied folder has them."""
    data = path.read_bytes()[:100]
    path.unlink()
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_named_with_the_one_that_is_taken(finished, run, caplog):
    config = load(finished, *SHORT)
    damage(run / "step-00000004.pt")
    assert RunFolder.find(str(run), config)[1] == run / "last.pt"  # of step 4 too
    damage(run / "last.pt")
    assert RunFolder.find(str(run), config)[1] == run / "step-00000002.pt"
    damage(run / "step-00000002.pt")
    caplog.clear()
    assert RunFolder.find(str(run), config)[1] == run / "best.pt"
    messages = [record.getMessage() for record in caplog.records]
    assert [message.partition(":")[0] for message in messages] == [
        str(run / name) for name in ("step-00000004.pt", "last.pt", "step-00000002.pt")
    ]
    assert all(message.endswith(" · best.pt is used instead") for message in messages)


def test_a_copied_folder_resumes_from_its_newest_intact_checkpoint(finished, run):
    config = load(finished, *SHORT)
    damage(run / "step-00000004.pt")
    (run / "last.pt").replace(run / "best.pt")
    assert RunFolder.find(str(run), config)[1] == run / "best.pt"  # of step 4, before step-00000002.pt
    (run / "step-00000004.pt").unlink()
    (run / "best.pt").replace(run / "last.pt")
    assert RunFolder.find(str(run), config)[1] == run / "step-00000002.pt"  # nothing is damaged
    (run / "step-00000002.pt").unlink()
    assert RunFolder.find(str(run), config)[1] == run / "last.pt"


@pytest.mark.parametrize("by", ["path", "auto"])
def test_a_run_whose_checkpoints_are_all_damaged_is_refused(config_file, by):
    run = train(config_file, *SHORT, stop_at=3)
    for path in run.glob("*.pt"):
        damage(path)
    before = contents(run)
    with pytest.raises(UserError) as raised:
        RunFolder.find("auto" if by == "auto" else str(run), load(config_file, *SHORT))
    assert re.fullmatch(
        rf"--resume: every checkpoint of {run} is damaged \(step-00000002.pt, last.pt, best.pt; first "
        rf"{run}/step-00000002.pt: truncated, .*\) · put an intact one there, or start a new run without --resume",
        str(raised.value),
    )
    assert before == contents(run)


def test_what_is_set_aside_as_damaged_is_called_so(finished, run, caplog):
    damage(run / "best.pt")
    damage(run / "step-00000004.pt")
    with caplog.at_level(logging.WARNING):
        RunFolder(run).branch_at(run / "step-00000002.pt", 2, 2)
    for name in ("step-00000004.pt", "best.pt"):
        assert f"{name} is damaged: moved to {run / 'abandoned'}" in caplog.text
    assert "last.pt is not of the run that resumes at step 2: moved to" in caplog.text


@pytest.mark.parametrize("text", [None, "{", "{}", "[]"])
def test_auto_names_a_run_that_it_cannot_know(config_file, caplog, text):
    run = train(config_file, *SHORT, stop_at=3)
    (run / "run.json").unlink() if text is None else (run / "run.json").write_text(text)
    (run.parent / "notes").mkdir()  # no run's
    (run.parent / "notes.txt").write_text("")
    caplog.clear()
    assert RunFolder.find("auto", load(config_file, *SHORT)) is None
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 1
    assert lines[0].startswith(f"resume auto: {run} skipped: its run.json is missing or damaged · ")


# ---------------------------------------------------------------- branches


def test_resume_of_best_gives_the_run_again_and_loses_no_checkpoint(finished, run, tmp_path):
    whole = load_checkpoint(run / "last.pt")
    for name in ("step-00000002.pt", "step-00000002.json"):
        (run / name).unlink()  # as if rotated away
    train(finished, *SHORT, resume=str(run / "best.pt"))
    again = load_checkpoint(run / "last.pt")
    assert again["meta"]["step"] == 4
    assert all(torch.equal(value, again["model"][name]) for name, value in whole["model"].items())
    assert load_checkpoint(run / "abandoned" / "step-00000004.pt")["id"] == whole["id"]
    assert load_checkpoint(run / "best.pt")["meta"]["step"] == 2


def checkpoint(folder: Path, name: str, step: int, mark: int = 0) -> Path:
    save_checkpoint(folder / name, {"meta": {"step": step}, "mark": mark}, {"step": step})
    return folder / name


def steps_of(folder: Path) -> dict[str, int]:
    return {path.stem: load_checkpoint(path)["meta"]["step"] for path in sorted(folder.glob("*.pt"))}


def made(tmp_path: Path, steps: list[int], *, last: int, best: int | None) -> RunFolder:
    for step in steps:
        checkpoint(tmp_path, f"step-{step:08d}.pt", step)
    checkpoint(tmp_path, "last.pt", last)
    if best is not None:
        checkpoint(tmp_path, "best.pt", best)
    return RunFolder(tmp_path)


@pytest.mark.parametrize(
    ("steps", "last", "best", "resumed", "best_step", "left", "aside", "right"),
    [
        # the newest one: nothing moves
        ([2, 4], 4, 2, "step-00000004.pt", 2, [2, 4], {}, True),
        # killed before last.pt was made
        ([2, 4], 2, 2, "step-00000004.pt", 2, [2, 4], {}, True),
        # best.pt is of a later step: aside, and the earlier best is found again
        ([2, 4, 6], 6, 6, "step-00000004.pt", 2, [2, 4], {"step-00000006": 6, "best": 6}, True),
        # … or is gone
        ([4, 6], 6, 6, "step-00000004.pt", 2, [4], {"step-00000006": 6, "best": 6}, False),
        # from best.pt, whose own step-*.pt was deleted
        ([4, 6], 6, 2, "best.pt", 2, [2], {"step-00000004": 4, "step-00000006": 6}, True),
        # only last.pt is left of the later steps
        ([4], 9, 4, "step-00000004.pt", 4, [4], {"last": 9}, True),
        # killed between the checkpoint and best.pt
        ([2, 4], 4, 2, "step-00000004.pt", 4, [2, 4], {}, True),
        # there was no best then
        ([2, 4], 4, 4, "step-00000002.pt", None, [2], {"step-00000004": 4, "best": 4}, True),
    ],
)
def test_what_is_of_another_branch_is_set_aside(tmp_path, steps, last, best, resumed, best_step, left, aside, right):
    run = made(tmp_path, steps, last=last, best=best)
    step = load_checkpoint(tmp_path / resumed)["meta"]["step"]
    assert run.branch_at(tmp_path / resumed, step, best_step) == right
    found = steps_of(tmp_path)
    assert found.pop("last") == step
    assert found.pop("best", None) == (best_step if right else None)
    assert sorted(found.values()) == left
    assert steps_of(tmp_path / "abandoned") == aside
    assert RunFolder(tmp_path).newest_checkpoint() == tmp_path / f"step-{step:08d}.pt"


@pytest.mark.parametrize("step_is_there", [True, False])
@pytest.mark.parametrize(("run_name", "score", "taken"), [("b", 0.7, False), ("b", 0.6, True), ("a", 0.7, True)])
def test_a_best_of_another_run_with_the_same_step_is_set_aside(tmp_path, caplog, run_name, score, taken, step_is_there):
    """A renamed folder names another run too, but has the same best score."""
    for name, run, best in (("step-00000002", "a", 0.6), ("step-00000004", "a", 0.6), ("best", run_name, score)):
        step = 4 if name == "step-00000004" else 2
        save_checkpoint(tmp_path / f"{name}.pt", {"meta": {"step": step, "run": run, "best": best}}, {"step": step})
    if not step_is_there:
        (tmp_path / "step-00000002.pt").unlink()
    ours = step_is_there or taken
    assert RunFolder(tmp_path).branch_at(tmp_path / "step-00000004.pt", 4, 2) == ours
    assert (tmp_path / "best.pt").is_file() == ours
    assert (tmp_path / "abandoned" / "best.pt").is_file() == (not taken)
    assert ("best.pt is not of the run that resumes at step 4: moved to" in caplog.text) == (not taken)
    if ours and not taken:
        assert load_checkpoint(tmp_path / "best.pt")["meta"]["run"] == "a"
    if not ours:
        line = RunFolder(tmp_path).lost_best(0.6, 2, tmp_path / "step-00000004.pt")
        assert "at step 2, is not there · the best of the later steps takes its place" in line


def test_two_branches_that_are_left_do_not_overwrite_each_other(tmp_path):
    run = made(tmp_path, [2, 4], last=4, best=None)
    run.branch_at(tmp_path / "step-00000002.pt", 2, None)
    checkpoint(tmp_path, "step-00000004.pt", 4, mark=1)
    run.branch_at(tmp_path / "step-00000002.pt", 2, None)
    marks = [load_checkpoint(tmp_path / name / "step-00000004.pt")["mark"] for name in ("abandoned", "abandoned-2")]
    assert marks == [0, 1]


def test_resume_from_a_checkpoint_that_was_set_aside_says_what_to_do(tmp_path):
    run = made(tmp_path, [2, 4], last=4, best=None)
    (tmp_path / "run.json").write_text('{"status": "running"}')
    run.branch_at(tmp_path / "step-00000002.pt", 2, None)
    aside = tmp_path / "abandoned" / "step-00000004.pt"
    with pytest.raises(UserError) as caught:
        RunFolder.find(str(aside), None)
    back = tmp_path / "step-00000004.pt"
    new = f"start a new run from its weights: train.init_from={aside}, without --resume"
    start = f"--resume: {aside} was set aside when its run was resumed from an earlier step · "
    assert str(caught.value) == f"{start}move it and its .json to {tmp_path} and give --resume {back}, or {new}"


def test_another_file_of_the_same_step_takes_its_place(tmp_path):
    run = made(tmp_path, [2], last=2, best=None)
    mine = checkpoint(tmp_path, "mine.pt", 2, mark=1)
    mine.with_suffix(".json").unlink()
    run.branch_at(mine, 2, None)
    assert load_checkpoint(tmp_path / "step-00000002.pt")["mark"] == 1
    assert load_checkpoint(tmp_path / "abandoned" / "step-00000002.pt")["mark"] == 0


# ---------------------------------------------------------------- the data


def exchanged(faces: Path, root: Path) -> Path:
    data = Path(shutil.copytree(faces / "train", root / "train"))
    for name, other in (("id00", "kept"), ("id03", "id00"), ("kept", "id03")):
        (data / name).rename(data / other)
    return data


def test_folders_of_two_people_exchanged_are_noticed(finished, run, faces, tmp_path):
    data, before = exchanged(faces, tmp_path), contents(run)
    with pytest.raises(
        UserError, match=r"of 5 identities compared, 2 have another first image.*: id00, id03 · .*init_"
    ):
        run_training(str(finished), [*SHORT, f"data.train={data}"], resume=str(run), device="cpu")
    assert contents(run) == before


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ([3, 4, 6], [3, 4, 6], "compared, 2 have another image in the middle or at the end.*: id01, id02 · resume"),
        ([6], [6], "compared, 2 have another image in the middle or at the end.*: id01, id02 · resume"),
        ([1], [], "as many in all, but not as many of each identity: some were moved between identities · resume"),
    ],
)
def test_images_moved_between_people_are_noticed(finished, run, faces, tmp_path, one, other, message):
    """The first image of each and the total stay."""
    data, before = Path(shutil.copytree(faces / "train", tmp_path / "train")), contents(run)
    ours, theirs = (sorted((data / name).iterdir()) for name in ("id01", "id02"))
    assert len(ours) == len(theirs) == 7
    for k in other:
        theirs[k].rename(data / f"{k}.png")
    for k in one:  # without an exchange: in the middle, under a name of its own
        ours[k].rename(theirs[k] if k in other else theirs[k].with_name(f"{theirs[k].stem}x.png"))
    for k in other:
        (data / f"{k}.png").rename(ours[k])
    if not other:  # the middle and the last of both: as they were
        state = load_checkpoint(run / "step-00000004.pt")
        altered(run / "step-00000004.pt", lambda s: s["meta"].pop("more_samples"))
        assert "more_samples" in state["meta"]
        before = contents(run)
    with pytest.raises(UserError, match=message):
        run_training(str(finished), [*SHORT, f"data.train={data}"], resume=str(run), device="cpu")
    assert contents(run) == before


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("input_order=rgb", "model.input_order: 'bgr' → 'rgb'"),
        ("input_mean=100", "model.input_mean: 127.5 → 100.0"),
        ("batch_norm.eps=0.1", "model.batch_norm.eps: None → 0.1"),
    ],
)
def test_another_network_of_the_same_shapes_is_refused(finished, run, setting, line):
    before = contents(run)
    with pytest.raises(UserError, match=f"weights fit, but the network computes .*{line} · resume .*train.init_from=/"):
        run_training(str(finished), [*SHORT, f"model.{setting}"], resume=str(run), device="cpu")
    assert contents(run) == before


def test_settings_of_the_network_that_only_training_uses_may_change(finished, run):
    same = ("model.batch_norm.momentum=0.2", "model.input_mean=[127.5,127.5,127.5]")
    trainer = Trainer(load(finished, *SHORT, *same), CPU)
    trainer.restore(run / "last.pt")
    assert trainer.progress.step == 4


def test_which_options_change_what_a_network_computes():
    timm = TimmOptions(architecture="efficientnet_b0")
    assert network_changes(timm, dataclasses.replace(timm, drop_path=0.1, dropout=0.2, networks=2)) == []
    other = dataclasses.replace(timm, architecture="tf_efficientnet_b0")
    assert network_changes(timm, other) == ["model.architecture: 'efficientnet_b0' → 'tf_efficientnet_b0'"]


@pytest.mark.parametrize("key", ["sample", "more_samples", "counts"])
def test_a_checkpoint_without_a_sample_resumes(run, trainer, key):
    trainer.restore(altered(run / "last.pt", lambda s: s["meta"].pop(key)))
    assert trainer.progress.step == 4


def test_an_image_that_cannot_be_read_is_not_compared(run, trainer):
    trainer.restore(altered(run / "last.pt", lambda s: s["meta"]["sample"].__setitem__(1, "")))
    with pytest.raises(BadCheckpoint, match="1 have another first image in data.train: id01 ·"):
        trainer.restore(altered(run / "last.pt", lambda s: s["meta"]["sample"].__setitem__(1, "0" * 32)))


@pytest.mark.parametrize("version", [1, 2])
def test_a_run_resumes_in_the_order_that_it_began_with(config_file, monkeypatch, version):
    def weights(folder):
        state = load_checkpoint(folder / "last.pt")
        assert state["meta"]["order"] == version
        return torch.cat([value.flatten() for value in state["model"].values()])

    monkeypatch.setattr("sphereface.training.training_set.NEWEST", version)
    whole = weights(train(config_file))
    killed = train(config_file, stop_at=9)  # in the third epoch
    if version == 1:
        altered(killed / "last.pt", lambda s: s["meta"].pop("order"))  # as an earlier build saves it
    monkeypatch.setattr("sphereface.training.training_set.NEWEST", 2)
    assert torch.equal(weights(train(config_file, resume=str(killed))), whole)


def test_a_new_run_has_the_newest_order_and_the_order_matters(config_file, monkeypatch):
    new = load_checkpoint(train(config_file, "train.steps=2") / "last.pt")
    monkeypatch.setattr("sphereface.training.training_set.NEWEST", 1)
    old = load_checkpoint(train(config_file, "train.steps=2") / "last.pt")
    assert (new["meta"]["order"], old["meta"]["order"]) == (2, 1)
    assert not torch.equal(new["head"]["weight"], old["head"]["weight"])


def test_an_order_of_a_later_version_is_refused(finished, run):
    altered(run / "step-00000004.pt", lambda s: s["meta"].__setitem__("order", 3))
    before = contents(run)
    message = r"meta.order: got 3, an order of images of a later version · allowed: 1, 2 · .*train.init_from=/"
    with pytest.raises(UserError, match=message):
        run_training(str(finished), SHORT, resume=str(run), device="cpu")
    assert contents(run) == before


def test_every_form_of_the_same_images_has_the_same_sample(faces, tmp_path):
    folder = faces / "train"
    images = sorted(folder.rglob("*.png"))
    lines = [f"{path} {int(path.parent.name[2:])}" for path in images]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in images:
            archive.write(path, str(path.relative_to(folder)))
    source = open_source(str(folder))
    pack(source, tmp_path / "rec" / "train.rec")
    expected = sample_of(source)
    more, counts = more_samples_of(source), counts_of(source)
    assert len({*expected, *more}) == 10
    assert all(len(digest) == 32 for digest in expected)
    for form in ("list.txt", "all.zip", "rec"):
        same = open_source(str(tmp_path / form))
        assert (sample_of(same), more_samples_of(same), counts_of(same)) == (expected, more, counts)


def test_the_sample_is_spread_evenly():
    assert sampled_labels(3) == [0, 1, 2]
    assert sampled_labels(1000) == list(range(1000))
    assert sampled_labels(2500)[:4] == [0, 2, 5, 7]
    assert sampled_labels(10**6) == list(range(0, 10**6, 1000))


# ---------------------------------------------------------------- auto


def unfinished(config_file: Path, name: str, started: object, *overrides: str) -> Path:
    config = load(config_file, *SHORT, *overrides)
    path = Path(config.runs_dir) / config.name / name
    path.mkdir(parents=True)
    run = RunFolder(path)
    run.write_start(config, {})
    write_whole(path / "run.json", json.dumps({"status": "stopped", "started": started}))
    return path


def auto(config_file: Path, *overrides: str) -> Path | None:
    found = RunFolder.find("auto", load(config_file, *SHORT, *overrides))
    return None if found is None else found[0].path


def test_auto_takes_the_newest_run_across_time_zones(config_file):
    unfinished(config_file, "b", "2026-03-01T10:00:00+0000")
    newest = unfinished(config_file, "a", "2026-03-01T06:00:00-0500")  # 11:00 UTC
    unfinished(config_file, "c", "2026-03-01T12:00:00+0900")  # 03:00 UTC
    for name, started in enumerate(
        (None, 5, "nonsense", ["x"], "0001-01-01T00:00:00+2359", "9999-12-31T23:59:59-2359")
    ):
        unfinished(config_file, f"z{name}", started)
    assert auto(config_file) == newest


def test_of_runs_begun_in_one_second_auto_takes_the_last(config_file, monkeypatch, caplog):
    config = load(config_file, *SHORT)
    clock = SimpleNamespace(strftime=lambda _: "20260301-100000")  # for the names of the folders
    monkeypatch.setattr("sphereface.training.run_folder.time", clock)
    for number in range(12):  # as text, -10 is before -2
        run = RunFolder.create(config)
        run.write_start(config, {})
        assert run.path.name == "20260301-100000" + (f"-{number}" if number else "")
        assert auto(config_file) == run.path
    assert "same time" not in caplog.text


def test_of_a_run_and_its_copies_auto_takes_the_one_with_the_most_steps(config_file, caplog):
    start = "2026-03-01T10:00:00+0000"
    unfinished(config_file, "20260228-100000", "2026-02-28T10:00:00+0000")
    run = unfinished(config_file, "20260301-100000", start)
    (run / "step-00000004.pt").write_bytes(b"of step 4")
    with pytest.raises(BadCheckpoint):  # the one whose checkpoint is no checkpoint was taken
        auto(config_file)
    assert "same time" not in caplog.text
    (run / "step-00000004.pt").rename(run / "step-4.pt")
    backup = unfinished(config_file, "20260301-100000-backup", start)
    assert auto(config_file) == run  # with as many steps
    caplog.clear()
    save_checkpoint(backup / "step-00000004.pt", {"meta": {"step": 4}}, {})
    unfinished(config_file, "20260301-100000-1", start, "seed=5")  # another run, begun in this second
    assert auto(config_file) == backup
    line = f"resume auto: {run} started at the same time as {backup}, so one may be a copy · of the unfinished ones, "
    assert caplog.text.count(line) == 1
    (run / "run.json").write_text(json.dumps({"status": "finished", "started": start}))
    caplog.clear()
    assert auto(config_file) == backup
    assert caplog.text.count(line) == 1
    for path in (run, backup):
        (path / "run.json").write_text(json.dumps({"status": "stopped"}))
    caplog.clear()
    assert auto(config_file).name == "20260228-100000"
    assert "same time" not in caplog.text


@pytest.mark.parametrize(
    ("file", "job"),
    [
        ("/tmp/torchelastic_ab/none_cd/attempt_0/0/error.json", "/tmp/torchelastic_ab/none_cd"),
        ("logs/my run_x/attempt_12/7/error.json", "logs/my run_x"),
        ("/opt/ml/output/data/0/error.json", None),
        ("/dev/null", None),
        ("", None),
        (None, None),
    ],
)
def test_a_torchrun_job_is_known_by_the_folder_of_its_logs(monkeypatch, file, job):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    if file is not None:
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", file)
    assert torchrun_job() == job


def test_a_restart_by_torchrun_does_not_train_a_finished_run_again(config_file, monkeypatch, capsys, tmp_path):
    def start(job: str | None, attempt: int, resume: str | None = "auto") -> Path | None:
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", f"{tmp_path}/{job}/attempt_{attempt}/0/error.json" if job else "")
        capsys.readouterr()
        return run_training(str(config_file), SHORT, resume=resume, device="cpu")

    older, first = start("none_x", 0).parent, start("none_a", 0).parent
    assert first != older  # another job trains anew
    assert start("none_a", 1).parent == first
    said = capsys.readouterr().err
    assert f"resume auto: this torchrun job finished {first} before it was restarted" in said
    assert f"{first}: the run is finished, nothing is left to train: {first / 'best.pt'}" in said
    assert start("none_a", 1, resume=None).parent not in (first, older)  # nobody wants to resume
    assert start("none_b", 1).parent not in (first, older)
    assert start(None, 0).parent not in (first, older)
    for run in (first, older):
        (run / "best.pt").unlink()
    assert start("none_x", 1).parent != older  # its result is gone


@pytest.mark.parametrize("name", ["1e5", "010", "yes", "null", "2024-01-01"])
def test_the_configuration_of_a_run_can_be_used_again(config_file, name):
    given = (f'name="{name}"', f'eval.sets={{"{name}": pairs}}', f'eval.select="{name}"')
    path = unfinished(config_file, "a", "2026-03-01T10:00:00+0000", *given)
    assert load(path / "config.yaml") == load(config_file, *SHORT, *given)
    assert auto(config_file, *given) == path


def test_auto_knows_a_path_in_another_spelling(config_file, faces, monkeypatch):
    path = unfinished(config_file, "a", "2026-03-01T10:00:00+0000")
    monkeypatch.chdir(faces)
    assert auto(config_file, f"data.train={faces}/train/") == path
    assert auto(config_file, "data.train=./train") == path
    assert auto(config_file, f"data.train={faces}/pairs/../train") == path
    assert auto(config_file, f"data.train={faces}/pairs") is None


PATHS = {
    "runs_dir", "data.train", "data.root", "data.exclude_file", "train.init_from",
    "train.teacher.embeddings", "train.teacher.onnx", "train.teacher.checkpoint",
}  # fmt: skip
NAMES = {"name", "eval.select", "loss.name", "model.name"}  # keys of texts without choices that are no paths


def texts_in(section: type, prefix: str = "") -> set[str]:
    """Keys that take any text."""
    hints, found = typing.get_type_hints(section), set[str]()
    for field in dataclasses.fields(section):
        kind, key = hints[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(kind):
            found |= texts_in(kind, f"{key}.")
        elif str in (kind, *typing.get_args(kind)) and typing.get_origin(kind) not in (tuple, dict):
            found |= set() if field.metadata.get("choices") else {key}
    return found


def test_every_path_of_a_configuration_counts_in_any_spelling(config_file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert texts_in(Config) - NAMES == PATHS
    for key in sorted(PATHS):
        more = ("train.teacher.losses={cosine: 1}",) if "teacher" in key else ()
        one, other, third = (
            what_trains(load(config_file, *more, f"{key}={spelling}"))
            for spelling in ("a/x.npz", f"{tmp_path}/b/..//a/x.npz", "a/y.npz")
        )
        assert one == other, key
        assert one != third, key


def test_the_rounding_of_products_on_cuda_keeps_no_run_from_resuming(config_file):
    one, other = (what_trains(load(config_file, f"train.matmul={matmul}")) for matmul in ("fp32", "tf32"))
    assert one == other
    assert one != what_trains(load(config_file, "train.precision=bf16"))


def test_a_new_run_says_what_keeps_it_from_resuming(config_file, caplog):
    unfinished(config_file, "far", "2026-03-02T10:00:00+0000", "train.lr=0.01", "seed=7")
    unfinished(config_file, "near", "2026-03-01T10:00:00+0000", "seed=7")
    with caplog.at_level(logging.INFO):
        assert auto(config_file) is None
    assert "resume auto: no unfinished run of this configuration, starting a new one" in caplog.text
    assert "tiny/near, has other settings: seed: 7 → 0 · to resume it anyway: --resume" in caplog.text


# ---------------------------------------------------------------- a stranger's folder


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("metrics.jsonl", fifo),
        (".lock", fifo),
        ("step-00000009.pt", fifo),
        ("train.log", lambda path: (path.unlink(), path.symlink_to("/dev/null"))),
        ("crops.png", lambda path: (path.unlink(missing_ok=True), path.symlink_to(path.with_name("run.json")))),
        ("best.pt", lambda path: (path.unlink(missing_ok=True), path.mkdir())),
    ],
)
def test_a_folder_in_which_a_write_would_end_elsewhere_is_refused(finished, run, name, make):
    make(run / name)
    before = (run / "config.yaml").read_bytes(), (run / "run.json").read_bytes()
    with pytest.raises(UserError, match=f"{name}: not a regular file"):
        train(finished, *SHORT, resume=str(run / "step-00000004.pt"))
    assert before == ((run / "config.yaml").read_bytes(), (run / "run.json").read_bytes())


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"a": 1, "a": 2}', "\x00", '"x"'])
def test_a_run_json_of_something_else_is_no_run_folder(finished, run, text):
    (run / "run.json").write_text(text)
    with pytest.raises(UserError, match="is not a run folder: its run.json is missing or damaged"):
        RunFolder.find(str(run), load(finished, *SHORT))


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "n" * 300 + "/x.pt"])
def test_a_name_that_no_file_can_have_is_one_line(finished, name):
    with pytest.raises(UserError, match="cannot be read"):
        RunFolder.find(name, load(finished, *SHORT))


def test_metrics_of_something_else_are_dropped_line_by_line(tmp_path):
    good = b'{"step": 1, "train/loss": 2.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes(good + b'{"step": "x"}\n[1]\n7\n{"step": 2, "x": "\xc3\n' + b"[" * 10**5)
    with monitor.Monitor(Session(tmp_path, step=5), ["jsonl"]):
        pass
    assert (tmp_path / "metrics.jsonl").read_bytes() == good


# ---------------------------------------------------------------- disks


def full(*_args, **_kwargs):
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_at_the_start_is_one_line_and_leaves_no_folder(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "write_whole", full)
    with pytest.raises(UserError, match="run folder cannot be written .No space left on device. · make room"):
        run_training(str(finished), [*SHORT, f"runs_dir={tmp_path / 'r'}"], device="cpu")
    assert list((tmp_path / "r" / "tiny").iterdir()) == []


def test_a_disk_that_is_full_at_the_end_does_not_hide_the_reason(finished, tmp_path, monkeypatch):
    def last_step(self):
        monkeypatch.setattr(run_folder, "write_whole", full)
        monkeypatch.setattr(RunFolder, "save", full)
        return 1.0

    monkeypatch.setattr(Trainer, "share", last_step)
    with pytest.raises(UserError, match="checkpoint could not be written .*No space left .* make room, then"):
        run_training(str(finished), [*SHORT, f"runs_dir={tmp_path / 'r'}"], device="cpu")


def test_figures_that_cannot_be_written_from_the_start_only_warn(tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        watch = monitor.Monitor(Session(tmp_path), ["jsonl"])
    with watch:
        watch.scalars(1, {"train/loss": 2.0}, images_seen=8)
    assert caplog.text.count("could not be written") == 1
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["train/loss"] == 2.0
