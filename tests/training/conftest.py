"""A tiny training set, and its configuration."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ..images import make_pairs, make_training_set
from .runs import write_tiny


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
    return write_tiny(tmp_path, faces)
