"""Parsers with known faults, one a kind, and one without: the harness has to find each."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sphereface.errors import UserError

from .registry import register

_KEPT: list[np.ndarray] = []


def _make(folder: Path) -> None:
    (folder / "input.txt").write_text("one 1\ntwo 2\n", encoding="utf-8")


def _spin() -> None:
    while True:
        pass


def _fill() -> None:
    _KEPT[:] = [np.ones(2**26, np.uint8)]  # 64 MiB


def _reserve() -> None:
    _KEPT[:] = [np.empty(2**43, np.uint8)]  # more than any machine has


def _raise(error: BaseException) -> None:
    raise error


def _write(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")


FAULTS: dict[str, Callable[[Path], object]] = {
    "none": lambda folder: _write(folder, "out/fine"),
    "refuses": lambda _: _raise(UserError("input.txt: bad · allowed: 2 problems:\n  - one\n  - two")),
    "raises": lambda _: _raise(KeyError("x")),
    "exits": lambda _: _raise(SystemExit(1)),
    "asserts": lambda _: _raise(AssertionError("a wrong value was believed")),
    "hangs": lambda _: _spin(),
    "fills": lambda _: _fill(),
    "reserves": lambda _: _reserve(),
    "crashes": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
    "leaves": lambda _: os._exit(3),
    "writes": lambda folder: _write(folder, "beside"),
    "changes": lambda folder: os.close(os.open(folder / "input.txt", os.O_WRONLY | os.O_TRUNC)),
    "removes": lambda folder: (folder / "input.txt").unlink(),
    "starts": lambda _: subprocess.run(["true"], check=True),
    "long": lambda _: _raise(UserError("x" * 4_001)),
    "many-lines": lambda _: _raise(UserError("x:" + "\n  - y" * 12)),
    "line-break": lambda _: _raise(UserError("a name with\na break")),
    "controls": lambda _: _raise(UserError("a name with \x1b[31m")),
}

for _name, _fault in FAULTS.items():
    register(_name, _make, lambda folder, _path, fault=_fault: fault(folder), reads="")
