"""The checkpoints of a run folder: ``step-*.pt``, and the links ``last.pt`` and ``best.pt``."""

from __future__ import annotations

import filecmp
import logging
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import BadCheckpoint, check_types, link_checkpoint, load_checkpoint, save_checkpoint, saved_bytes
from ..files import in_words
from .started import step_of

log = logging.getLogger(__name__)

_MOST_NAMED = 5
_ASIDE = "abandoned"  # the folder of checkpoints that a resume set aside


class RunCheckpoints:
    """The checkpoints of a run folder.

    Args:
        path: the folder; it must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, state: Mapping[str, Any], *, step: int, keep: int, summary: Mapping[str, Any]) -> Path:
        """Save ``step-<step>.pt``, point ``last.pt`` at it, and keep only the ``keep`` newest."""
        path = self._step_path(step)
        check_types(state, str(path))  # the state of a plugin may change during training
        save_checkpoint(path, state, {"step": step, **summary})
        link_checkpoint(path, "last")
        for old in self._step_checkpoints()[keep:]:
            old.unlink()
            old.with_suffix(".json").unlink(missing_ok=True)
        return path

    def room(self, state: Mapping[str, Any]) -> str:
        """Return the size of a checkpoint and the free space of its disk, in words."""
        needed, free = saved_bytes(state), shutil.disk_usage(self.path).free
        missing = f", {in_words(needed - free)} are missing" if needed > free else ""
        return f"a checkpoint takes {in_words(needed)}, {in_words(free)} are free{missing}"

    def mark_best(self, step: int) -> None:
        """Point ``best.pt`` at the checkpoint of this step."""
        link_checkpoint(self._step_path(step), "best")

    def branch_at(self, checkpoint: Path, step: int, best_step: int | None) -> bool:
        """Make a checkpoint the newest of its folder, and set the later ones aside.

        Checkpoints of later steps, with ``last.pt`` and ``best.pt`` among them, move to a new
        folder ``abandoned``. The checkpoint becomes the newest one, even if its ``step-*.pt`` was
        deleted.

        Args:
            checkpoint: a file in this folder.
            step: its step.
            best_step: the step of the best checkpoint until then; None: there was none.

        Returns:
            Whether ``best.pt`` is the checkpoint of ``best_step``, if there was one; False if that
            file is missing.
        """
        own, last, best = self._step_path(step), self.path / "last.pt", self.path / "best.pt"
        aside = [path for path in self._step_checkpoints() if step_of(path) > step]
        if own.is_file() and not filecmp.cmp(own, checkpoint, shallow=False):
            self._set_aside([own], step)
        if not own.is_file():
            link_checkpoint(checkpoint, own.stem)
        in_last, in_best = _step_in(last), _step_in(best)
        foreign = in_best is not None and in_best == best_step and _is_foreign(best, checkpoint)
        if in_last is not None and in_last > step and not any(_step_in(path) == in_last for path in aside):
            aside.append(last)
        if best.is_file() and (best_step is None or in_best is None or in_best > step or foreign):
            aside.append(best)
        self._set_aside(aside, step)
        link_checkpoint(own, "last")
        right = in_best == best_step and not foreign
        if best_step is not None and not right and self._step_path(best_step).is_file():
            self.mark_best(best_step)  # a kill may have come before best.pt was written
            right = True
        return best_step is None or right

    def lost_best(self, best: float | None, best_step: int | None, checkpoint: Path) -> str:
        """Return a line on the best checkpoint until then, if :meth:`branch_at` did not find it.

        Args:
            best: its score.
            best_step: its step.
            checkpoint: the one that the run resumes from.
        """
        score = "" if best is None else f"{best:.4f} "
        file = self.path / "best.pt"
        aside = sorted(self.path.glob(f"{_ASIDE}*/best.pt"))
        own = (path for path in aside if _step_in(path) == best_step and not _is_foreign(path, checkpoint))
        where = next(own, None)
        found = "" if where is None else f", but {where} is that checkpoint"
        back = f"move {where or 'it'} and its .json to {self.path}"
        return (
            f"{file}: the best checkpoint so far, {score}at step {best_step}, is not there{found} · the best of "
            f"the later steps takes its place · to keep it instead: stop, {back}, and resume from {checkpoint}"
        )

    def _set_aside(self, paths: Iterable[Path], step: int) -> None:
        aside: Path | None = None
        for path in paths:
            why, in_path = f"is not of the run that resumes at step {step}", _step_in(path)
            if in_path is None:
                why = "is damaged"
            elif path.name == "best.pt" and in_path <= step and not _is_foreign(path, self._step_path(step)):
                why = f"of step {in_path} was not chosen by the set that selects now"
            aside = aside or self._new_folder(_ASIDE)
            for file in (path, path.with_suffix(".json")):
                if file.exists():
                    file.replace(aside / file.name)
            log.warning("%s %s: moved to %s", path.name, why, aside)

    def _new_folder(self, name: str) -> Path:
        number = 1
        while True:
            path = self.path / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
            else:
                return path

    def newest_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint, or None; each damaged one is logged.

        Raises:
            BadCheckpoint: there are checkpoints, and all of them are damaged.
        """
        damaged: dict[str, str] = {}
        for path in self._newest_first():
            try:
                load_checkpoint(path)
            except BadCheckpoint as error:
                damaged[path.name] = str(error)
                continue
            for reason in damaged.values():
                log.warning("%s · %s is used instead", reason, path.name)
            return path
        if not damaged:
            return None
        names = ", ".join([*damaged][:_MOST_NAMED]) + (", …" if len(damaged) > _MOST_NAMED else "")
        raise BadCheckpoint(
            f"--resume: every checkpoint of {self.path} is damaged ({names}; first {next(iter(damaged.values()))}) · "
            "put an intact one there, or start a new run without --resume"
        )

    def _newest_first(self) -> Iterator[Path]:
        """Yield the checkpoints in the order of their steps, the newest first.

        In a copied folder ``last.pt`` and ``best.pt`` are files of their own. They are read only if
        the newest ``step-*.pt`` is not used.
        """
        newest, *rest = self._step_checkpoints() or [self.path / "last.pt"]
        if newest.is_file():
            yield newest
        steps: dict[Path, float] = {path: step_of(path) for path in rest if path.is_file()}
        for path in (self.path / "last.pt", self.path / "best.pt"):
            if path.is_file() and path != newest:
                step = _step_in(path)
                steps[path] = math.inf if step is None else step  # a damaged one is named first
        yield from sorted(steps, key=lambda path: steps[path], reverse=True)

    def _step_path(self, step: int) -> Path:
        return self.path / f"step-{step:08d}.pt"

    def _step_checkpoints(self) -> list[Path]:
        return sorted((path for path in self.path.glob("step-*.pt") if step_of(path) >= 0), key=step_of, reverse=True)


def is_set_aside(checkpoint: Path) -> bool:
    """Return whether a checkpoint is in a folder that :meth:`RunCheckpoints.branch_at` made."""
    folder = checkpoint.parent
    return re.fullmatch(rf"{_ASIDE}(-\d+)?", folder.name) is not None and (folder.parent / "run.json").is_file()


def set_aside_advice(checkpoint: Path) -> str:
    """Return what such a checkpoint is, and how to train from it."""
    run = checkpoint.parent.parent
    back = run / checkpoint.name
    new = f"start a new run from its weights: train.init_from={checkpoint}, without --resume"
    if not back.exists():
        new = f"move it and its .json to {run} and give --resume {back}, or {new}"
    return f"{checkpoint} was set aside when its run was resumed from an earlier step · {new}"


def _step_in(path: Path) -> int | None:
    """Return the step of a checkpoint; None if it is missing or damaged."""
    step: int | None = _meta_of(path).get("step")
    return step


def _is_foreign(best: Path, checkpoint: Path) -> bool:
    """Return whether a ``best.pt`` names another run and another best score than a checkpoint.

    A run folder that was renamed has the same score. Either file may be missing or damaged.
    """
    theirs, ours = _meta_of(best), _meta_of(checkpoint)
    return bool(theirs and ours) and all(theirs.get(key) != ours.get(key) for key in ("run", "best"))


def _meta_of(path: Path) -> Mapping[str, Any]:
    """Return the ``meta`` of a checkpoint; an empty one if it is missing or damaged."""
    try:
        meta: Mapping[str, Any] = load_checkpoint(path, mapped=True).get("meta", {})
    except BadCheckpoint:
        return {}
    return meta
