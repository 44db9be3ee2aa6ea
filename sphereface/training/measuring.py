"""Measure a run: memory and time of each stage, and the time to load a batch."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..checkpoint import saved_bytes
from ..data.batch import Batch
from ..errors import UserError
from ..models.backbone import Backbone, Resized
from .deferred import NotFinite
from .heartbeat import EVERY, Heartbeat
from .learner import Learner
from .plan import Setting
from .rng import restore_rng, rng_states
from .trainer import Trainer

log = logging.getLogger(__name__)

_MORE_STEPS = 3  # timed after the first step, which allocates buffers and chooses convolutions
_SLOW = 10.0  # seconds: if the first step takes this long, it is the measurement
_LOADS, _LOADING = 20, 5.0  # batches, or seconds, of loading alone


@dataclass(frozen=True)
class StageCost:
    """The measured cost of one stage of a run.

    Attributes:
        share: of the run, in (0, 1].
        size: (height, width) of the crops.
        multiply_adds: of one image's forward pass through the network, without the head.
        memory_mib: peak during a step; on a CPU, the peak of the whole process until then.
        step_seconds: of one step with its update, without loading.
        loss: of one batch, before any training.
    """

    share: float
    size: tuple[int, int]
    multiply_adds: int
    memory_mib: float
    step_seconds: float
    loss: float


@dataclass(frozen=True)
class RunCost:
    """The measured cost of a run.

    Attributes:
        stages: in the order of the run.
        loading_seconds: to load one batch, with all workers, while nothing else runs.
        checkpoint_bytes: size of a checkpoint.
    """

    stages: list[StageCost]
    loading_seconds: float
    checkpoint_bytes: int


def measure(trainer: Trainer) -> RunCost:
    """Measure every stage by real steps, and the loading of batches. The weights do not change.

    Stages are measured in order of their size, because the peak memory of a process on a CPU
    cannot fall again.

    Args:
        trainer: before its first step. All processes call this together.

    Raises:
        UserError: a loss or gradient is not finite, or memory is too small.
    """
    log.info("dry run: loading batches")
    stages, costs = trainer.plan.stages(), dict[int, StageCost]()
    whole = trainer.config.model.input_spec.size
    sizes = [setting.input_size or whole for _, setting in stages]
    with _unchanged(trainer.learner), closing(trainer.feed()) as feed:
        loading = _loading_seconds(feed)
        batch = next(feed)
        for number in sorted(range(len(stages)), key=lambda n: (sizes[n][0] * sizes[n][1], n)):
            share, setting = stages[number]
            place = f"stage {number + 1} of {len(stages)}, crops of {sizes[number][0]}×{sizes[number][1]}"
            log.info("dry run: %s: some steps of %d images", place, trainer.config.train.batch_size)
            with Heartbeat(lambda at=place: log.info("dry run: %s: still measuring", at), first=EVERY):  # type: ignore[misc]
                costs[number] = _measured(trainer, batch, setting, share, place)
        checkpoint = saved_bytes(trainer.state(""))
    return RunCost([costs[number] for number in range(len(stages))], loading, checkpoint)


def multiply_adds(model: Backbone, size: tuple[int, int] | None = None) -> int:
    """Return the multiply-adds of one image's forward pass through a network, without the head.

    Args:
        model: the network.
        size: (height, width) of the crops; None: the network's own.
    """
    size = size or model.input_spec.size
    seen = model if size == model.input_spec.size else Resized(model, size)
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        seen(torch.zeros(1, 3, *size, device=next(model.parameters()).device))
    model.train(was_training)
    return int(counter.get_total_flops()) // 2


def _loading_seconds(feed: Generator[Batch]) -> float:
    next(feed)  # starts the workers
    start, count, seconds = time.perf_counter(), 0, 0.0
    while count < _LOADS and seconds < _LOADING:
        next(feed)
        count += 1
        seconds = time.perf_counter() - start
    return seconds / count


def _measured(trainer: Trainer, batch: Batch, setting: Setting, share: float, place: str) -> StageCost:
    learner, device = trainer.learner, trainer.device
    size = setting.input_size or learner.model.input_spec.size
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    setting = replace(setting, lr=0.0)  # the same work, but the weights do not change
    try:
        seconds, loss = _timed_step(learner, batch, setting)
        steps = _MORE_STEPS if seconds < _SLOW or trainer.config.train.compile else 0
        steps = trainer.world.broadcast(steps)  # all processes take the same number
        more = [_timed_step(learner, batch, setting)[0] for _ in range(steps)]
    except NotFinite as error:
        raise UserError(f"--dry-run: {place}: {error} · use another loss, data, or train.precision fp32") from error
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"--dry-run: {place}: out of memory · use a smaller train.batch_size, or train.micro_batch, or bf16"
        ) from error
    seconds = sum(more) / len(more) if more else seconds
    return StageCost(share, size, multiply_adds(learner.model, size), _peak_mib(device), seconds, loss)


def _timed_step(learner: Learner, batch: Batch, setting: Setting) -> tuple[float, float]:
    """Return the seconds of one step, with gradients and update as in training, and its loss."""
    start = time.perf_counter()
    loss = float(learner.step(batch, setting, at_once=True).output.loss)
    if learner.device.type == "cuda":
        torch.cuda.synchronize(learner.device)
    return time.perf_counter() - start, loss


@contextmanager
def _unchanged(learner: Learner) -> Iterator[None]:
    """Restore statistics and states after the steps of the block, at a learning rate of 0."""
    values = [*learner.model.buffers(), *learner.head.buffers()]
    if learner.average is not None:
        averaged = learner.average.weights()
        values += [averaged[name] for name, _ in learner.model.named_buffers() if name in averaged]
    before = [value.detach().clone() for value in values]
    updates = 0 if learner.average is None else learner.average.updates
    scaler, random, margin, size = (
        learner.loss_scale.state_dict(), rng_states(learner.device), learner.head.margin, learner.seen_size,
    )  # fmt: skip
    held, learner.head.held = learner.head.held, torch.ones((), device=learner.device)  # rows are not renormalised
    try:
        yield
    finally:
        learner.head.held = held
        learner.optimizer.zero_grad(set_to_none=True)
        learner.optimizer.state.clear()
        with torch.no_grad():
            for value, old in zip(values, before, strict=True):
                value.copy_(old)
        if learner.average is not None:
            learner.average.updates = updates
        learner.loss_scale.load_state_dict(scaler)
        restore_rng(random, learner.device)
        learner.head.margin = margin
        learner._see(size)


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
