"""Measure what a training set of millions costs a process, also beside another commit.

    # 5.2 million images of 93,000 identities
    python benchmarks/bench_scale.py
    python benchmarks/bench_scale.py --images 42500000 --identities 2000000
    # the same with the package of a git worktree
    python benchmarks/bench_scale.py --base TREE

The figures are the times of opening, of the first batch and of a new epoch, and memory. The set is
a ``.rec`` in InsightFace's form whose images have four bytes: its index is as large as a real one.
"First batch" is the order, the labels and the bytes of 512 images; nothing is decoded. Every figure
is of a new process, and the files are in the page cache.

Memory is the growth of a process after its imports, by ``/proc/self/smaps_rollup``. ``own`` is
anonymous memory. ``mapped`` is pages of files, which all processes share and the system can
reclaim. For several processes it is the sum of their proportional shares. "peak" is the largest
resident size of a process, with imports and mapped pages.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 512
ROOT = Path(__file__).resolve().parents[1]
_CHUNK = 1 << 20  # records written at a time
_MAGIC = 0xCED7230A
_IMAGE = np.dtype(
    [(name, "<u4") for name in ("magic", "length", "flag")]
    + [("label", "<f4"), ("id", "<u8"), ("id2", "<u8"), ("image", "S4")]
)
_RANGE = np.dtype(
    [(name, "<u4") for name in ("magic", "length", "flag")]
    + [("label", "<f4"), ("id", "<u8"), ("id2", "<u8"), ("first", "<f4"), ("end", "<f4")]
)


def make_set(folder: Path, images: int, identities: int) -> Path:
    """Write ``train.rec`` and ``train.idx``.

    They hold N images, evenly over the identities, then a record for each identity.
    """
    firsts = np.arange(identities + 1) * images // identities
    with (folder / "train.rec").open("wb") as rec, (folder / "train.idx").open("wb") as idx:
        place = 0
        for start in range(0, images, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, images))
            records = np.zeros(len(rows), _IMAGE)
            records["magic"], records["length"], records["image"] = _MAGIC, _IMAGE.itemsize - 8, b"face"
            records["label"], records["id"] = np.searchsorted(firsts, rows, side="right") - 1, rows + 1
            place = _append(rec, idx, records, place)
        for start in range(-1, identities, _CHUNK):  # the header record with the key 0, then the identities
            rows = np.arange(start, min(start + _CHUNK, identities))
            records = np.zeros(len(rows), _RANGE)
            records["magic"], records["length"], records["flag"] = _MAGIC, _RANGE.itemsize - 8, 2
            records["id"] = np.where(rows < 0, 0, images + 1 + rows)
            records["first"] = np.where(rows < 0, images + 1, firsts[rows] + 1)
            records["end"] = np.where(rows < 0, images + 1 + identities, firsts[rows + 1] + 1)
            place = _append(rec, idx, records, place)
    return folder / "train.rec"


def _append(rec: Any, idx: Any, records: np.ndarray, place: int) -> int:
    rec.write(records.data)
    offsets = place + np.arange(len(records)) * records.itemsize
    idx.write("".join(f"{k}\t{o}\n" for k, o in zip(records["id"].tolist(), offsets.tolist(), strict=True)).encode())
    return place + records.nbytes


# ---------------------------------------------------------------- in a process of its own


def probe(path: Path) -> None:
    """Open the set, wait for a line of the parent, take batches, and print JSON."""
    from sphereface.data.sampler import Augmentation, BatchOrder
    from sphereface.data.sources.records import RecordSource

    empty = _memory()
    print(json.dumps({"tree": sys.modules["sphereface"].__file__}), flush=True)
    sys.stdin.readline()
    started, cpu = time.perf_counter(), time.process_time()
    source = RecordSource(path)
    opened, cpu = time.perf_counter(), time.process_time() - cpu
    order = BatchOrder(len(source), BATCH, seed=0, augmentation=Augmentation())
    _take(source, order, 0)
    first = time.perf_counter()
    times = {"open_s": opened - started, "open_cpu_s": cpu, "first_batch_s": first - opened}
    times["batch_s"] = statistics.median(_timed(order, BATCH * row) for row in range(1, 100))
    times["new_epoch_s"] = _timed(order, len(source))
    times["most_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps(times), flush=True)
    sys.stdin.readline()
    print(json.dumps({key: value - empty[key] for key, value in _memory().items()}), flush=True)
    sys.stdin.readline()


def _take(source: Any, order: Any, start: int) -> None:
    draw = order.draw(start)
    source.labels[draw.indices]
    for index in draw.indices.tolist():
        source.read(index)


def _timed(order: Any, start: int) -> float:
    started = time.perf_counter()
    order.draw(start)
    return time.perf_counter() - started


def _memory() -> dict[str, float]:
    """Return the MB of this process: its own, and its share of the pages of files."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {"own_mb": kb["Pss_Anon"] / 1e3, "mapped_mb": (kb["Pss_File"] + kb["Pss_Shmem"]) / 1e3}


# ---------------------------------------------------------------- the program


def measure(path: Path, tree: Path, processes: int) -> dict[str, float]:
    """Measure one process, or several at the same time: the slowest time, and total memory."""
    command = [sys.executable, __file__, "--probe", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    probes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(processes)]  # noqa: S603
    trees = {_said(each)["tree"] for each in probes}
    assert all(Path(name).is_relative_to(tree) for name in trees), trees
    times = _all_say(probes)
    memory = _all_say(probes)
    for each in probes:
        each.communicate("\n")
    slowest = {key: max(one[key] for one in times) for key in times[0]}
    return {**slowest, **{key: sum(one[key] for one in memory) for key in memory[0]}}


def _all_say(probes: Sequence[subprocess.Popen[str]]) -> list[dict[str, float]]:
    for each in probes:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    return [_said(each) for each in probes]


def _said(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def rows_of(path: Path, base: Path | None, processes: int, repeats: int) -> list[dict[str, Any]]:
    """Return one row for each measurement; of later openings the median."""
    rows: list[dict[str, Any]] = []
    if base is not None:
        rows.append({"what": "base, one process", **measure(path, base, 1)})
    rows.append({"what": "first opening", **measure(path, ROOT, 1)})
    later = [measure(path, ROOT, 1) for _ in range(repeats)]
    rows.append({"what": "later opening", **{key: statistics.median(one[key] for one in later) for key in later[0]}})
    rows.append({"what": f"{processes} at once", **measure(path, ROOT, processes)})
    return rows


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    columns = {"open_s": "open s", "open_cpu_s": "of processor", "first_batch_s": "first batch s"}
    columns |= {"batch_s": "batch ms", "new_epoch_s": "new epoch ms"}
    columns |= {"own_mb": "own MB", "mapped_mb": "mapped MB", "most_mb": "peak MB"}
    print(f"{'':20}" + "".join(f"{title:>14}" for title in columns.values()))
    for row in rows:
        values = [row[key] * (1000 if title.endswith("ms") else 1) for key, title in columns.items()]
        print(f"{row['what']:20}" + "".join(f"{value:14,.3f}" for value in values))


def main(argv: Sequence[str] | None = None) -> int:
    """Make the set, measure, print, and write the rows to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_200_000)
    parser.add_argument("--identities", type=int, default=93_000)
    parser.add_argument("--base", metavar="TREE", type=Path, help="a worktree of another commit, to compare with")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5, help="rounds of the later opening (5)")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the rows as a list of objects")
    parser.add_argument("--probe", metavar="REC", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.probe:
        probe(args.probe)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        path = make_set(Path(scratch), args.images, args.identities)
        rows = rows_of(path, args.base and args.base.resolve(), args.processes, args.repeats)
    print(f"{args.images:,} images of {args.identities:,} identities, numpy {np.__version__}\n")
    print_rows(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
