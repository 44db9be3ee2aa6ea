"""Which learning rate, λ and margin hold where in a run: functions of its configuration and of how far it is."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Config, Stage
from ..losses.margins import Margin
from ..schedules import cosine_rate, linear_rate, one_cycle_rate, step_rate, warmup_factor


@dataclass(frozen=True)
class Setting:
    """What one update uses.

    Attributes:
        lr: learning rate, before the multipliers of single parameters.
        margin: of the head.
        lam: λ of that margin.
        stage: number of the stage, from 0.
        step: finished updates.
        input_size: (height, width) that crops are shrunk to; None: they stay whole.
    """

    lr: float
    margin: Margin
    lam: float
    stage: int
    step: int
    input_size: tuple[int, int] | None = None


class Plan:
    """The schedules of a run.

    Args:
        config: ``train`` has the schedule of the rate and the stages, ``loss`` the margin of the last stage.
        total_steps: length of the schedules, in updates.
    """

    def __init__(self, config: Config, total_steps: int) -> None:
        self._train = config.train
        self._total = total_steps
        self._stages = [*config.stages, Stage(1.0, config.loss)]

    def at(self, position: float, step: int | None = None) -> Setting:
        """Settings of an update.

        Args:
            position: where the run stands on its schedules, from 0 to ``total_steps``.
            step: finished updates; None: that is the position, which it is but where a clock drives the run.
        """
        stage, begin = 0, 0.0
        while stage < len(self._stages) - 1 and position >= self._stages[stage].until * self._total:
            if self._stages[stage].loss != self._stages[stage + 1].loss:
                begin = self._stages[stage].until * self._total
            stage += 1
        margin = self._stages[stage].loss
        size = self._stages[stage].input_size
        # the recipe's t counts from 1; each new loss anneals its λ anew
        lam = float(margin.lam(position - begin + self._train.lambda_start + 1))
        step = int(position) if step is None else step
        return Setting(self.rate(position), margin, lam, stage, step, None if size is None else (size[0], size[1]))

    def rate(self, position: float) -> float:
        """Learning rate of the update after ``position`` finished ones."""
        train, steps = self._train, self._total
        if train.schedule == "cosine":
            rate = cosine_rate(position, lr=train.lr, steps=steps)
        elif train.schedule == "linear":
            rate = linear_rate(position, lr=train.lr, steps=steps)
        elif train.schedule == "one-cycle":
            rate = one_cycle_rate(position, lr=train.lr, steps=steps)
        else:
            rate = step_rate(position, lr=train.lr, milestones=train.milestones, decay=train.lr_decay)
        return rate * warmup_factor(position, train.warmup_steps)
