"""What a training step costs on a GPU: images/s over precisions, optimisers and networks.

    python benchmarks/bench_step_gpu.py                       two minutes
    python benchmarks/bench_step_gpu.py --only "bf16" "fp16"  these rows alone
    python benchmarks/bench_step_gpu.py --out FOLDER          step.json and the profiles there
    python benchmarks/bench_step_gpu.py --device cpu --tiny   whether the benchmark itself works

Each row is the trainer's own step, from uint8 pixels on the device to changed weights, with batch
512 and C = 10572. ``host ms`` is until the host has launched the step, ``network ms`` is forward
and backward of the backbone alone. ``of peak`` compares the multiply-adds with a square product of
the same number type in this run. ``arcface_torch`` is that project's step: see
gpu_rivals.py.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from device_clock import clock, name_of, products_per_second, waits
from gpu_rivals import arcface_torch_step

from sphereface.config import Config, load_config
from sphereface.data.batch import Batch
from sphereface.device import make_deterministic, use_machine
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES, build_model
from sphereface.training.learner import Learner
from sphereface.training.measuring import multiply_adds
from sphereface.training.plan import Plan

BF16 = "train.precision=bf16"
RIVAL = "arcface_torch iresnet50"
CASES: dict[str, tuple[str, list[str]]] = {  # in order of value: a run that is cut off has the first ones
    "bf16": ("sphere20", [BF16]),
    "fp32": ("sphere20", []),
    "tf32": ("sphere20", ["train.matmul=tf32"]),
    "fp16": ("sphere20", ["train.precision=fp16"]),
    "iresnet50 bf16": ("iresnet50-casia", []),
    "iresnet50 fp16": ("iresnet50-casia", ["train.precision=fp16"]),
    RIVAL: ("iresnet50-casia", []),
    "bf16 compile": ("sphere20", [BF16, "train.compile=true"]),
    "bf16 muon": ("sphere20", [BF16, "train.optimizer=muon"]),
    "bf16 adamw": ("sphere20", [BF16, "train.optimizer=adamw"]),
    "bf16 cosface ema clip": (
        "sphere20",
        [BF16, "loss={name: cosface}", "train.ema=0.999", "train.clip_grad_norm=5"],
    ),
    "bf16 deterministic": ("sphere20", [BF16, "deterministic=true"]),
    "bf16 recompute": ("sphere20", [BF16, "train.recompute=true"]),
    "bf16 sphere64": ("sphere64", [BF16]),
}
PROFILED = ("bf16", "bf16 compile")
TINY = {
    "sphere20": ["model.depth=4", "model.widths=[4, 4, 4, 4]"],
    "sphere64": ["model.depth=10", "model.widths=[4, 4, 4, 4]"],
    "iresnet50-casia": ["model.depth=18"],
}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Bench:
    """The device, its ceilings, and what a row needs."""

    def __init__(self, device: torch.device, *, tiny: bool, seconds: float) -> None:
        self.device, self.tiny = device, tiny
        self.batch, self.classes, self.seconds = (4, 50, 0.01) if tiny else (512, 10_572, seconds)
        self.peaks = {name: self._peak(name) for name in ("fp32", "tf32", "bf16", "fp16")}

    def _peak(self, name: str) -> float:
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        return products_per_second(self.device, TYPES.get(name, torch.float32), 64 if self.tiny else 8192)

    def config(self, name: str, overrides: Sequence[str]) -> Config:
        """The configuration of a row."""
        more = [f"train.batch_size={self.batch}", *(self._small(name) if self.tiny else []), *overrides]
        return load_config(name, more, losses=MARGINS, backbones=BACKBONES)

    def _small(self, name: str) -> list[str]:
        return ["model.input_size=[32, 32]", "model.embedding_dim=8", *TINY[name]]

    def row(self, config: Config) -> tuple[dict[str, Any], Callable[[], object]]:
        """Measure a step; returns its figures and the step."""
        make_deterministic(config.deterministic)
        use_machine(self.device, deterministic=config.deterministic, matmul=config.train.matmul)
        torch.manual_seed(0)
        began = time.perf_counter()
        learner = Learner(config, self.classes, self.device)
        batch, setting = self._batch(config), replace(Plan(config, 28_000).at(0), lr=1e-4)
        images, _ = learner.inputs(batch)

        def step() -> None:
            learner.step(batch, setting)

        def network() -> None:
            learner.optimizer.zero_grad()
            with learner.autocast():
                embeddings = learner.network(images)
            embeddings.backward(torch.ones_like(embeddings))

        step()
        start_s = time.perf_counter() - began
        timing, alone = clock(step, self.device, self.seconds), clock(network, self.device, self.seconds / 2)
        kind = config.train.precision
        figures = self._figures(timing.ms, multiply_adds(build_model(config.model)), _type(config, kind))
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0
        return {
            **figures,
            "host_ms": timing.host_ms,
            "network_ms": alone.ms,
            "peak_gib": peak,
            "start_s": start_s,
            "waits": waits(step, self.device),
        }, step

    def rival(self) -> dict[str, Any]:
        """Measure arcface_torch's step, with its own settings: TF32 for what is not fp16."""
        use_machine(self.device, matmul="tf32")
        options = self.config(*CASES[RIVAL]).model
        timing = clock(arcface_torch_step(options, self.batch, self.classes, self.device), self.device, self.seconds)
        figures = self._figures(timing.ms, multiply_adds(build_model(options)), "fp16")
        return {**figures, "host_ms": timing.host_ms, "network_ms": 0.0, "peak_gib": 0.0, "start_s": 0.0, "waits": "-"}

    def _batch(self, config: Config) -> Batch:
        size, device = config.model.input_spec.size, self.device
        pixels = torch.randint(0, 256, (self.batch, *size, 3), dtype=torch.uint8, device=device)
        labels = torch.randint(self.classes, (self.batch,), device=device)
        return Batch(pixels, labels, torch.rand(self.batch, device=device) < 0.5, [])

    def _figures(self, ms: float, work: int, kind: str) -> dict[str, Any]:
        flops = 6 * work * self.batch / ms * 1000
        return {
            "ms": ms,
            "images_per_s": 1000 * self.batch / ms,
            "tflops": flops / 1e12,
            "of_peak": flops / self.peaks[kind],
        }


def _type(config: Config, precision: str) -> str:
    return "tf32" if precision == "fp32" and config.train.matmul == "tf32" else precision


def profile(step: Callable[[], object], path: Path) -> None:
    """Write the time of each kernel in five steps."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        for _ in range(5):
            step()
        torch.cuda.synchronize()
    table = recorded.key_averages().table(sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=90)
    path.write_text(table, encoding="utf-8")


def show(row: dict[str, Any]) -> None:
    """Print a row of the table."""
    name = f"{row['name']:24}{row['ms']:9.2f}{row['host_ms']:9.2f}{row['network_ms']:11.2f}"
    rate = f"{row['images_per_s']:10.0f}{row['tflops']:9.1f}{row['of_peak']:8.0%}{row['peak_gib']:7.1f}"
    print(f"{name}{rate}{row['start_s']:8.1f}  {row['waits']}", flush=True)


def measured(bench: Bench, name: str) -> tuple[dict[str, Any], Callable[[], object] | None]:
    """The row of that name, and its step where it is this project's."""
    if name == RIVAL:
        return {"name": name, **bench.rival()}, None
    figures, step = bench.row(bench.config(*CASES[name]))
    return {"name": name, **figures}, step


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=CASES, help="names of rows")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each row (1.5)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a trial")
    parser.add_argument("--tiny", action="store_true", help="toy sizes: whether the benchmark itself works")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="write step.json and profiles there")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("error: --device: cuda is not available here · for a trial: --device cpu --tiny", file=sys.stderr)
        return 2
    bench = Bench(torch.device(args.device), tiny=args.tiny, seconds=args.seconds)
    print(name_of(bench.device), {kind: f"{peak / 1e12:.1f} TFLOP/s" for kind, peak in bench.peaks.items()})
    print(f"{'step':24}{'ms':>9}{'host ms':>9}{'network ms':>11}{'images/s':>10}{'TFLOP/s':>9}{'of peak':>8}", end="")
    print(f"{'GiB':>7}{'start s':>8}  waits", flush=True)
    rows: list[dict[str, Any]] = []
    for name in args.only or CASES:
        try:
            row, step = measured(bench, name)
            rows.append(row)
            show(row)
            if step is not None and args.out is not None and name in PROFILED and bench.device.type == "cuda":
                profile(step, args.out / f"profile-{name.replace(' ', '-')}.txt")
        except Exception as error:  # the other rows are still wanted
            rows.append({"name": name, "error": f"{type(error).__name__}: {error}"})
            print(f"{name:24}{rows[-1]['error'].splitlines()[0][:150]}", flush=True)
        if args.out is not None:
            (args.out / "step.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        row = step = None
        gc.collect()
        torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
