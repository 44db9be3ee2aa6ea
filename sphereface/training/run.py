"""What ``train.py`` does: read the configuration, choose the device, find the run folder, train."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from ..checkpoint import load_checkpoint
from ..config import Config, load_config
from ..device import choose_device
from ..errors import Stopped, UserError
from ..files import write_whole
from ..losses.head import MarginHead
from ..losses.margins import MARGINS
from ..losses.whole_head import whole_shapes
from ..models import BACKBONES
from ..models.backbone import Backbone
from .augmentation_sheet import augmentation_sheet
from .distributed import World, processes
from .monitor import start_logging
from .profiling import profile_training
from .progress import Progress
from .replay import replay
from .run_folder import QuietFolder, RunFolder
from .several import single_runs, train_several
from .trainer import Trainer

log = logging.getLogger(__name__)


def run_training(
    config_name: str, overrides: Sequence[str] = (), *, resume: str | None = None, device: str = "auto"
) -> Path | None:
    """Train as a configuration says, with all processes that torchrun started.

    Args:
        config_name: a file of ``configs/`` or a path.
        overrides: ``key.sub=value`` each, over the file.
        resume: ``auto``, a run folder, a checkpoint, or None for a new run.
        device: ``auto``, ``cuda``, ``cuda:N``, ``mps`` or ``cpu``.

    Returns:
        The checkpoint to use: the run's ``best.pt``, or ``last.pt`` where no set was to choose a best. None on all
        processes but the first.

    Raises:
        UserError: whatever the user can mend, in one line.
    """
    with processes(device) as (world, place):
        start_logging(quiet=not world.first)
        config = load_config(config_name, overrides, losses=MARGINS, backbones=BACKBONES)
        if config.model.networks == 1:
            result = _train_one(config, resume, place, world)
        else:
            result = train_several(
                config, resume, place, world, lambda single, like: _train_one(single, resume, place, world, like)
            )
    return result if world.first else None


def _train_one(
    config: Config, resume: str | None, device: torch.device, world: World, like: Path | None = None
) -> Path:
    """Train one network; on the very data of a checkpoint, where one is given."""
    trainer = Trainer(config, device, world)
    if like is not None:
        trainer.data.check(load_checkpoint(like, mapped=True)["meta"], like)
    run, checkpoint = open_run(config, resume, world)
    start_logging(run.path, quiet=not world.first)
    log.info("%s", headline(trainer))
    log.info("run folder %s · watch it: tensorboard --logdir %s", run.path, config.runs_dir)
    progress = _fit(trainer, run, checkpoint)
    result = run.result(config)
    log.info("done: %d steps in %.1f minutes: %s", progress.step, progress.seconds / 60, result)
    return result


def open_run(config: Config, resume: str | None, world: World) -> tuple[RunFolder, Path | None]:
    """The folder of a run and the checkpoint to go on from: the first process chooses, for all.

    Args:
        config: the resolved configuration.
        resume: what ``--resume`` got; None for a new run.
        world: the processes.
    """
    if not world.first:
        path, checkpoint = world.from_first((Path(), None))
        return QuietFolder(path), checkpoint
    run, checkpoint = (RunFolder.create(config), None) if resume is None else RunFolder.of_resume(resume, config)
    world.from_first((run.path, checkpoint))
    return run, checkpoint


def _fit(trainer: Trainer, run: RunFolder, checkpoint: Path | None) -> Progress:
    """Train, and write down how that ended."""
    try:
        return trainer.fit(run, checkpoint)
    except Stopped as stop:
        run.write_status("stopped", reason=str(stop))
        raise
    except BaseException as error:
        reason = trainer.world.reason(error)
        log.error("stopped at step %d: %s", trainer.progress.step, reason)
        run.write_status("stopped", reason=reason)
        if isinstance(error, torch.OutOfMemoryError):
            raise UserError(f"out of memory · use a smaller train.batch_size, or bf16 · {reason}") from error
        raise


def dry_run(config_name: str, overrides: Sequence[str] = (), *, device: str = "auto") -> str | None:
    """Build everything, push one batch through forward and backward, and describe it.

    Nothing is written but ``runs_dir/<name>-dry-run.png``, on which each augmentation is seen.

    Args:
        config_name, overrides, device: as for :func:`run_training`.

    Returns:
        A table of sizes, cost and memory, then the resolved configuration as YAML. None on all processes but the
        first, of which it tells.
    """
    with processes(device) as (world, place):
        start_logging(quiet=not world.first)
        config = load_config(config_name, overrides, losses=MARGINS, backbones=BACKBONES)
        trainer = Trainer(single_runs(config)[0], place, world)
        table = describe(trainer, config)
        if not world.first:
            return None
        return f"{'augmentation, to look at':28}{write_sheet(trainer)}\n{table}"


def profile_run(config_name: str, overrides: Sequence[str] = (), *, steps: int, device: str = "auto") -> str:
    """Record some training steps into ``runs_dir/<name>-profile/``; see :func:`profile_training`.

    Args:
        config_name, overrides, device: as for :func:`run_training`.
        steps: how many.

    Returns:
        Where the trace is, and the table of where the time goes.
    """
    start_logging()
    config = load_config(config_name, overrides, losses=MARGINS, backbones=BACKBONES)
    folder = Path(config.runs_dir) / f"{config.name}-profile"
    table = profile_training(Trainer(single_runs(config)[0], choose_device(device)), steps, folder)
    return f"trace, for ui.perfetto.dev or TensorBoard: {folder / 'steps.pt.trace.json'}\n\n{table}"


def write_sheet(trainer: Trainer) -> Path:
    """Draw what augmentation does (see :func:`augmentation_sheet`).

    Raises:
        UserError: the file cannot be written.
    """
    config = trainer.config
    path = Path(config.runs_dir) / f"{config.name}-dry-run.png"
    sheet = augmentation_sheet(trainer.data.crops, trainer.data.augmentation, seed=config.seed)
    try:
        write_whole(path, cv2.imencode(".png", sheet)[1].tobytes(), durable=False)
    except OSError as error:
        raise UserError(
            f"runs_dir: {path}: cannot be written ({error.strerror}) · set runs_dir to a folder that can"
        ) from error
    return path


def replay_step(path: str, *, device: str = "auto") -> str:
    """What ``--replay`` prints; see :func:`sphereface.training.replay.replay`."""
    return replay(Path(path), choose_device(device))


def length(trainer: Trainer) -> str:
    """When the run ends, in words."""
    train = trainer.config.train
    clock = "" if train.max_minutes is None else f" or {train.max_minutes:g} minutes, whichever comes first"
    share = f" ({trainer.world.size} processes, {train.batch_size // trainer.world.size} each)"
    shared = share if trainer.world.size > 1 else ""
    return f"{trainer.total_steps:,} steps of {train.batch_size} pictures{shared}{clock}"


def headline(trainer: Trainer) -> str:
    """The run in one line."""
    train = trainer.config.train
    return (
        f"{len(trainer.source):,} pictures of {trainer.num_classes:,} identities · "
        f"{parameters(trainer.learner.model):,} + {head_parameters(trainer.learner.head):,} parameters · "
        f"{length(trainer)} · {trainer.device} {train.precision}"
    )


def describe(trainer: Trainer, config: Config) -> str:
    """What ``--dry-run`` prints: sizes, cost and memory of one batch of one network, and the resolved configuration."""
    batch = next(trainer.feed())
    output, _ = trainer.learner.forward(batch, trainer.setting())
    output.loss.backward()  # type: ignore[no-untyped-call]
    device = trainer.device
    if device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated(device) / 2**20:,.0f} MiB on {device}"
    else:
        memory = f"{_peak_resident_mib():,.0f} MiB (whole process)"
    resolved = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
    networks = config.model.networks
    rows = {
        "identities": f"{trainer.num_classes:,}",
        "pictures": f"{len(trainer.source):,}",
        "network parameters": f"{parameters(trainer.learner.model):,}",
        "head parameters": f"{head_parameters(trainer.learner.head):,}",
        "multiply-adds per picture": f"{multiply_adds(trainer.learner.model):,}",
        "length": length(trainer) if networks == 1 else f"{networks} networks, each {length(trainer)}",
        "device": f"{device}, {trainer.config.train.precision}",
        "peak memory of one batch": memory,
        "loss of one batch": f"{float(output.loss.detach()):.4f}",
    }
    table = "".join(f"{name:28}{value}\n" for name, value in rows.items())
    return f"{table}\n# the resolved configuration\n{resolved}"


def parameters(module: torch.nn.Module) -> int:
    """Number of parameters, fixed ones included."""
    return sum(p.numel() for p in module.parameters())


def head_parameters(head: MarginHead) -> int:
    """Number of parameters of a head, those on other processes included."""
    return sum(math.prod(whole_shapes(head)[name]) for name, _ in head.named_parameters())


def multiply_adds(model: Backbone) -> int:
    """Multiply-adds of one picture's forward pass through a network, the head not counted."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, *model.input_spec.size, device=device))
    model.train(was_training)
    return int(counter.get_total_flops()) // 2


def _peak_resident_mib() -> float:
    import resource  # not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
