"""Work that one test process does and all share: a fixture of a module is made anew in each worker of xdist."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder ``name``, filled by ``make`` in the process that comes first; the others wait for it."""
    base = factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done = root / "made"
    with FileLock(f"{root}.lock"):
        if not done.exists():
            root.mkdir()
            make(root)
            done.touch()
    return root
