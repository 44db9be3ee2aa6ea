"""What a run shows of itself: metrics as JSON lines, TensorBoard events, log file, progress bar."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..files import write_whole

log = logging.getLogger(__name__)


class Monitor:
    """Writes a run's figures to ``metrics.jsonl`` and, if wanted, to TensorBoard.

    Both go on without a seam where the folder holds an earlier sitting: what that wrote past ``step`` is dropped.

    Args:
        folder: the run folder.
        tensorboard: whether to write events.
        step: finished steps of the run, 0 for a new one.
    """

    def __init__(self, folder: Path, *, tensorboard: bool, step: int) -> None:
        self._metrics = folder / "metrics.jsonl"
        _drop_lines_after(self._metrics, step)
        self._file = self._metrics.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder), purge_step=step + 1) if tensorboard else None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._events:
            self._events.close()

    def scalars(self, step: int, values: Mapping[str, float], *, images_seen: int) -> None:
        """Record figures under names such as ``train/loss``, and where in the training they stand."""
        self._file.write(json.dumps({"step": step, "images_seen": images_seen, **values}) + "\n")
        self._file.flush()
        if self._events:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def histogram(self, step: int, name: str, values: torch.Tensor) -> None:
        """Record a distribution (TensorBoard only)."""
        if self._events:
            self._events.add_histogram(name, values, step)

    def image(self, step: int, name: str, image: torch.Tensor) -> None:
        """Record a (3, H, W) uint8 picture, RGB (TensorBoard only)."""
        if self._events:
            self._events.add_image(name, image, step)

    def figure(self, step: int, name: str, figure: Any) -> None:
        """Record a matplotlib figure, which is closed (TensorBoard only)."""
        if self._events:
            self._events.add_figure(name, figure, step)

    def text(self, step: int, name: str, text: str) -> None:
        """Record Markdown (TensorBoard only)."""
        if self._events:
            self._events.add_text(name, text, step)


class _BarHandler(logging.Handler):
    """Log lines above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def start_logging(folder: Path | None = None) -> None:
    """Send the package's log to the terminal and, once there is a run folder, to its ``train.log``."""
    logger = logging.getLogger("sphereface")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not any(isinstance(handler, _BarHandler) for handler in logger.handlers):
        terminal = _BarHandler()
        terminal.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(terminal)
    for old in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
        old.close()
        logger.removeHandler(old)
    if folder is not None:
        file = logging.FileHandler(folder / "train.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)


def _drop_lines_after(path: Path, step: int) -> None:
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue  # a line cut short by a kill
    write_whole(path, "".join(kept))
