"""The memory of a training step at batch 256, by depth: the peak of a process of its own (Linux).

    python benchmarks/train_memory.py

MiB beyond what the process had after its imports: weights, momentum, gradients, C = 10572 classes, and what the
forward pass keeps. ``recompute`` is train.recompute: units keep their input alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence

import torch
from bench_train import Size, own_steps
from peak_memory import kib

from sphereface.device import use_machine

DEPTHS = (4, 10, 20, 36, 64)
STATUS = "/proc/self/status"


def peak(depth: int, size: Size, precision: str, recompute: bool) -> tuple[float, float]:
    """MiB, and seconds of the step; to be called in a process of its own."""
    use_machine(torch.device("cpu"))
    before = kib(STATUS, "VmRSS:")
    options = [f"model.depth={depth}", f"train.recompute={str(recompute).lower()}"]
    step, _, _ = own_steps(size, precision, options)
    began = time.perf_counter()
    step()
    return (kib(STATUS, "VmHWM:") - before) / 1024, time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print, a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="pictures (256)")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"], help="number type (bf16)")
    parser.add_argument("--depth", type=int, nargs="+", default=DEPTHS, help="of the network (all)")
    args = parser.parse_args(argv)
    print(f"batch {args.batch}, {args.precision}\n{'depth':>5}{'recompute':>11}{'MiB':>9}{'s':>7}")
    spawn = multiprocessing.get_context("spawn")
    for depth in args.depth:
        for recompute in (False, True):
            with spawn.Pool(1) as pool:
                mib, seconds = pool.apply(peak, (depth, Size(batch=args.batch), args.precision, recompute))
            print(f"{depth:5}{'yes' if recompute else 'no':>11}{mib:9,.0f}{seconds:7.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
