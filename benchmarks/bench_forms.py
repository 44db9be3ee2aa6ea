"""Measure how fast tar, Parquet and LMDB reach training, beside webdataset and datasets.

    python -m pip install -e '.[bench,parquet]'
    python benchmarks/bench_forms.py                  ../shared/faces/train, or the demo's ORL faces
    python benchmarks/bench_forms.py --data FOLDER --workers 0 1 2 --rounds 7 --json out.json
    python benchmarks/bench_forms.py --processor-time  on a busy machine

All feeds read the same files, give batches of uint8 pixels with the mirror drawn, and use as many
workers. ``decode`` is the fastest decoder on the same JPEGs from memory, in as many processes, into
one place in the processor's cache; ``decode to batches`` writes to as much memory as the feed. The
rivals have two rows each: as their documentation decodes images (Pillow), and with the decoder of
this project. Rivals take turns, round by round. Ratios are taken within a round, and the table
shows medians. The files are in the page cache. Where in memory the system puts a file changes its
speed by up to 1.7 times, so each round of this project's feeds reads another of COPIES copies.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bench_data as base
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import simplejpeg
import torch

from sphereface.data.images import decode
from sphereface.data.sources import Source, open_path
from sphereface.data.tar_packing import pack_tar

SHARDS = 16
COPIES = 5
RATIOS = {f"to {rival}": rival for rival in ("decode", "decode to batches", "webdataset", "datasets")}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
Batches = Iterator[Any]


# ---------------------------------------------------------------- the files


def write_tars(source: Source, folder: Path) -> Path:
    """Write about SHARDS tar files; return their folder."""
    size = sum(len(source.read(row)) + 3072 for row in range(len(source)))  # two headers, and a label
    folder.mkdir()
    pack_tar(source, folder / "faces.tar", most_bytes=size // SHARDS)
    return folder


def write_parquet(source: Source, folder: Path) -> Path:
    """Write SHARDS Parquet files as ``datasets`` does; return their folder."""
    folder.mkdir()
    features = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}
    meta = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for number, rows in enumerate(np.array_split(np.arange(len(source)), SHARDS)):
        images = pa.array([{"bytes": source.read(row), "path": f"{row}.jpg"} for row in rows.tolist()], IMAGE)
        table = pa.table({"image": images, "label": pa.array(np.asarray(source.labels)[rows], pa.int64())})
        path = folder / f"train-{number:05d}-of-{SHARDS:05d}.parquet"
        pa.parquet.write_table(table.replace_schema_metadata(meta), path, row_group_size=100, compression="none")
    return folder


def write_lmdb(source: Source, path: Path) -> Path:
    """Write one LMDB file as face trainers do."""
    import lmdb
    import msgpack

    environment = lmdb.open(str(path), subdir=False, map_size=1 << 34)
    with environment.begin(write=True) as transaction:
        for row in range(len(source)):
            transaction.put(b"%d" % row, msgpack.dumps([source.read(row), int(source.labels[row])]))
        transaction.put(b"__len__", msgpack.dumps(len(source)))
        transaction.put(b"__keys__", msgpack.dumps([b"%d" % row for row in range(len(source))]))
    environment.close()
    return path


# ---------------------------------------------------------------- the rivals


def pixels(data: bytes) -> np.ndarray:
    """Decode by the decoder of this project."""
    return simplejpeg.decode_jpeg(data, "BGR")


def mirrored(image: np.ndarray) -> np.ndarray:
    """Mirror every second image."""
    return image[:, ::-1] if torch.rand(()) < 0.5 else image


def mirrored_pair(pair: Sequence[Any]) -> tuple[np.ndarray, int]:
    """Mirror the image of (image, label)."""
    return mirrored(pair[0]), int(pair[1])


def webdataset_feed(folder: Path, workers: int, *, fast: bool) -> Batches:
    """Yield the batches of webdataset's usual pipeline, epoch after epoch."""
    import webdataset as wds

    shards = [str(path) for path in sorted(folder.glob("*.tar"))]
    raw = wds.WebDataset(shards, shardshuffle=len(shards), empty_check=False).shuffle(1000)
    read = raw.to_tuple("jpg", "cls").map_tuple(pixels, int) if fast else raw.decode("rgb8").to_tuple("jpg", "cls")
    dataset = read.map(mirrored_pair).batched(base.BATCH, partial=False)
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    while True:
        yield from loader


def collate(rows: Sequence[dict[str, Any]], *, fast: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a batch of the rows of datasets."""
    images = [pixels(row["image"]["bytes"]) if fast else np.asarray(row["image"].convert("RGB")) for row in rows]
    labels = torch.tensor([row["label"] for row in rows])
    return torch.from_numpy(np.stack([mirrored(image) for image in images])), labels


def datasets_feed(folder: Path, workers: int, *, fast: bool) -> Batches:
    """Yield the batches of datasets in a DataLoader, in random order, epoch after epoch."""
    import datasets

    files = [str(path) for path in sorted(folder.glob("*.parquet"))]
    cache = str(folder.parent / "cache")
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    loader = torch.utils.data.DataLoader(
        rows.cast_column("image", datasets.Image(decode=not fast)),
        batch_size=base.BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=partial(collate, fast=fast),
    )
    while True:
        yield from loader


# ---------------------------------------------------------------- the measurement


def build(
    folder: Path, scratch: Path, workers: Sequence[int], clock: base.Clock
) -> dict[tuple[str, int], Callable[[], float]]:
    """Return the measures by name and workers; ``decode`` is the first of each number."""
    source = open_path(folder)
    base._in_memory[:] = [source.read(row) for row in range(len(source))]
    size = decode(base._in_memory[0]).shape[:2]
    ours = {
        "tar": [write_tars(source, scratch / f"tar{copy}") for copy in range(COPIES)],
        "parquet": [write_parquet(source, scratch / f"parquet{copy}") for copy in range(COPIES)],
        "lmdb": [write_lmdb(source, scratch / f"{copy}.lmdb") for copy in range(COPIES)],
    }
    rivals = {
        "webdataset": partial(webdataset_feed, scratch / "tar0"),
        "datasets": partial(datasets_feed, scratch / "parquet0"),
    }
    best = max(base.DECODERS, key=lambda name: statistics.median(base.decode_rate(name, 4000) for _ in range(3)))
    measures: dict[tuple[str, int], Callable[[], float]] = {}
    for number in workers:
        slots = base.BATCH * (base.TASK * (2 * number + 1) + 1)
        for name, rows in {"decode": 1, "decode to batches": slots}.items():
            one = partial(base.decode_rate, best, 5000, clock, rows)
            measures[name, number] = base.DecodePool(best, number, rows).rate if number else one
        streams: dict[str, list[Batches]] = {}
        for name, paths in ours.items():
            streams[name] = [base.feed(open_path(path), size, number) for path in paths]
            for _ in range(len(source) // base.BATCH):  # each worker looks at most pages for the first time
                for stream in streams[name]:
                    next(stream)
        for name, rival in rivals.items():
            streams |= {name: [rival(number, fast=False)], f"{name}, our decoder": [rival(number, fast=True)]}
        for name, copies in streams.items():
            measures[name, number] = partial(next_rate, itertools.cycle(copies), number, clock)
    return measures


def next_rate(copies: Iterator[Batches], workers: int, clock: base.Clock) -> float:
    """Return the images per second of the next copy."""
    return base.stream_rate(next(copies), workers=workers, each=id, clock=clock)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the rows to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FOLDER", type=Path, help="a folder of identities, JPEGs of one size")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of workers (0 1 2)")
    text = "count the processor time of this process, which a busy machine changes little; allows only 0 workers"
    parser.add_argument("--processor-time", action="store_true", help=text)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the measurement (5)")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the rows as a list of objects")
    args = parser.parse_args(argv)
    workers, clock = ([0], time.process_time) if args.processor_time else (args.workers, time.perf_counter)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.data or (base.FACES if base.FACES.is_dir() else base.orl_as_jpeg(Path(scratch)))
        rows = base.measure(build(folder, Path(scratch), workers, clock), args.rounds, RATIOS)
        print(f"{len(base._in_memory):,} JPEGs of {folder.name}, batch {base.BATCH}, torch {torch.__version__}")
    titles = f"{'of decode':>11}{'to batches':>12}{'to webdataset':>15}{'to datasets':>13}"
    print(f"\n{'name':26}{'workers':>8}{'images/s':>10}{titles}")
    for row in rows:
        web, hub = f"{row['to webdataset']:.1f}×", f"{row['to datasets']:.1f}×"
        shares = f"{row['to decode']:>11.0%}{row['to decode to batches']:>12.0%}"
        print(f"{row['name']:26}{row['workers']:8}{row['images_per_s']:10,.0f}{shares}{web:>15}{hub:>13}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
