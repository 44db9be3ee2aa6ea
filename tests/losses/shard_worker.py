"""What each of four processes does for test_distributed_head.py: all cases at one start, results saved."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from sphereface.checkpoint import load_checkpoint, save_checkpoint
from sphereface.errors import UserError
from sphereface.losses import whole_head
from sphereface.losses.distributed_head import make_head
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin
from sphereface.losses.ranks import Ranks
from sphereface.losses.whole_head import gather_head, scatter_head
from sphereface.training.optimizer import SGD
from sphereface.training.parts import parameter_groups

SAMPLES, CLASSES, WIDTH = 12, 11, 6  # 11 classes go evenly over neither 2, 3 nor 4
SAMPLED_CLASSES = 80  # a step sees at least as many rows of a shard as there are samples
LAMBDA = 2.0
SIZES = (2, 4)
RESUMED = (2, 3, 4)

MARGINS: dict[str, dict[str, Any]] = {
    "softmax": {"name": "softmax"},
    "modified-softmax": {"name": "modified-softmax"},
    "normface": {"name": "modified-softmax", "s": 9.0},
    "l-softmax": {"name": "l-softmax"},
    "a-softmax exact": {"name": "a-softmax", "gradient": "exact"},
    "a-softmax caffe": {"name": "a-softmax", "gradient": "caffe"},
    "a-softmax chunked": {"name": "a-softmax", "gradient": "caffe", "chunk_size": 2},
    "sphereface-r": {"name": "sphereface-r"},
    "cosface": {"name": "cosface", "s": 8.0},
    "arcface": {"name": "arcface", "s": 8.0},
    "arcface chunked": {"name": "arcface", "s": 8.0, "chunk_size": 1},
    "combined": {"name": "combined", "s": 8.0},
    "adaface": {"name": "adaface", "s": 8.0, "momentum": 0.3},
    "magface": {"name": "magface", "s": 8.0, "l_a": 2.0, "u_a": 12.0},
    "sphereface2": {"name": "sphereface2", "r": 8.0},
    "sphereface2 chunked": {"name": "sphereface2", "r": 8.0, "gradient": "detached", "chunk_size": 2},
    "spread": {"name": "a-softmax", "mhe": 0.7},
}
"""Every registered margin, and what changes the way that it is computed."""


def batch(step: int = 0, samples: int = SAMPLES, classes: int = CLASSES) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, D) float64 and labels; some classes stand twice, and some ranks have no target at all."""
    generator = torch.Generator().manual_seed(100 + step)
    x = 2 * torch.randn(samples, WIDTH, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes if step % 2 == 0 else 3, (samples,), generator=generator)
    return x, labels


def new_head(options: dict[str, Any], ranks: Ranks | None = None, classes: int = CLASSES, **changes: Any) -> MarginHead:
    margin = make_margin(**{**options, **changes})
    generator = torch.Generator().manual_seed(3)
    if ranks is None:
        return MarginHead(WIDTH, classes, margin, generator=generator, seed=5).double()
    return make_head(WIDTH, classes, margin, generator=generator, seed=5, ranks=ranks).double()


def new_optimizer(head: nn.Module) -> SGD:
    return SGD(parameter_groups({"head": head}, {}), lr=0.05, mu=0.9, weight_decay=0.01)


def one_step(head: MarginHead, optimizer: SGD, step: int, rank: int = 0, size: int = 1) -> dict[str, Any]:
    """Loss, what comes beside it, and the gradients of this rank's embeddings, weights and bias."""
    x, labels = batch(step, classes=head.num_classes)
    own = slice(rank * len(x) // size, (rank + 1) * len(x) // size)
    mine = x[own].clone().requires_grad_()
    optimizer.zero_grad()
    out = head(mine, labels[own], LAMBDA, step)
    out.loss.backward()
    found = {"loss": out.loss.detach(), "correct": out.correct, "cosines": out.cosines, "norms": out.norms.detach()}
    found |= {"dx": mine.grad} | {f"d{name}": p.grad.to_dense().clone() for name, p in head.named_parameters()}
    optimizer.step()
    return found | {f"after {name}": value.clone() for name, value in head.state_dict().items()}


def compare_margins(ranks: Ranks, distributed: str) -> dict[str, Any]:
    found = {}
    for key, options in MARGINS.items():
        head = new_head(options, ranks, distributed=distributed)
        optimizer = new_optimizer(head)
        found[key] = [one_step(head, optimizer, step, ranks.rank, ranks.size) for step in range(2)]
    return found


def under_ddp(ranks: Ranks, distributed: str) -> dict[str, torch.Tensor]:
    """The gradient of a network below the head, as DistributedDataParallel leaves it."""
    x, labels = batch()
    own = slice(ranks.rank * len(x) // ranks.size, (ranks.rank + 1) * len(x) // ranks.size)
    net = nn.parallel.DistributedDataParallel(new_network(), process_group=ranks.group)
    head = new_head(MARGINS["magface"], ranks, distributed=distributed, mhe=0.2)
    head(net(x[own]), labels[own], LAMBDA).loss.backward()
    return {name: p.grad for name, p in net.module.named_parameters()}


def new_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 5), nn.PReLU(), nn.Linear(5, WIDTH)).double()


def sampled(ranks: Ranks) -> list[dict[str, Any]]:
    """Two steps with sampled negatives, with the rows that each saw."""
    head = new_head(MARGINS["a-softmax exact"], ranks, SAMPLED_CLASSES, sample_rate=0.5)
    optimizer, found = new_optimizer(head), []
    for step in range(2):
        seen = one_step(head, optimizer, step, ranks.rank, ranks.size)
        rows = head.weight.grad.coalesce().indices()[0] + head.shard.start
        found.append(seen | {"rows": rows, "velocity": optimizer.state[head.weight]["velocity"].clone()})
    return found


def bfloat16(ranks: Ranks) -> dict[str, Any]:
    x, labels = batch()
    own = slice(ranks.rank * len(x) // ranks.size, (ranks.rank + 1) * len(x) // ranks.size)
    mine = x[own].bfloat16().requires_grad_()
    out = new_head(MARGINS["arcface"], ranks).float()(mine, labels[own])
    out.loss.backward()
    return {"loss": out.loss.detach(), "dx": mine.grad}


def save(ranks: Ranks, folder: Path, key: str) -> None:
    head = new_head(MARGINS[key], ranks)
    optimizer = new_optimizer(head)
    for step in range(2):
        one_step(head, optimizer, step, ranks.rank, ranks.size)
    whole = gather_head(head, optimizer.state)
    assert (whole is None) == (ranks.rank > 0)
    if whole is not None:
        save_checkpoint(folder / f"{key}.pt", {"head": whole[0], "optimizer": whole[1]}, {})


def resume(ranks: Ranks | None, folder: Path, key: str) -> dict[str, Any]:
    """Go on from what was saved, on however many ranks: what stands there, and the next step."""
    saved = load_checkpoint(folder / f"{key}.pt")
    head = new_head(MARGINS[key], ranks)
    nn.init.zeros_(head.weight)
    optimizer = new_optimizer(head)
    scatter_head(head, optimizer.state, saved["head"], saved["optimizer"])
    momentum = {f"velocity {name}": optimizer.state[p]["velocity"].clone() for name, p in head.named_parameters()}
    loaded = {f"loaded {name}": value.clone() for name, value in head.state_dict().items()}
    rank, size = (0, 1) if ranks is None else (ranks.rank, ranks.size)
    return loaded | momentum | one_step(head, optimizer, 2, rank, size)


def refusals(ranks: Ranks) -> dict[str, str]:
    """What the mistakes are told; each on all ranks alike, so that none is left waiting."""
    found = {}

    def told(name: str, call: Any) -> None:
        try:
            call()
            found[name] = "nothing"
        except UserError as error:
            found[name] = str(error)

    x, labels = batch()
    uneven = 3 + (ranks.rank == 1)
    for kind in ("sharded", "replicated"):
        head = new_head(MARGINS["arcface"], ranks, distributed=kind)
        told(f"uneven {kind}", lambda head=head: head(x[:uneven], labels[:uneven]))
    head = new_head(MARGINS["arcface"], ranks)
    head(x[:3], labels[:3])
    told("changed", lambda: head(x[:4], labels[:4]))
    told("label", lambda: head(x[:3], labels[:3] + CLASSES))
    told("few", lambda: make_head(WIDTH, ranks.size - 1, make_margin("arcface"), ranks=ranks))
    return found


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    limit = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=4, timeout=limit)
    groups = {size: dist.new_group(range(size)) for size in RESUMED}
    whole_head.CLASSES_PER_MESSAGE = 2
    results: dict[Any, Any] = {}
    for key in SAVED:
        save(Ranks(groups[4]), folder, key)
    dist.barrier()
    for size in SIZES:
        if rank < size:
            ranks = Ranks(groups[size])
            results["sharded", size] = compare_margins(ranks, "sharded")
            results["replicated", size] = compare_margins(ranks, "replicated")
            results["ddp sharded", size] = under_ddp(ranks, "sharded")
            results["ddp replicated", size] = under_ddp(ranks, "replicated")
            results["sampled", size] = sampled(ranks)
    for size in RESUMED:
        if rank < size:
            results["resumed", size] = {key: resume(Ranks(groups[size]), folder, key) for key in SAVED}
    results["bfloat16"] = bfloat16(Ranks())
    results["refusals"] = refusals(Ranks())
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


SAVED = ("softmax", "a-softmax caffe", "adaface", "sphereface2")

if __name__ == "__main__":  # imports what takes long once, then forks: no thread has been started yet
    new_optimizer(new_head(MARGINS["softmax"]))
    torch.multiprocessing.start_processes(main, (Path(sys.argv[1]),), nprocs=4, start_method="fork")
