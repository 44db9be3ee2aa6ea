"""The template of the training crops reaches the checkpoint, and neither refuses nor changes a resume."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch

from sphereface.alignment.crop_template import template_of_meta
from sphereface.alignment.similarity import template
from sphereface.checkpoint import load_checkpoint

from .runs import train

SIZE = (32, 32)
POINTS = [(round(float(x) * 0.3, 2), round(float(y) * 0.3, 2)) for x, y in template()]


@pytest.fixture
def crops(tmp_path, faces):
    shutil.copytree(faces / "train", tmp_path / "crops")
    report(tmp_path / "crops")
    return tmp_path / "crops"


def report(folder, down=0.0):
    """Write the report of crops whose landmarks are some pixels lower."""
    points = " ".join(f"{x:g},{y + down:g}" for x, y in POINTS)
    settings = {"size": "32x32", "quality": 95, "template": points}
    (folder / "align-report.json").write_text(json.dumps({"settings": settings}))


def options(crops):
    return (f"data.train={crops}", "eval.sets={}", "eval.select=null", "train.steps=4", "checkpoint.every_steps=2")


def test_a_checkpoint_keeps_the_template_of_the_training_crops(config_file, crops):
    run = train(config_file, *options(crops))
    kept = template_of_meta(load_checkpoint(run / "last.pt")["meta"], SIZE, run)
    assert kept.points == tuple(POINTS)


def test_without_a_report_it_keeps_none(config_file, crops):
    (crops / "align-report.json").unlink()
    run = train(config_file, *options(crops))
    assert "template" not in load_checkpoint(run / "last.pt")["meta"]


@pytest.mark.parametrize("content", [None, "{", '{"settings": {"size": "32x32", "template": "1,2"}}'])
def test_a_resume_does_not_depend_on_the_report(config_file, crops, content, caplog):
    whole = load_checkpoint(train(config_file, *options(crops)) / "last.pt")
    part = train(config_file, *options(crops), stop_at=2)
    path = crops / "align-report.json"
    path.unlink() if content is None else path.write_text(content)
    with caplog.at_level(logging.WARNING):
        train(config_file, *options(crops), resume=str(part / "last.pt"))
    resumed = load_checkpoint(part / "last.pt")
    assert resumed["meta"]["step"] == 4
    assert all(torch.equal(value, whole["model"][key]) for key, value in resumed["model"].items())
    assert ("the template of the crops is unknown" in caplog.text) == (content is not None)


@pytest.mark.parametrize(("down", "told"), [(0, False), (0.4, False), (3, True), (None, False)])
def test_sets_that_were_aligned_unlike_the_training_crops_are_told(
    config_file, crops, faces, tmp_path, caplog, down, told
):
    shutil.copytree(faces / "pairs", tmp_path / "set")
    if down is not None:
        report(tmp_path / "set", down)
    train(config_file, f"data.train={crops}", f"eval.sets={{mine: {tmp_path}/set}}", "train.steps=1")
    line = f"eval.sets.mine: {tmp_path}/set: sphereface align put its landmarks up to 3.0 pixels from those of the "
    assert (f"{line}training crops of data.train, which may lower" in caplog.text) == told
    assert caplog.text.count("put its landmarks") == told


@pytest.mark.parametrize(("down", "told"), [(0, False), (3, True), ("damaged", False), (None, False)])
@pytest.mark.parametrize("view", ["stored", "same"])
def test_a_teacher_whose_training_crops_were_aligned_otherwise_is_told(config_file, crops, caplog, down, told, view):
    teacher = train(config_file, *options(crops)) / "last.pt"
    kept = torch.load(teacher, weights_only=True)
    kept["meta"]["template"]["points"] = [[x, y + (down if isinstance(down, int) else 0)] for x, y in POINTS]
    if down == "damaged":
        kept["meta"]["template"] = 7
    if down is None:
        del kept["meta"]["template"]
    torch.save(kept, teacher.with_name("teacher.pt"))
    options_of_teacher = (f"train.teacher.checkpoint={teacher.with_name('teacher.pt')}", f"train.teacher.view={view}")
    train(config_file, *options(crops), *options_of_teacher, "train.teacher.losses={cosine: 1}")
    text = "teacher.pt was trained on crops whose landmarks lie up to 3.0 pixels from those of data.train"
    assert (text in caplog.text) == told
    assert caplog.text.count("train.teacher:") == told
