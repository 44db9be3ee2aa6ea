"""Run the harness: ``python -m tests.fuzz [PARSER …] [--cases N] [--first SEED] [--seed N [--keep DIR]]``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .registry import PARSERS, Parser
from .verdict import Limits
from .worker import Failure, mutate_folder, prepare, run_cases


def main(argv: Sequence[str] | None = None) -> int:
    arguments = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    arguments.add_argument("parsers", nargs="*", help="names; all without any")
    arguments.add_argument("--cases", type=int, default=40, help="of each parser (default: 40)")
    arguments.add_argument("--first", type=int, default=0, help="seed of the first case (default: 0)")
    arguments.add_argument("--seed", type=int, help="this case only")
    arguments.add_argument(
        "--keep", type=Path, help="with --seed: leave the mutated folder here and show the traceback"
    )
    arguments.add_argument("--seconds", type=float, default=Limits.seconds, help="processor time of a case")
    arguments.add_argument("--megabytes", type=int, default=Limits.memory >> 20, help="memory of a case")
    arguments.add_argument("--list", action="store_true", help="name each parser and the modules that it reads with")
    arguments.add_argument("--json", action="store_true", help="a line of JSON for each failure")
    arguments.add_argument("--registry", default="tests.fuzz.parsers", help="module that registers the parsers")
    args = arguments.parse_args(argv)
    importlib.import_module(args.registry)
    platform.platform()  # starts a process, once
    names = args.parsers or list(PARSERS)
    if unknown := set(names) - PARSERS.keys():
        arguments.error(f"no parser {', '.join(sorted(unknown))} · allowed: {', '.join(PARSERS)}")
    if args.list:
        print("\n".join(f"{name} {' '.join(PARSERS[name].reads)}" for name in names))
        return 0
    if args.keep is not None:
        return _keep(PARSERS[names[0]], args.seed or 0, args.keep)
    seeds = range(args.first, args.first + args.cases) if args.seed is None else range(args.seed, args.seed + 1)
    failures = 0
    for name in names:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        found = _run(PARSERS[name], seeds, Limits(args.seconds, args.megabytes << 20))
        failures += len(found)
        for line in [json.dumps(asdict(each)) for each in found] if args.json else _grouped(found):
            print(line, flush=True)
        seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - spent
        print(f"# {name}: {len(seeds)} cases, {len(found)} failed, {seconds:.1f} s", flush=True)
    return int(failures > 0)


def _grouped(failures: Sequence[Failure]) -> list[str]:
    """A line for each place and kind of failure: its first case, and how many there are."""
    groups: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        groups.setdefault((failure.place, failure.what[:20]), []).append(failure)
    return [f"{found[0]}" + (f" · {len(found)} like it" if len(found) > 1 else "") for found in groups.values()]


def _run(parser: Parser, seeds: range, limits: Limits) -> list[Failure]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        template = prepare(parser, Path(folder) / "valid")
        return list(run_cases(parser, template, seeds, limits))


def _keep(parser: Parser, seed: int, folder: Path) -> int:
    """Leave one case's folder, and run it here."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        template = prepare(parser, Path(temporary) / "valid")
        shutil.copytree(template, folder)
        path = mutate_folder(parser, template, folder, seed)
    print(f"mutated: {path}")
    try:
        parser.parse(folder, path)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
