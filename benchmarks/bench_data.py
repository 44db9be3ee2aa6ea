"""Measure how fast crops reach training, beside the decoder's limit and plain torchvision.

    python benchmarks/bench_data.py                  ../shared/faces/train, or the demo's ORL faces
    python benchmarks/bench_data.py --data FOLDER    any folder of identities
    python benchmarks/bench_data.py --json out.json
    python benchmarks/bench_data.py --augmentations  only the cost of each augmentation

The limit is the fastest decoder on the same JPEGs in memory, in as many processes as decode in the
feed. ``torchvision`` is the usual code: ImageFolder, RandomHorizontalFlip, ToTensor, Normalize,
DataLoader. It returns normalised floats and the feed returns bytes, so ``folder, on to the
network's input`` includes the work of the device on those.

Rivals take turns, round by round. Ratios are taken within a round, and the table shows medians. The
files are in the page cache, so the benchmark measures the feed and not the disk.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
import torchvision

from sphereface.augmentation import Augment
from sphereface.data.crops import CropBatches
from sphereface.data.images import decode
from sphereface.data.loader import batches
from sphereface.data.orl import prepare_orl
from sphereface.data.packing import pack
from sphereface.data.sampler import Augmentation, BatchOrder
from sphereface.data.sources import Source, cached, open_path
from sphereface.data.transforms import to_input
from sphereface.input_spec import InputSpec

FACES = Path(__file__).resolve().parents[2] / "shared" / "faces" / "train"
BATCH = 128
WORKERS = (0, 1, 2)
MINIMUM_SECONDS = 1.0  # of one measurement
TASK = 4  # batches that the feed decodes at a time, 512 images; up to two tasks per worker are ready
SETTLE_SECONDS = 0.25  # for workers to fill their queues again, so that the next rival is not slowed down
Measure = Clock = Callable[[], float]
RATIOS = {"share_of_decode": "decode", "ratio_to_torchvision": "torchvision"}


# ---------------------------------------------------------------- the limit


def with_simplejpeg(data: bytes, out: np.ndarray) -> None:
    """Decode by libjpeg-turbo as the feed does: accurate transform, smooth upsampling."""
    simplejpeg.decode_jpeg(data, "BGR", buffer=out)


def with_opencv(data: bytes, _: np.ndarray) -> None:
    """Decode by OpenCV, which cannot decode into existing memory."""
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def with_torchvision(data: bytes, _: np.ndarray) -> None:
    """Decode to planes of RGB; a tensor needs writable memory."""
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    torchvision.io.decode_jpeg(encoded, torchvision.io.ImageReadMode.RGB)


DECODERS = {"simplejpeg": with_simplejpeg, "OpenCV": with_opencv, "torchvision.io": with_torchvision}
_in_memory: list[bytes] = []  # inherited by the forked processes


def decode_rate(name: str, count: int, clock: Clock = time.perf_counter, rows: int = 1) -> float:
    """Return images per second of one decoder in this process, in random order as in training.

    The images are decoded into ``rows`` places in turn. One place stays in the processor's cache.
    """
    decoder, order = DECODERS[name], np.random.default_rng().integers(0, len(_in_memory), count).tolist()
    places = list(_memory((rows, *decode(_in_memory[0]).shape)))
    started = clock()
    for index, place in zip(order, itertools.cycle(places), strict=False):
        decoder(_in_memory[index], place)
    return count / (clock() - started)


@functools.cache
def _memory(shape: tuple[int, ...]) -> np.ndarray:
    """Return memory off an alignment of 32 bytes, as in the feed: aligned costs 10 µs a crop."""
    size = int(np.prod(shape))
    memory = np.ones(size + 80, np.uint8)  # written: the system gives memory only then
    start = -memory.ctypes.data % 64 + 8
    return memory[start : start + size].reshape(shape)


class DecodePool:
    """The same decoder in several processes at once, one for each worker."""

    def __init__(self, name: str, processes: int, rows: int = 1) -> None:
        self.name, self.processes, self.rows = name, processes, rows
        self.pool = multiprocessing.get_context("fork").Pool(processes, initializer=_one_thread)

    def rate(self) -> float:
        """Return images per second of all processes together."""
        started, count = time.perf_counter(), 12000
        task = (self.name, count, time.perf_counter, self.rows)
        self.pool.starmap(decode_rate, [task] * self.processes, chunksize=1)
        return count * self.processes / (time.perf_counter() - started)


def _one_thread() -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


# ---------------------------------------------------------------- the feed and its rival


def stream_rate(
    stream: Iterator[Any], *, workers: int, each: Callable[[Any], object], clock: Clock = time.perf_counter
) -> float:
    """Return images per second of an endless stream in whole tasks, after the prefetched ones."""
    for _ in range((2 * workers + 1) * TASK):
        each(next(stream))
    started, count = clock(), 0
    while clock() - started < MINIMUM_SECONDS:
        for _ in range(TASK):
            each(next(stream))
        count += TASK
    seconds = clock() - started
    return count * BATCH / seconds


def feed(source: Source, size: Sequence[int], workers: int) -> Iterator[Any]:
    """Return batches of this project: mirror, uint8."""
    order = BatchOrder(len(source), BATCH, seed=0, augmentation=Augmentation())
    return batches(CropBatches(source, size), order, workers=workers, pin_memory=False)


def torchvision_feed(folder: Path, workers: int) -> Iterator[Any]:
    """Yield the batches of the usual torchvision code, epoch after epoch."""
    from torchvision import datasets, transforms

    steps = [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(folder), transforms.Compose(steps)),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def make_sources(folder: Path, scratch: Path) -> dict[str, Source]:
    """Open the JPEGs as a folder kept in memory, a folder in its first epoch, a zip and a .rec."""
    archive = scratch / "faces.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(folder.glob("*/*.jpg")):
            file.write(path, path.relative_to(folder))
    pack(open_path(folder), scratch / "faces.rec")
    first = open_path(folder)
    later = cached(first, 1 << 30)  # as in training: data.keep_mb
    for index in range(len(later)):
        later.read(index)
    return {
        "folder": later,
        "folder, first epoch": first,
        "zip": open_path(archive),
        "rec": open_path(scratch / "faces.rec"),
    }


def orl_as_jpeg(scratch: Path) -> Path:
    """Write the demo's training faces, which are PNG, as JPEG."""
    for path in sorted(prepare_orl(scratch / "orl").train.glob("*/*.png")):
        target = scratch / "orl-jpeg" / path.parent.name / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), cv2.imread(str(path)))
    return scratch / "orl-jpeg"


def build(folder: Path, scratch: Path) -> dict[tuple[str, int], Measure]:
    """Return the measures by name and workers: ``decode``, the limit, first; torchvision last."""
    sources = make_sources(folder, scratch)
    _in_memory[:] = [sources["rec"].read(index) for index in range(len(sources["rec"]))]
    size = decode(_in_memory[0]).shape[:2]
    best = max(DECODERS, key=lambda name: statistics.median(decode_rate(name, 4000) for _ in range(3)))
    measures: dict[tuple[str, int], Measure] = {
        (f"decode, {name}", 0): lambda name=name: decode_rate(name, 5000) for name in DECODERS
    }

    def add(name: str, workers: int, stream: Iterator[Any], each: Callable[[Any], object] = bool) -> None:
        measures[name, workers] = lambda: stream_rate(stream, workers=workers, each=each)

    for workers in WORKERS:
        pool = DecodePool(best, max(workers, 1))
        measures["decode", workers] = pool.rate if workers else lambda: decode_rate(best, 5000)
        for name, source in sources.items():
            add(name, workers, feed(source, size, workers))
        stream = feed(sources["folder"], size, workers)
        add(
            "folder, on to the network's input",
            workers,
            stream,
            lambda batch: to_input(batch.images, InputSpec(), batch.mirror),
        )
        add("torchvision", workers, torchvision_feed(folder, workers))
    return measures


def measure(
    measures: Mapping[tuple[str, int], Measure], rounds: int, ratios: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return rows of medians over rounds; ratios are taken within each round.

    Args:
        measures: return images per second, by name and number of workers.
        rounds: number of rounds after the first, which warms up.
        ratios: the rival of each ratio, by the name of its column.
    """
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in measures}
    for number in range(rounds + 1):
        for key in random.Random(number).sample(list(measures), len(measures)):  # noqa: S311 -- no row has a better turn
            rate = measures[key]()
            time.sleep(SETTLE_SECONDS if key[1] else 0.0)
            if number:  # the first round warms up
                rates[key].append(rate)

    def ratio(key: tuple[str, int], to: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[key], rates[to, key[1]], strict=True))

    return [
        {
            "name": name,
            "workers": workers,
            "images_per_s": statistics.median(rates[name, workers]),
            **{column: ratio((name, workers), rival) for column, rival in ratios.items()},
        }
        for name, workers in measures
    ]


# ---------------------------------------------------------------- augmentations


def measure_augmentations(source: Source) -> dict[str, float]:
    """Return the microseconds that each augmentation adds to one image, at batch 128, all cores."""
    size = decode(source.read(0)).shape[:2]
    plain = Augmentation(mirror=False)
    shapes = {"mirror": Augmentation(), "crop_shift": Augmentation(mirror=False, crop_shift=4)}
    shapes |= {name: Augmentation(mirror=False, augment=Augment().only(name)) for name in Augment().kinds()}
    steps = {name: _step(source, size, augmentation) for name, augmentation in {"nothing": plain, **shapes}.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(15):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(1e6 * (time.perf_counter() - started) / BATCH)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {name: value if name == "nothing" else value - medians["nothing"] for name, value in medians.items()}


def _step(source: Source, size: Sequence[int], augmentation: Augmentation) -> Callable[[], object]:
    order = BatchOrder(len(source), BATCH, seed=0, augmentation=augmentation)
    stream = batches(CropBatches(source, size), order, workers=0, pin_memory=False)

    def step() -> object:
        batch = next(stream)
        return to_input(batch.images, InputSpec(), batch.mirror, batch.augment)

    step()
    return step


# ---------------------------------------------------------------- the program


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(f"\n{'name':36}{'workers':>8}{'images/s':>10}{'of decode':>11}{'to torchvision':>16}")
    for row in rows:
        share, ratio = f"{row['share_of_decode']:.0%}", f"{row['ratio_to_torchvision']:.1f}×"
        print(f"{row['name']:36}{row['workers']:8}{row['images_per_s']:10,.0f}{share:>11}{ratio:>16}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the rows to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FOLDER", type=Path, help="a folder of identities, JPEGs of one size")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the measurement (5)")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the rows as a list of objects")
    parser.add_argument("--augmentations", action="store_true", help="measure only the augmentations")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.data or (FACES if FACES.is_dir() else orl_as_jpeg(Path(scratch)))
        images = sum(1 for _ in folder.glob("*/*.jpg"))
        machine = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
        print(f"{images:,} JPEGs of {folder.name}, batch {BATCH}, {machine}")
        if args.augmentations:
            for name, micros in measure_augmentations(open_path(folder)).items():
                print(f"{name:20}{micros:8.1f} µs per image")
            return 0
        rows = measure(build(folder, Path(scratch)), args.rounds, RATIOS)
    print_rows(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
