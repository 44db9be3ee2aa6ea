"""What the loss costs: this project's heads beside a bare linear layer with cross entropy, in one run.

    python benchmarks/bench_loss.py                 N = 256 and 1024 at C = 10572 and 100000, D = 512, fp32
    python benchmarks/bench_loss.py --quick         N = 256 at C = 10572 alone
    python benchmarks/bench_loss.py --json out.json

Each figure is forward and backward, gradients of embeddings and weights included. The rivals take turns, round by
round, so that a machine that changes its speed changes it for all; medians are shown. ``bare`` is F.linear without
bias and F.cross_entropy; ``textbook`` is A-Softmax as most ports write it, with ψ on all N×C logits by autograd.
Peak memory is that of a process of its own, beyond inputs and gradients.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin

DIM = 512
LAMBDA = 5.0
Step = Callable[[], torch.Tensor]


def bare(x: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Softmax without bias: the price to compare with."""
    return F.cross_entropy(F.linear(x, weight), labels)


def textbook(x: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A-Softmax, m = 4, with ψ on every logit, as the public ports do."""
    norms = x.norm(dim=1, keepdim=True)
    cos = (F.linear(x, F.normalize(weight)) / norms).clamp(-1, 1)
    cos_4 = 8 * cos**4 - 8 * cos**2 + 1
    k = (4 * cos.detach().acos() / torch.pi).floor()
    psi = (1 - 2 * (k % 2)) * cos_4 - 2 * k
    target = F.one_hot(labels, len(weight)).bool()
    logits = torch.where(target, (LAMBDA * cos + psi) / (1 + LAMBDA), cos) * norms
    return F.cross_entropy(logits, labels)


def make_step(name: str, n: int, classes: int) -> Step:
    """A closure that runs one forward and backward of the named loss."""
    torch.manual_seed(0)
    x = torch.randn(n, DIM, requires_grad=True)
    labels = torch.randint(0, classes, (n,))
    if name in RIVALS:
        weight = torch.randn(classes, DIM).mul_(DIM**-0.5).requires_grad_()
        parameters, loss = [x, weight], lambda: RIVALS[name](x, labels, weight)
    else:
        head = MarginHead(DIM, classes, make_margin(*OURS[name][0], **OURS[name][1]))
        parameters, loss = [x, head.weight], lambda: head(x, labels, LAMBDA).loss

    def step() -> torch.Tensor:
        for parameter in parameters:
            parameter.grad = None
        value = loss()
        value.backward()
        return value.detach()

    return step


RIVALS = {"bare": bare, "textbook a-softmax": textbook}
OURS = {
    "modified-softmax": (("modified-softmax",), {}),
    "a-softmax exact": (("a-softmax",), {"m": 4, "gradient": "exact"}),
    "a-softmax caffe": (("a-softmax",), {"m": 4, "gradient": "caffe"}),
}


def measure_times(n: int, classes: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of every rival, in turn."""
    steps = {name: make_step(name, n, classes) for name in (*RIVALS, *OURS)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def measure_memory(name: str, n: int, classes: int) -> float:
    """MiB that one step adds to the peak of a fresh process, the gradients of x and W not counted."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_extra_mib, (name, n, classes))


def _extra_mib(name: str, n: int, classes: int) -> float:
    make_step("bare", 8, 64)()  # libraries and thread pools
    step = make_step(name, n, classes)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew from here
    before = _peak_mib()
    step()
    gradients = 4 * (n + classes) * DIM / 2**20
    return max(_peak_mib() - before - gradients, 0.0)


def _peak_mib() -> float:
    """Highest resident memory of this process (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the rows if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest size, few rounds")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the rows as a list of objects")
    args = parser.parse_args(argv)
    sizes = [(256, 10572)] if args.quick else [(n, c) for c in (10572, 100000) for n in (256, 1024)]
    rows = []
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, D = {DIM}, fp32, λ = {LAMBDA:g}")
    for n, classes in sizes:
        times = measure_times(n, classes, rounds=5 if args.quick else max(5, 10_572 * 60 // classes))
        print(f"\nN = {n}, C = {classes}\n{'loss':22}{'ms':>9}{'ratio':>8}{'extra MiB':>11}")
        for name, ms in times.items():
            ratio, extra = ms / times["bare"], measure_memory(name, n, classes)
            print(f"{name:22}{ms:9.1f}{ratio:8.2f}{extra:11.0f}", flush=True)
            row = {"name": name, "n": n, "classes": classes, "dim": DIM, "dtype": "float32"}
            rows.append({**row, "ms": ms, "ratio_to_bare": ratio, "extra_mb": extra})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
