"""How far a run is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Progress:
    """What a run has behind it; saved in every checkpoint.

    Attributes:
        step: finished optimiser updates.
        images_seen: images that went through the network, which is also the place in the order of
            the data.
        seconds: time spent on training over all sessions, waiting for data included, evaluation and
            saving not.
        best: highest accuracy so far on ``eval.select``'s set, a fraction; None before the first
            evaluation.
        best_step: the step of that.
        evaluated_step: the step of the last evaluation.
    """

    step: int = 0
    images_seen: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None
    evaluated_step: int | None = None

    def share(self, total_steps: int, max_minutes: float | None) -> float:
        """How much of the run is done, in [0, 1]: of the steps or, where there is a clock, of it if
        that is more.
        """
        return min(max(self.step / total_steps, self.clock_share(max_minutes)), 1.0)

    def clock_share(self, max_minutes: float | None) -> float:
        """How much of the clock's time is spent; 0 where there is none."""
        return 0.0 if max_minutes is None else self.seconds / (60.0 * max_minutes)


class Stopwatch:
    """Time between laps, but for what lies before a :meth:`restart`."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget the time since the last lap."""
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap or restart."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds


class TimeLeft:
    """Estimates when a run ends, from what it has done since this was made, evaluations and saving
    included.

    Args:
        share: how much of the run is done, in [0, 1].
    """

    def __init__(self, share: Callable[[], float]) -> None:
        self._share, self._first, self._start = share, share(), time.perf_counter()

    def words(self) -> str:
        """``about 3 h 12 min left``; nothing where that is not known yet, or at the end."""
        share = self._share()
        done = share - self._first
        if done <= 0 or share >= 1:
            return ""
        return f"about {duration((time.perf_counter() - self._start) * (1 - share) / done)} left"


def duration(seconds: float) -> str:
    """Return a time in words, of two units at most: ``45 s``, ``12 min``, ``3 h 12 min``, ``2 d 3
    h``.
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24:,} d {hours % 24} h"
