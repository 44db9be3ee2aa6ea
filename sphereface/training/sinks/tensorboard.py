"""TensorBoard's event files in the run folder."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from torch.utils.tensorboard import SummaryWriter

from .base import Session, Sink, register_sink
from .descriptions import description
from .written import Written

log = logging.getLogger(__name__)


@register_sink("tensorboard")
class TensorBoard(Sink):
    """Write event files; each scalar has a description.

    A resume purges the events after its step. On a full disk, events are lost until there is free
    space, which is logged once.
    """

    def __init__(self) -> None:
        self._events: SummaryWriter | None = None
        self._failed_at = -1  # the step whose events could not be written
        self._logged = False
        self._described: set[str] = set()

    def start(self, session: Session) -> None:
        """Open a new event file, which purges later steps of the other files."""
        self._session = session
        self._written = Written(session.folder / "tensorboard.json")
        self._hook, threading.excepthook = threading.excepthook, self._of_thread
        try:
            self._events = SummaryWriter(str(session.folder), purge_step=session.step + 1)
        except OSError as error:
            self._log_once(error)

    def scalars(self, step: int, values: Mapping[str, float], images_seen: int) -> None:  # noqa: ARG002
        """Write figures; those of a repeated evaluation only if they are not written yet."""
        if self._has(step, next(iter(values), "")):
            return
        for name, value in values.items():
            self._write(step, self._scalar, name, value)
        if any(name.startswith("eval/") for name in values):
            self._note(step, values)

    def histogram(self, step: int, name: str, values: npt.NDArray[np.float32]) -> None:
        """Write a distribution."""
        self._write(step, SummaryWriter.add_histogram, name, values)

    def image(self, step: int, name: str, image: npt.NDArray[np.uint8]) -> None:
        """Write an image."""
        if not self._has(step, name):
            self._write(step, partial(SummaryWriter.add_image, dataformats="HWC"), name, image)

    def text(self, step: int, name: str, text: str) -> None:
        """Write Markdown."""
        self._write(step, SummaryWriter.add_text, name, text)

    def close(self, complete: bool) -> None:  # noqa: ARG002
        """Write the waiting events, and close the file."""
        if self._events:
            try:
                self._events.close()
            except OSError as failure:
                self._lost_events(failure)
        threading.excepthook = self._hook

    def _has(self, step: int, name: str) -> bool:
        return step == self._session.step and name.startswith("eval/") and self._written.has(step, name)

    def _note(self, step: int, values: Mapping[str, float]) -> None:
        """Record which evaluation is in the file, for a resume at this step."""
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.flush()
                self._written.add(step, values)

    def _scalar(self, events: Any, name: str, value: float, step: int) -> None:
        """Write a scalar as ``add_scalar`` does, with a description.

        TensorBoard reads the description from the first event of a tag.
        """
        text = "" if name in self._described else description(name)
        plugin = SummaryMetadata.PluginData(plugin_name="scalars")
        metadata = SummaryMetadata(plugin_data=plugin, summary_description=text) if text else None
        self._described.add(name)
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value, metadata=metadata)])
        events._get_file_writer().add_summary(summary, step)

    def _write(self, step: int, method: Callable[..., object], name: str, value: object) -> None:
        """Write events. After a failure, the next step tries again with another file."""
        if step == self._failed_at:
            return
        try:
            if self._events is None:
                self._events = SummaryWriter(str(self._session.folder))
            method(self._events, name, value, step)
        except OSError as error:
            self._lost_events(error)
            self._failed_at = step

    def _lost_events(self, error: OSError) -> None:
        """Close a writer that failed, and delete the files that it created but could not fill."""
        self._log_once(error)
        self._events = None
        self._described.clear()
        for path in self._session.folder.glob("events.out.tfevents.*"):
            with contextlib.suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()

    def _of_thread(self, args: threading.ExceptHookArgs) -> None:
        """Suppress the traceback of TensorBoard's thread: the writer raises the same error."""
        if not isinstance(args.exc_value, OSError) or not type(args.thread).__module__.startswith("tensorboard"):
            self._hook(args)

    def _log_once(self, error: OSError) -> None:
        if not self._logged:
            log.error("TensorBoard's events could not be written: %s · training continues", error)
        self._logged = True
