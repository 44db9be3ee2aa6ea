"""Run the cases of a parser in a forked process with limits, and judge each.

A case passes where the parser returns, or raises a ``UserError`` with a short text. Time is the processor time of the
process, memory the growth of its resident set: neither depends on what else the machine does.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from .mutate import mutated
from .registry import Parser
from .verdict import PACKAGE, Limits, Memory, Watch, fault_of, place_of, virtual_size

_HARNESS_FAILED = 70
_ADDRESS_SPACE = 4 * 2**30  # that a case may reserve: the machine survives whatever a file claims


@dataclass(frozen=True)
class Failure:
    """A case that did not end as it should."""

    parser: str
    seed: int
    what: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.parser}: {self.what} · {self.place} · python -m tests.fuzz {self.parser} --seed {self.seed}"


def prepare(parser: Parser, folder: Path) -> Path:
    """Make the valid inputs, in a process of its own; return their folder."""
    folder.mkdir(parents=True)
    child = os.fork()
    if not child:
        log = folder.with_suffix(".log").open("w")
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            parser.make(folder)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, f"{parser.name}: no valid inputs: {folder.with_suffix('.log').read_text()}"
    (folder / parser.output).mkdir(exist_ok=True)
    return folder


def mutate_folder(parser: Parser, template: Path, folder: Path, seed: int) -> Path:
    """Write one mutated file into a copy of the valid inputs and return it; the seed decides everything."""
    random = Random(f"{parser.name}/{seed}")
    inputs = parser.inputs(template)
    chosen = random.choice(inputs)
    path = folder / chosen.relative_to(template)
    path.write_bytes(mutated(chosen, inputs, random))
    return path


def run_cases(parser: Parser, template: Path, seeds: Iterable[int], limits: Limits) -> Iterator[Failure]:
    """Run cases in a forked process. A case that ends the process is a failure, and the next one starts another."""
    left = list(seeds)
    while left:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            _work(parser, template, left, limits, write)
        os.close(write)
        started, failures = None, []
        with os.fdopen(read, encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("{"):
                    failures.append(Failure(**json.loads(line)))
                elif line.strip().isdigit():
                    started = int(line)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        yield from failures
        if status == 0:
            return
        assert started is not None, f"{parser.name}: the worker ended with {status} before its first case"
        assert status != _HARNESS_FAILED, f"{parser.name}: the harness failed in case {started}, see above"
        log = template.with_suffix(".crash")
        yield Failure(parser.name, started, _ended(status, limits), _place_of(log.read_text() if log.exists() else ""))
        left = left[left.index(started) + 1 :]


def _ended(status: int, limits: Limits) -> str:
    if -status == signal.SIGPROF:
        return f"more than {limits.seconds:g} s of processor time"
    return f"crash: {signal.Signals(-status).name}" if status < 0 else f"the process ended with {status}"


def _place_of(log: str) -> str:
    """The first frames in the package of faulthandler's text."""
    frames = [line for line in log.splitlines() if f'"{PACKAGE}{os.sep}' in line]
    return " < ".join(frame.rpartition("/")[2] for frame in frames[:2])


def _work(parser: Parser, template: Path, seeds: list[int], limits: Limits, write: int) -> None:
    """Run all cases; never returns."""
    terminal = os.fdopen(os.dup(2), "w", encoding="utf-8")  # for faults of the harness itself
    try:
        with os.fdopen(write, "w", buffering=1, encoding="utf-8") as report:
            crash = template.with_suffix(".crash").open("w")
            faulthandler.enable(crash, all_threads=False)
            faulthandler.register(signal.SIGPROF, crash, all_threads=False, chain=True)
            _be_quiet()
            gc.freeze()
            watch = Watch(template.with_name(f"{template.name}-case"), parser.output)
            for seed in seeds:
                print(seed, file=report)
                failure = run_case(parser, template, seed, limits, watch)
                if failure:
                    print(json.dumps(asdict(failure)), file=report)
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=terminal)
        terminal.flush()
        os._exit(_HARNESS_FAILED)


def run_case(parser: Parser, template: Path, seed: int, limits: Limits, watch: Watch) -> Failure | None:
    """Run one case in this process; the watch tells what was written where."""
    shutil.rmtree(watch.folder, ignore_errors=True)
    shutil.copytree(template, watch.folder)
    path = mutate_folder(parser, template, watch.folder, seed)
    before, memory = watch.listing(), Memory()
    resource.setrlimit(resource.RLIMIT_AS, (virtual_size() + _ADDRESS_SPACE, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_PROF, limits.seconds)
    watch.begin()
    error: BaseException | None = None
    try:
        parser.parse(watch.folder, path)
    except BaseException as raised:
        error = raised
    finally:
        watch.end()
        signal.setitimer(signal.ITIMER_PROF, 0)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    what = fault_of(error) or memory.fault(limits) or watch.fault(before)
    if what is None:
        return None
    place = place_of(error) if error is not None else ""
    return Failure(parser.name, seed, what, place)


class _Formats(logging.Handler):
    """Formats each record, as a real handler would, and keeps nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


def _be_quiet() -> None:
    sys.dont_write_bytecode = True
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 -- until the process ends
    root = logging.getLogger()
    root.handlers[:] = [_Formats()]
    root.setLevel(logging.INFO)
