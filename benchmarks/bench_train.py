"""Measure a training step at batch 64, C = 10572, beside plain PyTorch and the machine's peak.

    python benchmarks/bench_train.py              Sphere-20, about a minute and a half
    python benchmarks/bench_train.py --model iresnet50 mobilefacenet
    python benchmarks/bench_train.py --quick      three rounds
    python benchmarks/bench_train.py --compile    also train.compile; compiling takes minutes
    python benchmarks/bench_train.py --json out.json

``sphereface`` is the trainer's own step from uint8 pixels to changed weights. ``backbone`` is only
the forward and backward of its network. ``plain port`` is the same network as its publisher trains
it: fp32, NCHW, torch's own layers, A-Softmax by autograd and torch.optim.SGD. It starts from
prepared floats, in a separate process with torch's settings.

All take turns, round by round, so a change of the machine's speed affects all of them. Images/s are
medians, and ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from plain_port import plain_step

from sphereface.backbone_options import BackboneOptions
from sphereface.config import load_config
from sphereface.data.batch import Batch
from sphereface.device import use_machine
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES
from sphereface.training.learner import Learner
from sphereface.training.measuring import multiply_adds
from sphereface.training.plan import Plan

Step = Callable[[], object]
Contest = tuple[str, str]
"""Name and number type."""
PORT: Contest = ("plain port", "fp32")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Size:
    """The size and the network of a training step."""

    batch: int = 64
    classes: int = 10_572
    model: str = "sphere20"
    tiny: bool = False
    product: int = 4096

    def options(self) -> BackboneOptions:
        """Return the network's options."""
        name, options = MODELS[self.model]
        small: dict[str, Any] = {"embedding_dim": 8, "input_size": (32, 32)} if self.tiny else {}
        if self.tiny and name == "spherenet":
            small["widths"] = (4, 4, 4, 4)
        return BACKBONES[name](**options, **small)


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"sphere{depth}": ("spherenet", {"depth": depth}) for depth in (4, 10, 20, 36, 64)},
    **{f"iresnet{depth}": ("iresnet", {"depth": depth}) for depth in (18, 50, 100)},
    "mobilefacenet": ("mobilefacenet", {}),
}
"""``model.name`` and options for each value of ``--model``."""


def own_steps(size: Size, precision: str, overrides: Sequence[str] = ()) -> tuple[Step, Step, int]:
    """Return the step, the backbone's forward and backward, and multiply-adds per image."""
    model = f"model={json.dumps(size.options().to_dict())}"
    config = load_config(
        "sphere20", [model, f"train.precision={precision}", *overrides], losses=MARGINS, backbones=BACKBONES
    )
    learner = Learner(config, size.classes, torch.device("cpu"))
    setting = replace(Plan(config, 28_000).at(0), lr=1e-4)
    pixels = torch.randint(0, 256, (size.batch, *config.model.input_spec.size, 3), dtype=torch.uint8)
    batch = Batch(pixels, torch.randint(size.classes, (size.batch,)), torch.rand(size.batch) < 0.5, [])
    images, _ = learner.inputs(batch)

    def backbone() -> None:
        learner.optimizer.zero_grad()
        with learner.autocast():
            embeddings = learner.model(images)
        embeddings.backward(torch.ones_like(embeddings))

    return lambda: learner.step(batch, setting), backbone, multiply_adds(learner.model)


def products(size: int, dtype: torch.dtype) -> list[Step]:
    """Multiply square matrices by MKL and by oneDNN, also with the second operand transposed."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # the call that torch.compile makes for fp32
    steps: list[Step] = [lambda: torch.mm(a, b), lambda: torch.mm(a, b.t())]
    if onednn is not None:
        with contextlib.suppress(RuntimeError):  # oneDNN multiplies bfloat16 only with AVX-512
            onednn(a, b, None, "none", [], "")
            steps.append(lambda: onednn(a, b, None, "none", [], ""))
    return steps


def serve_port(pipe: Connection, size: Size, threads: int) -> None:
    """Run the port: one step and its seconds for each message, until an empty message."""
    torch.set_num_threads(threads)
    step = plain_step(size.options(), size.batch, size.classes)
    step()
    pipe.send(seconds(step))
    while pipe.recv():
        pipe.send(seconds(step))


def seconds(step: Step) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def measure(size: Size, *, rounds: int, compiled: bool = False) -> tuple[dict[Contest, list[float]], int]:
    """Return images/s of each in every round, and multiply-adds of an image."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    port = context.Process(target=serve_port, args=(theirs, size, torch.get_num_threads()), daemon=True)
    port.start()
    ours.recv()  # the warm-up is over
    use_machine(torch.device("cpu"))
    torch.manual_seed(0)
    steps: dict[Contest, Step] = {}
    for kind in TYPES:
        steps["sphereface", kind], steps["backbone", kind], work = own_steps(size, kind)
        if compiled:
            steps["compiled", kind], _, _ = own_steps(size, kind, ["train.compile=true"])
    peaks = {kind: products(size.product, dtype) for kind, dtype in TYPES.items()}
    for step in [*steps.values(), *steps.values(), *peaks["fp32"], *peaks["bf16"]]:
        step()
    rates: dict[Contest, list[float]] = {contest: [] for contest in [PORT, *steps, *(("peak", k) for k in TYPES)]}
    for _ in range(rounds):
        ours.send(True)
        rates[PORT].append(size.batch / ours.recv())
        for contest, step in steps.items():
            rates[contest].append(size.batch / seconds(step))
        for kind, candidates in peaks.items():
            best = min(seconds(step) for step in candidates)
            rates["peak", kind].append(2 * size.product**3 / best / (6 * work))
    ours.send(False)
    port.join()
    return rates, work


def table(rates: dict[Contest, list[float]], batch: int) -> list[dict[str, Any]]:
    """Return a row for each."""
    return [
        {
            "name": name,
            "dtype": kind,
            "batch": batch,
            "images_per_s": statistics.median(found),
            "ratio_to_port": ratio(found, rates[PORT]),
            "share_of_peak": ratio(found, rates["peak", kind]),
        }
        for (name, kind), found in rates.items()
    ]


def ratio(rates: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(rates, others, strict=True))


def show(rows: list[dict[str, Any]], rates: dict[Contest, list[float]], work: int) -> None:
    """Print the table, and the time spent outside the backbone."""
    print(f"{'name':14}{'dtype':>6}{'images/s':>10}{'to port':>9}{'of peak':>9}{'TFLOP/s':>9}")
    for row in rows:
        name = f"{row['name']:14}{row['dtype']:>6}{row['images_per_s']:10.1f}"
        print(f"{name}{row['ratio_to_port']:8.2f}×{row['share_of_peak']:9.0%}{6e-12 * work * row['images_per_s']:9.2f}")
    for kind in TYPES:
        share = 1 - ratio(rates["sphereface", kind], rates["backbone", kind])
        print(f"around the backbone, {kind}: {share:.1%} of the step")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the rows to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=["sphere20"], help="the networks (sphere20)")
    parser.add_argument("--quick", action="store_true", help="three rounds instead of nine")
    parser.add_argument("--compile", action="store_true", help="also the step with train.compile")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to test the benchmark itself")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the rows as a list of objects")
    args = parser.parse_args(argv)
    every: list[dict[str, Any]] = []
    for model in args.model:
        size = Size(4, 50, model, tiny=True, product=64) if args.tiny else Size(model=model)
        rounds = 1 if args.tiny else 3 if args.quick else 9
        threads = torch.get_num_threads()
        print(
            f"torch {torch.__version__}, {threads} threads, {model}, batch {size.batch}, C = {size.classes}", flush=True
        )
        rates, work = measure(size, rounds=rounds, compiled=args.compile)
        rows = table(rates, size.batch)
        show(rows, rates, work)
        every += [{"model": model, **row} for row in rows]
    if args.json:
        args.json.write_text(json.dumps(every, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
