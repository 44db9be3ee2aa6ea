"""What the loss costs on a GPU: this project's heads beside a bare linear layer with cross entropy,
compiled and not, and the arithmetic of Partial FC.

    python benchmarks/bench_loss_gpu.py  N, C = 1024, 1000000; 1024, 100000; 512, 10572
    python benchmarks/bench_loss_gpu.py --size 1024 1000000  one size
    python benchmarks/bench_loss_gpu.py --json out.json
    python benchmarks/bench_loss_gpu.py --device cpu --tiny  whether the benchmark itself works

Each figure is forward and backward, with the gradients of embeddings and weights, D = 512. ``to
bare`` and ``to partial fc`` are ratios of times in the same run. ``floor`` is the time that three
products need at the rate of a square product on this device. ``extra MiB`` is beyond inputs and
weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from device_clock import Timing, bytes_per_second, clock, name_of, products_per_second
from gpu_rivals import bare, partial_fc
from torch import Tensor, nn

from sphereface.device import use_machine
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin

Loss = Callable[[Tensor, Tensor], Tensor]
SIZES = [(1024, 1_000_000), (1024, 100_000), (512, 10_572)]
KINDS = {"bf16": torch.bfloat16, "fp32": torch.float32, "tf32": torch.float32}
DIM = 512
HEADS: dict[str, dict[str, Any]] = {
    "cosface": {"name": "cosface"},
    "a-softmax, caffe": {"name": "a-softmax", "gradient": "caffe"},
    "a-softmax, exact": {"name": "a-softmax", "gradient": "exact"},
    "a-softmax, 8 chunks": {"name": "a-softmax", "chunk_size": 8},
    "cosface, sample_rate 0.1": {"name": "cosface", "sample_rate": 0.1},
    "sphereface2": {"name": "sphereface2"},
}


def losses(weight: nn.Parameter, *, compiled: bool) -> Iterator[tuple[str, Loss]]:
    """The rows: name, and (N, D) embeddings and (N,) labels → loss."""
    yield "bare", lambda x, y: bare(x, weight, y)
    if compiled:
        function = torch.compile(bare, dynamic=False)
        yield "bare, compiled", lambda x, y: function(x, weight, y)
    yield "partial fc", lambda x, y: partial_fc(x, weight, y)
    for title, options in HEADS.items():
        yield title, head(weight, dict(options))


def head(weight: nn.Parameter, options: dict[str, Any]) -> Loss:
    """Build a head over the shared weights; ``chunk_size`` is a number of chunks here."""
    classes = len(weight)
    if chunks := options.get("chunk_size"):
        options["chunk_size"] = -(-classes // chunks)
    with torch.device(weight.device):
        made = MarginHead(1, classes, make_margin(**options))
    made.weight = weight
    return lambda x, y: made(x, y, 5.0, 0).loss  # type: ignore[no-any-return]


def measure(weight: nn.Parameter, samples: int, kind: str, *, seconds: float, compiled: bool) -> list[dict[str, Any]]:
    """Print and return the rows of one size and number type."""
    device, classes = weight.device, len(weight)
    use_machine(device, matmul="tf32" if kind == "tf32" else "fp32")
    product = products_per_second(device, KINDS[kind], 64 if classes < 1000 else 8192)
    floor = 6 * samples * classes * weight.shape[1] / product * 1000
    print(f"\nN = {samples}, C = {classes}, {kind}: floor {floor:.2f} ms")
    print(
        f"{'loss':26}{'ms':>9}{'host ms':>9}{'to bare':>9}{'to partial fc':>14}{'to floor':>9}{'extra MiB':>11}",
        flush=True,
    )
    x = torch.randn(samples, weight.shape[1], device=device, requires_grad=True)
    labels = torch.randint(classes, (samples,), device=device)
    rows: list[dict[str, Any]] = []
    for name, loss in losses(weight, compiled=compiled):
        row: dict[str, Any] = {"name": name, "n": samples, "classes": classes, "kind": kind, "floor_ms": floor}
        try:
            timing = clock(_step(loss, x, labels, weight, kind), device, seconds)
            rows.append({**row, **timing._asdict()})
            print(_line(rows, timing, floor), flush=True)
        except Exception as error:  # the other rows are still wanted
            rows.append({**row, "error": f"{type(error).__name__}: {error}"})
            print(f"{name:26}{rows[-1]['error'].splitlines()[0][:150]}", flush=True)
        x.grad = weight.grad = None
        torch.cuda.empty_cache()
    return rows


def _step(loss: Loss, x: Tensor, labels: Tensor, weight: nn.Parameter, kind: str) -> Callable[[], None]:
    def step() -> None:
        x.grad = weight.grad = None
        with torch.autocast(x.device.type, torch.bfloat16, enabled=kind == "bf16"):
            value = loss(x, labels)
        value.backward()  # type: ignore[no-untyped-call]

    return step


def _line(rows: list[dict[str, Any]], timing: Timing, floor: float) -> str:
    """The last of the rows as text."""
    times = {row["name"]: row["ms"] for row in rows if "ms" in row}
    ratios = [timing.ms / times[name] if name in times else float("nan") for name in ("bare", "partial fc")]
    start = f"{rows[-1]['name']:26}{timing.ms:9.3f}{timing.host_ms:9.3f}{ratios[0]:9.2f}{ratios[1]:14.2f}"
    return f"{start} {timing.ms / floor:8.2f}{timing.extra_mib:11.0f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write after each table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs=2, type=int, metavar=("N", "C"), help="this size alone")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["bf16", "fp32"], help="number types (bf16 fp32)")
    parser.add_argument("--seconds", type=float, default=0.4, help="for each row (0.4)")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled row")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a trial")
    parser.add_argument("--tiny", action="store_true", help="toy sizes: whether the benchmark itself works")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write the rows as a list of objects")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("error: --device: cuda is not available here · for a trial: --device cpu --tiny", file=sys.stderr)
        return 2
    device, torch_size = torch.device(args.device), 1000 if args.tiny else 1 << 28
    print(f"{name_of(device)}, copies {bytes_per_second(device, torch_size) / 1e12:.2f} TB/s")
    sizes = [(8, 64)] if args.tiny else [tuple(args.size)] if args.size else SIZES
    rows: list[dict[str, Any]] = []
    for samples, classes in sizes:
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(classes, 16 if args.tiny else DIM, device=device).mul_(DIM**-0.5))
        for kind in args.kinds:
            seconds = 0.01 if args.tiny else args.seconds
            rows += measure(weight, samples, kind, seconds=seconds, compiled=not args.no_compile)
            if args.json:
                args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        del weight
    return 0


if __name__ == "__main__":
    sys.exit(main())
