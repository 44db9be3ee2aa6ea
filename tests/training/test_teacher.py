"""``train.teacher``: whole runs that learn from a table, from a checkpoint, and from an ONNX file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sphereface import files
from sphereface.checkpoint import BadCheckpoint, load_checkpoint, save_checkpoint
from sphereface.cli import main
from sphereface.config_sections import TeacherConfig
from sphereface.data.sources import open_source
from sphereface.errors import ConfigError, UserError
from sphereface.losses.teacher import LEAST_IMAGES
from sphereface.training import teacher as teacher_module
from sphereface.training import teacher_table
from sphereface.training.distributed import World
from sphereface.training.dry_run import dry_run
from sphereface.training.replay import replay
from sphereface.training.teacher import Teacher, open_teacher
from sphereface.training.trainer import Trainer
from sphereface.weights import CHECKPOINT, DEFAULT

from ..data.shards import write_tar
from ..images import make_training_set
from .runs import CPU, load, metrics_of, train

T = 6
EVERY_LOSS = (
    "train.teacher.losses={cosine: 2, l2: 0.5, rkd-distance: 1, rkd-angle: 1, similarity: 3, correlation: 4, queue: 1}"
)
SHORT = ("train.steps=6", "train.milestones=[]")


def names_of(faces: Path) -> list[str]:
    return sorted(str(path.relative_to(faces / "train")) for path in (faces / "train").rglob("*.png"))


@pytest.fixture
def table(faces, tmp_path) -> Path:
    """A table of random embeddings of the training set, in another order than the set's."""
    names = names_of(faces)
    assert len(names) == 35
    rows = np.random.default_rng(5).standard_normal((len(names), T)).astype(np.float16)
    np.savez(tmp_path / "teacher.npz", names=np.array(names)[::-1], embeddings=rows[::-1])
    return tmp_path / "teacher.npz"


@pytest.fixture
def told(table) -> tuple[str, ...]:
    return (f"train.teacher.embeddings={table}", EVERY_LOSS, "train.teacher.queue_size=20", *SHORT)


def exported(checkpoint: Path, output: Path) -> Path:
    pytest.importorskip("onnxscript", reason="pip install '.[export]'")
    assert main(["export", str(checkpoint), "--format", "onnx", "--output", str(output)]) == 0
    return output


def sha_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def checkpoint_of(config_file: Path) -> Path:
    return train(config_file, "train.steps=2", "train.milestones=[]", "name=master", "seed=3") / "last.pt"


def test_each_image_of_a_batch_has_the_row_of_its_own_name(config_file, told, table, faces):
    trainer = Trainer(load(config_file, *told), CPU)
    rows = dict(zip(*(np.load(table)[key].tolist() for key in ("names", "embeddings")), strict=True))
    feed = trainer.feed()
    for _ in range(6):  # past the end of an epoch
        batch = next(feed)
        names = [str(Path(trainer.source.name(i)).relative_to(faces / "train")) for i in batch.indices.tolist()]
        np.testing.assert_array_equal(batch.teacher.numpy(), np.array([rows[name] for name in names], dtype=np.float32))
        assert [trainer.source.class_names[label] for label in batch.labels] == [name.split("/")[0] for name in names]
    feed.close()


def test_an_image_that_stands_in_for_a_bad_one_brings_its_own_row(config_file, told, faces, tmp_path):
    root = make_training_set(tmp_path / "some", 5, 7, size=(32, 32))
    bad = sorted(root.rglob("*.png"))[3]
    bad.write_bytes(b"no image")
    trainer = Trainer(load(config_file, *told, f"data.train={root}", "data.max_bad_share=1"), CPU)
    feed = trainer.feed()
    seen = [next(feed) for _ in range(5)]
    feed.close()
    assert 3 not in torch.cat([batch.indices for batch in seen]).tolist()
    for batch in seen:
        np.testing.assert_array_equal(batch.teacher.numpy(), trainer.data.teacher.table.at(batch.indices.numpy()))


def test_a_run_goes_on_to_the_bit_with_projection_and_queue(config_file, told):
    whole = load_checkpoint(train(config_file, *told, "name=whole", "checkpoint.every_steps=3") / "last.pt")
    died = train(config_file, *told, "name=died", "checkpoint.every_steps=3", stop_at=4)
    again = load_checkpoint(train(config_file, *told, "name=died", resume=str(died)) / "last.pt")
    assert whole["teacher"].keys() == {"weight", "queue"}
    for part in ("model", "head", "teacher"):
        for name, value in whole[part].items():
            assert torch.equal(again[part][name], value), name
    velocity = whole["optimizer"]["teacher.weight"]["velocity"]
    assert torch.equal(again["optimizer"]["teacher.weight"]["velocity"], velocity)
    assert bool(velocity.any())


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ("l2: 1", "l2: 1, queue: 1", r"^train.teacher.losses: .*last.pt has no teacher.queue, which these losses need"),
        ("l2: 1, queue: 1", "l2: 1", r"^train.teacher.losses: .* has a teacher.queue, which these losses do not use"),
        (
            "similarity: 1",
            "similarity: 1, l2: 1",
            r"^train.teacher.losses: .* has no teacher.weight, which these losses",
        ),
        (
            "queue: 1}",
            "queue: 1}; train.teacher.queue_size=30",
            r"^train.teacher.queue_size: got 30, .*last.pt has a queue of 20 · resume with train.teacher.queue_size of "
            r"that run, or start a new run from its weights: train.init_from=.*last.pt, without --resume$",
        ),
    ],
)
def test_other_parts_of_a_teacher_are_named_by_their_key(config_file, told, before, now, message):
    def losses(text):
        first, _, size = text.removesuffix("}").partition("}; ")
        return (*told, f"train.teacher.losses={{{first}}}", *[size] * bool(size))

    run = train(config_file, *losses(before))
    with pytest.raises(BadCheckpoint, match=message):
        train(config_file, *losses(now), resume=str(run / "last.pt"))


def near(found: torch.Tensor, wanted: torch.Tensor, name: str, of: torch.Tensor | None = None) -> None:
    """Whether gradients are equal but for rounding, a part in 10⁵ of the largest."""
    largest = float((wanted if of is None else of).abs().max())
    assert float((found - wanted).abs().max()) <= 1e-5 * largest, name


def test_pieces_of_a_batch_give_the_gradient_of_the_whole_for_losses_of_single_images(config_file, told):
    single = (*told, "train.teacher.losses={cosine: 2, l2: 0.5}", "loss.name=cosface")
    gradients = []
    for pieces in ("null", "2"):
        trainer = Trainer(load(config_file, *single, f"train.micro_batch={pieces}"), CPU)
        feed = trainer.feed()
        trainer.learner.gradients(next(feed), trainer.setting())
        feed.close()
        gradients.append({name: p.grad.clone() for name, p in trainer.learner.named_parameters()})
    assert "teacher.weight" in gradients[0]
    for name, value in gradients[0].items():
        near(gradients[1][name], value, name)


def step_of(config_file, *overrides: str) -> dict[str, torch.Tensor]:
    trainer = Trainer(load(config_file, *overrides), CPU)
    feed = trainer.feed()
    trainer.learner.gradients(next(feed), trainer.setting())
    feed.close()
    return {name: p.grad.clone() for name, p in trainer.learner.named_parameters()}


def test_label_weight_scales_the_gradient_of_the_labels(config_file, told):
    of_labels = step_of(config_file, *SHORT)
    double = step_of(config_file, *told, "train.teacher.label_weight=2")
    single = step_of(config_file, *told)
    for name, gradient in of_labels.items():
        near(double[name] - single[name], gradient, name, of=double[name])


def test_without_labels_they_train_the_head_alone(config_file, told):
    none, single, of_labels = (
        step_of(config_file, *told, "train.teacher.label_weight=0"),
        step_of(config_file, *told),
        step_of(config_file, *SHORT),
    )
    assert torch.equal(none["head.weight"], of_labels["head.weight"])
    for name in of_labels:
        if name.startswith("model."):
            near(none[name] + of_labels[name], single[name], name)


def test_warm_up_raises_the_weight_from_step_to_step(config_file, told):
    trainer = Trainer(load(config_file, *told, "train.teacher.warmup_steps=4"), CPU)
    feed = trainer.feed()
    given = trainer.learner.forward(next(feed), trainer.setting())
    feed.close()
    share = float((given.total - given.output.loss).detach()) / float(given.teacher.detach())
    assert share == pytest.approx(0.2, rel=1e-4)  # as the learning rate's, which is whole after four steps


def one_for_each_identity(arrays):
    of = {name: row for row, name in enumerate(sorted({name.split("/")[0] for name in arrays["names"].tolist()}))}
    arrays["embeddings"] = np.stack([np.eye(T)[of[name.split("/")[0]]] for name in arrays["names"].tolist()])


def test_its_loss_is_in_the_figures_and_falls(config_file, told, table, caplog):
    altered(table, one_for_each_identity)
    caplog.set_level(logging.INFO)
    alone = ("train.steps=60", "train.teacher.losses={cosine: 10}", "train.teacher.label_weight=0", "train.lr=0.02")
    run = train(config_file, *told, *alone)
    losses = list(metrics_of(run, "train/teacher_loss").values())
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert any(" · loss " in line and " teacher " in line for line in caplog.messages)


def test_the_center_is_the_mean_over_all_images(config_file, told, table):
    trainer = Trainer(load(config_file, *told, "train.teacher.center=true"), CPU)
    rows = np.load(table)["embeddings"].astype(np.float64)[::-1]
    np.testing.assert_allclose(kept(trainer), rows - rows.mean(0), atol=1e-5)


def test_images_of_two_sources_with_one_name_have_rows_of_their_own(config_file, told, faces, tmp_path):
    other = make_training_set(tmp_path / "other", 5, 7, size=(32, 32))
    sources = f"data.train=[{faces / 'train'}, {other}]"
    with pytest.raises(UserError, match="has no embedding for 70 of the 70 images"):
        Trainer(load(config_file, *told, sources), CPU)
    names = [str(root / name) for root in (faces / "train", other) for name in names_of(faces)]
    rows = np.random.default_rng(8).standard_normal((70, T)).astype(np.float32)
    np.savez(tmp_path / "teacher.npz", names=np.array(names), embeddings=rows)
    trainer = Trainer(load(config_file, *told, sources), CPU)
    row_of = dict(zip(names, rows, strict=True))
    np.testing.assert_array_equal(kept(trainer), [row_of[trainer.source.name(index)] for index in range(70)])


def keep_step(trainer: Trainer, path: Path) -> float:
    """Keep the next step as the guard does; what the teacher's losses are in it."""
    feed = trainer.feed()
    batch = next(feed)
    feed.close()
    state = trainer.state("run")
    save_checkpoint(path, {**state, "batch": {**batch._asdict(), "augment": {}}, "position": 0}, {})
    return float(trainer.learner.forward(batch, trainer.setting()).teacher.detach())


def test_a_kept_step_is_repeated_with_its_teacher(config_file, told, table, tmp_path):
    loss = keep_step(Trainer(load(config_file, *told), CPU), tmp_path / "kept.pt")
    table.unlink()  # the batch holds its rows
    assert f"loss of the teacher       {loss:.6g}\n" in replay(tmp_path / "kept.pt", CPU)
    state = {key: value for key, value in load_checkpoint(tmp_path / "kept.pt").items() if key not in ("format", "id")}
    state["batch"]["teacher"] = None
    save_checkpoint(tmp_path / "kept.pt", state, {})
    with pytest.raises(BadCheckpoint, match="batch.teacher: not a floating point tensor of the shape"):
        replay(tmp_path / "kept.pt", CPU)


def test_two_images_never_have_one_row(config_file, told, faces, tmp_path):
    """``002.jpg``, another image, beside ``002.png``."""
    shutil.copytree(faces / "train", tmp_path / "both")
    image = sorted((tmp_path / "both").rglob("*.png"))[2]
    cv2.imwrite(str(image.with_suffix(".jpg")), cv2.imread(str(image))[:, ::-1])
    with pytest.raises(UserError, match=rf"one row, .*{image.stem}\.png, for two images .*\.jpg and .*\.png ·"):
        Trainer(load(config_file, *told, f"data.train={tmp_path / 'both'}"), CPU)


def test_two_members_of_one_name_never_have_one_row(config_file, told, faces, tmp_path):
    images = [(name, (faces / "train" / name).read_bytes()) for name in names_of(faces)]
    members = [m for name, data in images for m in ((name, data), (f"{name[:-4]}.cls", b"%d" % len(data)))]
    again = write_tar(tmp_path / "again.tar", [*members, *members[:2]])
    trainer = Trainer(load(config_file, *told, f"data.train={again}"), CPU)  # the same image twice: the same row
    assert len(trainer.source) == 36
    other = write_tar(tmp_path / "other.tar", [*members, (members[0][0], images[-1][1]), members[1]])
    with pytest.raises(UserError, match=rf"two images named .*{members[0][0]}, and a table has one row"):
        Trainer(load(config_file, *told, f"data.train={other}"), CPU)


def test_every_spelling_of_a_folder_and_a_list_of_it_find_their_rows(config_file, told, faces, table, monkeypatch):
    monkeypatch.chdir(faces)
    wanted = kept(Trainer(load(config_file, *told), CPU))
    for spelling in ("train", "./train", "train//", f"{faces.parent}//{faces.name}/./train"):
        trainer = Trainer(load(config_file, *told, f"data.train={spelling}"), CPU)
        np.testing.assert_array_equal(kept(trainer), wanted)
    altered(table, lambda arrays: arrays.update(root=np.array(str(faces / "train"))))  # as sphereface embed writes it
    text = "".join(f"train/{name} {number // 7}\n" for number, name in enumerate(names_of(faces)))
    Path("list.txt").write_text(text, encoding="utf-8")
    for spelling in ("list.txt", f"{faces}/list.txt"):
        trainer = Trainer(load(config_file, *told, f"data.train={spelling}"), CPU)
        np.testing.assert_array_equal(kept(trainer), wanted)


@pytest.mark.parametrize(("name", "least"), LEAST_IMAGES.items())
def test_a_loss_of_pairs_needs_a_pair_in_a_piece(config_file, told, name, least):
    losses = (*told, f"train.teacher.losses={{{name}: 1}}")
    message = f"train.micro_batch: got {least - 1}, so that {name} .* sees {least - 1} images .* {least} or more"
    with pytest.raises(UserError, match=message):
        Trainer(load(config_file, *losses, f"train.micro_batch={least - 1}"), CPU)
    with pytest.raises(UserError, match=f"train.batch_size: got {least - 1}"):
        Trainer(load(config_file, *losses, f"train.batch_size={least - 1}"), CPU)
    train(config_file, *losses, "train.batch_size=7", "train.micro_batch=6", "train.steps=2")  # a piece of one


def alike(arrays):
    arrays["embeddings"] = np.linspace(1, 2, 35)[:, None] * np.arange(1.0, T + 1)


@pytest.mark.parametrize("center", ["false", "true"])
def test_a_teacher_that_tells_no_images_apart_is_refused(config_file, told, table, center):
    altered(table, alike)
    with pytest.raises(UserError, match=r"teacher\.npz: all 35 embeddings have the same direction"):
        Trainer(load(config_file, *told, f"train.teacher.center={center}"), CPU)


# ---------------------------------------------------------------- a network as the teacher


def embedded(checkpoint_or_onnx: Path, config_file, kind: str, *more: str) -> Trainer:
    given = (f"train.teacher.{kind}={checkpoint_or_onnx}", "train.teacher.losses={correlation: 1}", *SHORT, *more)
    return Trainer(load(config_file, *given), CPU)


def kept(trainer: Trainer) -> np.ndarray:
    return trainer.data.teacher.table.at(slice(None))


def by_hand(checkpoint: Path, trainer: Trainer) -> np.ndarray:
    """What the network gives for image and mirror image, one at a time, added."""
    from sphereface.models import load_model

    model = load_model(checkpoint).model.eval()
    rows = []
    for index in range(len(trainer.source)):
        crop = trainer.data.crops.load(index).astype(np.float32)
        pixels = torch.from_numpy((crop - 127.5) / 128).permute(2, 0, 1)[None]
        with torch.no_grad():
            rows.append((model(pixels) + model(pixels.flip(3)))[0].numpy())
    return np.stack(rows)


def test_a_checkpoint_embeds_every_image_once(config_file, monkeypatch):
    master = checkpoint_of(config_file)
    trainer = embedded(master, config_file, "checkpoint")
    np.testing.assert_allclose(kept(trainer), by_hand(master, trainer), rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(teacher_table, "embed_batch", None)  # nothing is embedded again
    again = embedded(master, config_file, "checkpoint")
    np.testing.assert_array_equal(kept(again), kept(trainer))


def test_what_was_embedded_before_a_kill_is_not_embedded_again(config_file, monkeypatch):
    master = checkpoint_of(config_file)
    whole = embedded(master, config_file, "checkpoint", "runs_dir=" + str(config_file.parent / "other"))
    monkeypatch.setattr(teacher_table, "_BLOCK", 8)
    real, calls = teacher_table.embed_batch, []

    def dying(model, images, *rest):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(images))
        return real(model, images, *rest)

    monkeypatch.setattr(teacher_table, "embed_batch", dying)
    with pytest.raises(KeyboardInterrupt):
        embedded(master, config_file, "checkpoint")
    monkeypatch.setattr(
        teacher_table, "embed_batch", lambda m, images, *rest: calls.append(len(images)) or real(m, images, *rest)
    )
    again = embedded(master, config_file, "checkpoint")
    assert calls == [8, 8, 8, 8, 3]
    np.testing.assert_allclose(kept(again), kept(whole), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, np.nan, 1e30, 1.0])
def test_rows_that_were_changed_after_they_were_computed_are_embedded_again(config_file, monkeypatch, caplog, value):
    master = checkpoint_of(config_file)
    monkeypatch.setattr(teacher_table, "_BLOCK", 8)
    wanted = kept(embedded(master, config_file, "checkpoint")).copy()
    path = next((config_file.parent / "runs" / "teachers").glob("*.npy"))
    rows = np.load(path)
    rows[9] = value
    np.save(path, rows)
    np.testing.assert_array_equal(kept(embedded(master, config_file, "checkpoint")), wanted)
    assert f"{path}: 1 of 5 blocks of embeddings were changed after they were computed" in caplog.text


def test_the_file_of_another_teacher_is_not_believed(config_file):
    one, other = (train(config_file, *SHORT, f"name=t{seed}", f"seed={seed}") / "last.pt" for seed in (3, 4))
    wanted = kept(embedded(one, config_file, "checkpoint")).copy()
    path = next((config_file.parent / "runs" / "teachers").glob("*.npy"))
    embedded(other, config_file, "checkpoint")
    strange = next(each for each in path.parent.glob("*.npy") if each != path)
    for suffix in (".npy", ".done"):
        shutil.copy(strange.with_suffix(suffix), path.with_suffix(suffix))
    np.testing.assert_array_equal(kept(embedded(one, config_file, "checkpoint")), wanted)


def test_a_teacher_that_gives_nothing_is_named_with_its_file(config_file, monkeypatch):
    master = checkpoint_of(config_file)
    real = teacher_table.embed_batch
    monkeypatch.setattr(teacher_table, "embed_batch", lambda *args: real(*args) * 0)
    with pytest.raises(UserError, match=r"last\.pt, kept in .*teachers/last-\w+\.npy: 35 of 35 .* delete the file"):
        embedded(master, config_file, "checkpoint")


def test_processes_share_the_blocks_that_the_first_found_missing(config_file, monkeypatch):
    """Another process may have marked a block before this one looks."""

    class Second(World):
        def all_reduce_sum(self, *values):
            return list(values)

        def broadcast(self, value):
            return np.arange(5)

    master = checkpoint_of(config_file)
    monkeypatch.setattr(teacher_table, "_BLOCK", 8)
    trainer = embedded(master, config_file, "checkpoint")
    marks = next((Path(trainer.config.runs_dir) / "teachers").glob("*.done"))
    marks.write_bytes(marks.read_bytes()[:16] + bytes(4 * 16))
    shares = []
    monkeypatch.setattr(teacher_table, "_fill", lambda *args, **_: shares.append(args[4].tolist()))
    embedder = teacher_table.Embedder.of_checkpoint(master, device=CPU)
    with pytest.raises(UserError, match="is not the same folder for all processes"):
        teacher_table.kept_embeddings(embedder, trainer.source, Path(trainer.config.runs_dir), Second(1, 2))
    assert shares == [[1, 3]]


def test_a_full_disk_is_one_line_and_leaves_nothing(config_file, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    master = checkpoint_of(config_file)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="No space left on device"):
        embedded(master, config_file, "checkpoint")
    assert list((config_file.parent / "runs" / "teachers").iterdir()) == []


def test_two_runs_make_the_files_one_after_the_other(monkeypatch, tmp_path):
    path, events = tmp_path / "a.npy", []
    answers = iter([False, True])

    @contextlib.contextmanager
    def lock(_):
        events.append("lock")
        yield next(answers)
        events.append("unlock")

    monkeypatch.setattr(files, "locked", lock)
    monkeypatch.setattr(files.time, "sleep", lambda _: events.append("wait"))
    with files.locked_in_turn(path):
        events.append("make")
    assert events == ["lock", "unlock", "wait", "lock", "make", "unlock"]


def test_an_image_that_the_student_reads_and_the_teacher_does_not_is_named(config_file, faces, tmp_path):
    master = checkpoint_of(config_file)
    shutil.copytree(faces / "train", tmp_path / "mixed")
    narrow, broken = sorted((tmp_path / "mixed").rglob("*.png"))[3:5]
    cv2.imwrite(str(narrow), cv2.imread(str(narrow))[:, 4:28])
    broken.write_bytes(b"no image")  # neither reads it
    student = ("model.input_size=[32, 24]", "eval.sets={}", "eval.select=null", f"data.train={tmp_path / 'mixed'}")
    with pytest.raises(UserError, match="1 of 35 embeddings .* another size than the teacher reads") as error:
        embedded(master, config_file, "checkpoint", *student)
    assert str(narrow) in str(error.value)
    narrow.unlink()
    assert np.isnan(kept(embedded(master, config_file, "checkpoint", *student))).any(axis=1).sum() == 1


def test_a_kept_step_is_repeated_with_the_network_of_its_teacher(config_file, tmp_path):
    trainer = embedded(checkpoint_of(config_file), config_file, "checkpoint", "train.teacher.view=same")
    loss = keep_step(trainer, tmp_path / "kept.pt")
    assert f"loss of the teacher       {loss:.6g}\n" in replay(tmp_path / "kept.pt", CPU)


def test_an_onnx_file_is_a_teacher_too(config_file, tmp_path):
    master = checkpoint_of(config_file)
    trainer = embedded(exported(master, tmp_path / "master.onnx"), config_file, "onnx")
    np.testing.assert_allclose(kept(trainer), by_hand(master, trainer), rtol=1e-3, atol=1e-3)


def test_an_onnx_file_that_states_no_input_is_refused_in_the_words_of_a_configuration(config_file, tmp_path):
    path = exported(checkpoint_of(config_file), tmp_path / "master.onnx")
    import onnx

    stranger = onnx.load(path)
    del stranger.metadata_props[:]
    onnx.save(stranger, path)
    with pytest.raises(UserError) as refusal:
        embedded(path, config_file, "onnx")
    assert "train.teacher.input.order missing · give it, or train.teacher.input.spec " in str(refusal.value)
    embedded(path, config_file, "onnx", "train.teacher.input={order: bgr}")


def test_the_same_view_is_what_the_student_sees(config_file):
    master = checkpoint_of(config_file)
    trainer = embedded(master, config_file, "checkpoint", "train.teacher.view=same")
    feed = trainer.feed()
    batch = next(feed)
    feed.close()
    assert bool(batch.mirror.any())
    found = trainer.data.teacher.of_batch(batch)
    from sphereface.models import load_model

    model = load_model(master).model.eval()
    pixels = ((batch.images.float() - 127.5) / 128).permute(0, 3, 1, 2)
    pixels = torch.stack([one.flip(2) if mirror else one for one, mirror in zip(pixels, batch.mirror, strict=True)])
    with torch.no_grad():
        torch.testing.assert_close(found, model(pixels), rtol=1e-4, atol=1e-4)
    assert bool(torch.isfinite(trainer.learner.forward(batch, trainer.setting()).total))


def test_an_ensemble_teaches_one_network(config_file, tmp_path):
    """Its embedding has those of both networks, each of length 1."""
    parts = [
        train(config_file, "train.steps=2", "train.milestones=[]", f"name=part{seed}", f"seed={seed}") / "last.pt"
        for seed in (3, 4)
    ]
    assert main(["join", *map(str, parts), "--output", str(tmp_path / "both.pt")]) == 0
    trainer = embedded(tmp_path / "both.pt", config_file, "checkpoint", "train.teacher.losses={cosine: 1}")
    assert trainer.learner.teacher_head.weight.shape == (16, 8)
    single = [kept(embedded(part, config_file, "checkpoint")) for part in parts]
    found = kept(trainer)
    for columns, rows in zip((slice(0, 8), slice(8, 16)), single, strict=True):
        cosines = (
            (found[:, columns] * rows).sum(1) / np.linalg.norm(found[:, columns], axis=1) / np.linalg.norm(rows, axis=1)
        )
        assert cosines.min() > 0.8  # not 1: lengths of image and mirror image differ before they are added


def test_images_without_labels_lie_in_one_folder(config_file, told, faces, tmp_path):
    (tmp_path / "loose" / "all").mkdir(parents=True)
    for name in names_of(faces):
        (tmp_path / "loose" / "all" / name.replace("/", "-")).write_bytes((faces / "train" / name).read_bytes())
    table = tmp_path / "teacher.npz"
    altered(
        table, lambda arrays: arrays.update(names=np.array([f"all/{n.replace('/', '-')}" for n in arrays["names"]]))
    )
    told = (*told, f"data.train={tmp_path / 'loose'}", "train.teacher.label_weight=0")
    before = Trainer(load(config_file, *told), CPU).learner.model.state_dict()
    after = load_checkpoint(train(config_file, *told) / "last.pt")["model"]
    assert not torch.equal(after["fc5.weight"], before["fc5.weight"])


def test_a_dry_run_embeds_two_batches_and_says_how_long_the_rest_takes(config_file, monkeypatch):
    """Of 35 images in blocks of 8, the second block and the last, of 3, are kept: 24 are left.

    A clock gives each batch of 35 images 35 seconds.
    """
    master = checkpoint_of(config_file)
    given = (f"train.teacher.checkpoint={master}", EVERY_LOSS, *SHORT)
    real, calls, clock = teacher_table.embed_batch, [], iter(range(0, 10_000, 35))
    monkeypatch.setattr(teacher_table, "_BLOCK", 8)
    with monkeypatch.context() as patch:
        patch.setattr(teacher_table, "embed_batch", lambda *a: (calls.append(len(a[1])), real(*a))[1])
        patch.setattr(teacher_table.time, "perf_counter", lambda: next(clock))
        assert teacher_of(config_file, *given).left == (35, 35.0)
        assert calls == [35, 35]
        assert not list(config_file.parent.glob("runs/teachers/*"))
        Trainer(load(config_file, *given), CPU)
        (marks,) = config_file.parent.glob("runs/teachers/*.done")
        marks.write_bytes(bytes(16) + marks.read_bytes()[16:32] + bytes(32) + marks.read_bytes()[64:])
        assert teacher_of(config_file, *given).left == (24, 24.0)
    row = next(line for line in dry_run(str(config_file), given, device="cpu").splitlines() if "estimated" in line)
    assert re.search(r"without evaluations and checkpoints · before that, the teacher embeds 24 images in about", row)


def teacher_of(config_file: Path, *overrides: str) -> Teacher:
    """The teacher of a run that is only measured."""
    config = load(config_file, *overrides)
    found = open_teacher(config, open_source(config.data.train), CPU, World(), pretend=True)
    assert found is not None
    return found


def test_a_dry_run_refuses_crops_that_the_teacher_cannot_read_and_waits_for_nothing_kept(
    config_file, monkeypatch, tmp_path
):
    master = checkpoint_of(config_file)
    given = (f"train.teacher.checkpoint={master}", EVERY_LOSS, *SHORT)
    Trainer(load(config_file, *given), CPU)
    monkeypatch.setattr(teacher_table, "embed_batch", None)
    assert "the teacher embeds" not in dry_run(str(config_file), given, device="cpu")
    large = make_training_set(tmp_path / "large", 5, 7, size=(40, 40))
    with pytest.raises(UserError, match="reads crops of 32×32, 32 of 32 sampled images .* are unusable for it"):
        dry_run(str(config_file), (*given, f"data.train={large}", "model.input_size=[40, 40]"), device="cpu")


# ---------------------------------------------------------------- the head from the teacher's means


def test_the_head_starts_at_the_means_of_the_teacher(config_file, told, table, faces):
    trainer = Trainer(load(config_file, *told, "train.init_head=teacher"), CPU)
    trainer.begin()
    rows = np.load(table)["embeddings"].astype(np.float64)
    means = {}
    for name, row in zip(np.load(table)["names"].tolist(), rows, strict=True):
        means.setdefault(name.split("/")[0], []).append(row / np.linalg.norm(row))
    wanted = np.stack([np.sum(means[name], axis=0) for name in trainer.source.class_names])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    weight = trainer.learner.head.weight.detach().double().numpy()  # (5, 8), T = 6 of them used
    np.testing.assert_allclose(weight @ weight.T, wanted @ wanted.T, atol=1e-5)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.teacher.losses={cosin: 1}", "train.teacher.losses.cosin: unknown loss · did you mean 'cosine'?"),
        ("train.teacher.losses={}", "train.teacher.losses: missing"),
        ("train.teacher.losses={cosine: 0}", "train.teacher.losses.cosine: got 0"),
        ("train.teacher.onnx=a.onnx", "got embeddings and onnx · allowed: one of"),
        ("train.teacher.input={spec: arcface}", "without train.teacher.onnx"),
        ("train.teacher.view=same", "train.teacher.view: got same with train.teacher.embeddings"),
        ("train.teacher.temperatures=[1]", "train.teacher.temperatures: got [1.0] · allowed: two numbers"),
        ("train.teacher.embeddings=null", "train.teacher: got no teacher"),
    ],
)
def test_keys_that_contradict_each_other_are_one_line(config_file, told, override, line):
    with pytest.raises(ConfigError) as error:
        load(config_file, *told, override)
    assert line in str(error.value)


def test_a_head_from_a_teacher_needs_one(config_file):
    with pytest.raises(ConfigError, match="got teacher without train.teacher"):
        load(config_file, "train.init_head=teacher")


def altered(table: Path, change) -> None:
    arrays = dict(np.load(table))
    change(arrays)
    np.savez(table, **arrays)


def drop_one(arrays):
    arrays["names"], arrays["embeddings"] = arrays["names"][1:], arrays["embeddings"][1:]


def poison(value):
    def change(arrays):
        arrays["embeddings"][4, 2 if value else slice(None)] = value

    return change


def test_the_shipped_network_is_a_teacher_by_its_name():
    options = TeacherConfig(checkpoint=DEFAULT)
    assert teacher_module._embedder(options, CPU).path == CHECKPOINT


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (drop_one, "has no embedding for 1 of the 35 images of data.train"),
        (poison(np.nan), "1 of 35 embeddings are zero, not finite"),
        (poison(np.inf), "1 of 35 embeddings are zero, not finite"),
        (poison(0.0), "1 of 35 embeddings are zero, not finite"),
        (
            lambda arrays: arrays.update(embeddings=arrays["embeddings"].astype(np.float32) * np.float32(1e-20)),
            "35 of 35 embeddings are zero, not finite, too short (below 1e-06) or too long",
        ),
        (
            lambda arrays: arrays.update(mirror=arrays["embeddings"] * (np.arange(35) < 30)[:, None]),
            "5 of 35 images have zeros in only one of the arrays embeddings and mirror, such as row 30, ",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(config_file, told, table, change, line):
    altered(table, change)
    with pytest.raises(UserError) as error:
        Trainer(load(config_file, *told), CPU)
    assert line in str(error.value)


@pytest.mark.parametrize("data", ["same", "renumbered", "packed", "other crops", "no hashes"])
def test_a_table_of_images_that_exchanged_their_names_is_refused(
    config_file, told, table, faces, tmp_path, data, caplog
):
    with np.load(table) as file:
        arrays = dict(file)
    digests = [hashlib.blake2b((faces / "train" / name).read_bytes(), digest_size=8) for name in arrays["names"]]
    if data != "no hashes":
        arrays["image_hash"] = np.array([int(digest.hexdigest(), 16) for digest in digests], dtype=np.uint64)
    np.savez(table, **arrays)
    own = Path(shutil.copytree(faces / "train", tmp_path / "own"))
    if data in ("renumbered", "no hashes"):
        for name, other in (("id01", "gone"), ("id02", "id01"), ("id03", "id02"), ("gone", "id03")):
            (own / name).rename(own / other)
    if data == "other crops":
        for path in own.rglob("*.png"):
            cv2.imwrite(str(path), cv2.imread(str(path)) // 2)
    if data == "packed":
        own = Path(shutil.make_archive(str(own), "zip", own))
    if data != "renumbered":
        Trainer(load(config_file, *told, f"data.train={own}"), CPU)
        said = [line for line in caplog.messages if "other content" in line]
        assert said == [
            f"train.teacher.embeddings: {table}: 35 of 35 sampled images of data.train have other content than when "
            f"the table was made, such as {own / min(names_of(faces))} · allowed: other crops of the same photographs "
            "· otherwise embed data.train again"
        ] * (data == "other crops")
        return
    with pytest.raises(UserError) as error:
        Trainer(load(config_file, *told, f"data.train={own}"), CPU)
    got = f"train.teacher.embeddings: {table}: 21 of 35 sampled images of data.train had another name when the table"
    first = next(each for each in names_of(faces) if each.startswith("id01"))
    assert str(error.value) == (
        f"{got} was made, such as {own / first} · allowed: the names of that time · embed data.train again"
    )


def test_crops_of_another_size_than_the_teacher_reads_are_refused(config_file, tmp_path):
    other = train(config_file, "train.steps=2", "train.milestones=[]", "name=other", "model.input_size=[32, 24]",
                  "eval.sets={}", "eval.select=null")  # fmt: skip
    large = make_training_set(tmp_path / "large", 5, 7, size=(40, 40))
    with pytest.raises(UserError, match="reads crops of 32×24, 32 of 32 sampled images .* are unusable for it"):
        embedded(other / "last.pt", config_file, "checkpoint", f"data.train={large}", "model.input_size=[40, 40]")
    with pytest.raises(UserError, match="got same, but .* reads crops of 32×24"):
        embedded(other / "last.pt", config_file, "checkpoint", "train.teacher.view=same")


def test_another_teacher_is_refused_on_resume(config_file, told, table):
    run = train(config_file, *told, "checkpoint.every_steps=3", stop_at=4)
    altered(table, lambda arrays: arrays.update(embeddings=arrays["embeddings"] * np.float16(2)))
    with pytest.raises(BadCheckpoint, match="train.teacher: trained with one of SHA-256 .* now with one of SHA-256"):
        train(config_file, *told, resume=str(run))
    with pytest.raises(BadCheckpoint, match="now with no teacher"):
        train(config_file, *SHORT, resume=str(run))


def test_a_checkpoint_without_the_teachers_part_is_refused(config_file, told):
    from .test_resume import altered as altered_checkpoint

    run = train(config_file, *told, "checkpoint.every_steps=3", stop_at=4)
    for change, line in (
        (lambda state: state.pop("teacher"), "has no 'teacher' entry"),
        (lambda state: state["teacher"].pop("queue"), "teacher.queue"),
        (lambda state: state["teacher"].update(weight=torch.zeros(2, 2)), "teacher.weight"),
        (lambda state: state["teacher"]["weight"].fill_(float("nan")), "not finite"),
    ):
        step = sorted(run.glob("step-*.pt"))[-1]
        before = step.read_bytes()
        altered_checkpoint(step, change)
        trainer = Trainer(load(config_file, *told), CPU)
        with pytest.raises(UserError, match=line):
            trainer.begin(step)
        step.write_bytes(before)


@pytest.mark.parametrize("view", ["stored", "same"])
def test_the_file_and_the_people_of_a_teacher_are_kept_also_after_a_resume(config_file, tmp_path, view):
    folder = make_training_set(tmp_path / "other", 6, 4, size=(32, 32))
    (folder / "id05").rename(folder / "early")
    other = train(config_file, *SHORT, "name=other", f"data.train={folder}") / "last.pt"
    (folder / "early").rename(folder / "id05")
    (folder / "id00").rename(folder / "more")
    master = train(config_file, *SHORT, "name=master", f"data.train={folder}") / "last.pt"
    wanted = {"file": "last.pt", "sha256": sha_of(master), "data": "`other`, 24 images of 6 people"}
    start = (
        f"train.teacher.checkpoint={master}",
        "train.teacher.losses={correlation: 1}",
        f"train.teacher.view={view}",
    )
    run = train(config_file, *start, *SHORT)
    meta = load_checkpoint(run / "last.pt")["meta"]
    assert (meta["taught_by"], meta["more_people"]) == (wanted, ["id05", "more"])
    train(config_file, *start, "train.steps=7", "train.milestones=[]", resume=str(run))
    meta = load_checkpoint(run / "last.pt")["meta"]
    assert (meta["step"], meta["taught_by"], meta["more_people"]) == (7, wanted, ["id05", "more"])
    run = train(config_file, *start, *SHORT, f"train.init_from={other}", "train.init_head=new")
    meta = load_checkpoint(run / "last.pt")["meta"]
    assert (meta["init_from"]["sha256"], meta["more_people"]) == (sha_of(other), ["early", "id05", "more"])
    for path in run.glob("*.pt"):  # as a run of an earlier version
        state = load_checkpoint(path)
        state["meta"]["more_people"] = ["early"]
        save_checkpoint(path, state, {})
    more = (f"train.init_from={other}", "train.init_head=new", "train.steps=7", "train.milestones=[]")
    train(config_file, *start, *more, resume=str(run))
    assert load_checkpoint(run / "last.pt")["meta"]["more_people"] == ["early", "id05", "more"]


def test_the_student_is_evaluated_and_exported_without_its_teacher(config_file, told, table, tmp_path):
    run = train(config_file, *told)
    table.unlink()
    assert exported(run / "last.pt", tmp_path / "student.onnx").stat().st_size > 1000
