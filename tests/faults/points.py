"""Run one command in a process of its own, which is killed or held at the k-th of its steps on the disk.

The steps are what Python's audit events tell (files opened for writing, renamed, removed, linked, folders made), and
flushes. A limit on the size of files kills it, or fails its writes as a full disk does, in the middle of one.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from sphereface import cli
from sphereface.evaluation import charts, embedder, html_report  # noqa: F401
from sphereface.export import formats  # noqa: F401
from sphereface.training import run as training  # noqa: F401

for _name in cli.COMMANDS:  # once, before each process is forked
    cli.parser_of(_name)
    cli.command_of(_name)

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.link": 1, "os.rmdir": 0}  # which argument names the place


@dataclass(frozen=True)
class At:
    """When to intervene, and how.

    Attributes:
        step: of the steps on the disk, from 1; 0: never.
        act: ``"kill"``, or ``"hold"`` until the parent sends something.
        size: largest size of a file in bytes; a write beyond it kills (``"kill"``) or fails (``"full"``).
    """

    step: int = 0
    act: str = "kill"
    size: int | None = None


def run(argv: list[str], folder: Path, out: Connection, at: At, parent: Connection) -> None:
    """Run a command in a folder; the exit code of the process is the command's.

    What it prints goes to the pipe ``out`` (a file would count as one that is written), then the kinds of the steps.
    """
    os.dup2(out.fileno(), 1)
    os.dup2(out.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False, encoding="utf-8") for number in (1, 2))
    os.chdir(folder)
    torch.set_num_threads(1)
    steps = _Steps(folder, at, parent)
    if at.size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if at.act == "kill" else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (at.size, resource.RLIM_INFINITY))
    code = cli.main(argv)
    steps.on = False
    print("\nsteps", *steps.kinds, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


class _Steps:
    """Counts the steps of this process below a folder."""

    def __init__(self, folder: Path, at: At, parent: Connection) -> None:
        self._folder, self._at, self._parent = os.path.realpath(folder), at, parent
        self.kinds, self.on = list[str](), True
        sys.addaudithook(self._audit)
        os.fsync = self._flushing(os.fsync)

    def _flushing(self, flush: Callable[[int], None]) -> Callable[[int], None]:
        def flushed(descriptor: int) -> None:
            self._step("flush")
            flush(descriptor)

        return flushed

    def _audit(self, event: str, args: tuple) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = args
            if isinstance(path, int) or not ((flags or 0) & _WRITES or (mode or "r")[0] in "wax"):
                return
        elif event in _PATHS:
            path = args[_PATHS[event]]
        else:
            return
        if os.path.realpath(os.fsdecode(path)).startswith(self._folder + os.sep):
            self._step(event)

    def _step(self, kind: str) -> None:
        self.kinds.append(kind)
        if len(self.kinds) != self._at.step:
            return
        if self._at.act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self._parent.send("held")
        self._parent.recv()
