"""A tiny training set, and its configuration."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from ..images import make_pairs, make_training_set
from .runs import TINY


@pytest.fixture(autouse=True)
def heard_log(monkeypatch):
    """Programs keep the package's log to themselves; here pytest is to hear it."""
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)


@pytest.fixture(scope="session")
def faces(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    make_training_set(root / "train", 5, 7, size=(32, 32))
    make_pairs(root / "pairs", size=(32, 32))
    return root


@pytest.fixture
def config_file(tmp_path, faces) -> Path:
    values = yaml.safe_load(TINY)
    values["runs_dir"] = str(tmp_path / "runs")
    values["data"]["train"] = str(faces / "train")
    values["eval"] |= {"sets": {"mine": str(faces / "pairs")}, "select": "mine"}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
