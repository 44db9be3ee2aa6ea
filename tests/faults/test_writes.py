"""Every command that writes: killed at each of its steps on the disk, on a full disk, and two at once."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from .commands import COMMANDS, Command
from .points import At, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and limits of Linux")

POINTS = int(os.environ.get("SPHEREFACE_KILL_POINTS", "1000"))  # of a command, in the long form
SIZES = (0, 1, 40, 400, 4_000, 40_000)  # bytes that can be written to a file


@dataclass(frozen=True)
class Outcome:
    """How a process ended: exit code (negative: the signal), what it printed, its steps on the disk, what it left."""

    code: int
    text: str
    steps: list[str]
    outputs: dict[str, Any]


class Running:
    """A command that runs in a folder."""

    def __init__(self, server: ForkServerContext, command: Command, folder: Path, at: At) -> None:
        self.command, self.folder = command, folder
        self._out, out = Pipe(duplex=False)
        self.control, control = Pipe()
        self._process: BaseProcess = server.Process(target=run, args=(list(command.argv), folder, out, at, control))
        self._process.start()
        out.close()
        control.close()

    def wait_until_held(self) -> bool:
        """False where it ended before."""
        try:
            return bool(self.control.recv())
        except EOFError:
            return False

    def end(self) -> Outcome:
        data = b""
        while block := os.read(self._out.fileno(), 1 << 16):
            data += block
        self._process.join(120)
        text = data.decode("utf-8", "replace")
        steps = re.search(r"^steps (.*)$", text, re.MULTILINE)
        code = self._process.exitcode
        assert code is not None
        return Outcome(code, text, steps[1].split() if steps else [], self.command.outputs(self.folder))


class Case:
    """One command, its inputs made once and copied for each run."""

    def __init__(self, server: ForkServerContext, command: Command, folder: Path) -> None:
        self._server, self.command, self._folder = server, command, folder
        self._made, self._number = folder / "made", 0
        self._made.mkdir(parents=True)
        command.make(self._made)

    def copy(self, of: Path | None = None) -> Path:
        self._number += 1
        folder = self._folder / f"{self._number}" / "case"  # the same last part: some outputs name it
        shutil.copytree(of or self._made, folder)
        return folder

    def start(self, folder: Path, at: At | None = None) -> Running:
        return Running(self._server, self.command, folder, at or At())

    def whole(self, folder: Path | None = None) -> Outcome:
        return self.start(folder or self.copy()).end()


def told_in_a_line(outcome: Outcome) -> bool:
    """Whether it was refused as errors of users are: exit code 2, one line, no traceback."""
    return outcome.code == 2 and "Traceback" not in outcome.text and outcome.text.count("error:") == 1


def told_or_done(outcome: Outcome) -> bool:
    return (outcome.code == 0 and "Traceback" not in outcome.text) or told_in_a_line(outcome)


def age_leftovers(folder: Path) -> None:
    """Two hours go by: a writer at work changes its file all the time, so what is older was left by a kill."""
    before = time.time() - 7_200
    for path in folder.rglob(".*.part"):
        os.utime(path, (before, before))


def check_earlier_files(case: Case, folder: Path, earlier: Path) -> None:
    """Every file of the earlier run is there, with its content."""
    expected, found = case.command.files(earlier), case.command.files(folder)
    assert {name: found.get(name, "missing") for name in expected} == expected


def check_repeated(case: Case, folder: Path, whole: Outcome, *, may_refuse: bool) -> None:
    """The same command again ends as if nothing had happened; or says that all is there, and all is there."""
    age_leftovers(folder)
    again = case.whole(folder)
    assert again.code == 0 or (may_refuse and told_in_a_line(again)), again.text
    assert {name: found for name, found in again.outputs.items() if not name.endswith(".part")} == whole.outputs
    assert again.code == 2 or not leftovers(folder)


def leftovers(folder: Path) -> list[Path]:
    """Parts of killed writers, but those in the folder of a run that had not begun: nothing writes there again."""
    not_begun = {path.parent for path in folder.rglob(".lock") if not path.with_name("run.json").exists()}
    return [part for part in folder.rglob("*.part") if part.parent not in not_begun]


@pytest.fixture(scope="module")
def cases(server, tmp_path_factory):
    """Each command's case, with how it ends undisturbed, and a folder in which it has ended."""
    found: dict[str, tuple[Case, Outcome, Path | None]] = {}

    def case_of(name: str) -> tuple[Case, Outcome, Path | None]:
        if name not in found:
            case = Case(server, COMMANDS[name], tmp_path_factory.mktemp(name))
            done = case.copy()
            whole = case.whole(done)
            assert whole.code == 0, whole.text
            assert whole.outputs
            assert len(whole.steps) > 1
            repeats = case.whole(case.copy(done)).code == 0  # else it refuses to write over what is there
            found[name] = case, whole, done if repeats else None
        return found[name]

    return case_of


def steps_of(whole: Outcome, long: bool) -> list[int]:
    """All steps (or as many as are wanted, evenly), or that before the last file has its name."""
    total = len(whole.steps)
    if not long:
        named = [number for number, kind in enumerate(whole.steps, start=1) if kind == "os.rename"]
        return [named[-1] if named else total]
    count = min(total, POINTS)
    return sorted({total - round(k * total / count) for k in range(count)})


def both(short: tuple[str, ...]):
    """The short form of some commands in ``make test``, the long one of all in ``make faults``."""
    forms = [pytest.param(name, False, id=f"{name}-short") for name in short]
    forms += [pytest.param(name, True, id=name, marks=pytest.mark.slow) for name in COMMANDS]
    return lambda test: pytest.mark.timeout(3_600)(pytest.mark.parametrize(("name", "long"), forms)(test))


@both(("align", "pack", "make_pairs", "embed", "embed-folder", "eval", "export", "import", "join", "train"))
def test_killed_at_a_step_then_run_again(cases, name, long):
    case, whole, done = cases(name)
    starts = [None, done] if long and done is not None else [None]
    for step, start in itertools.product(steps_of(whole, long), starts):
        folder = case.copy(start)
        killed = case.start(folder, At(step)).end()
        assert killed.code == -signal.SIGKILL or start is not None, killed.text  # a second run may take fewer steps
        if start is not None:
            check_earlier_files(case, folder, start)
        check_repeated(case, folder, whole, may_refuse=done is None)


@both(("pack", "verify", "train"))
def test_killed_amid_a_write_then_run_again(cases, name, long):
    case, whole, done = cases(name)
    for size in SIZES if long else (400,):
        folder = case.copy(done)
        killed = case.start(folder, At(size=size)).end()
        assert killed.code in (0, -signal.SIGXFSZ), killed.text
        if done is not None:
            check_earlier_files(case, folder, done)
        check_repeated(case, folder, whole, may_refuse=done is None)


@both(("embed", "verify", "train"))
def test_a_full_disk_is_told_in_a_line_and_harms_nothing(cases, name, long):
    case, whole, done = cases(name)
    for size in SIZES if long else (40,):
        folder = case.copy(done)
        full = case.start(folder, At(size=size, act="full")).end()
        assert told_or_done(full), full.text
        if done is not None:
            check_earlier_files(case, folder, done)
        check_repeated(case, folder, whole, may_refuse=done is None)


@both(("align", "pack", "embed", "join", "train"))
def test_two_at_once(cases, name, long):
    """One is held at a step, the other runs whole, then the first continues."""
    case, whole, _ = cases(name)
    for step in steps_of(whole, long):
        folder = case.copy()
        first = case.start(folder, At(step, act="hold"))
        assert first.wait_until_held()
        second = case.whole(folder)
        first.control.send("continue")
        ended = first.end()
        for outcome in (second, ended):
            assert told_or_done(outcome), outcome.text
            assert outcome.code == 0 or re.search(r"^error: .*(another|already)", outcome.text, re.M), outcome.text
        assert 0 in (second.code, ended.code), second.text + ended.text
        assert ended.outputs == whole.outputs
        assert not list(folder.rglob("*.part"))
