"""Run training steps on the null CUDA and print what each does: JSON cases in, JSON results out.

    python session.py < cases.json        under the environment that build.py returns

A case has a ``name`` and optionally the other keys of :class:`Case`.
"""

from __future__ import annotations

import gc
import json
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from counting import count

from sphereface.config import load_config
from sphereface.data.batch import Batch
from sphereface.device import make_deterministic, use_machine
from sphereface.losses.margins import MARGINS
from sphereface.losses.ranks import Ranks
from sphereface.models.backbone import BACKBONES
from sphereface.training.distributed import World
from sphereface.training.learner import Learner
from sphereface.training.plan import Plan

CUDA = torch.device("cuda")


@dataclass(frozen=True)
class Case:
    """One training step."""

    name: str
    config: str = "sphere20"
    overrides: tuple[str, ...] = ()
    batch: int = 512
    classes: int = 10_572
    processes: int = 1
    """As the first of so many. Nothing is sent, and DistributedDataParallel is left out."""
    part: str = "step"
    """``step``, or ``head`` for forward and backward of the head alone, on (batch, 512)."""


def run(case: Case) -> dict[str, Any]:
    """The counts of a case, or its ``error``."""
    gc.collect()  # the case before
    torch.cuda.empty_cache()
    try:
        step = (step_of_head if case.part == "head" else step_of)(case)
        step(), step()  # they fill caches
        return {"name": case.name, **count(step).to_dict()}
    except Exception:
        return {"name": case.name, "error": traceback.format_exc(limit=-6)}


def step_of(case: Case) -> Callable[[], object]:
    """The trainer's step on a batch that is on the device."""
    learner = new_learner(case)
    share = case.batch // case.processes
    setting = replace(Plan(learner.config, 28_000).at(0), lr=1e-4)
    pixels = torch.empty(share, *learner.model.input_spec.size, 3, dtype=torch.uint8, device=CUDA)
    labels, mirror = torch.zeros(share, dtype=torch.long, device=CUDA), torch.ones(share, dtype=torch.bool, device=CUDA)
    return lambda: learner.step(Batch(pixels, labels, mirror, []), setting)


def step_of_head(case: Case) -> Callable[[], object]:
    """Forward and backward of the head."""
    learner = new_learner(case)
    head, setting = learner.head, Plan(learner.config, 28_000).at(0)
    x = torch.zeros(case.batch, 512, dtype=learner.dtype, device=CUDA, requires_grad=True)
    labels = torch.zeros(case.batch, dtype=torch.long, device=CUDA)

    def step() -> None:
        x.grad = None
        learner.optimizer.zero_grad(set_to_none=True)
        with learner.autocast():
            loss = head(x, labels, setting.lam, setting.step).loss
        loss.backward()

    return step


def new_learner(case: Case) -> Learner:
    """On the device; a large head is made there, for its values do not matter."""
    overrides = [f"train.batch_size={case.batch}", *case.overrides]
    config = load_config(case.config, overrides, losses=MARGINS, backbones=BACKBONES)
    make_deterministic(config.deterministic)
    use_machine(CUDA, deterministic=config.deterministic)
    world = world_of(case.processes)
    where = torch.device("cuda") if case.classes > 100_000 else nullcontext()
    with where, patch("sphereface.training.learner.replicated", return_value=None):
        return Learner(config, case.classes, CUDA, world)


def world_of(processes: int) -> World:
    """The first of some processes, with PyTorch's backend that sends nothing."""
    if dist.is_initialized():
        dist.destroy_process_group()
    if processes == 1:
        return World()
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=processes, store=FakeStore())
    return World(0, processes, Ranks())


def main() -> int:
    """Read the cases, write the results."""
    gc.freeze()  # the modules: each case is collected after it
    cases = [Case(**{**case, "overrides": tuple(case.get("overrides", ()))}) for case in json.load(sys.stdin)]
    json.dump([run(case) for case in cases], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
