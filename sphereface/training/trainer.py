"""The training loop: batch → embedding → margin loss → one optimiser step, watched, saved and resumable."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import BadCheckpoint, load_checkpoint
from ..config import Config
from ..data.loader import Batch, CropBatches, batches, check_sample
from ..data.sampler import Augmentation, BatchOrder
from ..data.sources import FolderSource
from ..data.transforms import to_input
from ..device import precision_on
from ..errors import UserError
from ..losses.head import HeadOutput, MarginHead
from ..models import build_model, load_weights
from ..schedules import cosine_rate, step_rate, warmup_factor
from .optimizer import SGD, parameter_groups
from .progress import Progress
from .run_folder import RunFolder, versions
from .validation import Validator
from .watch import StepResult, Watch

log = logging.getLogger(__name__)


class Trainer:
    """Builds all parts of a run from its configuration and trains.

    Args:
        config: the resolved configuration.
        device: where the network runs.

    Raises:
        UserError: the data, the verification sets or the device do not fit the configuration.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        torch.manual_seed(config.seed)
        data, train = config.data, config.train
        self.source = FolderSource(data.train, exclude=data.exclude, min_images=data.min_images)
        self.crops = CropBatches(self.source, config.model.input_size)
        check_sample(self.crops)
        self.num_classes = len(self.source.class_names)
        self.model = build_model(config.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = MarginHead(config.model.embedding_dim, self.num_classes, config.loss).to(device)
        self.optimizer = SGD(
            parameter_groups([self.model, self.head]),
            lr=train.lr,
            mu=train.mu,
            weight_decay=train.weight_decay,
            momentum="caffe" if train.momentum == "caffe" else "torch",
        )
        self.dtype = precision_on(device, train.precision)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self.validator = Validator(config, device)
        self.progress = Progress()
        self.last_saved: Path | None = None
        self.evaluated_at = self.saved_at = -1
        if train.compile:
            self.model.compile()
        per_epoch = len(self.source) / train.batch_size
        self.total_steps = train.steps or math.ceil((train.epochs or 0) * per_epoch)

    # ---------------------------------------------------------------- schedules

    def position(self) -> float:
        """Where the run stands on its schedules, in steps from 0 to ``total_steps``.

        By the clock (``train.max_minutes``) the share of time that has passed stands for the share of steps.
        """
        if self.config.train.max_minutes is None:
            return self.progress.step
        return self.total_steps * self.progress.share

    def learning_rate(self) -> float:
        """Rate of the next update."""
        train, position = self.config.train, self.position()
        if train.schedule == "cosine":
            rate = cosine_rate(position, lr=train.lr, steps=self.total_steps)
        else:
            rate = step_rate(position, lr=train.lr, milestones=train.milestones, decay=train.lr_decay)
        return rate * warmup_factor(position, train.warmup_steps)

    def margin_lambda(self) -> float:
        """λ of the next update: finished updates + 1 is the recipe's t."""
        return float(self.head.margin.lam(self.position() + 1))

    # ---------------------------------------------------------------- one step

    def forward(self, batch: Batch) -> HeadOutput:
        """Loss of one batch, with gradients attached. Nothing is updated."""
        pinned = self.device.type == "cuda"
        images = to_input(
            batch.images.to(self.device, non_blocking=pinned),
            batch.mirror.to(self.device, non_blocking=pinned),
        )  # (B, 3, H, W)
        labels = batch.labels.to(self.device, non_blocking=pinned)
        self.model.train()
        with self.autocast():
            embeddings = self.model(images)  # (B, D)
            output: HeadOutput = self.head(embeddings, labels, self.margin_lambda())
        return output

    def autocast(self) -> AbstractContextManager[Any]:
        """Half precision for the convolutions and products; the head keeps norms, ψ and log-sum-exp in fp32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def train_step(self, batch: Batch) -> StepResult:
        """One update of network and head: the only place where the optimiser moves.

        Raises:
            UserError: loss or gradient is not finite; nothing has been updated.
        """
        started = time.perf_counter()
        rate, lam = self.learning_rate(), self.margin_lambda()
        self.optimizer.set_lr(rate)
        self.optimizer.zero_grad(set_to_none=True)
        output = self.forward(batch)
        self.scaler.scale(output.loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        limit = self.config.train.clip_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        self._stop_if_not_finite(float(output.loss.detach()), norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        seconds = time.perf_counter() - started
        self.progress.advance(
            len(batch.labels),
            seconds,
            total_steps=self.total_steps,
            max_minutes=self.config.train.max_minutes,
        )
        return StepResult(output, grad_norm=norm, lr=rate, lam=lam, seconds=seconds)

    def _stop_if_not_finite(self, loss: float, norm: float) -> None:
        # a half-precision scaler meets infinite gradients now and then: it skips that step and lowers its scale
        if math.isfinite(loss) and (math.isfinite(norm) or self.scaler.is_enabled()):
            return
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        saved = f"last checkpoint: {self.last_saved}" if self.last_saved else "no checkpoint was saved yet"
        raise UserError(
            f"step {self.progress.step + 1}: {what}; the weights were not updated · {saved} · "
            "try a lower train.lr, train.warmup_steps, train.clip_grad_norm, a larger loss.lambda_min, "
            "or train.precision fp32"
        )

    # ---------------------------------------------------------------- the run

    def fit(self, run: RunFolder, resume_from: Path | None = None) -> Progress:
        """Train to the end of the schedule, evaluating and saving on the way.

        Args:
            run: where everything is written.
            resume_from: a checkpoint of the same network and identities to go on from.

        Returns:
            The final progress.
        """
        if resume_from is not None:
            self.restore(resume_from)
        run.write_start(self.config)
        watch = Watch(
            self.config,
            run.path,
            self.progress,
            num_images=len(self.source),
            num_classes=self.num_classes,
            resumed=resume_from is not None,
        )
        with watch:
            feed = self.feed()
            while self.progress.share < 1.0:
                batch = next(feed)
                watch.step(self.train_step(batch), batch)
                self._evaluate_and_save(run, watch)
            self._evaluate_and_save(run, watch, last=True)
        run.write_end(asdict(self.progress))
        return self.progress

    def feed(self) -> Iterator[Batch]:
        """The endless batches, from the first that was not trained on yet."""
        data = self.config.data
        order = BatchOrder(
            len(self.source),
            self.config.train.batch_size,
            seed=self.config.seed,
            augmentation=Augmentation(data.mirror, data.crop_shift),
            first_batch=self.progress.step,
        )
        return batches(self.crops, order, workers=data.workers, pin_memory=self.device.type == "cuda")

    def _evaluate_and_save(self, run: RunFolder, watch: Watch, *, last: bool = False) -> None:
        """Do what is due at this step; at the end, whatever was not done at this very step already."""
        step, best = self.progress.step, False
        if _due(step, self.config.eval.every_steps, last, self.evaluated_at):
            self.evaluated_at = step
            best = self._evaluate(watch)
        if best or _due(step, self.config.checkpoint.every_steps, last, self.saved_at):
            self.saved_at = step
            summary = {"run": run.path.name, "config": self.config.name, **asdict(self.progress)}
            keep = self.config.checkpoint.keep
            self.last_saved = run.save(self.state(), step=step, keep=keep, best=best, summary=summary)

    def _evaluate(self, watch: Watch) -> bool:
        """Evaluate every set; True if the selecting one is better than ever before."""
        best = False
        for name, verification in self.validator.evaluate(self.model):
            watch.evaluation(name, verification)
            if name == self.config.eval.select and verification.mean > (self.progress.best or 0.0):
                self.progress.best, best = verification.mean, True
        return best

    # ---------------------------------------------------------------- saving and resuming

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on, and all that an evaluation needs: tensors and plain values only."""
        return {
            "meta": {
                **asdict(self.progress),
                "run": self.config.name,
                "config": self.config.to_dict(),
                "class_names": self.source.class_names,
                "num_images": len(self.source),
                "versions": versions(),
            },
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": _rng_states(self.device),
        }

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint: the next step is the one that the saved run would have taken.

        Raises:
            BadCheckpoint: it is damaged, of another network, or of other training data.
        """
        state = load_checkpoint(path, device=self.device)
        meta = state["meta"]
        if meta["class_names"] != self.source.class_names or meta["num_images"] != len(self.source):
            raise BadCheckpoint(
                f"{path}: trained on {meta['num_images']} pictures of {len(meta['class_names'])} identities, "
                f"data.train now has {len(self.source)} of {self.num_classes}"
                f"{'' if len(meta['class_names']) != self.num_classes else ' (or other names)'} · "
                "resume with the data that the run was started with"
            )
        load_weights(self.model, state["model"], path)
        load_weights(self.head, state["head"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        _restore_rng(state["rng"], self.device)
        for name in asdict(self.progress):
            setattr(self.progress, name, meta[name])
        self.evaluated_at = self.saved_at = self.progress.step
        self.last_saved = path
        log.info("resumed from %s at step %d", path, self.progress.step)


def _due(step: int, every: int, last: bool, done_at: int) -> bool:
    return step != done_at and (last or step % every == 0)


def _rng_states(device: torch.device) -> dict[str, Any]:
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_rng(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
