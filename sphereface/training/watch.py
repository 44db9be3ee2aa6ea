"""What is told of a run while it goes on: figures, warnings, the progress bar, pictures."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import cv2
import torch
import torchvision.utils
import yaml
from tqdm import tqdm

from ..config import Config
from ..data.batch import Batch
from ..data.loader import BadImages
from ..data.prefetch import moved
from ..data.transforms import to_input, to_pixels
from ..evaluation.charts import figure_of
from ..evaluation.result import Result
from ..losses.head import HeadOutput
from .monitor import Monitor
from .progress import Progress

log = logging.getLogger(__name__)

_SHEET = 64  # crops on the contact sheet


@dataclass(frozen=True)
class StepResult:
    """One training step.

    Attributes:
        output: loss, correct predictions at m = 1, target cosines and ‖x‖ of the batch of all processes, on the device.
        likeness: mean cosine between the embeddings of the batch, on the device.
        grad_norm: L2 norm over all gradients, before clipping, on the device.
        lr, lam: learning rate and λ of this update.
    """

    output: HeadOutput
    likeness: torch.Tensor
    grad_norm: torch.Tensor
    lr: float
    lam: float


class Watch:
    """Follows a run step by step and reports at the intervals of ``log``.

    Args:
        config: the run's configuration.
        folder: the run folder.
        progress: the trainer's own, read here.
        share: how much of the run is done, in [0, 1].
        num_images, num_classes: size of the training set.
        evaluates_again: the evaluation of the present step will be made once more.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        progress: Progress,
        share: Callable[[], float],
        *,
        num_images: int,
        num_classes: int,
        evaluates_again: bool = False,
    ) -> None:
        self._again = evaluates_again
        self._config, self._progress = config, progress
        self._folder = folder
        self._share = share
        self._bad = BadImages(num_images, config.data.max_bad_share)
        self._images_tried = 0
        self._window: list[StepResult] = []
        self._seconds = progress.seconds  # when it began
        self._collapse = CollapseWatch(num_classes)
        self._stack = ExitStack()

    def __enter__(self) -> Watch:
        tensorboard = self._config.log.tensorboard
        self._monitor = self._stack.enter_context(
            Monitor(self._folder, tensorboard=tensorboard, step=self._progress.step, evaluates_again=self._again)
        )
        self._bar = self._stack.enter_context(
            tqdm(
                total=100.0,
                initial=100.0 * self._share(),
                disable=None,  # lines instead of a bar where there is no terminal
                bar_format="{percentage:5.1f}%|{bar}| {elapsed}<{remaining} {postfix}",
            )
        )
        self._monitor.text(self._progress.step, "config", _as_markdown(self._config))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bad.reasons:
            log.warning(
                "%d pictures were unusable in this sitting and had others in their place", len(self._bad.reasons)
            )
        self._stack.close()

    def step(self, result: StepResult, batch: Batch) -> None:
        """Take in one step; say, write and draw what is due. ``batch``: this process's, with the ``bad`` of all."""
        step, every = self._progress.step, self._config.log
        if self._images_tried == 0:
            self._contact_sheet(batch)
        self._images_tried += len(result.output.correct)  # by all processes
        for line in self._bad.add(batch.bad, self._images_tried):
            log.warning("%s", line)
        self._window.append(result)
        if step % every.every_steps == 0:
            self._training_figures()
        if step % every.histogram_every_steps == 0:
            self._monitor.histogram(step, "train/target_angle_deg", _angles(result.output))
            self._monitor.histogram(step, "train/embedding_norm", result.output.norms)
        self._advance()

    def take_back(self, steps: int) -> None:
        """The last steps taken in do not count; nothing was written of them."""
        del self._window[len(self._window) - steps :]

    def evaluation(self, name: str, result: Result) -> None:
        """Report the result of one evaluation set."""
        step = self._progress.step
        log.info("step %d · %s %s", step, name, result.line())
        figures = {f"eval/{name}/{tag}": value for tag, value in result.scalars().items() if not math.isnan(value)}
        self._monitor.scalars(step, figures, images_seen=self._progress.images_seen)
        if self._config.log.tensorboard:
            for chart in result.figures()[:1]:
                self._monitor.figure(
                    step, f"eval/{name}/{chart.name}", figure_of(replace(chart, title=f"{name}: {chart.title}"))
                )

    def _training_figures(self) -> None:
        results, self._window = self._window, []
        seconds, self._seconds = self._progress.seconds - self._seconds, self._progress.seconds
        images = sum(len(r.output.correct) for r in results)
        figures = {
            "train/loss": _mean(torch.stack([r.output.loss.detach() for r in results])),
            "train/accuracy": _mean(torch.cat([r.output.correct for r in results])),
            "train/embedding_norm_mean": _mean(torch.cat([r.output.norms for r in results])),
            "train/target_angle_deg_mean": _mean(torch.cat([_angles(r.output) for r in results])),
            "train/embedding_likeness": _mean(torch.stack([r.likeness for r in results])),
            "train/lambda": results[-1].lam,
            "train/lr": results[-1].lr,
            "train/grad_norm": _mean(torch.stack([r.grad_norm for r in results])),
            "train/images_per_s": images / seconds,
            "train/minutes": self._progress.seconds / 60,
        }
        self._monitor.scalars(self._progress.step, figures, images_seen=self._progress.images_seen)
        line = (
            f"loss {figures['train/loss']:.4f} acc {figures['train/accuracy']:6.2%} λ {figures['train/lambda']:.4g} "
            f"lr {figures['train/lr']:.3g} {figures['train/images_per_s']:.0f} img/s"
        )
        if self._bar.disable:  # no terminal: lines instead of a bar
            log.info("step %d · %.1f %% · %s", self._progress.step, 100 * self._share(), line)
        else:
            self._bar.set_postfix_str(f"step {self._progress.step} {line}", refresh=False)
        warning = self._collapse.look(
            self._progress.step,
            loss=figures["train/loss"],
            accuracy=figures["train/accuracy"],
            likeness=figures["train/embedding_likeness"],
        )
        if warning:
            log.warning("%s", warning)

    def _contact_sheet(self, batch: Batch) -> None:
        here = moved(batch, "cpu")
        spec = self._config.model.input_spec
        inputs = to_input(here.images, spec, here.mirror, here.augment)[:_SHEET]
        sheet = torchvision.utils.make_grid(to_pixels(inputs, spec), nrow=8, padding=2)
        cv2.imwrite(str(self._folder / "crops.png"), sheet.flip(0).permute(1, 2, 0).numpy())  # RGB → BGR
        self._monitor.image(self._progress.step, "train/crops_as_the_network_sees_them", sheet)

    def _advance(self) -> None:
        self._bar.update(100.0 * self._share() - self._bar.n)


class QuietWatch(Watch):
    """What all processes but the first have in its place: it tells nothing."""

    def __init__(self) -> None:
        pass

    def __enter__(self) -> QuietWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def step(self, result: StepResult, batch: Batch) -> None:
        """The first process does."""

    def take_back(self, steps: int) -> None:
        """The first process does."""

    def evaluation(self, name: str, result: Result) -> None:
        """The first process does."""


class CollapseWatch:
    """Notices a network that tells nothing apart: a loss that sits at ln C, or embeddings that are all alike.

    Args:
        num_classes: C.
    """

    _BAND = 0.03  # of ln C, either way
    _ALIKE = 0.98  # mean cosine between the embeddings of a batch
    _WINDOWS = 5  # log windows in a row
    _PATIENCE = 200  # steps before it is looked at: every run starts near ln C
    _REMEDIES = (
        "usual remedies: a larger loss.lambda_min, a larger train.batch_size, a lower train.lr, model.norm batch, "
        "or loss.m 1 first"
    )

    def __init__(self, num_classes: int) -> None:
        self.level = math.log(num_classes)
        self.chance = 1.0 / num_classes
        self._in_a_row = 0

    def look(self, step: int, *, loss: float, accuracy: float, likeness: float) -> str | None:
        """Judge one log window; returns the warning when a collapse has just lasted long enough to be one.

        Args:
            step: finished updates.
            loss, accuracy: means of the window; an accuracy well above chance is no collapse.
            likeness: mean cosine between the embeddings of a batch.
        """
        stuck = abs(loss - self.level) < self._BAND * self.level
        alike = likeness > self._ALIKE
        collapsed = (stuck or alike) and accuracy < 5 * self.chance and step > self._PATIENCE
        self._in_a_row = self._in_a_row + 1 if collapsed else 0
        if self._in_a_row != self._WINDOWS:
            return None
        signs = [f"the loss sits at ln C = {self.level:.2f}"] * stuck
        signs += [f"the embeddings are all alike (mean cosine {likeness:.3f})"] * alike
        return f"step {step}: {' and '.join(signs)}: nothing is being learned · {self._REMEDIES}"


def _angles(output: HeadOutput) -> torch.Tensor:
    """(B,) target angles in degrees."""
    return torch.rad2deg(torch.acos(output.cosines.float().clamp(-1, 1)))


def _mean(values: torch.Tensor) -> float:
    return float(values.float().mean())


def _as_markdown(config: Config) -> str:
    text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
    return "".join(f"    {line}\n" for line in text.splitlines())
