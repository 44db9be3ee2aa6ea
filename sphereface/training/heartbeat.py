"""Log at least one line every 30 s, whatever the program is doing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

EVERY = 29.0
"""Seconds between lines, so that no gap is longer than 30."""
FIRST = 5.0
"""Seconds until the first line, which a user who has just started something waits for."""


class Heartbeat:
    """Call a function whenever nothing has been logged for some time, also during a long step.

    A thread calls it, because the program cannot check the clock during a step, an evaluation or
    a slow write.

    Args:
        report: logs the present state; it is called in another thread.
        first: seconds until the first call.
        every: seconds between later calls.
    """

    def __init__(self, report: Callable[[], None], *, first: float = FIRST, every: float = EVERY) -> None:
        self._report, self._every = report, every
        self._due = time.monotonic() + first
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def reset(self) -> None:
        """Postpone the next call by ``every`` seconds, because something was just logged."""
        self._due = time.monotonic() + self._every

    def _run(self) -> None:
        while not self._ended.wait(max(self._due - time.monotonic(), 0.0)):
            if time.monotonic() >= self._due:
                self.reset()
                self._report()
