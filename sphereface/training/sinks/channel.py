"""The connection of a run to one sink, so that a failing or slow sink does not disturb the run."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from ...errors import UserError, first_line
from .base import Session, Sink

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds that the end of a run waits for a sink in the background."""
_SILENCE = 5.0  # of these seconds, so many without a message
_MOST_CALLS = 10_000  # calls that may wait for a slow sink


class Channel:
    """Pass calls to a sink. After the first failure, log one line and drop all later calls.

    Args:
        name: of the sink.
        kind: its class. It is called in this thread or, if its ``background`` is true, in order in
            a thread of its own.
        session: what the sink starts with.
    """

    def __init__(self, name: str, kind: type[Sink], session: Session) -> None:
        self._name, self._kind, self._session = name, kind, session
        self._sink: Sink | None = None
        self._failed = False
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(_MOST_CALLS)
        self._thread: threading.Thread | None = None
        if kind.background:
            self._thread = threading.Thread(target=self._work, name=f"sink {name}", daemon=True)
            self._thread.start()
        self._do(self._start)

    def takes(self, what: str) -> bool:
        """Return whether the sink accepts ``what``: ``histogram``, ``image`` or ``text``."""
        return not self._failed and getattr(self._kind, what) is not getattr(Sink, what)

    def call(self, method: str, *arguments: Any) -> None:
        """Call a method of the sink."""
        self._do(lambda: getattr(self._sink, method)(*arguments))

    def close(self, complete: bool) -> None:
        """End the session. A background sink has :data:`PATIENCE` seconds for what is left."""
        self.call("close", complete)
        if self._thread is None:
            return
        try:
            self._calls.put(None, timeout=PATIENCE)
        except queue.Full:
            return
        self._thread.join(min(_SILENCE, PATIENCE))
        if self._thread.is_alive():
            log.info("log.sinks: waiting up to %.0f s for %s", PATIENCE, self._name)
            self._thread.join(PATIENCE)
        if self._thread.is_alive():
            log.error("log.sinks: %s did not take all figures within %.0f s", self._name, PATIENCE)

    def _start(self) -> None:
        self._sink = self._kind()
        self._sink.start(self._session)

    def _do(self, call: Callable[[], None]) -> None:
        if self._thread is None:
            self._try(call)
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._fail(f"{_MOST_CALLS:,} calls wait for it")

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._try(call)

    def _try(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:  # a package or a user's sink may raise anything
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            self._fail(f"{kind}{first_line(error)}")
            with contextlib.suppress(Exception):
                if self._sink is not None:
                    self._sink.close(False)

    def _fail(self, reason: str) -> None:
        if not self._failed:
            log.error("log.sinks: %s: %s · training continues without it", self._name, reason)
        self._failed = True
