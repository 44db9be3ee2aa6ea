"""A sign of life: the log has a line at least every 30 s, whatever the program is doing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

EVERY = 29.0
"""Seconds: so that no gap is longer than 30."""
FIRST = 5.0
"""Seconds until the first line, for who has just started something."""


class Heartbeat:
    """While entered, calls a function when nothing has been told for some time: during a long step,
    too.

    A thread does it, since a step, an evaluation or a slow disk keep the program from looking at
    the clock.

    Args:
        tell: says how things stand; it is called in another thread.
        first: seconds until the first call.
        every: seconds between later calls.
    """

    def __init__(self, tell: Callable[[], None], *, first: float = FIRST, every: float = EVERY) -> None:
        self._tell, self._every = tell, every
        self._due = time.monotonic() + first
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def told(self) -> None:
        """Note that something else has just been told: the next call is due ``every`` seconds from
        now.
        """
        self._due = time.monotonic() + self._every

    def _run(self) -> None:
        while not self._ended.wait(max(self._due - time.monotonic(), 0.0)):
            if time.monotonic() >= self._due:
                self.told()
                self._tell()
