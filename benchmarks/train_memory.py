"""Measure the peak memory of a training step of each network, in a separate process (Linux).

    # Sphere-4 … 64, batch 256
    python benchmarks/train_memory.py
    python benchmarks/train_memory.py --batch 64 --model iresnet50 mobilefacenet --plain

The figures are MiB beyond the process after its imports: weights, momentum, gradients, C = 10572
classes, and the tensors that the forward pass keeps. ``recompute`` is train.recompute: units keep
only their input. ``plain`` is the network as its publisher trains it (see bench_train.py).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence

import torch
from bench_train import MODELS, Size, Step, own_steps
from peak_memory import kib
from plain_port import plain_step

from sphereface.device import use_machine

STATUS = "/proc/self/status"


def peak(size: Size, form: str, recompute: bool) -> tuple[float, float]:
    """Return MiB, and seconds of the second step; call it in a separate process."""
    if form == "plain":
        before = kib(STATUS, "VmRSS:")
        step: Step = plain_step(size.options(), size.batch, size.classes)
    else:
        use_machine(torch.device("cpu"))
        before = kib(STATUS, "VmRSS:")
        step, _, _ = own_steps(size, form, [f"train.recompute={str(recompute).lower()}"])
    step()
    began = time.perf_counter()
    step()
    return (kib(STATUS, "VmHWM:") - before) / 1024, time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print, a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="images (256)")
    parser.add_argument(
        "--precision", nargs="+", default=["bf16"], choices=["fp32", "bf16"], help="number types (bf16)"
    )
    parser.add_argument(
        "--model", nargs="+", choices=MODELS, default=[name for name in MODELS if name.startswith("sphere")],
        help="the networks (SphereNet's depths)",
    )  # fmt: skip
    parser.add_argument("--plain", action="store_true", help="also the network in plain PyTorch")
    args = parser.parse_args(argv)
    print(f"batch {args.batch}\n{'network':16}{'form':>7}{'recompute':>11}{'MiB':>9}{'s':>7}")
    spawn = multiprocessing.get_context("spawn")
    for model in args.model:
        forms = [(kind, again) for kind in args.precision for again in (False, True)]
        for form, recompute in [("plain", False)] * args.plain + forms:
            with spawn.Pool(1) as pool:
                mib, seconds = pool.apply(peak, (Size(batch=args.batch, model=model), form, recompute))
            print(f"{model:16}{form:>7}{'yes' if recompute else 'no':>11}{mib:9,.0f}{seconds:7.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
