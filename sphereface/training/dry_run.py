"""``--dry-run``: build everything, measure it, describe it, and train nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch

from ..config import Config, load_config
from ..data.walking import check_writable
from ..errors import UserError, refusing
from ..files import in_words, write_whole
from ..losses.head import MarginHead
from ..losses.margins import MARGINS
from ..losses.whole_head import whole_shapes
from ..models import BACKBONES
from ..yaml_text import dump_yaml
from .augmentation_sheet import augmentation_sheet
from .distributed import processes
from .ensemble import single_runs
from .heartbeat import Heartbeat
from .measuring import RunCost, StageCost, measure
from .monitor import start_logging
from .plan import doubtful
from .progress import duration
from .trainer import Trainer

log = logging.getLogger(__name__)


def dry_run(config_name: str, overrides: Sequence[str] = (), *, device: str = "auto") -> str | None:
    """Build everything, measure some steps of each stage, and describe them; train nothing.

    The only file written is ``runs_dir/<name>-dry-run.png``, which shows each augmentation.

    Args:
        config_name, overrides, device: as for :func:`run_training`.

    Returns:
        A table of sizes, costs, memory and the estimated time, then the resolved configuration as
        YAML. None in all processes but the first.
    """
    with processes(device) as (world, place):
        start_logging(quiet=not world.first)
        config = load_config(config_name, overrides, losses=MARGINS, backbones=BACKBONES)
        _check_sheet(config)
        with Heartbeat(lambda: log.info("dry run: reading the data and building the network")):
            trainer = Trainer(single_runs(config)[0], place, world, to_measure=True)
            trainer.begin()  # from train.init_from, if it is set
        table = describe(trainer, config)
        if not world.first:
            return None
        return f"{'augmentation, to look at':28}{write_sheet(trainer)}\n{table}"


def _check_sheet(config: Config) -> None:
    """Refuse a ``runs_dir`` that cannot be written, before minutes of reading and measuring."""
    try:
        check_writable(_sheet(config))
    except UserError as error:
        raise UserError(f"runs_dir: {error}") from None


def _sheet(config: Config) -> Path:
    return Path(config.runs_dir) / f"{config.name}-dry-run.png"


def write_sheet(trainer: Trainer) -> Path:
    """Draw the augmentation sheet (see :func:`augmentation_sheet`) and return its path.

    Raises:
        UserError: the file cannot be written.
    """
    config = trainer.config
    path = _sheet(config)
    sheet = augmentation_sheet(trainer.data.crops, trainer.data.augmentation, seed=config.seed)
    with refusing(f"runs_dir: {path}: cannot be written", "set runs_dir to a writable folder"):
        write_whole(path, cv2.imencode(".png", sheet)[1].tobytes(), durable=False)
    return path


def arithmetic(device: torch.device, config: Config) -> str:
    """Return the device and number types of the network, in words."""
    matmul = f", products of fp32 numbers in {config.train.matmul}" if device.type == "cuda" else ""
    return f"{device}, {config.train.precision}{matmul}"


def length(trainer: Trainer) -> str:
    """Return when the run ends, in words."""
    train = trainer.config.train
    clock = "" if train.max_minutes is None else f" or {train.max_minutes:g} minutes, whichever comes first"
    share = f" ({trainer.world.size} processes, {train.batch_size // trainer.world.size} each)"
    shared = share if trainer.world.size > 1 else ""
    return f"{trainer.total_steps:,} steps of {train.batch_size} images{shared}{clock}"


def headline(trainer: Trainer) -> str:
    """Describe the run in one line."""
    train = trainer.config.train
    return (
        f"{len(trainer.source):,} images of {trainer.num_classes:,} identities · "
        f"{parameters(trainer.learner.model):,} + {head_parameters(trainer.learner.head):,} parameters · "
        f"{length(trainer)} · {trainer.device} {train.precision}"
    )


def describe(trainer: Trainer, config: Config) -> str:
    """Return the table of ``--dry-run``, with the cost of each stage, and the configuration.

    Args:
        trainer: before its first step; it does not change.
        config: the resolved configuration of all networks.
    """
    for line in doubtful(trainer.config, trainer.total_steps):
        log.warning("%s", line)
    cost = measure(trainer)
    networks = config.model.networks
    rows = {
        "identities": f"{trainer.num_classes:,}",
        "images": f"{len(trainer.source):,}",
        "network parameters": f"{parameters(trainer.learner.model):,}",
        "head parameters": f"{head_parameters(trainer.learner.head):,}",
        "multiply-adds per image": f"{max(stage.multiply_adds for stage in cost.stages):,}",
        "length": length(trainer) if networks == 1 else f"{networks} networks, each {length(trainer)}",
        "device": arithmetic(trainer.device, trainer.config),
        "loss of one batch": f"{cost.stages[0].loss:.4f}",
        **_stage_rows(trainer, cost.stages),
        "loading of one batch": f"{cost.loading_seconds:.3g} s, {trainer.config.data.workers} workers",
        "estimated time": _estimate(trainer, cost, networks),
        "checkpoint": f"{in_words(cost.checkpoint_bytes)}, the newest {config.checkpoint.keep} and the best are kept",
    }
    table = "".join(f"{name:28}{value}\n" for name, value in rows.items())
    resolved = dump_yaml(config.to_dict())
    return f"{table}\n# the resolved configuration\n{resolved}"


def _stage_rows(trainer: Trainer, stages: Sequence[StageCost]) -> dict[str, str]:
    """Return one row for each stage, in the order of the run."""
    where = f"on {trainer.device}" if trainer.device.type == "cuda" else "(whole process)"
    rows, end = {}, 0.0
    for number, stage in enumerate(stages, start=1):
        end += stage.share
        rows[f"stage {number}, to {end:.0%}"] = (
            f"crops {stage.size[0]}×{stage.size[1]} · {stage.multiply_adds:,} multiply-adds per image · "
            f"peak memory {stage.memory_mib:,.0f} MiB {where} · {stage.step_seconds:.3g} s per step"
        )
    return rows


def run_seconds(trainer: Trainer, cost: RunCost) -> float:
    """Estimate how long one network trains, in seconds, without evaluations and checkpoints.

    On a GPU, loading runs in parallel with the steps. On a CPU, both need the same cores.
    """
    beside = trainer.device.type != "cpu" and trainer.config.data.workers > 0
    steps, loading = [(stage.share, stage.step_seconds) for stage in cost.stages], cost.loading_seconds
    per_step = sum(share * (max(step, loading) if beside else step + loading) for share, step in steps)
    return trainer.total_steps * per_step


def _estimate(trainer: Trainer, cost: RunCost, networks: int) -> str:
    seconds, minutes = run_seconds(trainer, cost), trainer.config.train.max_minutes
    if minutes is not None and 60 * minutes < seconds:
        text = f"{duration(60 * minutes)} (train.max_minutes; all steps would take about {duration(seconds)})"
        seconds = 60 * minutes
    else:
        text = f"about {duration(seconds)}"
    all_of_them = f", {duration(networks * seconds)} for {networks} networks" if networks > 1 else ""
    images, wait = (0, 0.0) if trainer.data.teacher is None else trainer.data.teacher.left
    before = f" · before that, the teacher embeds {images:,} images in about {duration(wait)}" if images else ""
    return f"{text}{all_of_them}, without evaluations and checkpoints{before}"


def parameters(module: torch.nn.Module) -> int:
    """Return the number of parameters, including fixed ones."""
    return sum(p.numel() for p in module.parameters())


def head_parameters(head: MarginHead) -> int:
    """Return the number of parameters of a head, including those on other processes."""
    return sum(math.prod(whole_shapes(head)[name]) for name, _ in head.named_parameters())
