"""Keep the state that led to a loss, gradient or ‖x‖ that is not finite, and stop or skip."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..checkpoint import save_checkpoint
from ..config import Config
from ..errors import UserError
from .distributed import World

log = logging.getLogger(__name__)

REMEDIES = "a lower train.lr, train.warmup_steps, train.clip_grad_norm, larger loss.lambda_min, or train.precision fp32"


class NonFiniteGuard:
    """Decide what to do after a step whose loss, gradient or ‖x‖ is not finite.

    The first such step of a session, and the one that ends the run, are saved as
    ``nonfinite-<step>.pt``: the whole state before it, and its batch, for ``train.py --replay``.
    A skipped step is not counted, so both may have one number; the last is then
    ``nonfinite-<step>-last.pt``.

    Args:
        config: ``train.on_nonfinite`` is ``stop`` or ``skip``; ``train.nonfinite_limit`` is how
            many steps may be skipped in a row.
        folder: the run folder.
        world: the processes. Such a step is the same on all of them; the first saves it.
    """

    def __init__(self, config: Config, folder: Path, world: World) -> None:
        losses = [config.loss, *(stage.loss for stage in config.stages)]
        caffe = any(getattr(loss, "gradient", None) == "caffe" and loss.m > 1 for loss in losses)
        first = "loss.gradient exact (with caffe's, ‖x‖ may grow without end: docs/losses.md), " if caffe else ""
        self._remedies = f"try {first}{REMEDIES}"
        self._world = world
        self._skip = config.train.on_nonfinite == "skip"
        self._limit = config.train.nonfinite_limit
        self._folder = folder
        self._in_a_row = 0
        self._first: tuple[int, Path] | None = None  # number and file of the first such step

    def finite(self) -> None:
        """Note that a step was finite."""
        self._in_a_row = 0

    def handle(self, what: str, state: dict[str, Any], last_saved: Path | None) -> None:
        """Handle a step that was not finite: return if it is to be skipped.

        Args:
            what: the reason, such as ``the loss is nan``.
            state: the trainer's state before the step, with the batch and position of the step.
            last_saved: the newest checkpoint.

        Raises:
            UserError: the run must stop.
        """
        step = state["meta"]["step"] + 1
        self._in_a_row += 1
        skipped = self._skip and self._in_a_row <= self._limit
        kept = self._kept(step, state, last=not skipped)
        where = f"step {step}: {what}; the weights were not updated"
        if skipped:
            log.warning("%s · skipped, %d in a row of at most %d · %s", where, self._in_a_row, self._limit, kept)
            return
        row = f" · {self._in_a_row} in a row, train.nonfinite_limit is {self._limit}" if self._skip else ""
        saved = f"last checkpoint: {last_saved}" if last_saved else "no checkpoint was saved yet"
        raise UserError(f"{where}{row} · {saved} · {self._remedies} · {kept}")

    def _kept(self, step: int, state: dict[str, Any], *, last: bool) -> str:
        """Save a step if it is the first or the last; return which file replays which step."""
        path: Path | None = None
        lines = list[str]()
        if self._first is None or last:
            kept_here = self._save(step, state) if self._world.first else None
            path = self._world.broadcast(kept_here)  # wait until it is written
            lines.append(f"to replay it: --replay {path}" if path else "its batch could not be saved")
        if self._first is not None and path is None:
            lines.append(f"to replay an earlier batch, of step {self._first[0]}: --replay {self._first[1]}")
        elif self._first is None and path is not None:
            self._first = step, path
        return " · ".join(lines)

    def _save(self, step: int, state: dict[str, Any]) -> Path | None:
        path = self._folder / f"nonfinite-{step:08d}.pt"
        if self._first is not None and self._first[1] == path:
            path = path.with_stem(f"{path.stem}-last")
        try:
            save_checkpoint(path, state, {"step": step, "of": "a step whose loss, gradient or ‖x‖ was not finite"})
        except OSError as error:
            log.error("%s could not be written: %s", path, error)
            return None
        return path
