"""Detect a network that learns nothing, with any margin."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ..config import Config

_ALIKE = 0.98  # mean cosine between the embeddings of a batch
_ALIKE_WINDOWS = 5  # log windows in a row
_PATIENCE = 200  # steps after the warm-up before the first judgement
_SHORTEST = 500  # steps over which the loss must fall
_WINDOWS = 6  # least number, to judge whether the loss falls
_FALL = 0.005  # least fall of the loss, as a share, from the first half of the windows to the second
_LITTLE = 2.0  # times chance; more right answers show that something is learned
_BAND = 0.03  # distance from ln C, as a share
_LOW_RATE = {"adamw": 1e-5}  # of train.lr; with a lower one nothing may be learned either
_LOW_RATE_OF_OTHERS = 1e-4
_MARGINS = ("m", "m1", "m2", "m3", "l_m", "u_m")


class _Window(NamedTuple):
    step: int
    loss: float
    accuracy: float
    similarity: float
    images: int


class CollapseWatch:
    """Judge log windows: accuracy at chance, with alike embeddings or a loss that does not fall.

    The value of a loss depends on its margin and scale. A collapsed network has ln C with a
    softmax, but 20 to 40 with ArcFace at s = 64. So the class judges how the loss falls over a
    long time, not its value.

    Args:
        num_classes: C.
        chance: accuracy of the best constant answer, which is the share of the identity with the
            most images. None: 1/C.
        warmup_steps: of the learning rate: the loss need not fall before their end.
        length: steps over which the loss must fall.
        patience: steps after the warm-up before the first judgement; None: 200.
        low_rate: ``train.lr``, if it is unusually low.
        remedies: the end of a warning, after the one for the rate.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        chance: float | None = None,
        warmup_steps: int = 0,
        length: int = _SHORTEST,
        patience: int | None = None,
        low_rate: float | None = None,
        remedies: Sequence[str] = ("a longer train.warmup_steps", "model.norm batch"),
    ) -> None:
        self.level = math.log(num_classes)
        self.chance = chance or 1.0 / num_classes
        self._first = warmup_steps + (_PATIENCE if patience is None else patience)
        self._length, self._low_rate, self._remedies = length, low_rate, remedies
        self._windows: deque[_Window] = deque()
        self._warned = False

    def look(self, step: int, *, loss: float, accuracy: float, similarity: float, images: int) -> str | None:
        """Judge one log window and return a warning when a collapse has lasted long enough.

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
        level, learned, rate = "at chance", "nothing", "a lower train.lr"
        if (times := self._times_chance()) > 0:
            level, learned, rate = f"only {times:.1f} times chance", "very little", "a higher or lower train.lr"
        if self._low_rate is not None:
            rate = f"a higher train.lr ({self._low_rate:g} is unusually low)"
        return (
            f"step {step}: the accuracy is {level}, and {' and '.join(signs)}: {learned} is being learned · "
            f"usual remedies: {', '.join([rate, *self._remedies])}"
        )

    def _times_chance(self) -> float:
        """Return the accuracy in multiples of chance; 0 if luck can explain it."""
        right, images = _right_answers(self._windows)
        lucky = self.chance * images
        return right / lucky if right > _LITTLE * lucky + 5 * math.sqrt(lucky) else 0.0

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
            return f"the loss stays at ln C = {self.level:.2f}"
        steps = windows[-1].step - windows[0].step
        return f"the loss has not fallen for {steps:,} steps ({before:.4g} before, {now:.4g} now)"

    def _at_chance(self, windows: list[_Window]) -> bool:
        """Return whether luck and a little learning explain this number of right answers."""
        right, images = _right_answers(windows)
        most = min(5 * self.chance, self.chance + 0.02 * (1 - self.chance))
        return right <= most * images + 3 * math.sqrt(self.chance * images) + 1


def _right_answers(windows: Collection[_Window]) -> tuple[float, int]:
    """Return the number of right answers in some windows, and of images."""
    return sum(window.accuracy * window.images for window in windows), sum(window.images for window in windows)


def collapse_watch(config: Config, num_classes: int, largest_share: float, total_steps: int) -> CollapseWatch:
    """Return the collapse watch of a run.

    Args:
        config: the run's configuration.
        num_classes: C.
        largest_share: share of all images that the largest identity has.
        total_steps: length of the run.
    """
    seen = max(num_classes * config.loss.sample_rate, 1.0)  # classes that take part in a step
    rate = config.train.lr
    remedies = ["a longer train.warmup_steps", "a larger train.batch_size", "model.norm batch"]
    remedies += ["a larger loss.lambda_min"] * hasattr(config.loss, "lambda_min")
    remedies += ["a smaller loss.s"] * hasattr(config.loss, "s")
    margins = [f"loss.{name}" for name in _MARGINS if hasattr(config.loss, name)]
    remedies += [f"a smaller {' or '.join(margins)} first (train.stages)"] if margins else []
    return CollapseWatch(
        max(2, round(seen)),
        chance=max(1.0 / seen, largest_share),
        warmup_steps=config.train.warmup_steps,
        length=max(_SHORTEST, total_steps // 20),
        patience=min(_PATIENCE, total_steps // 2),
        low_rate=rate if rate < _LOW_RATE.get(config.train.optimizer, _LOW_RATE_OF_OTHERS) else None,
        remedies=remedies,
    )
