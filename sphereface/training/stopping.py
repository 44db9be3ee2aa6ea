"""Signals as requests: finish the step, save, leave."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
"""Exit code of a run that a signal ended. 75 is EX_TEMPFAIL, which schedulers take for "start me again"."""
if hasattr(signal, "SIGUSR1"):  # what Slurm sends ahead of the end of a job's time
    EXIT_CODES[signal.SIGUSR1] = 75


class Interruption(BaseException):
    """Raised by the handler inside :meth:`StopRequest.interruptible` only."""


class StopRequest:
    """While entered, SIGINT, SIGTERM and SIGUSR1 do not end the process but are kept in
    :attr:`signal`.

    A second Ctrl-C raises ``KeyboardInterrupt`` there and then. Signals can be handled in the main
    thread only; entered elsewhere, this does nothing.

    Of several processes each may receive one, or one of them alone. A run acts on what they have
    agreed upon: see :meth:`settle`.

    Args:
        quiet: say nothing of a signal; another process does.

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """What the process is to return after the signal that was agreed upon."""
        assert self.agreed is not None
        return EXIT_CODES[self.agreed]

    def requests(self) -> list[float]:
        """A number for each kind of signal, 1 for the one that came, to be summed over the
        processes.
        """
        return [float(self.signal is number) for number in EXIT_CODES]

    def settle(self, requests: Sequence[float]) -> None:
        """Agree on the sums of all processes' :meth:`requests`: one request is one for all."""
        asked = [number for number, count in zip(EXIT_CODES, requests, strict=True) if count > 0]
        if asked and self.agreed is None:
            self.agreed = asked[0]

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work that changes nothing, such as an evaluation: a signal ends it at once, with
        :class:`Interruption`.
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
            # neither print nor log: their locks may be held by the very code that the signal came
            # into
            if not self._quiet:
                os.write(2, f"\n{self.signal.name}: finishing the step, saving{hint}\n".encode())
        if self._interruptible:
            self._interruptible = False
            raise Interruption
