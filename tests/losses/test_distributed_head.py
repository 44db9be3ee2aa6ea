"""The head over 2 and 4 gloo processes is the head of one process, in float64 to 1e-10."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sphereface.losses.distributed_head import make_head
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import MARGINS as REGISTERED
from sphereface.losses.margins import make_margin
from sphereface.losses.shards import Shard

from ..shared import made_once
from . import shard_worker as work
from .oracles import annealed

ROOT = Path(__file__).parents[2]
SIZES = pytest.mark.parametrize("size", work.SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_once(tmp_path_factory, "ranks", run_four_processes)


@pytest.fixture(scope="module")
def results(folder):
    """What each of four processes found, by rank."""
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(4)]


def run_four_processes(folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.losses.shard_worker", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def joined(results, kind, size, key, step, entry):
    """The ranks' parts of one figure, put together in order."""
    return torch.cat([results[rank][kind, size][key][step][entry] for rank in range(size)])


def near(ours, book):
    torch.testing.assert_close(ours, book, rtol=1e-10, atol=1e-10)


def test_every_registered_margin_is_among_the_cases():
    assert {options["name"] for options in work.MARGINS.values()} == set(REGISTERED)


@SIZES
@pytest.mark.parametrize("kind", ["sharded", "replicated"])
@pytest.mark.parametrize("key", work.MARGINS)
def test_loss_gradients_and_step_are_those_of_one_process(results, key, kind, size):
    head = work.new_head(work.MARGINS[key])
    optimizer = work.new_optimizer(head)
    per_class = {"weight", "bias"} if head.margin.bias == "per class" else {"weight"}
    for step in range(2):
        one = work.one_step(head, optimizer, step)
        for entry, expected in one.items():
            name = entry.removeprefix("after ").removeprefix("d")
            if entry == "dx":
                near(joined(results, kind, size, key, step, entry), size * expected)  # DDP divides by their number
            elif entry in ("correct", "cosines", "norms") or (name in per_class and kind == "sharded"):
                near(joined(results, kind, size, key, step, entry), expected)
            else:
                for rank in range(size):
                    near(results[rank][kind, size][key][step][entry], expected)


@SIZES
@pytest.mark.parametrize("kind", ["ddp sharded", "ddp replicated"])
def test_the_network_below_gets_the_gradient_of_one_process(results, kind, size):
    net, head = work.new_network(), work.new_head(work.MARGINS["magface"], mhe=0.2)
    x, labels = work.batch()
    head(net(x), labels, work.LAMBDA).loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 1e-3
        for rank in range(size):
            near(results[rank][kind, size][name], parameter.grad)


def test_shards_hold_each_class_once_in_order_and_evenly():
    for classes, ranks in ((11, 4), (4, 4), (12, 3), (10_000_001, 64)):
        shards = [Shard.of(classes, rank, ranks) for rank in range(ranks)]
        assert [shard.start for shard in shards] == [0, *(shard.stop for shard in shards[:-1])]
        assert shards[-1].stop == classes
        assert max(map(len, shards)) - min(map(len, shards)) <= 1
    rows, here = Shard.of(11, 1, 4).locate(torch.tensor([0, 2, 3, 5, 6, 10]))
    assert rows.tolist() == [0, 0, 0, 2, 0, 0]
    assert here.tolist() == [False, False, True, True, False, False]


def test_embeddings_in_bfloat16(results):
    x, labels = work.batch()
    x = x.bfloat16().requires_grad_()
    loss = work.new_head(work.MARGINS["arcface"]).float()(x, labels).loss
    loss.backward()
    together = torch.cat([found["bfloat16"]["dx"] for found in results])
    assert together.dtype == torch.bfloat16
    assert (together == 4 * x.grad).float().mean() > 0.95  # summed in float32, so rounded once as in one process
    torch.testing.assert_close(together, 4 * x.grad)
    assert all(found["bfloat16"]["loss"].item() == pytest.approx(loss.item(), rel=1e-6) for found in results)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("uneven sharded", r"head: got [3, 4, 3, 3] images on the processes · allowed: the same number on each"),
        ("uneven replicated", r"head: got [3, 4, 3, 3] images on the processes · allowed: the same number on each"),
        ("changed", "head: got 4 images on process 2 after batches of 3"),
        ("label", "with 11 classes · allowed: 0 to 10"),
        ("few", "head: got 3 classes over 4 processes · allowed: at least one class for each"),
    ],
)
def test_a_mistake_is_told_on_every_rank(results, name, line):
    assert line in results[2]["refusals"][name]
    assert all(found["refusals"][name] != "nothing" for found in results)


# Sampled negatives over ranks


@SIZES
def test_sampled_loss_over_ranks_is_the_loops_over_the_classes_seen(results, size):
    """The union of the shards' samples is one set of classes; the loss is softmax over these."""
    weight = work.new_head(work.MARGINS["a-softmax exact"], classes=work.SAMPLED_CLASSES).weight.detach()
    velocity = torch.zeros_like(weight)
    for step in range(2):
        found = [results[rank]["sampled", size][step] for rank in range(size)]
        x, labels = work.batch(step, classes=work.SAMPLED_CLASSES)
        rows = torch.cat([part["rows"] for part in found])
        assert set(labels.tolist()) <= set(rows.tolist())
        assert len(rows) == {2: 40, 4: 48}[size]  # half of them, but at least 12 of each shard, for 12 samples
        losses = loop_losses(x, weight, labels, rows.tolist())
        assert all(part["loss"].item() == pytest.approx(math.fsum(losses) / len(losses), abs=1e-10) for part in found)
        after, moving = torch.cat([p["after weight"] for p in found]), torch.cat([p["velocity"] for p in found])
        aside = [j for j in range(work.SAMPLED_CLASSES) if j not in rows.tolist()]
        assert torch.equal(after[aside], weight[aside])
        assert torch.equal(moving[aside], velocity[aside])
        assert not (after[rows] == weight[rows]).any()
        weight, velocity = after, moving


def loop_losses(x, weight, labels, rows):
    """−log softmax of A-Softmax, m = 4, over some of the classes, by loops over lists."""
    losses = []
    for xi, y in zip(x.tolist(), labels.tolist(), strict=True):
        length, logits = math.hypot(*xi), {}
        for j in rows:
            wj = weight[j].tolist()
            cos = sum(a * b for a, b in zip(xi, wj, strict=True)) / (length * math.hypot(*wj))
            logits[j] = length * (annealed(math.acos(cos), 4, work.LAMBDA) if j == y else cos)
        losses.append(math.log(math.fsum(math.exp(z) for z in logits.values())) - logits[y])
    return losses


# Checkpoints


@pytest.mark.parametrize("size", [1, *work.RESUMED])
@pytest.mark.parametrize("key", work.SAVED)
def test_saved_on_four_ranks_goes_on_with_any_number(results, folder, key, size):
    head = work.new_head(work.MARGINS[key])
    optimizer = work.new_optimizer(head)
    for step in range(2):
        work.one_step(head, optimizer, step)
    per_class = {"weight", "bias"} if head.margin.bias == "per class" else {"weight"}
    expected = {f"loaded {name}": value.clone() for name, value in head.state_dict().items()}
    expected |= {f"velocity {name}": optimizer.state[p]["velocity"].clone() for name, p in head.named_parameters()}
    expected |= work.one_step(head, optimizer, 2)
    saved = torch.load(folder / f"{key}.pt", weights_only=True)
    assert list(saved["head"]) == list(head.state_dict())
    parts = [work.resume(None, folder, key)] if size == 1 else [results[r]["resumed", size][key] for r in range(size)]
    for entry, value in expected.items():
        name = entry.removeprefix("loaded ").removeprefix("velocity ").removeprefix("after ").removeprefix("d")
        if name in per_class or entry in ("dx", "correct", "cosines", "norms"):
            near(torch.cat([part[entry] for part in parts]), value * size if entry == "dx" else value)
        else:
            for part in parts:
                near(part[entry], value)


# One process


def test_one_process_has_the_plain_head():
    head = make_head(6, 11, make_margin("arcface"), generator=torch.Generator().manual_seed(0))
    assert type(head) is MarginHead
    assert torch.equal(
        head.weight, MarginHead(6, 11, make_margin("arcface"), generator=torch.Generator().manual_seed(0)).weight
    )
