"""Compare formulas for a head over R processes with measurements at small sizes.

    # formula against measurement, over 2 and 4 gloo processes
    python benchmarks/bench_scaling.py
    # the formulas, up to 10 million identities on 64 devices
    python benchmarks/bench_scaling.py --table
    python benchmarks/bench_scaling.py --json out.json

The figures are bytes held and bytes sent. Bytes held are those of the tensors, and of the
allocator's record of one step. Bytes sent are the operating system's count for each process's
sockets (Linux), so they include gloo's own messages. The program ends with 1 where a measured
figure exceeds its formula by more than the share in ``ALLOWED``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

from sphereface.losses.distributed_head import make_head
from sphereface.losses.last_layer import BLOCK_BYTES, CLASS_BLOCK
from sphereface.losses.margins import make_margin
from sphereface.training.optimizer import SGD, gradient_values
from sphereface.training.parts import parameter_groups

LAMBDA = 5.0
ALLOWED = 0.15
"""Allowed excess over the formulas: gloo's own messages, and small tensors that are not counted."""

GLOO = 2
"""Gloo's reduce-scatter is an all-reduce, which sends twice as much; NCCL uses a ring."""

SMALL = [
    {"ranks": 2, "n": 512, "classes": 20_001, "dim": 128, "rate": 1.0, "precision": "fp32"},
    {"ranks": 4, "n": 512, "classes": 20_001, "dim": 128, "rate": 1.0, "precision": "fp32"},
    {"ranks": 4, "n": 512, "classes": 80_000, "dim": 128, "rate": 0.1, "precision": "fp32"},
    {"ranks": 4, "n": 512, "classes": 20_001, "dim": 64, "rate": 1.0, "precision": "bf16"},
]


def held(
    *, ranks: int, n: int, classes: int, dim: int, rate: float, precision: str, cpu: bool = False
) -> dict[str, float]:
    """Return the bytes on each rank: C/R rows of weights and momentum, and the step's own tensors.

    ``step`` is all memory at the peak of a step besides weights and momentum, for the K rows that
    it sees: gradient, the copy of sampled rows, 4 tensors of N·D, and what :func:`on_gpu` or
    :func:`on_cpu` add for the logits.
    """
    rows = -(-classes // ranks)
    seen = rows if rate == 1 else max(-(-rows * rate // 1), min(n, rows))
    gradient = 4.0 * seen * dim
    copy = 4.0 * seen * dim if rate < 1 else 0.0
    logits, more = (on_cpu if cpu else on_gpu)(int(seen), n, dim, precision)
    return {
        "weights": 4.0 * rows * dim,
        "momentum": 4.0 * rows * dim,
        "gradient": gradient,
        "logits": logits,
        "step": gradient + copy + more + 4 * 4.0 * n * dim,
    }


def on_gpu(seen: int, n: int, dim: int, precision: str) -> tuple[float, float]:
    """Return the bytes of the logits, and of all that a step needs for them on a GPU with Triton.

    The logits are in the type of the products. Unit rows of one block are in this type too. The
    maximum and the sum of each sample are in parts of 256 classes. Where a row of logits is no
    longer than a row of W, all blocks but the last lie in the memory of the gradient.
    """
    size = 2 if precision == "bf16" else 4
    blocks = -(-seen // (BLOCK_BYTES // (size * n)))
    block = -(-seen // blocks)
    logits = float(size * n * seen)
    own = size * n * block if size * n <= 4 * dim else logits
    return logits, own + size * dim * block + 2 * 4.0 * n * seen / 256 + 4 * seen


def on_cpu(seen: int, n: int, dim: int, precision: str) -> tuple[float, float]:
    """Return the bytes of the logits, and of all that a step needs for them on a CPU.

    The logits are fp32. Products are of a block of classes at a time. In bf16 they need an operand
    and a result, in fp32 oneDNN needs memory for the result.
    """
    block = min(seen, CLASS_BLOCK)
    logits = 4.0 * n * seen
    return logits, logits + (2.0 * block * (dim + n) if precision == "bf16" else 4.0 * n * block)


def sent(*, ranks: int, n: int, dim: int, precision: str, **_: Any) -> tuple[float, float]:
    """Return the bytes that each rank sends in a forward and in a backward; C has no effect.

    By rings, an all-gather and a reduce-scatter send (R − 1)/R of the whole, an all-reduce twice
    that. Forward: labels 8N, embeddings 4ND (2ND in half precision), maxima 4N, sums and three
    figures of the targets 16N. Backward: gradient of the embeddings 4ND.
    """
    share, embeddings = (ranks - 1) / ranks, (4 if precision == "fp32" else 2) * n * dim
    return share * (8 * n + embeddings + 2 * 4 * n + 2 * 16 * n), share * 4 * n * dim


# ---------------------------------------------------------------- measuring


def measure(rank: int, folder: str, case: dict[str, Any]) -> None:
    """Run two steps in one process and measure the second."""
    torch.set_num_threads(1)
    size, n, dim = case["ranks"], case["n"], case["dim"]
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    torch.manual_seed(0)
    margin = make_margin("a-softmax", gradient="caffe", chunk_size=None, sample_rate=case["rate"])
    head = make_head(dim, case["classes"], margin)
    optimizer = SGD(parameter_groups({"head": head}, {}), lr=0.1)
    x = torch.randn(n, dim)[rank * n // size : (rank + 1) * n // size].requires_grad_()
    labels = torch.randint(case["classes"], (n,))[rank * n // size : (rank + 1) * n // size]

    def forward_backward(step: int) -> int:
        """Return the bytes sent at the end of the forward."""
        optimizer.zero_grad()
        x.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=case["precision"] == "bf16"):
            embeddings = x.bfloat16() if case["precision"] == "bf16" else x * 1.0
            loss = head(embeddings, labels, LAMBDA, step).loss
        dist.barrier()
        sent_so_far = bytes_sent()
        loss.backward()
        return sent_so_far

    forward_backward(0)
    optimizer.step()
    optimizer.zero_grad()
    dist.barrier()
    before = bytes_sent()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        between = forward_backward(1)
    dist.barrier()
    after = bytes_sent()
    found = {
        "weights": head.weight.nbytes,
        "momentum": optimizer.state[head.weight]["velocity"].nbytes,
        "gradient": sum(values.nbytes for values in gradient_values([head.weight])),
        "step": peak(record),
        "sent forward": between - before,
        "sent backward": after - between,
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def bytes_sent() -> int:
    """Return the bytes that this process's TCP sockets have sent (tcpi_bytes_sent of TCP_INFO)."""
    total = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not entry.readlink().name.startswith("socket:"):
                continue
            with socket.socket(fileno=int(entry.name)) as own:
                try:
                    if own.type == socket.SOCK_STREAM and own.family in (socket.AF_INET, socket.AF_INET6):
                        info = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208)
                        total += struct.unpack_from("Q", info, 200)[0]
                finally:
                    own.detach()  # gloo owns the socket and closes it
        except OSError:
            continue
    return total


def peak(record: profile) -> int:
    """Return the peak of the bytes that were allocated under the profiler."""
    alive = highest = 0
    assert record.profiler is not None
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        highest = max(highest, alive)
    return highest


def run(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each figure of a case: formula, measured (largest of the ranks), ratio."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        processes = [spawn.Process(target=measure, args=(rank, folder, case)) for rank in range(case["ranks"])]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit(f"error: a process of {case} failed")
        found = [json.loads(Path(folder, f"{rank}.json").read_text("utf-8")) for rank in range(case["ranks"])]
    forward, backward = sent(**case)
    formulas = {**held(**case, cpu=True), "sent forward": forward, "sent backward": GLOO * backward}
    rows = []
    for name in found[0]:
        measured = max(each[name] for each in found)
        rows.append({**case, "what": name, "formula": formulas[name], "measured": measured})
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the comparison, one line for each figure."""
    case: dict[str, Any] | None = None
    for row in rows:
        own = {key: row[key] for key in SMALL[0]}
        if own != case:
            case = own
            print("\n" + ", ".join(f"{key} {value}" for key, value in own.items()))
            print(f"{'bytes on each rank':20}{'formula':>14}{'measured':>14}{'ratio':>8}")
        ratio = row["measured"] / row["formula"]
        print(f"{row['what']:20}{row['formula']:14,.0f}{row['measured']:14,}{ratio:8.3f}")


# ---------------------------------------------------------------- the table of docs/scaling.md


def table() -> None:
    """Print MiB on each device and MB that it sends in a step; D = 512, 128 images a device."""
    names = ("weights", "momentum", "gradient", "logits", "step")
    of_bf16 = ("logits", "step")
    heading = ["C", "devices", "N", "`sample_rate`", *names, *(f"{name} bf16" for name in of_bf16), "sent", "sent bf16"]
    print(f"| {' | '.join(heading)} |\n|{'--:|' * len(heading)}")
    cases = [(c, r, rate) for c in (1_000_000, 10_000_000) for r in (8, 16, 32, 64) for rate in (1.0, 0.1)]
    for classes, ranks, rate in cases:
        case = {"ranks": ranks, "n": 128 * ranks, "classes": classes, "dim": 512, "rate": rate}
        fp32, bf16 = held(**case, precision="fp32"), held(**case, precision="bf16")
        messages = [sum(sent(**case, precision=precision)) / 1e6 for precision in ("fp32", "bf16")]
        cells = [f"{classes:,}", str(ranks), f"{128 * ranks:,}", f"{rate:g}"]
        cells += [f"{figure / 2**20:,.0f}" for figure in (*(fp32[k] for k in names), *(bf16[k] for k in of_bf16))]
        print(f"| {' | '.join([*cells, *(f'{figure:.1f}' for figure in messages)])} |")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure and print; return 1 where a measurement exceeds its formula."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print only the table of the formulas")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the measured rows to this file")
    options = parser.parse_args(argv)
    if options.table:
        table()
        return 0
    for name, level in (
        ("KINETO_LOG_LEVEL", "99"),
        ("TORCH_CPP_LOG_LEVEL", "ERROR"),
    ):  # not in the profiler's record
        os.environ.setdefault(name, level)
    rows = [row for case in SMALL for row in run(case)]
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(row["measured"] > (1 + ALLOWED) * row["formula"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
