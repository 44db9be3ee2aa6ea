"""The learning rate, λ and margin of each step, from the configuration and the position."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import Config
from ..config_sections import Stage, TrainConfig
from ..errors import shown
from ..losses.margins import Margin
from ..losses.teacher import QUEUE
from ..schedules import cosine_rate, linear_rate, one_cycle_rate, step_rate, warmup_factor

_HIGH_FOR_ADAMW = 0.01
_STEPS_PER_EPOCH = 3  # or more: milestones below train.epochs are then in the first third of the run
_DEFAULT = TrainConfig()
_RATES = {"cosine": cosine_rate, "linear": linear_rate, "one-cycle": one_cycle_rate}


@dataclass(frozen=True)
class Setting:
    """The settings of one update.

    Attributes:
        lr: learning rate, before the multipliers of single parameters.
        margin: of the head.
        lam: λ of that margin.
        stage: number of the stage, from 0.
        step: finished updates.
        input_size: (height, width) to which crops are shrunk; None: they keep their size.
    """

    lr: float
    margin: Margin
    lam: float
    stage: int
    step: int
    input_size: tuple[int, int] | None = None

    @property
    def has_lambda(self) -> bool:
        """Return whether the margin has a λ."""
        return type(self.margin).lam is not Margin.lam


class Plan:
    """The schedules of a run.

    Args:
        config: ``train`` has the learning rate's schedule and the stages, ``loss`` the margin of
            the last stage.
        total_steps: length of the schedules, in updates.
    """

    def __init__(self, config: Config, total_steps: int) -> None:
        self._train = config.train
        self._total = total_steps
        self._stages = [*config.stages, Stage(1.0, config.loss)]
        self._size = (config.model.input_spec.height, config.model.input_spec.width)

    def at(self, position: float, step: int | None = None) -> Setting:
        """Return the settings of an update.

        Args:
            position: position on the schedules, from 0 to ``total_steps``.
            step: finished updates. None: the position, which is the same unless a clock limits
                the run.
        """
        stage, begin = 0, 0.0
        while stage < len(self._stages) - 1 and position >= self._stages[stage].until * self._total:
            if self._stages[stage].loss != self._stages[stage + 1].loss:
                begin = self._stages[stage].until * self._total
            stage += 1
        margin = self._stages[stage].loss
        size = self._stages[stage].input_size
        # the recipe's t counts from 1; each new loss anneals its λ from the start
        lam = float(margin.lam(position - begin + self._train.lambda_start + 1))
        step = int(position) if step is None else step
        return Setting(self.rate(position), margin, lam, stage, step, None if size is None else (size[0], size[1]))

    def stages(self) -> list[tuple[float, Setting]]:
        """Return for each stage its share of the run, in (0, 1], and its first settings."""
        ends = [stage.until for stage in self._stages]
        begins = [0.0, *ends[:-1]]
        return [(end - begin, self.at(begin * self._total)) for begin, end in zip(begins, ends, strict=True)]

    def pixels(self, share: float) -> float:
        """Return the share of the run's pixels that its first ``share`` of steps processes.

        Both are in [0, 1]. They differ where stages have their own ``input_size``.
        """
        done = total = begin = 0.0
        for stage in self._stages:
            rows, columns = stage.input_size or self._size
            length = stage.until - begin
            total += length * rows * columns
            done += min(max(share - begin, 0.0), length) * rows * columns
            begin = stage.until
        return done / total

    def rate(self, position: float) -> float:
        """Return the learning rate of the update after ``position`` finished ones."""
        train = self._train
        if train.schedule == "step":
            rate = step_rate(position, lr=train.lr, milestones=train.milestones, decay=train.lr_decay)
        else:
            rate = _RATES[train.schedule](position, lr=train.lr, steps=self._total)
        return rate * warmup_factor(position, train.warmup_steps)


def doubtful(config: Config, total_steps: int) -> list[str]:
    """Return a warning for each setting that is allowed but probably a mistake.

    These are settings beyond the end of the run, which have little or no effect, milestones in
    epochs, a ``lambda_min`` above ``lambda_base``, a learning rate of SGD with AdamW, and changed
    settings that the run does not use.

    Args:
        config: the resolved configuration.
        total_steps: length of the run, in updates.
    """
    train, end = config.train, f"the run has {total_steps:,} steps"
    late = [milestone for milestone in train.milestones if milestone >= total_steps]
    lines = []
    if late:
        lines.append(f"train.milestones: {', '.join(map(str, late))} {'is' if len(late) == 1 else 'are'} never reached")
    lines += _milestones_in_epochs(config, total_steps)
    if train.warmup_steps >= total_steps:
        lines.append(f"train.warmup_steps: got {train.warmup_steps}, so the learning rate never reaches train.lr")
    if train.teacher.warmup_steps >= total_steps:
        got = f"train.teacher.warmup_steps: got {train.teacher.warmup_steps}"
        lines.append(f"{got}, so the losses of the teacher never reach their full weights")
    lines += _empty_stages(config, total_steps)
    last, least = Plan(config, total_steps).at(total_steps - 1), getattr(config.loss, "lambda_min", None)
    if least is not None and config.loss.m > 1 and last.lam > 2 * max(least, 1.0):
        lines.append(
            f"loss.lambda_min: got {least:g}, but λ is still {last.lam:.4g} at the end: the margin has almost no effect"
        )
    if config.eval.sets and config.eval.every_steps > total_steps:
        lines.append(f"eval.every_steps: got {config.eval.every_steps}, so the run is evaluated at its end only")
    if config.log.every_steps > total_steps:
        lines.append(f"log.every_steps: got {config.log.every_steps}, so no figures are written")
    lines = [f"{line} · {end}" for line in lines]
    for loss in (*(stage.loss for stage in config.stages), config.loss):
        base, floor = getattr(loss, "lambda_base", math.inf), getattr(loss, "lambda_min", -math.inf)
        if floor > base:
            lines.append(f"loss.lambda_min: got {floor:g}, above loss.lambda_base {base:g}: λ is {floor:g} throughout")
    if train.optimizer == "adamw" and train.lr > _HIGH_FOR_ADAMW:
        lines.append(f"train.lr: got {train.lr:g} with train.optimizer adamw, which usually needs 0.001 or less")
    return lines + _unused(config)


def _unused(config: Config) -> list[str]:
    """Return a line for each changed setting of ``train`` that another choice makes useless."""
    train = config.train
    optimizer, muon, teacher = f"train.optimizer {train.optimizer}", train.muon, train.teacher
    schedule, losses = f"train.schedule {train.schedule}", f"train.teacher.losses {shown(dict(teacher.losses))}"
    by_optimizer = [
        ("momentum", train.momentum, _DEFAULT.momentum, "sgd muon"),  # muon: in the form of torch
        ("mu", train.mu, _DEFAULT.mu, "sgd muon"),
        ("betas", list(train.betas), list(_DEFAULT.betas), "adamw"),
        ("muon.lr", muon.lr, _DEFAULT.muon.lr, "muon"),
        ("muon.weight_decay", muon.weight_decay, _DEFAULT.muon.weight_decay, "muon"),
    ]
    found = [
        (key, value, default, optimizer, train.optimizer in of.split()) for key, value, default, of in by_optimizer
    ]
    found.append(("lr_decay", train.lr_decay, _DEFAULT.lr_decay, schedule, train.schedule == "step"))
    found.append(
        ("nonfinite_limit", train.nonfinite_limit, _DEFAULT.nonfinite_limit, f"train.on_nonfinite {train.on_nonfinite}",
         train.on_nonfinite == "skip")
    )  # fmt: skip
    losses_of = (*(stage.loss for stage in config.stages), config.loss)
    annealed = any(hasattr(loss, "lambda_base") for loss in losses_of)
    found.append(("lambda_start", train.lambda_start, _DEFAULT.lambda_start, f"loss {config.loss.name}", annealed))
    for key in ("queue_size", "temperatures"):
        values = getattr(teacher, key), getattr(_DEFAULT.teacher, key)
        found.append((f"teacher.{key}", *values, losses, QUEUE in teacher.losses))
    return [
        f"train.{key}: got {shown(value)}, which a run with {choice} does not use"
        for key, value, default, choice, used in found
        if value != default and not used
    ]


def _milestones_in_epochs(config: Config, total_steps: int) -> list[str]:
    """Return a line if all milestones lie within as many steps as the run has epochs."""
    epochs, milestones = config.train.epochs, config.train.milestones
    if epochs is None or not milestones or milestones[-1] >= epochs or total_steps < _STEPS_PER_EPOCH * epochs:
        return []
    steps = [round(milestone * total_steps / epochs) for milestone in milestones]
    got = f"train.milestones: got {shown(list(milestones))}, all below train.epochs {epochs:g}, but they count steps"
    return [f"{got}; of epochs, they would be {shown(steps)}"]


def _empty_stages(config: Config, total_steps: int) -> list[str]:
    """Return a line for each stage that lies between two steps of the run."""
    ends = [0.0, *(stage.until for stage in config.stages), 1.0]
    first = [math.ceil(end * total_steps) for end in ends]  # the first update after each end
    names = [*(f"train.stages[{number}]" for number in range(len(config.stages))), "loss"]
    return [
        f"{name}: this stage has no step"
        for name, begin, after in zip(names, first[:-1], first[1:], strict=True)
        if begin >= after
    ]
