"""Measure the cost of the loss: this project's heads beside a linear layer with cross entropy.

    python benchmarks/bench_loss.py                 N = 256 and 1024 at C = 10572 and 100000,
    D = 512; chunks up to C = 10⁶
    python benchmarks/bench_loss.py --quick         N = 256 at C = 10572, within a minute
    python benchmarks/bench_loss.py --size 64 5000  another N and C
    python benchmarks/bench_loss.py --json out.json

Each figure is forward and backward, with gradients of embeddings and weights. The losses take
turns, round by round, so a change of the machine's speed affects all of them. The table shows
medians.

``bare`` is F.linear without bias and F.cross_entropy; bf16 rows are compared with bare under bf16
autocast. ``textbook`` is A-Softmax as in most ports, with ψ on all N×C logits by autograd. ``pml``
is pytorch-metric-learning (``pip install -e .[bench]``). ``extra MB`` is the memory that one step
adds to the peak of a separate process, beyond inputs, weights and gradients. In the last table the
ratio is that of the times per class, to bare at C = 100000.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peak_memory import extra_mb
from rivals import BARE, BARE_BF16, CHUNK, DIM, LAMBDA, PEERS, Row, Step, all_rows, make_step, new_weight
from rivals import peers_are_installed as peers

SECONDS = {"quick": 8.0, "full": 30.0}
"""Seconds for the rounds of one table; there are at least three rounds."""


@dataclass(frozen=True)
class Case:
    """One row: a loss at a size."""

    row: Row
    n: int
    classes: int
    dim: int


def medians(cases: dict[Case, Step], seconds: float) -> dict[Case, float]:
    """Return the milliseconds of each case; the cases take turns."""
    for step in cases.values():
        step()
    times: dict[Case, list[float]] = {case: [] for case in cases}
    began = time.perf_counter()
    while min(map(len, times.values())) < 3 or time.perf_counter() - began < seconds:
        for case, step in cases.items():
            started = time.perf_counter()
            step()
            times[case].append(1000 * (time.perf_counter() - started))
    return {case: statistics.median(values) for case, values in times.items()}


def measure(cases: list[Case], seconds: float) -> list[dict[str, Any]]:
    """Print the table of these cases, bare first, and return its rows for JSON."""
    head = f"N = {cases[0].n}, D = {cases[0].dim}"
    print(f"\n{head}\n{'loss':28}{'C':>9}{'ms':>10}{'ratio':>8}{'extra MB':>10}", flush=True)
    usable = [case for case in cases if case.row.name not in PEERS or peers()]
    extra = {case: extra_mb(case.row, case.n, case.classes, case.dim) for case in usable}
    sizes = {(case.classes, case.dim) for case in cases}
    weights = {size: new_weight(*size) for size in sizes}
    fitting = [case for case in usable if extra[case] is not None]
    times = medians({case: _step(case, weights) for case in fitting}, seconds)
    rows = [_row(case, times, extra.get(case)) for case in cases]
    for case, row in zip(cases, rows, strict=True):
        _print(row, "does not fit into memory" if case in extra else "not installed: pip install -e .[bench]")
    return rows


def _step(case: Case, weights: dict[tuple[int, int], torch.nn.Parameter]) -> Step:
    return make_step(case.row, case.n, case.classes, case.dim, weights[case.classes, case.dim])


def _row(case: Case, times: dict[Case, float], extra: float | None) -> dict[str, Any]:
    ms = times.get(case)
    low = case.row.dtype == "bfloat16"
    bare = next(other for other in times if other.row == (BARE_BF16 if low else BARE))
    ratio = None if ms is None else (ms / case.classes) / (times[bare] / bare.classes)
    row = {"name": case.row.name, "n": case.n, "classes": case.classes, "dim": case.dim, "dtype": case.row.dtype}
    return {**row, "ms": ms, "ratio_to_bare": ratio, "extra_mb": extra}


def _print(row: dict[str, Any], why_not: str) -> None:
    start = f"{row['name']:28}{row['classes']:9}"
    if row["ms"] is None:
        print(f"{start}  {why_not}", flush=True)
    else:
        print(f"{start}{row['ms']:10.1f}{row['ratio_to_bare']:8.2f}{row['extra_mb']:10.0f}", flush=True)


def tables(sizes: Sequence[tuple[int, int]], dim: int, *, chunks: bool) -> list[list[Case]]:
    """Return the tables: each size, and the chunked losses from 100,000 to 10⁶ classes."""
    found = [[Case(row, n, classes, dim) for row in all_rows()] for n, classes in sizes]
    if chunks:
        chunked = next(row for row in all_rows() if row.options.get("chunk_size"))
        cases = [Case(BARE, 256, 100_000, dim), *(Case(chunked, 256, c, dim) for c in (100_000, 1_000_000))]
        found.append(cases)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the rows to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the smallest size, few rounds")
    parser.add_argument("--size", nargs=2, type=int, metavar=("N", "C"), help="only this size")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to test the benchmark itself")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the rows as a list of objects")
    args = parser.parse_args(argv)
    sizes, dim = [(n, c) for c in (10_572, 100_000) for n in (256, 1024)], DIM
    whole = not (args.quick or args.size or args.tiny)
    if args.quick:
        sizes = sizes[:1]
    if args.size:
        sizes = [tuple(args.size)]
    if args.tiny:
        sizes, dim = [(4, 50)], 8
    seconds = 0.0 if args.tiny else SECONDS["quick" if args.quick else "full"]
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {threads} threads, λ = {LAMBDA:g}, chunks of {CHUNK} classes")
    rows = [row for cases in tables(sizes, dim, chunks=whole) for row in measure(cases, seconds)]
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
