"""Measure reading of random images from a disk, for training sets larger than the memory.

    python -m pip install -e '.[bench,parquet]'
    python benchmarks/bench_disk.py                       4.4 GB of made-up images, for a while
    python benchmarks/bench_disk.py --images 3000000 --folder DISK --rounds 5

Each row is a new process. It opens the files, makes the system forget them, and reads batches of
128 random images; nothing is decoded. The rivals read the same files: a map of memory, as numpy and
pyarrow use it; ``seek`` and ``read``, as readers of RecordIO do; the library of LMDB, by default
and as face trainers open it; and ``datasets``. The folder has a tenth of the images, as files; the
system still knows where they lie. "kB" is what the system read from the disk for an image, by
``/proc/self/io``. Rows take turns, and the table shows medians. Linux only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import mmap
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sphereface.data.identities import Labels
from sphereface.data.packing import pack
from sphereface.data.read_ahead import encoded
from sphereface.data.sources import open_path
from sphereface.data.sources.base import FileSource, read_each
from sphereface.data.tar_packing import pack_tar

BATCH = 128
EACH = 50  # images of an identity
SIZES = (3_500, 7_500)  # bytes of an image: those of JPEG crops
Reader = Callable[[list[int]], Sequence[bytes]]


class MadeUp:
    """A source of JPEGs of noise, filled up with random bytes."""

    mapped = False
    named = False

    def __init__(self, images: int) -> None:
        self.labels = Labels.of_counts(np.full(images // EACH, EACH))
        self.class_names = [str(number) for number in range(images // EACH)]

        rng = np.random.default_rng(0)
        self._begin = cv2.imencode(".jpg", rng.integers(0, 256, (32, 32, 3), np.uint8))[1].tobytes()
        self._sizes = rng.integers(*SIZES, images) - len(self._begin)
        self._bytes = rng.bytes(2**24)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """Return the bytes of an image."""
        start = index * 7919 % (2**24 - SIZES[1])
        return self._begin + self._bytes[start : start + self._sizes[index]]

    def name(self, index: int) -> str:
        """Return its name."""
        return str(index)


def write(folder: Path, images: int) -> None:
    """Write the images in all forms."""
    import lmdb
    import msgpack
    import pyarrow as pa

    source = MadeUp(images)
    pack(source, folder / "faces.rec")
    (folder / "tar").mkdir()
    pack_tar(source, folder / "tar" / "faces.tar", most_bytes=2**28)
    environment = lmdb.open(str(folder / "faces.lmdb"), subdir=False, map_size=1 << 40)
    with environment.begin(write=True) as transaction:
        for row in range(images):
            transaction.put(b"%d" % row, msgpack.dumps([source.read(row), int(source.labels[row])]))
    environment.close()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", kind), ("label", pa.int64())])
    with pa.OSFile(str(folder / "faces.arrow"), "wb") as out, pa.ipc.new_stream(out, schema) as writer:
        for first in range(0, images, 1000):
            rows = range(first, min(first + 1000, images))
            faces = pa.array([{"bytes": source.read(row), "path": ""} for row in rows], kind)
            writer.write_batch(
                pa.record_batch([faces, pa.array([int(source.labels[row]) for row in rows])], schema=schema)
            )
    for row in range(images // 10):
        path = folder / "faces" / str(row // EACH) / f"{row}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(row))
    os.sync()


# ---------------------------------------------------------------- the readers


def ours(path: Path) -> Reader:
    """Open a set as training does."""
    source = open_path(path)
    return lambda rows: [bytes(data) for data in read_each(source, rows)]  # type: ignore[arg-type]


def files(folder: Path, threads: int) -> Reader:
    """Open a folder as training does."""
    FileSource.threads = threads
    source = open_path(folder / "faces")

    def read(rows: list[int]) -> list[bytes]:
        with encoded(source, rows) as images:
            return [bytes(data) for data in images]  # type: ignore[arg-type]

    return read


def spans(folder: Path) -> tuple[Path, list[int], list[int]]:
    """Return the ``.rec``, and first byte and size of each record."""
    offsets = [int(line.split()[1]) for line in (folder / "faces.idx").read_text().splitlines()][1:]
    return folder / "faces.rec", offsets, [after - first for first, after in itertools.pairwise(offsets)]


def mapped(folder: Path) -> Reader:
    """Cut records out of a map."""
    path, starts, sizes = spans(folder)
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return lambda rows: [view[starts[row] : starts[row] + sizes[row]] for row in rows]


def sought(folder: Path) -> Reader:
    """Seek and read records."""
    path, starts, sizes = spans(folder)
    file = path.open("rb")

    def one(row: int) -> bytes:
        file.seek(starts[row])
        return file.read(sizes[row])

    return lambda rows: [one(row) for row in rows]


def lmdb_library(folder: Path, *, readahead: bool) -> Reader:
    """Read by the library."""
    import lmdb
    import msgpack

    environment = lmdb.open(str(folder / "faces.lmdb"), subdir=False, readonly=True, lock=False, readahead=readahead)
    transaction = environment.begin()
    return lambda rows: [msgpack.loads(transaction.get(b"%d" % row))[0] for row in rows]


def datasets_library(folder: Path) -> Reader:
    """Read by ``datasets`` from Arrow."""
    import datasets

    rows_of = datasets.Dataset.from_file(str(folder / "faces.arrow"))
    return lambda rows: [row["image"]["bytes"] for row in rows_of.__getitems__(rows)]


READERS: dict[str, Callable[[Path], Reader]] = {
    "rec": lambda folder: ours(folder / "faces.rec"),
    "tar": lambda folder: ours(folder / "tar"),
    "LMDB": lambda folder: ours(folder / "faces.lmdb"),
    "Arrow": lambda folder: ours(folder / "faces.arrow"),
    "folder": lambda folder: files(folder, FileSource.threads),
    "folder, one thread": lambda folder: files(folder, 1),
    "map of the .rec": mapped,
    "seek and read the .rec": sought,
    "lmdb": lambda folder: lmdb_library(folder, readahead=True),
    "lmdb, readahead=False": lambda folder: lmdb_library(folder, readahead=False),
    "datasets": datasets_library,
}

# ---------------------------------------------------------------- the measurement


def read_bytes() -> int:
    """Return what this process let the system read from a disk."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def measure(name: str, folder: Path, images: int, batches: int, seed: int) -> tuple[float, float, float]:
    """Return µs, µs of processor time and kB from the disk for an image, in this process."""
    reader = READERS[name](folder)
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    images = images // 10 if name.startswith("folder") else images
    batches = min(batches, (images - EACH) // BATCH)
    order = np.random.default_rng(seed).permutation(images - EACH)[: batches * BATCH].reshape(batches, BATCH).tolist()
    before, processor, started = read_bytes(), time.process_time(), time.perf_counter()
    least = min(len(data) for rows in order for data in reader(rows))
    seconds, processor, read = time.perf_counter() - started, time.process_time() - processor, read_bytes() - before
    assert least >= SIZES[0]
    count = batches * BATCH
    return seconds / count * 1e6, processor / count * 1e6, read / count / 1e3


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the rows to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000, help="images, 5.5 kB each, in four forms (200000)")
    parser.add_argument("--batches", type=int, default=50, help="batches of each row and round (50)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (3)")
    parser.add_argument(
        "--folder", metavar="DISK", type=Path, help="where the files are written (the temporary folder)"
    )
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the rows as a list of objects")
    args = parser.parse_args(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in READERS}
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        write(Path(scratch), args.images)
        for number in range(args.rounds):
            for name in READERS:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    task = (name, Path(scratch), args.images, args.batches, number)
                    found[name].append(pool.submit(measure, *task).result())
    rows: list[dict[str, Any]] = []
    print(f"{'name':26}{'images/s':>10}{'µs':>8}{'processor':>11}{'kB':>8}")
    for name, values in found.items():
        clock, processor, kilobytes = (statistics.median(column) for column in zip(*values, strict=True))
        rows.append({"name": name, "us": clock, "processor_us": processor, "kB": kilobytes})
        print(f"{name:26}{1e6 / clock:10,.0f}{clock:8.1f}{processor:11.1f}{kilobytes:8.1f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
