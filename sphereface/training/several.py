"""``model.networks``: several networks from one configuration, trained one after another and joined to one checkpoint.

Network k of N is the whole run of a configuration of its own, with ``seed`` · N + k: what it would be if trained alone,
bit for bit, in a folder of its own. So runs of other seeds have other networks, all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import load_checkpoint
from ..config import Config
from ..errors import UserError
from ..models import load_model
from .distributed import World
from .monitor import start_logging
from .progress import Progress
from .run_folder import RunFolder, versions
from .validation import Validator
from .watch import Watch

log = logging.getLogger(__name__)


def single_runs(config: Config) -> list[Config]:
    """The configurations to train, one a network: the configuration itself where it is of one."""
    if config.model.networks == 1:
        return [config]
    count, one = config.model.networks, replace(config.model, networks=1)
    return [_with(config, model=one, seed=(config.seed * count + k) % 2**32) for k in range(count)]


def check_resume(config: Config, resume: str | None) -> None:
    """Several networks are several run folders, so ``--resume`` cannot name one.

    Raises:
        UserError: it does.
    """
    if config.model.networks > 1 and resume not in (None, "auto"):
        raise UserError(
            f"--resume: got {resume!r} with model.networks {config.model.networks} · allowed: auto, which takes the "
            "networks that are finished and goes on with the one that is not"
        )


def finished_run(config: Config, world: World) -> Path | None:
    """The checkpoint of the newest run of exactly this configuration that reached its end."""
    run = RunFolder.newest(config, finished=True) if world.first else None
    result = None if run is None else run.result(config)
    return world.from_first(None if result is None or not result.is_file() else result)


def join(config: Config, checkpoints: Sequence[Path], device: torch.device, world: World) -> Path:
    """Join networks to one checkpoint, in a run folder of its own, and evaluate it on the run's sets.

    Args:
        config: with ``model.networks`` of them.
        checkpoints: one each.
        device: where it is evaluated.
        world: the processes, which call this together.

    Returns:
        The checkpoint. An earlier one of the very same networks is taken as it is.
    """
    done = finished_run(config, world)
    if done is not None and load_checkpoint(done)["meta"]["networks"] == [str(path) for path in checkpoints]:
        return done
    folder = world.from_first(RunFolder.create(config).path if world.first else Path())
    run, states = RunFolder(folder), [load_checkpoint(path, mapped=True) for path in checkpoints]
    meta = _joined_meta(config, states, checkpoints, run.path.name)
    start_logging(run.path, quiet=not world.first)
    if world.first:
        run.take_up()
        run.write_start(config, meta["versions"])
        weights = {
            f"networks.{number}.{name}": value
            for number, state in enumerate(states)
            for name, value in state.get("average", state["model"]).items()
        }
        run.save({"meta": meta, "model": weights}, step=meta["step"], keep=1, summary={"networks": len(states)})
        if config.eval.select is not None:  # by which each of them is the best of its run
            run.mark_best(meta["step"])
    world.from_first(None)  # it is written
    _evaluate(config, run, meta, device, world)
    if world.first:
        run.write_status("finished", step=meta["step"])
    return run.result(config)


def _joined_meta(
    config: Config, states: Sequence[dict[str, Any]], checkpoints: Sequence[Path], name: str
) -> dict[str, Any]:
    """What the joined checkpoint says of itself. Raises UserError where the networks knew different people."""
    metas = [state["meta"] for state in states]
    for key in ("class_names", "num_images"):
        for meta, path in zip(metas, checkpoints, strict=True):
            if meta[key] != metas[0][key]:
                raise UserError(
                    f"{path}: trained on other data than {checkpoints[0]}, though of the same name · train all "
                    "networks on the same: start without --resume"
                )
    return {
        **metas[0],
        "config": config.to_dict(),
        "run": name,
        "networks": [str(path) for path in checkpoints],
        "step": sum(meta["step"] for meta in metas),
        "images_seen": sum(meta["images_seen"] for meta in metas),
        "seconds": sum(meta["seconds"] for meta in metas),
        **dict.fromkeys(("best", "best_step", "evaluated_step")),
        "versions": versions(),
    }


def _evaluate(config: Config, run: RunFolder, meta: dict[str, Any], device: torch.device, world: World) -> None:
    model = load_model(run.result(config), device).model
    progress = Progress(step=meta["step"], images_seen=meta["images_seen"], seconds=meta["seconds"])
    sizes = {"num_images": meta["num_images"], "num_classes": len(meta["class_names"])}
    outcomes = Validator(config, device, world).evaluate(model)
    if not world.first:
        list(outcomes)
        return
    with Watch(config, run.path, progress, lambda: 1.0, **sizes) as watch:
        for name, outcome in outcomes:
            watch.evaluation(name, outcome)


def _with(config: Config, **changes: Any) -> Config:
    """The configuration with other values; what is resolved of it (the loss and the stages) is as it was."""
    changed = replace(config, **changes)
    for name in ("loss", "stages"):
        object.__setattr__(changed, name, getattr(config, name))
    return changed
