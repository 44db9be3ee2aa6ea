"""The programs of training: read the configuration, open the run folder, train."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from ..checkpoint import load_checkpoint
from ..config import Config, load_config
from ..device import choose_device, without_triton
from ..errors import Stopped, UserError
from ..losses.margins import MARGINS
from ..models import BACKBONES
from .distributed import World, processes
from .dry_run import headline
from .ensemble import single_runs, train_several
from .heartbeat import Heartbeat
from .monitor import FILE_ONLY, start_logging
from .profiling import profile_training
from .progress import Progress
from .replay import replay
from .run_folder import QuietFolder, RunFolder
from .stopping import leaving_at_once
from .trainer import Trainer

log = logging.getLogger(__name__)


def run_training(
    config_name: str, overrides: Sequence[str] = (), *, resume: str | None = None, device: str = "auto"
) -> Path | None:
    """Train by a configuration, with all processes that torchrun started.

    Args:
        config_name: a file of ``configs/`` or a path.
        overrides: ``key.sub=value`` each, over the file.
        resume: ``auto``, a run folder, a checkpoint, or None for a new run.
        device: ``auto``, ``cuda``, ``cuda:N``, ``mps`` or ``cpu``.

    Returns:
        The checkpoint to use: the run's ``best.pt``, or ``last.pt`` if no set chose a best one.
        None in all processes but the first.

    Raises:
        UserError: any error that the user can correct, in one line.
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
    """Train one network, on the same data as the checkpoint ``like`` if it is given."""
    with leaving_at_once(quiet=not world.first):
        with Heartbeat(lambda: log.info("reading the data and building the network")):
            trainer = Trainer(config, device, world)
        if like is not None:
            trainer.data.check(load_checkpoint(like, mapped=True)["meta"], like)
        run, checkpoint = open_run(trainer, resume)
    result = run.result(config)
    if world.broadcast(run.ended_with(trainer.progress) and trainer.share() >= 1.0 and result.is_file()):
        trainer.log_begin()
        log.info("%s: the run is finished, nothing is left to train: %s", run.path, result)
        return result
    start_logging(run.path, quiet=not world.first)
    log.info("%s", headline(trainer))
    if line := without_triton(device):
        log.warning("%s", line)
    watch = f" · watch it: tensorboard --logdir {config.runs_dir}" if "tensorboard" in config.log.sinks else ""
    log.info("run folder %s%s", run.path, watch)
    progress = _fit(trainer, run, checkpoint)
    result = run.result(config)
    if world.first and not result.is_file():
        raise UserError(f"{result}: it was saved, but something removed it · use another checkpoint in {run.path}")
    log.info("done: %d steps in %.1f minutes: %s", progress.step, progress.seconds / 60, result)
    return result


def open_run(trainer: Trainer, resume: str | None) -> tuple[RunFolder, Path | None]:
    """Claim the folder of a run and restore the checkpoint to resume from, if any.

    The first process chooses both for all. A new folder is created only after all checks.

    Args:
        trainer: of the resolved configuration.
        resume: the value of ``--resume``; None for a new run.
    """
    config, world = trainer.config, trainer.world
    found = RunFolder.find(resume, config) if world.first and resume is not None else None
    if found is not None:
        found[0].claim()
    checkpoint = world.broadcast(None if found is None else found[1])
    trainer.begin(checkpoint)
    run = (found[0] if found else RunFolder.create(config)) if world.first else None
    path = world.broadcast(Path() if run is None else run.path)
    return run or QuietFolder(path), checkpoint


def _fit(trainer: Trainer, run: RunFolder, checkpoint: Path | None) -> Progress:
    """Train, and record how the run ended."""
    try:
        return trainer.fit(run, checkpoint)
    except Stopped as stop:
        run.write_status("stopped", reason=str(stop))
        raise
    except BaseException as error:
        reason = trainer.world.reason(error)
        printed = isinstance(error, UserError)  # the program prints it
        log.error("stopped at step %d: %s", trainer.progress.step, reason, extra=FILE_ONLY if printed else None)
        run.write_status("stopped", reason=reason)
        if isinstance(error, torch.OutOfMemoryError):
            raise UserError(f"out of memory · use a smaller train.batch_size, or bf16 · {reason}") from error
        raise


def profile_run(config_name: str, overrides: Sequence[str] = (), *, steps: int, device: str = "auto") -> str:
    """Record some training steps in ``runs_dir/<name>-profile/``; see :func:`profile_training`.

    Args:
        config_name, overrides, device: as for :func:`run_training`.
        steps: number of recorded steps.

    Returns:
        The path of the trace, and the table of where the time goes.
    """
    start_logging()
    config = load_config(config_name, overrides, losses=MARGINS, backbones=BACKBONES)
    folder = Path(config.runs_dir) / f"{config.name}-profile"
    trainer = Trainer(single_runs(config)[0], choose_device(device), to_measure=True)
    table = profile_training(trainer, steps, folder)
    return f"trace, for ui.perfetto.dev or TensorBoard: {folder / 'steps.pt.trace.json'}\n\n{table}"


def replay_step(path: str, *, device: str = "auto") -> str:
    """Return the report of ``--replay``; see :func:`sphereface.training.replay.replay`."""
    return replay(Path(path), choose_device(device))
