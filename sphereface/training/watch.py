"""Report a run while it trains: figures, warnings, the progress bar, images."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent

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
from ..errors import count_of
from ..evaluation.charts import figure_of
from ..evaluation.result import Result
from ..files import write_whole
from ..losses.head import HeadOutput
from .collapse import collapse_watch
from .heartbeat import Heartbeat
from .monitor import FILE_ONLY, Monitor
from .plan import Plan
from .progress import Progress, TimeLeft
from .sinks import Session

log = logging.getLogger(__name__)

_SHEET = 64  # crops on the contact sheet


@dataclass(frozen=True)
class StepResult:
    """The result of one training step.

    Attributes:
        output: loss, correct predictions at m = 1, target cosines and ‖x‖ of the batch of all
            processes, on the device.
        similarity: mean cosine between the embeddings of the batch, on the device.
        grad_norm: L2 norm over all gradients, before clipping, on the device.
        lr: learning rate of this update.
        lam: λ of this update; None if the loss has none.
        teacher: weighted losses that compare the network with its teacher, on the device; None
            without a teacher.
    """

    output: HeadOutput
    similarity: torch.Tensor
    grad_norm: torch.Tensor
    lr: float
    lam: float | None
    teacher: torch.Tensor | None = None


class Watch:
    """Follow a run step by step, and report at the intervals of ``log``.

    Args:
        config: the run's configuration.
        folder: the run folder.
        progress: the trainer's own; it is only read here.
        share: returns the finished share of the run, in [0, 1].
        num_images, num_classes: size of the training set.
        most_images: number of images of the largest identity; 0: not known.
        total_steps: length of the run.
        doing: returns what takes long now, such as an evaluation, in words; "" while training.
        evaluates_again: the evaluation of the present step will be repeated.
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
        most_images: int = 0,
        total_steps: int = 0,
        doing: Callable[[], str] = str,
        evaluates_again: bool = False,
    ) -> None:
        self._again = evaluates_again
        self._config, self._progress = config, progress
        self._folder = folder
        self._share = share
        self._bad = BadImages(num_images, config.data.max_bad_share)
        self._images_tried, self._first_step = 0, progress.step
        self._window: list[StepResult] = []
        self._seconds = progress.seconds  # at the start of the window
        self._doing = doing
        plan = Plan(config, total_steps)
        self._left = TimeLeft(lambda: plan.pixels(share()), lambda: progress.seconds_left(config.train.max_minutes))
        self._heart = Heartbeat(self._log_position)
        self._collapse = collapse_watch(config, num_classes, most_images / max(num_images, 1), total_steps)
        self._stack = ExitStack()

    def __enter__(self) -> Watch:
        config = self._config
        session = Session(self._folder, config.name, config.to_dict(), self._progress.step, self._again)
        self._monitor = self._stack.enter_context(Monitor(session, config.log.sinks))
        self._bar = self._stack.enter_context(
            tqdm(
                total=100.0,
                initial=100.0 * self._share(),
                disable=None,  # lines instead of a bar if there is no terminal
                bar_format="{percentage:5.1f}%|{bar}| {elapsed}{postfix}",
            )
        )
        text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
        self._monitor.text(self._progress.step, "config", indent(text, "    "))
        self._stack.enter_context(self._heart)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bad.reasons:
            number = count_of(len(self._bad.reasons), "image was", "images were")
            log.warning("%s unusable in this session and replaced by others", number)
        self._stack.close()

    def step(self, result: StepResult, batch: Batch) -> None:
        """Record one step, and log, write and draw what is due.

        Args:
            result: of the step.
            batch: this process's batch, with the ``bad`` images of all processes.
        """
        step, every = self._progress.step, self._config.log
        first = self._images_tried == 0
        if first:
            self._contact_sheet(batch)
        self._images_tried += len(result.output.correct)  # by all processes
        for line in self._bad.add(batch.bad, self._images_tried):
            log.warning("%s", line)
        self._window.append(result)
        if step % every.every_steps == 0:
            self._training_figures()
        elif first:
            self._log_position()
        if step % every.histogram_every_steps == 0:
            self._monitor.histogram(step, "train/target_angle_deg", _angles(result.output))
            self._monitor.histogram(step, "train/embedding_norm", result.output.norms)
        self._bar.update(100.0 * self._share() - self._bar.n)

    def take_back(self, steps: int) -> None:
        """Drop the last recorded steps; nothing was written of them."""
        del self._window[len(self._window) - steps :]

    def evaluation(self, name: str, result: Result) -> None:
        """Report the result of one evaluation set."""
        step = self._progress.step
        log.info("step %d · %s %s", step, name, result.line())
        numbers = {tag: float(value) for tag, value in result.scalars().items()}
        figures = {f"eval/{name}/{tag}": value for tag, value in numbers.items() if not math.isnan(value)}
        self._monitor.scalars(step, figures, images_seen=self._progress.images_seen)
        if self._monitor.takes("image"):
            for chart in result.figures()[:1]:
                self._monitor.figure(
                    step, f"eval/{name}/{chart.name}", figure_of(replace(chart, title=f"{name}: {chart.title}"))
                )

    def changed(self, names: Iterable[str]) -> None:
        """Record that these evaluation sets have other content from this step on."""
        for name in names:
            self._monitor.scalars(
                self._progress.step, {f"eval/{name}/changed": 1.0}, images_seen=self._progress.images_seen
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
            "train/embedding_similarity": _mean(torch.stack([r.similarity for r in results])),
            "train/lr": results[-1].lr,
            "train/grad_norm": _mean(torch.stack([r.grad_norm for r in results])),
            "train/images_per_s": images / seconds,
            "train/minutes": self._progress.seconds / 60,
        }
        if (lam := results[-1].lam) is not None:
            figures["train/lambda"] = lam
        taught = [r.teacher for r in results if r.teacher is not None]
        if taught:
            figures["train/teacher_loss"] = _mean(torch.stack(taught))
        self._monitor.scalars(self._progress.step, figures, images_seen=self._progress.images_seen)
        teacher = f"teacher {figures['train/teacher_loss']:.4f} " if taught else ""
        annealed = "" if lam is None else f"λ {lam:.4g} "
        line = (
            f"loss {figures['train/loss']:.4f} {teacher}acc {figures['train/accuracy']:6.2%} {annealed}"
            f"lr {figures['train/lr']:.3g} {figures['train/images_per_s']:.0f} img/s"
        )
        left = f"{self._left.words()} · " if self._left.words() else ""
        self._bar.set_postfix_str(f"{left}step {self._progress.step} {line}", refresh=False)
        self._log_progress(line)
        warning = self._collapse.look(
            self._progress.step,
            loss=figures["train/loss"],
            accuracy=figures["train/accuracy"],
            similarity=figures["train/embedding_similarity"],
            images=images,
        )
        if warning:
            log.warning("%s", warning)

    def _log_position(self) -> None:
        waits = self._progress.step == self._first_step and self._images_tried == 0 and self._share() < 1.0
        waiting = "waiting for the first step" if waits else ""
        self._log_progress(self._doing() or waiting)

    def _log_progress(self, more: str) -> None:
        """Log the progress of the run in one line.

        On a terminal the bar shows it, and the line goes to the log file only.
        """
        parts = [f"step {self._progress.step}", f"{100 * self._share():.1f} %", self._left.words(), more]
        log.info("%s", " · ".join(filter(None, parts)), extra=None if self._bar.disable else FILE_ONLY)
        self._heart.reset()

    def _contact_sheet(self, batch: Batch) -> None:
        here = moved(batch, "cpu")
        spec = self._config.model.input_spec
        inputs = to_input(here.images, spec, here.mirror, here.augment)[:_SHEET]
        sheet = torchvision.utils.make_grid(to_pixels(inputs, spec), nrow=8, padding=2).permute(1, 2, 0).numpy()
        png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
        try:
            write_whole(self._folder / "crops.png", png.tobytes(), durable=False)
        except OSError as error:
            log.warning("crops.png could not be written to %s: %s · training continues", self._folder, error.strerror)
        self._monitor.image(self._progress.step, "train/crops_as_the_network_sees_them", sheet)


class QuietWatch(Watch):
    """The watch of all processes but the first: it reports nothing."""

    def __init__(self) -> None:
        pass

    def __enter__(self) -> QuietWatch:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, result: StepResult, batch: Batch) -> None:
        """Do nothing: the first process does it."""

    def take_back(self, steps: int) -> None:
        """Do nothing: the first process does it."""

    def evaluation(self, name: str, result: Result) -> None:
        """Do nothing: the first process does it."""

    def changed(self, names: Iterable[str]) -> None:
        """Do nothing: the first process does it."""


def _angles(output: HeadOutput) -> torch.Tensor:
    """Return the (B,) target angles in degrees."""
    return torch.rad2deg(torch.acos(output.cosines.float().clamp(-1, 1)))


def _mean(values: torch.Tensor) -> float:
    return float(values.float().mean())
