"""A run of the build before backbones were chosen by name (f3ca3da) evaluates and resumes as it did there."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from sphereface.checkpoint import load_checkpoint
from sphereface.evaluation import embed_files
from sphereface.models import Resized, load_model

from ..images import make_pairs, make_training_set
from .runs import train

GOLDEN = Path(__file__).parents[1] / "golden" / "before_backbones"
CLOSE = {"rtol": 1e-3, "atol": 2e-5}  # another processor or number of threads; as it was made, all bits are equal


@pytest.fixture(scope="module")
def expected():
    with np.load(GOLDEN / "expected.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_training_set(tmp_path / "train", 5, 7, size=(32, 32))
    make_pairs(tmp_path / "pairs", size=(32, 32))
    folder = tmp_path / "runs" / "before-backbones" / "20261128-000000"
    shutil.copytree(GOLDEN, folder)
    return folder


def test_its_checkpoint_embeds_as_it_did(run, tmp_path, expected):
    """Averaged weights, batch normalisation, and crops that the network saw at half their sides last."""
    loaded = load_model(run / "step-00000004.pt")
    assert isinstance(loaded.model, Resized)
    assert loaded.model.seen_size == (16, 16)
    assert loaded.spec.describe() == "(B, 3, 32, 32) float32 = (pixel − 127.5) / 128, BGR"
    embeddings = embed_files(loaded.model, sorted((tmp_path / "pairs").rglob("*.png")), device="cpu")
    np.testing.assert_allclose(embeddings, expected["embeddings"], **CLOSE)


def test_it_resumes_to_the_same_weights(run, expected, caplog):
    with caplog.at_level(logging.WARNING):
        train(run / "config.yaml", resume=str(run))
    assert "resumed with another setting" not in caplog.text
    state = load_checkpoint(run / "step-00000008.pt")
    for part, name in (("model", "final"), ("average", "average")):
        for key, value in state[part].items():
            np.testing.assert_allclose(value.numpy(), expected[f"{name}.{key}"], err_msg=key, **CLOSE)
    np.testing.assert_allclose(state["head"]["weight"].numpy(), expected["head"], **CLOSE)
    assert state["meta"]["order"] == 1  # that of the build which began it


def test_resume_auto_finds_it(run):
    train(run / "config.yaml", resume="auto")
    assert (run / "step-00000008.pt").is_file()
