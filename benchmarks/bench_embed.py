"""How much of the network's bare forward speed is left when image files are embedded.

    python benchmarks/bench_embed.py DIR  Sphere-20, fp32, 256 images of DIR in each round
    python benchmarks/bench_embed.py DIR --precision bf16 --count 1024
    python benchmarks/bench_embed.py DIR --model mobilefacenet

Bare is the forward of the same batches (each image with its mirror image), decoded before the clock
starts. The two take turns, round by round; medians are shown, and the share of the time that
decoding alone takes on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from bench_train import MODELS, Size

from sphereface.data.transforms import to_input
from sphereface.evaluation.embed import AUTOCAST, _load, embed_files
from sphereface.evaluation.people import list_people
from sphereface.models import build_model

SIZE = (112, 96)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", type=Path, metavar="DIR", help="aligned crops, DIR/<person>/<image>")
    parser.add_argument("--count", type=int, default=256, help="images in each round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--model", choices=MODELS, default="sphere20", help="(%(default)s)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="(%(default)s)")
    return parser.parse_args(argv)


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in turn and print."""
    args = parse(argv)
    files = list_people(args.images).files[: args.count]
    torch.manual_seed(0)
    model = build_model(replace(Size(model=args.model).options(), input_size=SIZE)).eval()
    chunks = [files[start : start + args.batch_size] for start in range(0, len(files), args.batch_size)]
    plain = [to_input(torch.from_numpy(_load(chunk, SIZE)[0]), model.input_spec) for chunk in chunks]
    batches = [torch.cat([x, x.flip(3)]) for x in plain]
    dtype = AUTOCAST[args.precision]

    def bare() -> None:
        with torch.inference_mode(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            for batch in batches:
                model(batch)

    def embed() -> None:
        embed_files(model, files, device="cpu", batch_size=args.batch_size, precision=args.precision)

    bare()
    times: dict[Callable[[], None], list[float]] = {bare: [], embed: []}
    for number in range(args.rounds):
        for run in (bare, embed) if number % 2 == 0 else (embed, bare):  # neither always goes second
            times[run].append(seconds(run))
    bare_s, embed_s = (statistics.median(times[run]) for run in (bare, embed))
    decode_s = seconds(lambda: [_load(chunk, SIZE) for chunk in chunks])
    print(f"{args.model}, {args.precision}, {len(files)} images and their mirrors, {torch.get_num_threads()} threads")
    print(f"bare forward  {len(files) / bare_s:8.1f} images/s")
    print(f"embed_files   {len(files) / embed_s:8.1f} images/s, {bare_s / embed_s:.1%} of it")
    print(f"decoding alone, one thread: {decode_s / embed_s:.1%} of the time of embed_files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
