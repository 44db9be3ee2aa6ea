"""``model.networks``: train several networks of one configuration and join them in a checkpoint.

The networks train one after another. Network k is a whole run with the seed ``seed`` · 100 + k, in
a folder of its own. If the run ends by steps on a CPU, it equals that run alone bit for bit. So
runs with other seeds have other networks, and a larger ensemble contains the smaller one.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..backbone_options import MOST_NETWORKS
from ..checkpoint import load_checkpoint
from ..config import Config
from ..errors import UserError
from ..models import load_model
from ..models.joining import join
from ..models.loading import code_of_network
from ..places import places_text
from ..plugins import OF_LOSS, OF_NETWORK, changed_code
from .distributed import World
from .heartbeat import Heartbeat
from .learner import code_of_losses
from .monitor import Monitor, start_logging
from .progress import Progress
from .resuming import changed_sets, same_choice
from .run_folder import QuietFolder, RunFolder
from .same_run import why_again
from .sinks import Session
from .starting import changed_start, changed_teacher
from .stopping import Interruption, StopRequest
from .training_set import TrainingSet
from .validation import Validator
from .versions import versions
from .watch import Watch

log = logging.getLogger(__name__)

TrainOne = Callable[[Config, Path | None], Path]
"""Trains a configuration of one network and returns its checkpoint.

The path, if given, is a checkpoint whose training data must be the same.
"""


def train_several(config: Config, resume: str | None, device: torch.device, world: World, train: TrainOne) -> Path:
    """Train networks one after another, and join them into one checkpoint.

    Args:
        config: with ``model.networks`` above 1.
        resume: ``auto`` keeps networks that are finished, and resumes the one that is not.
        device: where the joined network is evaluated.
        world: the processes, which call this together.
        train: trains one network, with ``resume``.

    Returns:
        The joined checkpoint.

    Raises:
        UserError: ``resume`` names a path, or finished networks were trained on other data.
    """
    if resume not in (None, "auto"):
        raise UserError(
            f"--resume: got {resume!r} with model.networks {config.model.networks} · allowed: auto, which keeps the "
            "finished networks and resumes the unfinished one"
        )
    singles, done = single_runs(config), list[Path]()
    before = [None if resume is None else _finished(single, world) for single in singles]
    if resume is not None and world.first and not any(before):
        _log_nearest(singles[0])
    _check_finished([path for path in before if path is not None], singles[0], world)
    with StopRequest(quiet=not world.first) as stop:  # between networks; each run has its own
        validator = Validator(config, device, world, stop)
        for number, single in enumerate(singles, start=1):
            stop.settle(world.all_reduce_sum(*stop.requests()))
            if stop.agreed is not None:
                raise stop.stopped("between two networks")
            start_logging(quiet=not world.first)
            log.info("network %d of %d, seed %d", number, len(singles), single.seed)
            finished = before[number - 1]
            if finished is not None:
                log.info("resume auto: already finished: %s", finished)
                _check_choice(finished, config, validator)
            done.append(finished or train(single, done[0] if done else None))
        joined = _join(config, done, resume, validator)
    log.info("done: %d networks joined: %s", len(done), joined)
    return joined


def single_runs(config: Config) -> list[Config]:
    """Return one configuration for each network; for one network, the configuration itself."""
    if config.model.networks == 1:
        return [config]
    one = replace(config.model, networks=1)
    seeds = (config.seed * MOST_NETWORKS + k for k in range(config.model.networks))
    return [replace(config, model=one, seed=seed % 2**32) for seed in seeds]


def _finished(config: Config, world: World) -> Path | None:
    """Return the checkpoint of the newest finished run of this configuration."""
    run = RunFolder.newest(config, finished=True) if world.first else None
    result = None if run is None else run.result(config)
    if run is not None and result is not None and not result.is_file():
        log.warning(
            "resume auto: %s is finished, but its %s is missing, so its work is repeated in a new run · to keep that "
            "run: stop, put the file back, and repeat the command",
            run.path,
            result.name,
        )
        result = None
    return world.broadcast(result)


def _log_nearest(config: Config) -> None:
    """Log the nearest finished run of other settings, if no run of this configuration was begun."""
    runs = [(run.path, lines) for run, lines in RunFolder.runs(config, finished=True)]
    begun = RunFolder.runs(config, finished=False, only=bool)
    if runs and all(lines for _, lines in (*runs, *begun)):
        log.info("resume auto: %s", why_again(runs))


def _check_choice(checkpoint: Path, config: Config, validator: Validator) -> None:
    """Warn if another set, start or code made this network than those of the next ones."""
    meta = load_checkpoint(checkpoint, mapped=True)["meta"]
    for line in changed_start(meta, config.train, checkpoint) if validator.world.first else ():
        log.warning("%s", line)
    codes = {OF_NETWORK: code_of_network(config.model), OF_LOSS: code_of_losses(config)}
    for plugin in changed_code(meta, codes) if validator.world.first else ():
        sentence = "%s was trained with other code of the %s · to train with that of today, start without --resume"
        log.warning(sentence, checkpoint, plugin)
    if "digests" in meta and not same_choice(meta, config, validator):
        log.warning(
            "eval.select: %s was chosen by another set: the lists or the images of the selecting set changed since · "
            "to choose all networks by one set, start without --resume",
            checkpoint,
        )


def _check_finished(done: Sequence[Path], config: Config, world: World) -> None:
    """Refuse finished networks of other data than today's; warn of another file of the teacher."""
    if not done:
        return
    try:
        with Heartbeat(lambda: log.info("reading the data")):
            data = TrainingSet(config, world)
    except UserError as error:  # not needed if all are finished; otherwise training says the same
        log.warning("the finished networks are not compared with the training data: %s", error)
        return
    for path in done:
        meta = load_checkpoint(path, mapped=True)["meta"]
        data.check({**meta, "teacher": None}, path)
        for line in changed_teacher(meta, config.train.teacher, path) if world.first else ():
            log.warning("%s", line)


def _check_evaluated(done: Path, config: Config, validator: Validator) -> None:
    """Warn of the sets on which a finished joined network was not evaluated."""
    meta = load_checkpoint(done, mapped=True)["meta"]
    before = meta.get("digests", meta["config"]["eval"]["sets"])
    changed = changed_sets(meta, validator)
    for name, places in config.evaluation_sets().items():
        if name in before and name not in changed:
            continue
        command = shlex.join(["sphereface", "eval", "--ckpt", str(done), "--sets", f"{name}={places_text(places)}"])
        log.warning("eval.sets.%s: %s was not evaluated on this set · evaluate it: %s", name, done, command)


def _join(config: Config, checkpoints: Sequence[Path], resume: str | None, validator: Validator) -> Path:
    """Join several checkpoints into one, in a new run folder, and evaluate it.

    On a resume, a finished joined checkpoint of the same networks is returned as it is, and an
    unfinished folder is reused.
    """
    world, stop = validator.world, validator.stop
    done = None if resume is None else _finished(config, world)
    if done is not None and load_checkpoint(done, mapped=True)["meta"].get("networks") == [str(p) for p in checkpoints]:
        _check_evaluated(done, config, validator)
        return done
    states = [load_checkpoint(path, mapped=True) for path in checkpoints]
    _check_data(states, checkpoints)
    state = join(states, checkpoints)
    run = _folder(config, resume, world)
    run.claim()
    start_logging(run.path, quiet=not world.first)
    meta = state["meta"]
    meta |= {"config": config.to_dict(), "run": run.path.name, "digests": validator.digests}
    meta["versions"] |= versions()  # those of plugins stay if they are the same for all networks
    run.write_start(config, meta["versions"])
    if world.first:
        _save(config, run, state)
    world.broadcast(None)  # wait until it is written
    try:
        _evaluate(config, run, meta, validator)
    except Interruption:
        run.write_status("stopped")
        raise stop.stopped("in the last evaluation") from None
    run.write_status("finished", step=meta["step"])
    return run.result(config)


def _folder(config: Config, resume: str | None, world: World) -> RunFolder:
    if not world.first:
        return QuietFolder(world.broadcast(Path()))
    unfinished = None if resume is None else RunFolder.newest(config, finished=False)
    run = unfinished or RunFolder.create(config)
    world.broadcast(run.path)
    return run


def _check_data(states: Sequence[dict[str, Any]], checkpoints: Sequence[Path]) -> None:
    first = states[0]["meta"]
    for state, path in zip(states, checkpoints, strict=True):
        if any(state["meta"].get(key) != first.get(key) for key in ("class_names", "num_images", "sample")):
            raise UserError(
                f"{path}: trained on other data than {checkpoints[0]} · train all networks on the "
                "same data: start without --resume"
            )


def _save(config: Config, run: RunFolder, state: dict[str, Any]) -> None:
    meta = state["meta"]
    try:
        run.save(state, step=meta["step"], keep=1, summary={"networks": len(meta["networks"])})
    except OSError as error:
        what = f"{run.path}: not written ({error.strerror}): {run.room(state)}"
        raise UserError(f"{what} · make room, then repeat the command with --resume auto") from error
    if config.eval.select is not None:  # each network is the best of its run by this set
        run.mark_best(meta["step"])


def _evaluate(config: Config, run: RunFolder, meta: dict[str, Any], validator: Validator) -> None:
    """Evaluate the joined network. Raises Interruption when a signal arrives."""
    model = load_model(run.result(config), validator.device).model
    outcomes = validator.evaluate(model)
    if not validator.world.first:
        list(outcomes)
        return
    with Monitor(Session(run.path), ["jsonl"]) as monitor:
        monitor.scalars(meta["step"], {"train/minutes": meta["seconds"] / 60}, images_seen=meta["images_seen"])
    progress = Progress(step=meta["step"], images_seen=meta["images_seen"], seconds=meta["seconds"])
    sizes = {"num_images": meta["num_images"], "num_classes": len(meta["class_names"])}
    with Watch(config, run.path, progress, lambda: 1.0, **sizes, doing=lambda: validator.doing) as watch:
        for name, outcome in outcomes:
            watch.evaluation(name, outcome)
