"""``import_weights.py``: from a published file to an evaluation and to a run that starts from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import eval_lfw
import train
from scripts import import_weights
from sphereface.checkpoint import load_checkpoint
from tests.models.published import caffemodel, input_layer, sphere_tensors
from tests.pictures import make_pairs, make_training_set

TINY = """
name: tuned
model: {depth: 10, widths: [2, 3, 4, 5], embedding_dim: 6, input_size: [32, 24]}
loss: {name: a-softmax, m: 4}
data: {workers: 0}
train: {batch_size: 4, steps: 1, lr: 1.0e-30, weight_decay: 0}
eval: {sets: {}}
log: {tensorboard: false}
"""


def run(*arguments) -> int:
    return import_weights.main([str(argument) for argument in arguments])


@pytest.fixture
def published(tmp_path) -> Path:
    """A 10-layer network for pictures of 32×24."""
    path = tmp_path / "published.caffemodel"
    tensors = sphere_tensors((1, 3, 5, 1), places=4)
    path.write_bytes(caffemodel(tensors, start=input_layer((1, 3, 32, 24))))
    return path


def test_says_what_it_made(tmp_path, published, capsys):
    assert run(published, tmp_path / "new" / "out.pt") == 0
    assert capsys.readouterr().out == (
        f"{tmp_path}/new/out.pt: SphereNet of 10 layers (2, 3, 4, 5), 32x24 pixels → 6 numbers\n"
        "no fc6 in the file: no head\n"
    )
    assert json.loads((tmp_path / "new" / "out.json").read_text())["run"] == "imported from published.caffemodel"


def test_evaluates_on_pairs(tmp_path, published, capsys):
    assert run(published, tmp_path / "out.pt") == 0
    pairs = make_pairs(tmp_path / "pairs", size=(32, 24))
    arguments = ["--ckpt", tmp_path / "out.pt", "--lfw", pairs, "--pairs", pairs / "pairs.txt", "--device", "cpu"]
    assert eval_lfw.main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    assert f"checkpoint {tmp_path}/out.pt\n" in printed  # and no step, for there is none
    written = json.loads((tmp_path / "eval-pairs" / "verification.json").read_text())
    assert (written["run"], written["step"]) == ("imported from published.caffemodel", None)


def test_a_run_starts_from_it_with_a_new_head(tmp_path, published, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(published, "out.pt") == 0
    faces = make_training_set(tmp_path / "faces", 3, 4, size=(32, 24))
    (tmp_path / "tiny.yaml").write_text(TINY)
    settings = [f"data.train={faces}", "train.init_from=out.pt", "train.milestones=[]", "train.lambda_start=1659"]
    arguments = ["--config", "tiny.yaml", *(part for setting in settings for part in ("--set", setting))]
    assert train.main(arguments) == 0
    (last,) = tmp_path.glob("runs/tuned/*/last.pt")
    start = load_checkpoint(tmp_path / "out.pt")["model"]
    for name, value in load_checkpoint(last)["model"].items():
        assert torch.equal(value, start[name]), name  # but for a rate that moves nothing


def test_it_is_no_run_to_resume(tmp_path, published, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(published, "out.pt") == 0
    faces = make_training_set(tmp_path / "faces", 3, 4, size=(32, 24))
    (tmp_path / "tiny.yaml").write_text(TINY)
    capsys.readouterr()
    assert train.main(["--config", "tiny.yaml", "--set", f"data.train={faces}", "--resume", "out.pt"]) == 2
    assert re.fullmatch(r"error: .*out.pt.*\n", capsys.readouterr().err.splitlines(keepends=True)[-1])


def test_input_size_and_rgb(tmp_path):
    (tmp_path / "x").write_bytes(caffemodel(tensors := sphere_tensors(places=6)))
    assert run(tmp_path / "x", tmp_path / "a.pt", "--input-size", "48x32") == 0
    assert run(tmp_path / "x", tmp_path / "b.pt", "--input-size", "48x32", "--rgb") == 0
    states = [load_checkpoint(tmp_path / f"{name}.pt") for name in "ab"]
    assert [state["meta"]["config"]["model"]["input_size"] for state in states] == [[48, 32]] * 2
    plain, turned = (state["model"]["stages.0.conv.weight"].numpy() for state in states)
    assert (plain == tensors["conv1_1.weight"]).all()
    assert (turned == tensors["conv1_1.weight"][:, ::-1]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pth", "out.pt"], r"error: none.pth: cannot be read: No such file or directory\n"),
        (["x", "out.pth"], r"error: out.pth: got the ending '.pth' · allowed: .pt\n"),
        (["x", "there.pt"], r"error: there.pt: there already · move it and its .json away, or give another name\n"),
        (["x", "beside.pt"], r"error: beside.pt: there already .*\n"),
        (["x", "out.pt", "--input-size", "112"], r"error: --input-size: got '112' · allowed: height x width .*\n"),
        (["x", "out.pt", "--input-size", "16x16"], r"error: x: pictures of 16x16 give fc5 5 numbers, .* for 210 .*\n"),
        (["x", "x/out.pt"], r"error: x/out.pt: cannot be written: .* · give another place\n"),
        (["text", "out.pt"], r"error: text: truncated, damaged or not a .caffemodel \(byte 0: .*\) · get it again\n"),
    ],
)
def test_bad_arguments_end_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(caffemodel(sphere_tensors()))
    for name in ("there.pt", "beside.json", "text"):
        (tmp_path / name).write_text("name: mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run(*arguments) == 2
    assert re.fullmatch(message, capsys.readouterr().err)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "there.pt").read_text() == "name: mine"
