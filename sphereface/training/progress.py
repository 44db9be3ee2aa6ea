"""The progress of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Progress:
    """What a run has done; saved in every checkpoint.

    Attributes:
        step: finished optimiser updates.
        images_seen: images that the network has processed, which is also the position in the order
            of the data.
        seconds: training time of all sessions, including waiting for data, without evaluation and
            saving.
        best: highest accuracy so far on the set of ``eval.select``, a fraction; None before the
            first evaluation.
        best_step: step of the best accuracy.
        evaluated_step: step of the last evaluation.
    """

    step: int = 0
    images_seen: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None
    evaluated_step: int | None = None

    def share(self, total_steps: int, max_minutes: float | None) -> float:
        """Return the finished share of the run, in [0, 1]: the larger one of steps and clock."""
        return min(max(self.step / total_steps, self.clock_share(max_minutes)), 1.0)

    def seconds_left(self, max_minutes: float | None) -> float:
        """Return what is left of ``train.max_minutes``, in seconds; infinite without a limit."""
        return math.inf if max_minutes is None else 60.0 * max_minutes - self.seconds

    def clock_share(self, max_minutes: float | None) -> float:
        """Return the used share of ``train.max_minutes``; 0 without a limit."""
        return 0.0 if max_minutes is None else self.seconds / (60.0 * max_minutes)


class Stopwatch:
    """Time between laps, without the time before a :meth:`restart`."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Discard the time since the last lap."""
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last lap or restart."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds


class TimeLeft:
    """Estimate when a run ends, from its speed since this object was made.

    The estimate includes evaluations and saving.

    Args:
        share: returns the finished share of the run's work, in [0, 1].
        seconds_left: returns the training seconds after which the run ends at the latest.
    """

    def __init__(self, share: Callable[[], float], seconds_left: Callable[[], float] = lambda: math.inf) -> None:
        self._share, self._first, self._start = share, share(), time.perf_counter()
        self._seconds_left = seconds_left

    def words(self) -> str:
        """Return a text such as ``about 3 h 12 min left``; empty if not known, or at the end."""
        share = self._share()
        done = share - self._first
        if done <= 0 or share >= 1:
            return ""
        seconds = (time.perf_counter() - self._start) * (1 - share) / done
        return f"about {duration(min(seconds, max(self._seconds_left(), 0.0)))} left"


def duration(seconds: float) -> str:
    """Return a time in at most two units: ``45 s``, ``12 min``, ``3 h 12 min``, ``2 d 3 h``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24:,} d {hours % 24} h"
