"""Notices a network that learns nothing, for every margin."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from ..config import Config

_ALIKE = 0.98  # mean cosine between the embeddings of a batch
_ALIKE_WINDOWS = 5  # log windows in a row
_PATIENCE = 200  # steps after the warm-up before it is looked at
_SHORTEST = 500  # steps over which the loss has to fall
_WINDOWS = 6  # at least, to judge whether the loss falls
_FALL = 0.005  # of the loss, from the first half of the windows to the second: a smaller one is none
_BAND = 0.03  # of ln C, either way


class _Window(NamedTuple):
    step: int
    loss: float
    accuracy: float
    similarity: float
    images: int


class CollapseWatch:
    """Judges log windows: accuracy at chance, with embeddings that are all alike or a loss that
    does not fall.

    What a loss is worth depends on its margin and scale: a network that has collapsed has ln C with
    a softmax, 20 to 40 with ArcFace at s = 64. So it is not the value that is judged but its fall,
    over a long time.

    Args:
        num_classes: C.
        chance: accuracy of the best constant answer: the share of the identity with the most
            images; None: 1/C.
        warmup_steps: of the learning rate: before their end no loss has to fall.
        length: steps over which the loss has to fall.
        remedies: the end of a warning.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        chance: float | None = None,
        warmup_steps: int = 0,
        length: int = _SHORTEST,
        remedies: str = "usual remedies: a lower train.lr, a longer train.warmup_steps, model.norm batch",
    ) -> None:
        self.level = math.log(num_classes)
        self.chance = chance or 1.0 / num_classes
        self._first, self._length, self._remedies = warmup_steps + _PATIENCE, length, remedies
        self._windows: deque[_Window] = deque()
        self._warned = False

    def look(self, step: int, *, loss: float, accuracy: float, similarity: float, images: int) -> str | None:
        """Judge one log window; return the warning when a collapse has just lasted long enough to
        be one.

        Args:
            step: finished updates.
            loss, accuracy: means of the window, a fraction for the accuracy.
            similarity: mean cosine between the embeddings of a batch.
            images: number of images in the window.
        """
        if step <= self._first or self.chance >= 1.0:
            return None
        windows = self._windows
        windows.append(_Window(step, loss, accuracy, similarity, images))
        if not self._at_chance([windows[-1]]):
            windows.clear()
            self._warned = False
            return None
        while len(windows) > _WINDOWS and windows[1].step <= step - self._length:
            windows.popleft()
        signs = [] if self._warned else [sign for sign in (self._alike(), self._stuck()) if sign]
        if not signs:
            return None
        self._warned = True
        return (
            f"step {step}: the accuracy is at chance, and {' and '.join(signs)}: nothing is being learned · "
            f"{self._remedies}"
        )

    def _alike(self) -> str | None:
        last = list(self._windows)[-_ALIKE_WINDOWS:]
        alike = len(last) == _ALIKE_WINDOWS and all(window.similarity > _ALIKE for window in last)
        if not alike or not self._at_chance(last):
            return None
        return f"the embeddings are all alike (mean cosine {last[-1].similarity:.3f})"

    def _stuck(self) -> str | None:
        windows = list(self._windows)
        if len(windows) < _WINDOWS or windows[-1].step - windows[0].step < self._length or not self._at_chance(windows):
            return None
        half = len(windows) // 2
        parts = (windows[:half], windows[-half:], windows[-_WINDOWS // 2 :])
        before, now, latest = (sum(w.loss for w in part) / len(part) for part in parts)
        if min(now, latest) < before - _FALL * abs(before):
            return None
        if abs(now - self.level) < _BAND * self.level:
            return f"the loss sits at ln C = {self.level:.2f}"
        steps = windows[-1].step - windows[0].step
        return f"the loss has not fallen for {steps:,} steps ({before:.4g} before, {now:.4g} now)"

    def _at_chance(self, windows: list[_Window]) -> bool:
        """Whether so many right answers are no more than luck and a hint of learning explain."""
        images = sum(window.images for window in windows)
        right = sum(window.accuracy * window.images for window in windows)
        most = min(5 * self.chance, self.chance + 0.02 * (1 - self.chance))
        return right <= most * images + 3 * math.sqrt(self.chance * images) + 1


def collapse_watch(config: Config, num_classes: int, largest_share: float, total_steps: int) -> CollapseWatch:
    """Return the watch for a run.

    Args:
        config: the run's configuration.
        num_classes: C.
        largest_share: of all images, those of the identity that has the most.
        total_steps: length of the run.
    """
    seen = max(num_classes * config.loss.sample_rate, 1.0)  # classes that a step tells apart
    remedies = ["a lower train.lr", "a longer train.warmup_steps", "a larger train.batch_size", "model.norm batch"]
    remedies += ["a larger loss.lambda_min"] * hasattr(config.loss, "lambda_min")
    remedies += ["a smaller loss.s"] * hasattr(config.loss, "s") + ["a smaller loss.m first (train.stages)"]
    return CollapseWatch(
        max(2, round(seen)),
        chance=max(1.0 / seen, largest_share),
        warmup_steps=config.train.warmup_steps,
        length=max(_SHORTEST, total_steps // 20),
        remedies=f"usual remedies: {', '.join(remedies)}",
    )
