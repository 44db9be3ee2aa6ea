"""The null CUDA, built once, and what all training steps of the tests count on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..shared import made_once
from .build import build, why_not
from .process import run_cases
from .test_scaling import HEADS_OF_MANY
from .test_steps import LAUNCHES, MILLION, WAITS

GROUPS = {"heads of many": HEADS_OF_MANY, "million": MILLION, "waits": WAITS, "launches": LAUNCHES}
"""A step that is compiled is the last: after it, to collect the garbage of each case takes long."""


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    if reason := why_not():
        pytest.skip(reason)

    def make(folder: Path) -> None:
        (folder / "environment.json").write_text(json.dumps(build(folder)), encoding="utf-8")

    folder = made_once(tmp_path_factory, "nullcuda", make)
    return json.loads((folder / "environment.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def counts(tmp_path_factory, environment) -> dict[str, list[dict[str, Any]]]:
    """What each group of steps counts, in one process: its imports take longer than most groups."""

    def make(folder: Path) -> None:
        found = iter(run_cases(environment, [case for group in GROUPS.values() for case in group]))
        rows = {name: [next(found) for _ in group] for name, group in GROUPS.items()}
        (folder / "counts.json").write_text(json.dumps(rows), encoding="utf-8")

    folder = made_once(tmp_path_factory, "nullcuda-counts", make)
    return json.loads((folder / "counts.json").read_text(encoding="utf-8"))
