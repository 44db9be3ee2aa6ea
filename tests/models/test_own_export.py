"""``sphereface export --format safetensors`` and back: the network, its input and its template are the same."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from sphereface.api import FaceEmbedder
from sphereface.checkpoint import BadCheckpoint, load_checkpoint, save_checkpoint
from sphereface.cli import main
from sphereface.errors import UserError
from sphereface.models import build_model, load_model
from sphereface.models.iresnet import IResNetOptions
from sphereface.models.published import InputOverrides, import_published

st = pytest.importorskip("safetensors.torch")

MAGFACE = {"input_order": "bgr", "input_mean": 0.0, "input_std": 255.0}
TEMPLATE = {"size": [32, 32], "points": [[4.0, 5.0], [20.0, 5.0], [12.0, 12.0], [6.0, 20.0], [18.0, 20.0]]}


def checkpoint(path, *, seed=0, **meta):
    """IResNet-18, whose key names are also those of InsightFace's files, with MagFace's input."""
    options = IResNetOptions(depth=18, embedding_dim=8, input_size=(32, 32), **MAGFACE)
    torch.manual_seed(seed)
    about = {"config": {"model": options.to_dict()}, "step": 7, "run": "tiny", **meta}
    save_checkpoint(path, {"meta": about, "model": build_model(options).state_dict(), "seen_size": [16, 16]}, {})
    return path


def exported(path, checkpoint_path):
    assert main(["export", str(checkpoint_path), "--format", "safetensors", "--output", str(path)]) == 0
    return path


def embedded(path):
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    return FaceEmbedder(path, align=False, device="cpu").embed(crops)


def test_back_again(tmp_path, capsys):
    one = checkpoint(tmp_path / "a.pt", template=TEMPLATE)
    file = exported(tmp_path / "a.safetensors", one)
    assert main(["import", str(file), str(tmp_path / "back.pt")]) == 0
    assert "recognised as an export of this program" in capsys.readouterr().out
    np.testing.assert_array_equal(embedded(tmp_path / "back.pt"), embedded(one))
    meta = load_checkpoint(tmp_path / "back.pt")["meta"]
    assert meta["template"] == TEMPLATE
    assert load_model(tmp_path / "back.pt").spec == load_model(one).spec


def test_several_networks_back_again(tmp_path):
    paths = [checkpoint(tmp_path / f"{seed}.pt", seed=seed) for seed in (0, 1)]
    assert main(["join", *map(str, paths), "--output", str(tmp_path / "both.pt")]) == 0
    file = exported(tmp_path / "both.safetensors", tmp_path / "both.pt")
    assert main(["import", str(file), str(tmp_path / "back.pt")]) == 0
    np.testing.assert_array_equal(embedded(tmp_path / "back.pt"), embedded(tmp_path / "both.pt"))


def test_what_contradicts_the_file(tmp_path):
    file = exported(tmp_path / "a.safetensors", checkpoint(tmp_path / "a.pt"))
    with pytest.raises(BadCheckpoint, match="a.safetensors: an export of this program.* leave out --publisher"):
        import_published(file, publisher="magface")
    told = import_published(file, overrides=InputOverrides(order="rgb", std=(128.0,)))
    assert (told.options.input_order, told.options.input_std, told.options.input_mean) == ("rgb", 128.0, 0.0)
    with pytest.raises(BadCheckpoint, match="a.safetensors: another architecture: "):
        import_published(file, overrides=InputOverrides(size=(112, 112)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "{"}, "metadata: model: got '{' · allowed: JSON"),
        ({"model": "[" * 100_000}, "metadata: model: got .* · allowed: JSON"),
        ({"model": "[]"}, r"metadata: model: got \[\] · allowed: a mapping"),
        ({"model": json.dumps({"name": "nonet"})}, "nonet"),
        ({"template": "x"}, "metadata: template: got 'x' · allowed: JSON"),
    ],
)
def test_damaged_metadata_are_one_line(tmp_path, change, message):
    file = exported(tmp_path / "a.safetensors", checkpoint(tmp_path / "a.pt"))
    metadata = {
        "checkpoint_sha256": "0",
        "model": json.dumps(load_checkpoint(tmp_path / "a.pt")["meta"]["config"]["model"]),
    }
    st.save_file(st.load_file(file), file, metadata={**metadata, **change})
    with pytest.raises(UserError, match=message) as caught:
        import_published(file)
    assert re.search("a.safetensors", str(caught.value))
