"""``sphereface export --format checkpoint``: the network alone, smaller, and read by every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sphereface.alignment.like import MeasuredTemplate
from sphereface.checkpoint import load_checkpoint, save_checkpoint, sha256_of
from sphereface.cli import main
from sphereface.commands import export as export_command
from sphereface.export import checkpoint_file
from sphereface.models import load_model
from sphereface.models.joining import join

from ..evaluation.checkpoints import write_checkpoint
from ..evaluation.crops import noise

PRIVATE = "/home/ann/secret"


def trained(path, *, seed=0, **more):
    """A checkpoint such as training writes, with everything that nobody else should read."""
    write_checkpoint(path, seed=seed, input_size=(112, 96))
    state = {key: value for key, value in load_checkpoint(path).items() if key not in ("format", "id")}
    train = {"lr": 0.1, "optimizer": "muon", "init_from": PRIVATE}
    train["teacher"] = {"embeddings": PRIVATE, "losses": {"cosine": 10.0}, "label_weight": 0.0}
    state["meta"] |= {"class_names": ["Ann", "Bob"], "num_images": 9, "sample": [PRIVATE], "versions": {"os": PRIVATE}}
    state["meta"]["config"] |= {"data": {"train": PRIVATE}, "train": train, "runs_dir": PRIVATE, "name": PRIVATE}
    state |= {"head": {"weight": torch.ones(2, 16)}, "optimizer": {"fc5.weight": torch.ones(16, 32)}, **more}
    save_checkpoint(path, state, {})
    return path


def export(checkpoint, output, *more):
    return main(["export", str(checkpoint), "--format", "checkpoint", "--output", str(output), *more])


def embeddings(path):
    crops = np.stack([noise(k, 112, 96) for k in range(4)])
    with torch.inference_mode():  # by the formula: (pixel - 127.5) / 128, BGR, channels first
        return load_model(path).model((torch.from_numpy(crops).permute(0, 3, 1, 2).float() - 127.5) / 128)


def test_the_network_is_kept_and_nothing_private(tmp_path, capsys):
    source, small = trained(tmp_path / "last.pt"), tmp_path / "small.pt"
    assert export(source, small, "--dtype", "float16", "--licence", "Mine.") == 0
    for file in (small, small.with_suffix(".json"), tmp_path / "small.pt.md"):
        content = file.read_bytes()
        assert not [secret for secret in (b"Ann", b"Bob", b"/home") if secret in content], file
    assert b"secret" not in small.read_bytes()  # the card says how the folder of the training set is called
    state = load_checkpoint(small)
    assert set(state) == {"format", "id", "meta", "seen_size", "model"}
    assert "template" not in state["meta"]
    assert (state["meta"]["step"], state["meta"]["num_identities"], state["meta"]["run"]) == (7, 2, "small")
    assert state["meta"]["checkpoint_sha256"] == sha256_of(source)
    assert state["meta"]["config"]["train"]["teacher"] == {"losses": {"cosine": 10.0}, "label_weight": 0.0}
    card = (tmp_path / "small.pt.md").read_text(encoding="utf-8")
    assert "9 images of 2 people" in card
    assert "label_weight: 0.0" in card
    assert "Stored in float16 (vectors in float32)" in card
    assert json.loads(small.with_suffix(".json").read_text())["dtype"] == "float16"


def test_where_the_first_weights_come_from_is_kept(tmp_path):
    paths = [trained(tmp_path / f"{k}.pt", seed=k) for k in range(2)]
    assert export(paths[0], tmp_path / "old.pt") == 0  # of an earlier version, which kept only a private path
    assert load_checkpoint(tmp_path / "old.pt")["meta"]["init_from"] == {}
    origins = [{"file": f"{letter}.pt", "sha256": letter * 64} for letter in "ab"]
    states = [load_checkpoint(path) for path in paths]
    for path, state, origin in zip(paths, states, origins, strict=True):
        state["meta"]["init_from"] = origin
        save_checkpoint(path, {key: value for key, value in state.items() if key not in ("format", "id")}, {})
    assert export(paths[0], tmp_path / "small.pt") == 0
    sentence = f"Training started from `a.pt` (SHA-256 `{'a' * 64}`). The images on which"
    assert export(tmp_path / "small.pt", tmp_path / "again.pt") == 0
    for name in ("small.pt", "again.pt"):
        assert load_checkpoint(tmp_path / name)["meta"]["init_from"] == origins[0]
        assert sentence in (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    assert join(states, paths)["meta"]["init_from"] == {}  # of several files
    states[1]["meta"]["init_from"] = origins[0]
    assert join(states, paths)["meta"]["init_from"] == origins[0]
    for state in states:
        del state["meta"]["init_from"], state["meta"]["config"]["train"]["init_from"]
    assert "init_from" not in join(states, paths)["meta"]


def test_the_teacher_is_kept(tmp_path):
    paths = [trained(tmp_path / f"{k}.pt", seed=k) for k in range(2)]
    states = [load_checkpoint(path) for path in paths]
    taught_by = {"file": "teacher.pt", "sha256": "c" * 64, "data": "`web`"}
    states[0]["meta"]["taught_by"] = taught_by
    save_checkpoint(paths[0], {key: value for key, value in states[0].items() if key not in ("format", "id")}, {})
    assert export(paths[0], tmp_path / "small.pt") == 0
    assert export(tmp_path / "small.pt", tmp_path / "again.pt") == 0
    assert load_checkpoint(tmp_path / "again.pt")["meta"]["taught_by"] == taught_by
    assert "trained on `web`." in (tmp_path / "again.pt.md").read_text(encoding="utf-8")
    assert join(states, paths)["meta"]["taught_by"] == {}  # the other one does not name its teacher
    states[1]["meta"]["taught_by"] = taught_by
    assert join(states, paths)["meta"]["taught_by"] == taught_by
    for state in states:
        del state["meta"]["taught_by"], state["meta"]["config"]["train"]["teacher"]
    assert "taught_by" not in join(states, paths)["meta"]


@pytest.mark.parametrize(("dtype", "most"), [("float32", 0.0), ("float16", 2e-3)])
def test_embeddings_are_those_of_the_source(tmp_path, dtype, most):
    source, small = trained(tmp_path / "last.pt"), tmp_path / "small.pt"
    assert export(source, small, "--dtype", dtype) == 0
    wanted = embeddings(source)
    difference = (embeddings(small) - wanted).abs().max() / wanted.abs().max()
    assert difference <= most
    assert (difference > 0) == (dtype == "float16")
    types = {value.dtype for value in load_checkpoint(small)["model"].values() if value.dim() > 1}
    assert types == {getattr(torch, dtype)}
    assert {v.dtype for v in load_checkpoint(small)["model"].values() if v.dim() == 1} == {torch.float32}


def test_float32_is_the_default_and_averaged_weights_are_taken(tmp_path):
    source = trained(tmp_path / "last.pt")
    other = load_checkpoint(write_checkpoint(tmp_path / "other.pt", seed=1, input_size=(112, 96)))["model"]
    averaged = trained(tmp_path / "averaged.pt", average=other)
    assert export(averaged, tmp_path / "small.pt") == 0
    assert torch.equal(embeddings(tmp_path / "small.pt"), embeddings(tmp_path / "other.pt"))
    assert not torch.equal(embeddings(tmp_path / "small.pt"), embeddings(source))


def test_joined_networks_stay_joined_and_small_ones_can_be_joined(tmp_path):
    paths = [trained(tmp_path / f"{k}.pt", seed=k) for k in range(2)]
    save_checkpoint(tmp_path / "joined.pt", join([load_checkpoint(path) for path in paths], paths), {})
    assert export(tmp_path / "joined.pt", tmp_path / "small.pt") == 0
    assert torch.equal(embeddings(tmp_path / "small.pt"), embeddings(tmp_path / "joined.pt"))
    assert b".pt" not in (tmp_path / "small.pt").read_bytes()  # the files it is of
    assert export(paths[0], tmp_path / "half.pt", "--dtype", "float16") == 0
    assert main(["join", str(tmp_path / "half.pt"), str(paths[1]), "--output", str(tmp_path / "both.pt")]) == 0
    wanted = torch.nn.functional.normalize(embeddings(tmp_path / "half.pt"))
    np.testing.assert_allclose(embeddings(tmp_path / "both.pt")[:, :16], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dtype", "uint8"], "--dtype: got uint8 with --format checkpoint · allowed: float32, float16"),
        (["--mirror", "join"], "--order, --layout, --mirror, --batch: a checkpoint has no graph"),
        (["--batch", "1"], "--order, --layout, --mirror, --batch: a checkpoint has no graph"),
        (["--int8", "crops"], "--int8: got --format checkpoint · allowed: onnx"),
        (["--output", "x.onnx"], "--output: got x.onnx · allowed: a name that ends in .pt"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, capsys, more, message):
    source = trained(tmp_path / "last.pt")
    assert export(source, tmp_path / "small.pt", *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.json", "last.pt"]


def test_it_needs_a_new_name(tmp_path, capsys):
    source = trained(tmp_path / "last.pt")
    before = source.read_bytes()
    assert main(["export", str(source), "--format", "checkpoint"]) == 2
    assert "--output: got none with --format checkpoint · allowed: a new name" in capsys.readouterr().err
    assert export(source, source) == 2
    assert f"--output: {source} exists already" in capsys.readouterr().err
    (tmp_path / "new.json").write_text("{}")
    assert export(source, tmp_path / "new.pt") == 2
    assert "new.json exists already" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_where_faces_lie_in_the_training_crops_is_kept(tmp_path, monkeypatch, capsys):
    points = [[27.35, 50.15], [64.01, 49.51], [45.89, 72.11], [30.02, 88.6], [62.14, 87.82]]

    def measured(size):
        shift = (size[1] - 96) / 2
        found = MeasuredTemplate(size, tuple((x + shift, y) for x, y in points), 30, 31)
        monkeypatch.setattr(export_command, "Mtcnn", lambda: None)
        monkeypatch.setattr(export_command, "measure_template", lambda *_, **__: found)

    source = trained(tmp_path / "last.pt")
    for size in ((112, 96), (112, 112)):  # the second is cut to the first, as training does
        small = tmp_path / f"{size[1]}.pt"
        measured(size)
        assert export(source, small, "--like", "crops") == 0
        assert "(30 of 31 crops)" in capsys.readouterr().out
        kept = load_checkpoint(small)["meta"]["template"]
        assert kept["size"] == [112, 96]
        np.testing.assert_allclose(kept["points"], points)
        again = tmp_path / f"{size[1]}-again.pt"
        assert export(small, again) == 0  # a checkpoint's own template is kept without --like
        assert load_checkpoint(again)["meta"]["template"] == kept
    measured((64, 64))
    assert export(source, tmp_path / "x.pt", "--like", "crops") == 2
    assert "--like: got crops of 64x64 · allowed: 112x96, which the network reads" in capsys.readouterr().err
    assert main(["export", str(source), "--format", "torchscript", "--like", "crops"]) == 2
    assert "--like: got --format torchscript · allowed: checkpoint" in capsys.readouterr().err


def test_weights_beyond_float16_are_named_and_large_statistics_are_kept(tmp_path, capsys):
    source = trained(tmp_path / "last.pt")
    state = {key: value for key, value in load_checkpoint(source).items() if key not in ("format", "id")}
    state["model"]["fc5.weight"][0, 0] = 70000.0
    state["model"]["fc5.bias"][0] = 1e6
    save_checkpoint(source, state, {})
    assert export(source, tmp_path / "small.pt", "--dtype", "float16") == 2
    said = capsys.readouterr().err
    assert "--dtype: got float16, but fc5.weight holds 70000 · allowed there: up to 65504 · use --dtype float32" in said
    assert not (tmp_path / "small.pt").exists()
    state["model"]["fc5.weight"][0, 0] = 0.5
    save_checkpoint(source, state, {})
    assert export(source, tmp_path / "small.pt", "--dtype", "float16") == 0
    assert load_checkpoint(tmp_path / "small.pt")["model"]["fc5.bias"][0] == 1e6


def test_a_file_that_gives_other_embeddings_is_removed(tmp_path, monkeypatch, capsys):
    source = trained(tmp_path / "last.pt")
    real = checkpoint_file.stored_weights

    def wrong(weights, dtype):
        return {name: value * 1.1 if name == "fc5.weight" else value for name, value in real(weights, dtype).items()}

    monkeypatch.setattr(checkpoint_file, "stored_weights", wrong)
    assert export(source, tmp_path / "small.pt", "--dtype", "float16") == 2
    error = capsys.readouterr().err
    assert "small.pt: gives other embeddings than the checkpoint" in error
    assert error.endswith("not written · use --dtype float32\n")
    assert sorted(Path(path).name for path in tmp_path.iterdir()) == ["last.json", "last.pt"]
