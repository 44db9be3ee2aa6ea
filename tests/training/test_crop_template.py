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
    settings = {"size": "32x32", "quality": 95, "template": " ".join(f"{x:g},{y:g}" for x, y in POINTS)}
    (tmp_path / "crops/align-report.json").write_text(json.dumps({"settings": settings}))
    return tmp_path / "crops"


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
    report = crops / "align-report.json"
    report.unlink() if content is None else report.write_text(content)
    with caplog.at_level(logging.WARNING):
        train(config_file, *options(crops), resume=str(part / "last.pt"))
    resumed = load_checkpoint(part / "last.pt")
    assert resumed["meta"]["step"] == 4
    assert all(torch.equal(value, whole["model"][key]) for key, value in resumed["model"].items())
    assert ("the template of the crops is unknown" in caplog.text) == (content is not None)
