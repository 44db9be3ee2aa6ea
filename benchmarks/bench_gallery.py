"""Open and search a gallery that is a folder: time, memory, and the recall of an index.

    python benchmarks/bench_gallery.py  1,000,000 rows of 128 numbers in float16
    python benchmarks/bench_gallery.py --rows 10000000 --index      and build IVF-PQ
    python benchmarks/bench_gallery.py --rows 100000 --folder /tmp/g --keep
    python benchmarks/bench_gallery.py --images data/orl-112x96/train  beside the bare forward

The rows are generated: people with 20 images each, whose cosines are about 0.6. The queries are
further images of these people. Each figure is of a process of its own, so that its peak memory is
its own. Pages of the mapped files, which the system may take back, are counted apart. The files are
in the system's page cache when they are searched. The folder is deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sphereface.api import FaceEmbedder
from sphereface.evaluation.gallery_folder import GalleryFolder
from sphereface.evaluation.gallery_shard import GalleryKind, ShardContent, texts, write_shard
from sphereface.gallery import Gallery, load_gallery
from sphereface.gallery_update import kind_of, update_gallery
from sphereface.image_list import list_named
from sphereface.search import nearest
from sphereface.search_index import open_index
from sphereface.training.distributed import World

PER_SHARD, PER_PERSON = 8192, 20
NOISE = 0.8  # times the length of a person's centre: cosines of 1 / (1 + 0.8²) = 0.61 within a person
KIND = {"checkpoint_sha256": "0" * 64, "settings": "generated"}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the gallery (%(default)s)")
    parser.add_argument("--dim", type=int, default=128, help="numbers in an embedding (%(default)s)")
    parser.add_argument("--top", type=int, default=10, help="rows to find for each query (%(default)s)")
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 64], help="queries in one search (1 64)")
    parser.add_argument("--index", action="store_true", help="build the index of faiss as well")
    parser.add_argument("--folder", type=Path, help="where to generate the gallery (a temporary folder)")
    parser.add_argument("--keep", action="store_true", help="keep the folder, and use the gallery that is there")
    help_text = "embed these aligned crops by the network that ships, in place of the above"
    parser.add_argument("--images", metavar="DIR", type=Path, help=help_text)
    return parser.parse_args(argv)


def people(first: int, count: int, dim: int, seed: int) -> np.ndarray:
    """Return (count, dim) float32 embeddings of the images ``first``, ``first`` + 1, …; another
    ``seed`` gives other images of the same people.
    """
    owners = np.arange(first, first + count) // PER_PERSON
    centres = np.stack([_direction((0, int(owner)), dim) for owner in range(owners[0], owners[-1] + 1)])
    noise = np.random.default_rng((seed, first)).standard_normal((count, dim), dtype=np.float32) / dim**0.5
    return centres[owners - owners[0]] + NOISE * noise


def _direction(key: tuple[int, int], dim: int) -> np.ndarray:
    row = np.random.default_rng(key).standard_normal(dim, dtype=np.float32)
    return row / np.linalg.norm(row)


def generate(folder: Path, rows: int, dim: int) -> None:
    """Write a gallery of float16 rows, as ``sphereface embed`` writes it."""
    kind = GalleryKind(
        **KIND, alignment="", root="photographs", dim=dim, mirror=False, dtype="float16", on_several="take"
    )
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for first in range(0, rows, PER_SHARD):
        count = min(PER_SHARD, rows - first)
        found = people(first, count, dim, seed=1)
        numbers = np.arange(first, first + count)
        names = texts(f"p{number // PER_PERSON:07d}/{number % PER_PERSON:03d}.jpg" for number in numbers.tolist())
        content = ShardContent(
            names=names, embeddings=found.astype(np.float16), quality=np.linalg.norm(found, axis=1),
            image_of=np.arange(count), places=np.ones(count, np.int64), images=names, sizes=numbers, times=numbers,
            faces=np.ones(count, np.int64), unusable=np.empty(0, np.int64), reasons=texts([]),
        )  # fmt: skip
        shards.append(write_shard(folder, content, kind))
    GalleryFolder(folder, kind, tuple(shards)).save()


def load(folder: Path) -> Gallery:
    """Open the gallery."""
    return load_gallery(folder, **KIND)


def apart(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run work in a process of its own; return its result with its peak memory in MB."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, work, arguments).result()


def _measured(work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    peaks, done = {"RssAnon": 0, "RssFile": 0}, threading.Event()
    before = _memory()

    def look() -> None:
        for key, value in _memory().items():
            peaks[key] = max(peaks[key], value)

    def watch() -> None:
        while not done.wait(0.02):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    found = work(*arguments)
    look()
    done.set()
    thread.join()
    return {**found, "MB": (peaks["RssAnon"] - before["RssAnon"]) / 1e3, "mapped MB": peaks["RssFile"] / 1e3}


def _memory() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[0] in ("RssAnon:", "RssFile:")}


def opening(folder: Path) -> dict[str, Any]:
    """Time the opening alone."""
    start = time.perf_counter()
    gallery = load(folder)
    return {"s": time.perf_counter() - start, "rows": len(gallery.paths)}


def exact(folder: Path, count: int, dim: int, top: int) -> dict[str, Any]:
    """Time two exact searches: the first compares the checksums."""
    gallery, queries = load(folder), queries_of(folder, count, dim)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        rows, _ = nearest(gallery.embeddings, queries, top)
        seconds.append(time.perf_counter() - start)
    return {"s": seconds[0], "again s": seconds[1], "person first": person_first(rows, folder, count)}


def queries_of(folder: Path, count: int, dim: int) -> np.ndarray:
    """Return further images of people that are spread evenly over the gallery."""
    rows = len(load(folder).paths)
    found = np.concatenate([people(int(row), 1, dim, seed=2) for row in spread(rows, count)])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def spread(rows: int, count: int) -> np.ndarray:
    """Return ``count`` row numbers."""
    return np.linspace(0, rows - 1, count).astype(int)


def person_first(found: np.ndarray, folder: Path, count: int) -> float:
    """Return the share of the queries whose nearest row is an image of the right person."""
    wanted = spread(len(load(folder).paths), count) // PER_PERSON
    return float((found[:, 0] // PER_PERSON == wanted).mean())


def by_index(folder: Path, count: int, dim: int, top: int) -> dict[str, Any]:
    """Build or open the index, and time a search."""
    gallery, queries = load(folder), queries_of(folder, count, dim)
    start = time.perf_counter()
    index = open_index(gallery, folder)
    opened = time.perf_counter() - start
    start = time.perf_counter()
    rows, _ = index.search(queries, top)
    seconds = time.perf_counter() - start
    return {
        "open s": opened, "s": seconds, "lists": index.facts.lists, "recall": index.facts.recall,
        "person first": person_first(rows, folder, count),
    }  # fmt: skip


def embedding(images: Path, rounds: int = 5) -> None:
    """Print the processor time of embedding crops into a folder, and of the bare forward of the
    same crops, which take turns.
    """
    embedder, listed = FaceEmbedder(align=False, device="cpu"), list_named(images)
    crops = np.stack([embedder.face(image).crop for image in listed.images])
    kind = kind_of(embedder, listed.root, alignment="", dtype="float16")
    seconds: dict[str, list[float]] = {"bare forward": [], "into a gallery": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name, run in (
                ("bare forward", lambda: [embedder.embed_crops(crops[n : n + 64]) for n in range(0, len(crops), 64)]),
                ("into a gallery", partial(update_gallery, Path(folder), listed, embedder, kind, World())),
            ):
                start = time.process_time()
                run()
                seconds[name].append(time.process_time() - start)
    bare, whole = (statistics.median(found) for found in seconds.values())
    print(f"{len(crops)} crops and their mirror images, processor time, medians of {rounds}")
    print(f"bare forward {bare:.3f} s, into a gallery {whole:.3f} s, {bare / whole:.1%} of it is the bare forward")


def main(argv: Sequence[str] | None = None) -> int:
    """Generate, measure and print a line for each figure."""
    args = parse(argv)
    if args.images:
        embedding(args.images)
        return 0
    folder = args.folder or Path(tempfile.mkdtemp(prefix="gallery-"))
    try:
        if not (args.keep and (folder / "gallery.json").exists()):
            generate(folder, args.rows, args.dim)
        size = sum(path.stat().st_size for path in folder.glob("*.npz"))
        print(
            f"{args.rows:,} rows of {args.dim}, float16, {size / 1e9:.2f} GB, load {os.getloadavg()[0]:.1f}", flush=True
        )
        runs: list[tuple[str, Callable[..., dict[str, Any]], tuple[Any, ...]]] = [("open", opening, (folder,))]
        runs += [(f"exact, {n} queries", exact, (folder, n, args.dim, args.top)) for n in args.queries]
        if args.index:
            names = [f"index built, {args.queries[0]} queries", *(f"index, {n} queries" for n in args.queries)]
            numbers = [args.queries[0], *args.queries]
            runs += [(name, by_index, (folder, n, args.dim, args.top)) for name, n in zip(names, numbers, strict=True)]
        for name, work, arguments in runs:
            found = apart(work, *arguments)
            shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
            print(f"{name:24} {json.dumps(shown)}  load {os.getloadavg()[0]:.1f}", flush=True)
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
