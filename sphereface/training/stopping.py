"""Stop on a signal: finish the step, save, exit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ..errors import Stopped

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
"""Exit code of a run that a signal ended. Schedulers restart a program after 75, EX_TEMPFAIL."""
if hasattr(signal, "SIGUSR1"):  # Slurm sends it before the end of a job's time
    EXIT_CODES[signal.SIGUSR1] = 75


@contextmanager
def leaving_at_once(*, quiet: bool = False) -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end the process at once with one line, while nothing is trained yet.

    The exit code is that of a signal during training. Ctrl-C stays a ``KeyboardInterrupt``.

    Args:
        quiet: print nothing, because another process does.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not quiet:  # no print and no log, as in StopRequest
            line = f"\nstopped by {name} before the first step · to resume: the same command with --resume auto\n"
            os.write(2, line.encode())
        os._exit(EXIT_CODES[signal.Signals(number)])

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, leave) for number in EXIT_CODES if main and number != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interruption(BaseException):
    """Raised by the handler inside :meth:`StopRequest.interruptible` only."""


class StopRequest:
    """Keep SIGINT, SIGTERM and SIGUSR1 in :attr:`signal` while entered, without ending the process.

    A second Ctrl-C raises ``KeyboardInterrupt`` at once. Only the main thread can handle signals.
    In another thread, this class does nothing.

    With several processes, each may receive a signal, or only one of them. :meth:`settle` makes
    them agree on one.

    Args:
        quiet: print nothing about a signal, because another process does.

    Attributes:
        signal: the first signal received, or None.
        agreed: the signal that all processes stop for, or None.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.signal: signal.Signals | None = None
        self.agreed: signal.Signals | None = None
        self._quiet = quiet
        self._interruptible = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in EXIT_CODES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stopped(self, when: str) -> Stopped:
        """Return the end of a run by the signal that was agreed on."""
        assert self.agreed is not None
        text = f"stopped by {self.agreed.name} {when} · to resume: the same command with --resume auto"
        return Stopped(text, EXIT_CODES[self.agreed])

    def requests(self) -> list[float]:
        """Return one number for each kind of signal, 1 for the received one.

        The caller sums them over the processes.
        """
        return [float(self.signal is number) for number in EXIT_CODES]

    def settle(self, requests: Sequence[float]) -> None:
        """Agree on a signal from the sums of :meth:`requests`: any process's request counts."""
        asked = [number for number, count in zip(EXIT_CODES, requests, strict=True) if count > 0]
        if asked and self.agreed is None:
            self.agreed = asked[0]

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal interrupt the block at once with :class:`Interruption`.

        The block must change nothing, as an evaluation.
        """
        if self.signal is not None or self.agreed is not None:
            raise Interruption
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal = signal.Signals(number)
            hint = " · Ctrl-C again leaves at once" if number == signal.SIGINT else ""
            # no print and no log: the interrupted code may hold their locks
            if not self._quiet:
                os.write(2, f"\n{self.signal.name}: finishing the step, saving{hint}\n".encode())
        if self._interruptible:
            self._interruptible = False
            raise Interruption
