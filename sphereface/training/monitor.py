"""What a run shows of itself: metrics as JSON lines, TensorBoard events, log file, progress bar."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..errors import printable_lines
from ..files import write_whole

log = logging.getLogger(__name__)


class Monitor:
    """Writes a run's figures to ``metrics.jsonl`` and, if wanted, to TensorBoard.

    Both go on without a seam where the folder holds an earlier sitting: what that wrote past ``step`` is dropped.
    A disk that is full ends no run: lines wait until there is room, TensorBoard has a gap; that is said once.

    Args:
        folder: the run folder.
        tensorboard: whether to write events.
        step: finished steps of the run, 0 for a new one.
        evaluates_again: the evaluation of this very step will be made once more: drop the earlier one's line.
    """

    def __init__(self, folder: Path, *, tensorboard: bool, step: int, evaluates_again: bool = False) -> None:
        self._metrics = folder / "metrics.jsonl"
        self._folder = folder
        self._waiting = b""
        self._tensorboard = tensorboard
        self._failed_at = -1  # the step whose events could not be written
        self._said = False
        self._file: FileIO | None = None
        self._events: SummaryWriter | None = None
        self._hook, threading.excepthook = threading.excepthook, self._of_thread
        try:
            _drop_lines_after(self._metrics, step, evaluates_again)
            self._file = self._metrics.open("ab", buffering=0)
            self._events = SummaryWriter(str(folder), purge_step=step + 1) if tensorboard else None
        except OSError as error:
            self._say(error)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()
        if self._events:
            try:
                self._events.close()
            except OSError as failure:
                self._lost_events(failure)
        threading.excepthook = self._hook

    def scalars(self, step: int, values: Mapping[str, float], *, images_seen: int) -> None:
        """Record figures under names such as ``train/loss``, and where in the training they stand."""
        self._waiting += json.dumps({"step": step, "images_seen": images_seen, **values}).encode() + b"\n"
        try:
            self._write_waiting()
        except OSError as error:
            self._say(error)
        for name, value in values.items():
            self._to_events(step, SummaryWriter.add_scalar, name, value)

    def _write_waiting(self) -> None:
        self._file = self._file or self._metrics.open("ab", buffering=0)
        end = self._file.tell()
        try:
            self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError:
            self._file.truncate(end)
            raise

    def histogram(self, step: int, name: str, values: torch.Tensor) -> None:
        """Record a distribution (TensorBoard only)."""
        self._to_events(step, SummaryWriter.add_histogram, name, values)

    def image(self, step: int, name: str, image: torch.Tensor) -> None:
        """Record a (3, H, W) uint8 picture, RGB (TensorBoard only)."""
        self._to_events(step, SummaryWriter.add_image, name, image)

    def figure(self, step: int, name: str, figure: Any) -> None:
        """Record a matplotlib figure, which is closed (TensorBoard only)."""
        self._to_events(step, SummaryWriter.add_figure, name, figure)

    def text(self, step: int, name: str, text: str) -> None:
        """Record Markdown (TensorBoard only)."""
        self._to_events(step, SummaryWriter.add_text, name, text)

    def _to_events(self, step: int, method: Callable[..., object], *arguments: object) -> None:
        """Write events. A writer that failed is of no use after that: the next step tries with another file."""
        if not self._tensorboard or step == self._failed_at:
            return
        try:
            if self._events is None:
                self._events = SummaryWriter(str(self._folder))
            method(self._events, *arguments, step)
        except OSError as error:
            self._lost_events(error)
            self._failed_at = step

    def _lost_events(self, error: OSError) -> None:
        """Give up a writer; of a file that it could make, but not fill, nothing stays."""
        self._say(error)
        self._events = None
        for path in self._folder.glob("events.out.tfevents.*"):
            with contextlib.suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()

    def _of_thread(self, args: threading.ExceptHookArgs) -> None:
        """What TensorBoard's thread cannot write, its writer raises too: no traceback for it."""
        if not isinstance(args.exc_value, OSError) or not type(args.thread).__module__.startswith("tensorboard"):
            self._hook(args)

    def _say(self, error: OSError) -> None:
        if not self._said:
            log.error("figures of the run could not be written to %s: %s · training goes on", self._folder, error)
        self._said = True


FILE_ONLY = {"file_only": True}
"""``extra`` of a log line that is for ``train.log``: what it says is on the terminal already."""


class _BarHandler(logging.Handler):
    """Log lines above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):
            return
        with contextlib.suppress(OSError):  # a terminal that is gone ends no run
            tqdm.write(self.format(record), file=sys.stderr)


class _LogFile(logging.FileHandler):
    """``train.log``: its lines are lost while the disk is full, which is said once on the terminal."""

    _said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._said:
            self._said = True
            log.warning("%s could not be written: %s · training goes on", self.baseFilename, error.strerror)

    def close(self) -> None:
        """Close the file; what a full disk did not take is lost."""
        with contextlib.suppress(OSError):
            super().close()


class _Printable(logging.Formatter):
    """Escapes what a terminal would obey in names that a message quotes."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a message."""
        return printable_lines(super().format(record))


def start_logging(folder: Path | None = None, *, quiet: bool = False) -> None:
    """Send the package's log to the terminal and, once there is a run folder, to its ``train.log``; quiet: nowhere."""
    logger = logging.getLogger("sphereface")
    logger.setLevel(logging.CRITICAL + 1 if quiet else logging.INFO)
    logger.propagate = False
    if not any(isinstance(handler, _BarHandler) for handler in logger.handlers):
        terminal = _BarHandler()
        terminal.setFormatter(_Printable("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(terminal)
    for old in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
        old.close()
        logger.removeHandler(old)
    if folder is not None and not quiet:
        try:
            file = _LogFile(folder / "train.log", encoding="utf-8")
        except OSError as error:
            logger.warning("%s cannot be written: %s · training goes on", folder / "train.log", error.strerror)
            return
        file.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)


def _drop_lines_after(path: Path, step: int, evaluates_again: bool) -> None:
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            figures = json.loads(line)
            again = evaluates_again and figures["step"] == step and any(key.startswith("eval/") for key in figures)
            if figures["step"] <= step and not again:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a line cut short by a kill, or of something else
    write_whole(path, "".join(kept))
