"""What a training step does on a GPU, counted on a machine without one: waits of the host, kernel
launches, peak memory.

    python benchmarks/gpu_counts.py                     the table of docs/gpu.md, in some minutes
    python benchmarks/gpu_counts.py --checkout FOLDER   of another checkout, to compare with
    python benchmarks/gpu_counts.py --only bf16 muon    these rows alone
    python benchmarks/gpu_counts.py --kernels           each row followed by its launches by kernel
    python benchmarks/gpu_counts.py --json out.json

The process runs on the null CUDA of ``tests/nullcuda``: CUDA, cuBLAS and cuDNN that do nothing but
count, under PyTorch's own CUDA build. Times cannot be measured so. ``launches`` are kernels and
products; ``convolutions`` are counted beside them, three and two bias kernels for each layer at
most. ``GiB`` is the peak of a step, with weights, gradients and momentum.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.nullcuda.build import build, why_not  # noqa: E402
from tests.nullcuda.process import run_cases  # noqa: E402

BF16 = "train.precision=bf16"
MILLION = {"classes": 1_000_000, "batch": 1024}
CASES: list[dict[str, Any]] = [
    {"name": "bf16", "overrides": [BF16]},
    {"name": "fp32", "overrides": []},
    {"name": "fp16", "overrides": ["train.precision=fp16"]},
    {"name": "adamw", "overrides": [BF16, "train.optimizer=adamw"]},
    {"name": "muon", "overrides": [BF16, "train.optimizer=muon"]},
    {"name": "ema, clip", "overrides": [BF16, "train.ema=0.999", "train.clip_grad_norm=5"]},
    {"name": "norm: batch", "overrides": [BF16, "model.norm=batch"]},
    {"name": "recompute", "overrides": [BF16, "train.recompute=true"]},
    {"name": "micro_batch 128", "overrides": [BF16, "train.micro_batch=128"]},
    {"name": "deterministic", "overrides": [BF16, "deterministic=true"]},
    {"name": "compile", "overrides": [BF16, "train.compile=true"]},
    {"name": "cosface", "overrides": [BF16, "loss={name: cosface}"]},
    {"name": "chunk_size 4096", "overrides": [BF16, "loss={name: a-softmax, chunk_size: 4096}"]},
    {"name": "mhe", "overrides": [BF16, "loss={name: a-softmax, mhe: 1}"]},
    {"name": "sphereface2", "overrides": [BF16, "loss={name: sphereface2}"]},
    {"name": "sample_rate 0.1", "overrides": [BF16, "loss={name: cosface, sample_rate: 0.1}"]},
    {"name": "sharded, 2 processes", "overrides": [BF16], "processes": 2},
    {"name": "C = 1M, N = 1024", "overrides": [BF16], **MILLION},
    {"name": "C = 1M, fp32", "overrides": [], **MILLION},
    {"name": "C = 1M, head alone", "overrides": [BF16], "part": "head", **MILLION},
    {"name": "C = 1M, sphereface2", "overrides": [BF16, "loss={name: sphereface2}"], "part": "head", **MILLION},
]


def show(row: dict[str, Any], *, kernels: bool) -> None:
    """Print a row of the table."""
    if "error" in row:
        print(f"{row['name']:24}{row['error'].strip().splitlines()[-1][:110]}", flush=True)
        return
    waits = ", ".join(f"{place} × {n}" for place, n in row["waits"].items()) or "none"
    counts = f"{row['launches']:9}{row['convolutions']:14}{row['peak_bytes'] / 2**30:8.2f}"
    print(f"{row['name']:24}{counts}  {waits}", flush=True)
    for name, n in row["kernels"].items() if kernels else ():
        print(f"    {n:5}  {name[:110]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Count, print, and write the rows where requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the checkout whose code is counted (this one)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of rows")
    parser.add_argument("--kernels", action="store_true", help="launches by kernel")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the rows as a list of objects")
    args = parser.parse_args(argv)
    if reason := why_not():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    cases = [case for case in CASES if not args.only or case["name"] in args.only]
    with tempfile.TemporaryDirectory() as folder:
        rows = run_cases(build(Path(folder)), cases, args.checkout.resolve())
    print(f"{'Sphere-20, batch 512':24}{'launches':>9}{'convolutions':>14}{'GiB':>8}  the host waits at")
    for row in rows:
        show(row, kernels=args.kernels)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
