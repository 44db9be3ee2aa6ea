"""``train.init_from`` and ``train.init_head``: which rows of a head are kept, and what is refused."""

from __future__ import annotations

import hashlib
import logging
import shutil

import pytest
import torch

from sphereface.checkpoint import load_checkpoint, save_checkpoint
from sphereface.errors import UserError
from sphereface.losses.distributed_head import ShardedHead
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin
from sphereface.losses.shards import Shard
from sphereface.losses.whole_head import take_known
from sphereface.training.starting import start_from
from sphereface.training.trainer import Trainer
from sphereface.weights import DEFAULT

from ..images import make_training_set
from .runs import CPU, load, train


@pytest.fixture
def first(config_file):
    """A checkpoint of id00 … id04."""
    return train(config_file, "train.steps=2", "train.milestones=[]") / "last.pt"


def started(config_file, checkpoint, *more):
    """A trainer's fresh head rows, its head after the start, and its identities."""
    trainer = Trainer(load(config_file, f"train.init_from={checkpoint}", *more), CPU)
    fresh = trainer.learner.head.weight.detach().clone()
    line, warnings = start_from(trainer.learner, checkpoint, trainer.source.class_names)
    logging.getLogger("sphereface").info("%s", line)
    assert warnings == []
    return fresh, trainer.learner.head.weight.detach(), trainer.source.class_names


def without_names(checkpoint, path):
    state = load_checkpoint(checkpoint)
    del state["meta"]["class_names"]
    save_checkpoint(path, {key: value for key, value in state.items() if key not in ("format", "id")}, {})
    return path


@pytest.mark.parametrize("how", ["keep", "auto"])
def test_rows_of_known_identities_are_taken_by_name(config_file, first, tmp_path, how, caplog):
    other = make_training_set(tmp_path / "other", 7, 4, size=(32, 32))
    (other / "id01").rename(other / "new")  # id00, id02 … id06, new; the checkpoint knows id00 … id04
    with caplog.at_level(logging.INFO):
        fresh, head, names = started(config_file, first, f"data.train={other}", f"train.init_head={how}")
    theirs = load_checkpoint(first)
    row_of = {name: theirs["head"]["weight"][k] for k, name in enumerate(theirs["meta"]["class_names"])}
    kept = [name for k, name in enumerate(names) if torch.equal(head[k], row_of.get(name, torch.zeros(8)))]
    left = [name for k, name in enumerate(names) if torch.equal(head[k], fresh[k])]
    assert (kept, left) == (["id00", "id02", "id03", "id04"], ["id05", "id06", "new"])
    assert "the head has the rows of 4 of 7 identities, the rest start fresh" in caplog.text


def test_the_network_that_ships_is_named(config_file, first, monkeypatch):
    monkeypatch.setattr("sphereface.weights.CHECKPOINT", first)
    trainer = Trainer(load(config_file, f"train.init_from={DEFAULT}"), CPU)
    trainer.begin()
    weights = load_checkpoint(first)["model"]
    assert all(torch.equal(value, weights[name]) for name, value in trainer.learner.model.state_dict().items())


def test_the_file_of_the_first_weights_is_recorded_also_after_a_resume(config_file, first):
    start = (f"train.init_from={first}", "train.steps=4", "train.milestones=[]", "checkpoint.every_steps=2")
    wanted = {"file": "last.pt", "sha256": hashlib.sha256(first.read_bytes()).hexdigest()}
    run = train(config_file, *start)
    assert load_checkpoint(run / "last.pt")["meta"]["init_from"] == wanted
    train(config_file, *start[1:], "train.steps=6", resume=str(run))
    state = load_checkpoint(run / "last.pt")["meta"]
    assert (state["step"], state["init_from"]) == (6, wanted)
    older = {key: value for key, value in load_checkpoint(run / "last.pt").items() if key not in ("format", "id")}
    older["meta"] = {**state, "config": load(config_file, *start).to_dict()}
    del older["meta"]["init_from"]  # as an earlier version wrote it
    save_checkpoint(run / "last.pt", older, {})
    trainer = Trainer(load(config_file, *start[1:], "train.steps=6"), CPU)
    trainer.restore(run / "last.pt")
    assert trainer.state("x")["meta"]["init_from"] == {}
    before = load_checkpoint(first)["meta"]
    assert ("init_from" in before, before["numbered"]) == (False, [])  # its identities have names


def test_the_processes_compare_what_they_start_from(config_file, first, monkeypatch):
    """All of them, so that none trains on from a checkpoint of its own."""
    from sphereface.training import trainer as module

    compared = []
    monkeypatch.setattr(module, "check_start", lambda _, file, sha256: compared.append((file, sha256)))
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    Trainer(load(config_file, f"train.init_from={first}"), CPU).begin()
    Trainer(load(config_file), CPU).begin(first)
    assert compared == [("train.init_from", digest), (str(first), digest)]


def test_a_start_that_changed_since_is_told_at_a_resume(config_file, first, tmp_path, caplog):
    start = tmp_path / "pre.pt"
    shutil.copy(first, start)
    more = (f"train.init_from={start}", "train.steps=2", "train.milestones=[]", "train.max_minutes=null")
    run = train(config_file, *more)

    def said():
        caplog.clear()
        train(config_file, *more[:1], "train.steps=4", *more[2:], resume=str(run))
        return f"train.init_from: {start} is another file than when the run of {run}/step-0" in caplog.text

    assert not said()
    shutil.copy(run / "last.pt", start)  # pretraining went on
    assert said()
    start.unlink()  # not needed any more
    assert not said()
    start.mkdir()
    assert not said()


def test_the_people_of_the_first_training_are_remembered_also_after_a_resume(config_file, first, tmp_path):
    other = make_training_set(tmp_path / "other", 2, 4, size=(32, 32))
    (other / "id01").rename(other / "new")
    start = (f"train.init_from={first}", f"data.train={other}", "train.steps=2", "train.milestones=[]")
    run = train(config_file, *start, "train.init_head=new")
    assert load_checkpoint(run / "last.pt")["meta"]["more_people"] == ["id01", "id02", "id03", "id04"]
    train(config_file, *start[1:2], "train.steps=3", "train.milestones=[]", resume=str(run))
    state = load_checkpoint(run / "last.pt")["meta"]
    assert (state["step"], state["more_people"]) == (3, ["id01", "id02", "id03", "id04"])
    third = Trainer(load(config_file, f"train.init_from={run / 'last.pt'}"), CPU)
    third.begin()
    assert third.state("x")["meta"]["more_people"] == ["new"]  # it trains on id00 … id04


def test_new_takes_none(config_file, first):
    fresh, head, _ = started(config_file, first)
    assert torch.equal(fresh, head)


def test_without_names_keep_goes_by_number_and_auto_starts_fresh(config_file, first, tmp_path, caplog):
    unnamed = without_names(first, tmp_path / "unnamed.pt")
    _, head, _ = started(config_file, unnamed, "train.init_head=keep")
    assert torch.equal(head, load_checkpoint(first)["head"]["weight"])
    with caplog.at_level(logging.INFO):
        fresh, head, _ = started(config_file, unnamed, "train.init_head=auto")
    assert torch.equal(fresh, head)
    assert "the head is new, because the checkpoint does not name its identities" in caplog.text


@pytest.mark.parametrize("how", ["keep", "auto"])
@pytest.mark.parametrize("data", ["same", "one more", "other", "names"])
def test_rows_by_numbers_of_another_set_are_a_warning(config_file, tmp_path, how, data):
    folders = {1: tmp_path / "set1", 2: tmp_path / "set2"}
    for k, each in enumerate(sorted(make_training_set(tmp_path / "whole", 8, 4, size=(32, 32)).iterdir())):
        name = f"p{k % 4}" if data == "names" else str(k % 4)
        shutil.copytree(each, folders[1 + k // 4] / name)
    settings = ("train.steps=1", "train.milestones=[]", "eval.sets={}", "eval.select=null")
    first = train(config_file, f"data.train={folders[1]}", *settings) / "last.pt"
    if data == "one more":
        (folders[1] / "3").rename(folders[1] / "4")
        (folders[2] / "3").rename(folders[1] / "3")
    own = folders[2 if data in ("other", "names") else 1]
    trainer = Trainer(load(config_file, f"data.train={own}", f"train.init_from={first}", f"train.init_head={how}"), CPU)
    trainer.begin()
    said = [line for _, line in trainer._news if "init_head" in line]
    assert said == [
        f"train.init_head: the rows from {first} are of identities with equal numbers, and none of the compared images "
        "of data.train is one of its training set · allowed: numbers of one set · otherwise set train.init_head=new"
    ] * (data == "other")


def test_what_keep_cannot_keep_is_one_line(config_file, first, tmp_path):
    other = make_training_set(tmp_path / "other", 6, 4, size=(32, 32))
    unnamed = without_names(first, tmp_path / "unnamed.pt")
    keep = (f"data.train={other}", "train.init_head=keep")
    with pytest.raises(UserError, match="init_head: got keep, but .* has 5 of them where data.train has 6"):
        started(config_file, unnamed, *keep)
    for name in sorted(other.iterdir()):
        name.rename(other / f"other-{name.name}")
    with pytest.raises(UserError, match="has none of the identities of data.train · allowed there: new"):
        started(config_file, first, *keep)
    state = {key: value for key, value in load_checkpoint(first).items() if key not in ("format", "id", "head")}
    save_checkpoint(tmp_path / "headless.pt", state, {})
    with pytest.raises(UserError, match="has no head"):
        started(config_file, tmp_path / "headless.pt", *keep)


def test_another_channel_order_or_scale_is_refused(config_file, first):
    with pytest.raises(UserError, match=r"reads \(pixel − 127.5\) / 128 in BGR, .* in RGB · set model.input_order=bgr"):
        started(config_file, first, "model.input_order=rgb")
    with pytest.raises(UserError, match=r"gives it pixel / 128 in BGR"):
        started(config_file, first, "model.input_mean=0")


def test_another_network_of_the_same_shapes_is_named(config_file, first, tmp_path, caplog):
    state = {key: value for key, value in load_checkpoint(first).items() if key not in ("format", "id")}
    model = {key: state["meta"]["config"]["model"][key] for key in ("input_size", "input_order", "input_std")}
    state["meta"]["config"]["model"] = {"name": "sfnet", **model}
    save_checkpoint(tmp_path / "other.pt", state, {})
    trainer = Trainer(load(config_file, f"train.init_from={tmp_path / 'other.pt'}"), CPU)
    with caplog.at_level(logging.WARNING):
        trainer.begin()
        trainer.log_begin()
    (line,) = (each.getMessage() for each in caplog.records if "init_from" in each.getMessage())
    assert line.endswith(
        "is of another network, whose weights fit but may mean something else: model.name: 'sfnet' → 'spherenet'"
    )


@pytest.mark.parametrize("loss", ["softmax", "sphereface2", "adaface"])
def test_biases_and_running_figures_of_a_head_are_kept_too(config_file, loss):
    """softmax has a bias for each class, sphereface2 one for all, adaface running statistics of the norms."""
    first = train(config_file, "train.steps=4", "train.milestones=[]", f"loss.name={loss}") / "last.pt"
    trainer = Trainer(load(config_file, f"loss.name={loss}", f"train.init_from={first}", "train.init_head=keep"), CPU)
    start_from(trainer.learner, first, trainer.source.class_names)
    theirs, ours = load_checkpoint(first)["head"], trainer.learner.head.state_dict()
    assert theirs.keys() == ours.keys()
    assert len(theirs) > 1
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())


def test_what_the_other_head_lacks_is_named(config_file, first, caplog):
    with caplog.at_level(logging.INFO):
        started(config_file, first, "train.init_head=keep", "loss.name=softmax")
    assert "5 of 5 identities, the rest start fresh; its bias starts fresh too" in caplog.text


def test_keep_without_a_start_is_refused(config_file):
    with pytest.raises(UserError, match="train.init_head: got keep without train.init_from"):
        load(config_file, "train.init_head=keep")


def test_another_eps_is_refused(config_file, first):
    with pytest.raises(UserError, match=r"has model.batch_norm.eps None, this configuration 0.1 · set .*eps=null"):
        started(config_file, first, "model.batch_norm.eps=0.1")


def test_three_equal_numbers_are_one(config_file, first):
    started(config_file, first, "model.input_mean=[127.5, 127.5, 127.5]")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda s: s.update(head=[1]), "its weights are not tensors with names"),
        (lambda s: s["meta"].update(class_names=5), "meta.class_names: got 5 · allowed: a list of texts"),
        (lambda s: s["meta"].update(class_names=["id00"]), "a head of 5 rows, but another number of names"),
        (lambda s: s["head"]["weight"].fill_(float("nan")), "not finite"),
        (lambda s: s.update(meta=None), "meta: got None · allowed: a mapping"),
    ],
)
def test_a_damaged_start_is_one_line(config_file, first, tmp_path, damage, reason):
    state = load_checkpoint(first)
    damage(state)
    bad = tmp_path / "bad.pt"
    save_checkpoint(bad, {key: value for key, value in state.items() if key not in ("format", "id")}, {})
    with pytest.raises(UserError, match=reason):
        started(config_file, bad, "train.init_head=keep")


def test_each_rank_fills_its_own_rows():
    margin = make_margin("cosface")
    whole = torch.arange(20.0).view(10, 2)
    rows = torch.tensor([9, -1, 0, 3, -1, 5, 2])
    for rank in range(3):
        head = MarginHead(2, 7, margin, shard=Shard.of(7, rank, 3))
        before = head.weight.detach().clone()
        assert take_known(head, {"weight": whole}, rows) == []
        for k, label in enumerate(range(head.shard.start, head.shard.stop)):
            expected = before[k] if rows[label] < 0 else whole[rows[label]]
            assert torch.equal(head.weight[k], expected)
    assert issubclass(ShardedHead, MarginHead)
