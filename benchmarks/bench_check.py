"""Measure what ``sphereface check`` costs, as a multiple of decoding the same images.

    python benchmarks/bench_check.py data/orl-112x96/train
    python benchmarks/bench_check.py FACES --groups 1000000 --rounds 5

Three parts take turns in one process, on one thread: decode each image with simplejpeg, decode it
with the checks for damage, and do all that ``check`` does with an image. PNG images are decoded by
OpenCV. Times are of the processor. ``--groups`` also searches that many random hashes, of which one
in a hundred has a near-duplicate, for groups.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import simplejpeg

from sphereface.data.check import inspect_image
from sphereface.data.images import decode
from sphereface.data.near_duplicates import find_links
from sphereface.data.sources import open_source


def bare(data: bytes) -> None:
    """Decode an image, with no check."""
    if data.startswith(b"\xff\xd8"):
        simplejpeg.decode_jpeg(data, colorspace="BGR")
    else:
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


WAYS: dict[str, Callable[[bytes], object]] = {"bare decoding": bare, "decoding": decode, "check": inspect_image}


def seconds(way: Callable[[bytes], object], images: Sequence[bytes]) -> float:
    """Return the processor time of one pass over the images."""
    before = time.process_time()
    for data in images:
        way(data)
    return time.process_time() - before


def search_seconds(count: int, radius: int = 12) -> float:
    """Return the processor time of the search for near-duplicates among random hashes."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (count, 2), dtype=np.uint64)
    copies = rng.choice(count, (2, count // 100), replace=False)
    hashes[copies[1]] = hashes[copies[0]] ^ np.uint64(0b111)
    before = time.process_time()
    links = find_links(hashes, radius)
    assert len(links.left) >= count // 100
    return time.process_time() - before


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("faces", help="a training set, as in data.train")
    parser.add_argument("--most", type=int, default=5000, help="images at most (default 5000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns; medians are printed (default 3)")
    parser.add_argument("--groups", type=int, default=0, help="hashes to search for near-duplicates (default none)")
    args = parser.parse_args(argv)
    cv2.setNumThreads(0)
    source = open_source([args.faces])
    images = [source.read(index) for index in range(min(len(source), args.most))]
    rounds = [{name: seconds(way, images) for name, way in WAYS.items()} for _ in range(args.rounds)]
    base = statistics.median(turn["bare decoding"] for turn in rounds)
    for name in WAYS:
        middle = statistics.median(turn[name] for turn in rounds)
        print(f"{name:<14} {1e6 * middle / len(images):7.1f} µs an image   {middle / base:5.2f} × bare decoding")
    if args.groups:
        found = search_seconds(args.groups)
        print(f"near-duplicates among {args.groups:,} hashes: {found:.1f} s, {1e6 * found / args.groups:.1f} µs each")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
