"""Scales of pixels that were stated in another unit, at every place where a user can state one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from sphereface.cli import main
from sphereface.config import load_config
from sphereface.input_spec import InputSpec, warn_of_scale
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES
from sphereface.onnx_input import PRESETS, FileFacts, OnnxOptions, resolve_input

from .models.golden import golden

UNIT, FACTOR = "these look like numbers for pixels from 0 to 1", "this std looks like a factor"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ADVICE = "give mean 127.5 and std 127.5, unless the network was trained with these numbers"


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    return caplog


@pytest.mark.parametrize(
    ("mean", "std", "doubt", "advice"),
    [
        ((0.5,), (0.5,), UNIT, "mean 127.5 and std 127.5"),
        (*IMAGENET, UNIT, "mean 123.675,116.28,103.53 and std 58.395,57.12,57.375"),
        ((0.5,), (1.0,), UNIT, "mean 127.5 and std 255"),
        ((0.0,), (0.5,), UNIT, "mean 0 and std 127.5"),
        ((0.5,), (128.0,), UNIT, "mean 127.5 and std 128"),  # two units
        ((127.5,), (0.5,), UNIT, "mean 127.5 and std 127.5"),
        ((127.5,), (0.0078125,), FACTOR, "mean 127.5 and std 128"),  # 1/128, as ncnn and OpenCV state it
        ((0.0,), (1 / 255,), FACTOR, "mean 0 and std 255"),
    ],
)
def test_numbers_for_other_pixels_are_a_warning_with_those_that_were_meant(said, mean, std, doubt, advice):
    warn_of_scale("x.onnx", InputSpec(mean=mean, std=std))
    (line,) = said.messages
    assert line.startswith("x.onnx: got mean ")
    assert f": {doubt} · pixels are from 0 to 255" in line
    assert f"give {advice}, unless" in line


def test_what_networks_read_is_no_warning(said):
    for mean, std in [((0.0,), (1.0,)), ((0.0,), (255.0,)), ((103.9, 116.8, 123.7), (1.0,)), ((1.0,), (2.0,))]:
        warn_of_scale("x", InputSpec(mean=mean, std=std))
    for spec in [
        InputSpec(),
        *(preset.spec for preset in PRESETS.values()),
        *(b().input_spec for b in BACKBONES.values()),
    ]:
        warn_of_scale("x", spec)
    warn_of_scale("x", InputSpec(mean=tuple(255 * m for m in IMAGENET[0]), std=tuple(255 * s for s in IMAGENET[1])))
    assert said.messages == []


def test_a_foreign_onnx_file(said):  # sphereface eval --onnx and train.teacher.input
    facts = FileFacts(Path("r.onnx"), (None, 3, 112, 112), "float32")
    assert resolve_input(facts, OnnxOptions(order="rgb", mean=(0.5,), std=(0.5,))).spec.mean == (0.5,)
    (line,) = said.messages
    assert line == f"r.onnx: got mean 0.5 and std 0.5: {UNIT} · pixels are from 0 to 255, and become " + (
        f"(pixel − mean) / std · {ADVICE}"
    )


def test_a_configuration(said, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {train: x}\ntrain: {steps: 1}\n")
    config = load_config(
        str(path), ["model.input_mean=0.5", "model.input_std=0.5"], losses=MARGINS, backbones=BACKBONES
    )
    assert config.model.input_std == 0.5
    (line,) = said.messages
    assert line.startswith("model.input_mean, model.input_std: got mean 0.5 and std 0.5: ")
    assert line.endswith(ADVICE)


def test_an_import(said, tmp_path, capsys):
    torch.save(golden("arcface_r18").state, tmp_path / "r18.pth")
    assert main(["import", str(tmp_path / "r18.pth"), str(tmp_path / "a.pt"), "--mean", "0.5", "--std", "0.5"]) == 0
    (line,) = said.messages
    assert line.startswith(f"{tmp_path}/r18.pth: got mean 0.5 and std 0.5: {UNIT}")
    assert line.endswith(ADVICE)
    assert "reads (B, 3, 112, 112) float32 = (pixel − 0.5) / 0.5, RGB" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "r18.pth"), str(tmp_path / "b.pt"), "--mean", "127.5"]) == 0
    assert len(said.messages) == 1
