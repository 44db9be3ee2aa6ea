"""``sphereface import`` and its script: from a published file to an evaluation and to a run that starts from it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import eval_lfw
import train
from scripts import import_weights
from sphereface.checkpoint import load_checkpoint
from sphereface.cli import run_command
from sphereface.config import load_config, parse_model
from sphereface.input_spec import InputSpec
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES
from tests.images import make_pairs, make_training_set
from tests.models.published import caffemodel, input_layer, sphere_tensors

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
    """A 10-layer network for images of 32×24."""
    path = tmp_path / "published.caffemodel"
    tensors = sphere_tensors((1, 3, 5, 1), places=4)
    path.write_bytes(caffemodel(tensors, start=input_layer((1, 3, 32, 24))))
    return path


def test_says_what_it_made(tmp_path, published, capsys):
    assert run(published, tmp_path / "new nets" / "out.pt") == 0
    printed, _, training = capsys.readouterr().out.rpartition("to train from it: ")
    assert printed == (
        f"{tmp_path}/new nets/out.pt: spherenet depth 10 norm none, embeddings of 6 numbers\n"
        "recognised as wy1iu/sphereface, SphereFace-20\n"
        "reads (B, 3, 32, 24) float32 = (pixel − 127.5) / 128, BGR\n"
        "no head in the file\n"
    )
    about = json.loads((tmp_path / "new nets" / "out.json").read_text())
    assert about["run"] == "imported from published.caffemodel"
    first, start, second, model = shlex.split(training)  # as a shell reads them
    assert (first, second) == ("--set", "--set")
    assert start == f"train.init_from={tmp_path}/new nets/out.pt"
    config = load_config("sphere20.yaml", [start, model], losses=MARGINS, backbones=BACKBONES)
    assert config.to_dict()["model"] == about["model"]


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


def test_the_input_is_recorded_and_the_weights_stay(tmp_path):
    (tmp_path / "x").write_bytes(caffemodel(tensors := sphere_tensors(places=6)))
    assert run(tmp_path / "x", tmp_path / "a.pt", "--input-size", "48x32") == 0
    asked = ["--input-size", "48x32", "--rgb", "--mean", "123.7,116.3,103.5", "--std", "1"]
    assert run(tmp_path / "x", tmp_path / "b.pt", *asked) == 0
    states = [load_checkpoint(tmp_path / f"{name}.pt") for name in "ab"]
    specs = [parse_model(state["meta"]["config"]["model"], BACKBONES, []).input_spec for state in states]
    assert specs == [InputSpec(48, 32, "bgr"), InputSpec(48, 32, "rgb", (123.7, 116.3, 103.5), (1.0,))]
    for state in states:
        assert (state["model"]["stages.0.conv.weight"].numpy() == tensors["conv1_1.weight"]).all()


def test_head_and_names(tmp_path, capsys):
    head = np.arange(24, dtype=np.float32).reshape(4, 6)
    (tmp_path / "x").write_bytes(caffemodel({**sphere_tensors(), "fc6.weight": head}))
    (tmp_path / "names").write_text("a\nb\nc\nd\n")
    assert run(tmp_path / "x", tmp_path / "out.pt", "--names", tmp_path / "names") == 0
    assert "head: 4 identities\n" in capsys.readouterr().out
    state = load_checkpoint(tmp_path / "out.pt")
    assert (state["head"]["weight"].numpy() == head).all()
    assert state["meta"]["class_names"] == ["a", "b", "c", "d"]


def test_the_publisher_that_the_user_names(tmp_path, capsys):
    torch.save({"conv1_1.weight": torch.ones(2, 3, 3, 3)}, tmp_path / "x")
    assert run(tmp_path / "x", tmp_path / "out.pt", "--publisher", "magface") == 2
    assert "no known network of publisher magface · the first keys are conv1_1.weight\n" in capsys.readouterr().err


def test_the_command_does_the_same(tmp_path, published, capsys):
    assert run_command("import", [str(published), str(tmp_path / "out.pt")]) == 0
    assert "recognised as wy1iu/sphereface" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        run_command("import", ["--help"])
    assert "sphereface import backbone.pth arcface-r50.pt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pth", "out.pt"], r"error: none.pth: cannot be read: No such file or directory\n"),
        (["x", "out.pth"], r"error: out.pth: got the ending '.pth' · allowed: .pt\n"),
        (["x", "there.pt"], r"error: there.pt: exists already · move it and its .json, or give another name\n"),
        (["x", "beside.pt"], r"error: beside.pt: exists already .*\n"),
        (["x", "out.pt", "--input-size", "112"], r"error: --input-size: got '112' · allowed: height x width .*\n"),
        (
            ["x", "out.pt", "--input-size", "16x16"],
            r"error: x: images of 16x16 give the embedding layer 5 numbers, .* for 210 .*\n",
        ),
        (
            ["x", "out.pt", "--mean", "1,2"],
            r"error: --mean: got '1,2' · allowed: one number from 0 to 255, or three .*\n",
        ),
        (
            ["x", "out.pt", "--std", "a"],
            r"error: --std: got 'a' · allowed: one number from 0.001 to 1000, or three .*\n",
        ),
        (["x", "out.pt", "--std", "0"], r"error: --std: got '0' · allowed: one number from 0.001 to 1000.*\n"),
        (["x", "out.pt", "--names", "no"], r"error: x: --names: there is no head to name .*\n"),
        (["x", "out.pt", "--head", "no"], r"error: no: cannot be read: No such file or directory\n"),
        (["x", "x/out.pt"], r"error: x/out.pt: cannot be written: .* · give another path\n"),
        (["text", "out.pt"], r"error: text: a text file, which holds no weights · allowed: .*\n"),
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


def test_the_configuration_in_the_guide(tmp_path):
    page = (Path(__file__).parents[2] / "docs/pretrained.md").read_text(encoding="utf-8")
    (tmp_path / "tuned.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    config = load_config(str(tmp_path / "tuned.yaml"), losses=MARGINS, backbones=BACKBONES)
    published = InputSpec(112, 112, "rgb", (127.5,), (127.5,))
    assert (config.model.name, config.model.input_spec, config.train.init_from) == (
        "iresnet", published, "arcface-r50.pt",
    )  # fmt: skip
