"""The output of a run: figures and images in its sinks, the log file, the progress bar."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from ..errors import printable_lines
from .sinks import SINKS, Channel, Session

log = logging.getLogger(__name__)


class Monitor:
    """Send the output of a run to the sinks of ``log.sinks``.

    A sink that fails does not end the run: one line is logged, and the others continue.

    Args:
        session: the run folder, and the step at which this session begins.
        sinks: names in :data:`~sphereface.training.sinks.SINKS`.
    """

    def __init__(self, session: Session, sinks: Sequence[str]) -> None:
        self._channels = [Channel(name, SINKS[name], session) for name in sinks]

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for channel in self._channels:
            channel.close(kind is None)

    def takes(self, what: str) -> bool:
        """Return whether any sink accepts ``what``: ``histogram``, ``image`` or ``text``."""
        return any(channel.takes(what) for channel in self._channels)

    def scalars(self, step: int, values: Mapping[str, float], *, images_seen: int) -> None:
        """Record figures by names such as ``train/loss``, with the step and the images seen."""
        self._send("scalars", step, dict(values), images_seen)

    def histogram(self, step: int, name: str, values: torch.Tensor) -> None:
        """Record the distribution of the finite numbers of a tensor of any shape and device.

        Nothing is recorded if there are none, because a sink would fail.
        """
        if not self.takes("histogram"):
            return
        numbers = values.detach().float().flatten().cpu().numpy()
        if len(finite := numbers[np.isfinite(numbers)]):
            self._send("histogram", step, name, finite)

    def image(self, step: int, name: str, image: npt.NDArray[np.uint8]) -> None:
        """Record an image, (H, W, 3) uint8, RGB."""
        self._send("image", step, name, image)

    def figure(self, step: int, name: str, figure: Figure) -> None:
        """Record a matplotlib figure as an image."""
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        self.image(step, name, np.asarray(canvas.buffer_rgba())[..., :3].copy())

    def text(self, step: int, name: str, text: str) -> None:
        """Record Markdown."""
        self._send("text", step, name, text)

    def _send(self, what: str, *arguments: object) -> None:
        for channel in self._channels:
            if channel.takes(what):
                channel.call(what, *map(copy, arguments))  # a sink may change what it gets


FILE_ONLY = {"file_only": True}
"""``extra`` of a log line that is for ``train.log`` only: the terminal already shows it."""


class _BarHandler(logging.Handler):
    """Write log lines above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):
            return
        with contextlib.suppress(OSError):  # a closed terminal does not end the run
            tqdm.write(self.format(record), file=sys.stderr)


class _LogFile(logging.FileHandler):
    """``train.log``: while the disk is full its lines are lost, and one line reports that."""

    _reported = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._reported:
            self._reported = True
            log.warning("%s could not be written: %s · training continues", self.baseFilename, error.strerror)

    def close(self) -> None:
        """Close the file; lines that a full disk rejected are lost."""
        with contextlib.suppress(OSError):
            super().close()


class _Printable(logging.Formatter):
    """Escape control characters in the names that a message quotes."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a log record."""
        return printable_lines(super().format(record))


def start_logging(folder: Path | None = None, *, quiet: bool = False) -> None:
    """Send the package's log to the terminal and to ``train.log`` of a run folder.

    Args:
        folder: the run folder; None: the terminal only.
        quiet: log nothing.
    """
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
            logger.warning("%s cannot be written: %s · training continues", folder / "train.log", error.strerror)
            return
        file.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(file)
