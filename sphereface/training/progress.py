"""How far a run is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """All that the schedules and the data order depend on; saved in every checkpoint.

    Attributes:
        step: finished optimiser updates.
        images_seen: pictures that went through the network.
        seconds: time spent in training steps over all sittings; evaluation and saving are not counted.
        best: highest accuracy so far on ``eval.select``'s set, a fraction; None before the first evaluation.
        share: how much of the run is done, in [0, 1].
    """

    step: int = 0
    images_seen: int = 0
    seconds: float = 0.0
    best: float | None = None
    share: float = 0.0

    def advance(self, images: int, seconds: float, *, total_steps: int, max_minutes: float | None) -> None:
        """Count one finished step; ``max_minutes`` makes the share follow the clock instead of the steps."""
        self.step += 1
        self.images_seen += images
        self.seconds += seconds
        done = self.step / total_steps if max_minutes is None else self.seconds / (60.0 * max_minutes)
        self.share = min(done, 1.0)
