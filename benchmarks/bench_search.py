"""Time of exact gallery search beside faiss.IndexFlatIP, on the same vectors and the same cores.

    python benchmarks/bench_search.py  1,000,000 rows of 512 numbers: 1, 8 and 64 queries
    python benchmarks/bench_search.py --queries 1 8 --rounds 15
    python benchmarks/bench_search.py --rows 100000 --json out.json

The vectors are random unit vectors, float32. The two programs take turns, round by round, and the
table shows medians. ``product`` is the matrix product of gallery and queries alone, in the same
blocks: the search cannot take less time. The benchmark ends with exit status 1 if the two find
different rows, other than rows whose cosines differ by less than rounding. It needs faiss-cpu
(``pip install -e .[faiss]``), and 5 GB of memory: faiss keeps its own copy. Other programs on the
same cores slow the two down unequally, so the load of the machine is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from threadpoolctl import threadpool_info  # scikit-learn depends on it

from sphereface import search
from sphereface.search import Embeddings, nearest

ROUNDING = 2e-6
"""Cosines of two programs may differ by this much: float32 sums of 512 products, in another
order.
"""

PART = 50_000  # rows generated at a time, to keep the peak memory low


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the gallery (%(default)s)")
    parser.add_argument("--dim", type=int, default=512, help="numbers in an embedding (%(default)s)")
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 8, 64], help="queries in one search (1 8 64)")
    parser.add_argument("--top", type=int, default=10, help="rows to find for each query (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the rows of the table as a list of objects")
    return parser.parse_args(argv)


def unit_vectors(count: int, dim: int, rng: np.random.Generator) -> Embeddings:
    """Return (count, dim) float32 random unit vectors."""
    vectors = np.empty((count, dim), dtype=np.float32)
    for start in range(0, count, PART):
        part = rng.standard_normal((min(PART, count - start), dim), dtype=np.float32)
        vectors[start : start + PART] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def medians(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each run; they take turns, and every other round in reverse
    order.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for number in range(rounds):
        for name in list(runs) if number % 2 == 0 else reversed(runs):
            start = time.perf_counter()
            runs[name]()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def product(gallery: Embeddings, queries: Embeddings) -> None:
    """Multiply as the search does, and keep nothing."""
    for start in range(0, len(gallery), search._BLOCK):
        gallery[start : start + search._BLOCK] @ queries.T


def versions() -> str:
    """Return the versions, the threads of both programs, and the load of the machine."""
    blas = [f"{info['internal_api']} {info['version']}" for info in threadpool_info() if info["user_api"] == "blas"]
    threads = sorted({info["num_threads"] for info in threadpool_info()} | {faiss.omp_get_max_threads()})
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return (
        f"numpy {np.__version__}, faiss {faiss.__version__}, BLAS: {' and '.join(blas)}\n"
        f"{cores} cores, threads: {' or '.join(map(str, threads))}, load {load:.1f}"
    )


def measure(gallery: Embeddings, index: Any, queries: Embeddings, args: argparse.Namespace) -> dict[str, Any]:
    """Return one row of the table: milliseconds, their ratio, and whether both programs find the
    same rows.
    """
    runs: dict[str, Callable[[], object]] = {
        "product": partial(product, gallery, queries),
        "nearest": partial(nearest, gallery, queries, args.top),
        "faiss": partial(index.search, queries, args.top),
    }
    ms = medians(runs, args.rounds)
    rows, cosines = nearest(gallery, queries, args.top)
    scores, ids = index.search(queries, args.top)
    return {
        "queries": len(queries),
        **ms,
        "ratio": ms["nearest"] / ms["faiss"],
        "same_rows": float((rows == ids).mean()),
        "same_cosines": np.allclose(cosines, scores, rtol=0, atol=ROUNDING),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, compare and print."""
    args = parse(argv)
    rng = np.random.default_rng(args.seed)
    gallery = unit_vectors(args.rows, args.dim, rng)
    index = faiss.IndexFlatIP(args.dim)
    index.add(gallery)
    print(f"{versions()}\n{args.rows:,} rows of {args.dim}, top {args.top}, medians of {args.rounds} rounds, in ms\n")
    columns = ("queries", "product", "nearest", "faiss", "ratio", "same rows")
    print("".join(f"{name:>10}" for name in columns), flush=True)
    table = []
    for count in args.queries:
        row = measure(gallery, index, unit_vectors(count, args.dim, rng), args)
        times = "".join(f"{row[name]:10.1f}" for name in ("product", "nearest", "faiss"))
        print(f"{count:10}{times}{row['ratio']:10.2f}{row['same_rows']:10.1%}", flush=True)
        table.append(row)
    print(f"\nload at the end {os.getloadavg()[0]:.1f}; this benchmark alone causes up to 1 per core")
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    if not all(row["same_cosines"] for row in table):
        print("error: the two programs found different rows", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
