"""The training loop: batch → embedding → margin loss → one optimiser step, watched, saved and resumable."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import BadCheckpoint, load_checkpoint
from ..config import Config, differences
from ..data.loader import Batch, CropBatches, batches, check_sample
from ..data.sampler import Augmentation, BatchOrder, identity_weights
from ..data.sources import open_source
from ..data.transforms import to_input
from ..device import precision_on
from ..errors import UserError
from ..losses.head import HeadOutput, MarginHead
from ..models import build_model, load_weights
from ..schedules import cosine_rate, step_rate, warmup_factor
from .optimizer import SGD, parameter_groups
from .progress import Progress, Stopwatch
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
        self.source = open_source(
            data.train,
            root=data.root,
            merge=data.merge,
            exclude=data.exclude,
            exclude_file=data.exclude_file,
            min_images=data.min_images,
        )
        self.crops = CropBatches(self.source, config.model.input_size)
        self.augmentation = Augmentation(data.mirror, data.crop_shift, data.augment)
        check_sample(self.crops)
        self.num_classes = len(self.source.class_names)
        self.model = build_model(config.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = MarginHead(config.model.embedding_dim, self.num_classes, config.loss).to(device)
        self.optimizer = self.make_optimizer()
        self.dtype = precision_on(device, train.precision)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self.validator = Validator(config, device)
        self.progress = Progress()
        self.stopwatch = Stopwatch()
        self.versions = versions()  # of the code that trains, whatever is committed meanwhile
        self.last_saved: Path | None = None
        self.evaluated_at = self.saved_at = -1
        if train.compile:
            self.model.compile()
        per_epoch = len(self.source) / train.batch_size
        self.total_steps = train.steps or math.ceil((train.epochs or 0) * per_epoch)

    def make_optimizer(self) -> SGD:
        """The optimiser of the configuration, over network and head."""
        train = self.config.train
        return SGD(
            parameter_groups([self.model, self.head]),
            lr=train.lr,
            mu=train.mu,
            weight_decay=train.weight_decay,
            momentum="caffe" if train.momentum == "caffe" else "torch",
        )

    # ---------------------------------------------------------------- schedules

    def share(self) -> float:
        """How much of the run is done, in [0, 1]."""
        return self.progress.share(self.total_steps, self.config.train.max_minutes)

    def position(self) -> float:
        """Where the run stands on its schedules, in steps from 0 to ``total_steps``.

        With a clock (``train.max_minutes``) it is the larger share, of time or of steps, that counts.
        """
        return self.progress.step if self.config.train.max_minutes is None else self.total_steps * self.share()

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

    def inputs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch on the device: (B, 3, H, W) float32, mirrored, augmented and normalised, and (B,) labels."""

        def there(part: torch.Tensor) -> torch.Tensor:
            return part.to(self.device, non_blocking=self.device.type == "cuda")

        selected = {name: (there(rows), there(strengths)) for name, (rows, strengths) in batch.augment.items()}
        return to_input(there(batch.images), there(batch.mirror), selected), there(batch.labels)

    def forward(self, batch: Batch, lam: float) -> HeadOutput:
        """Loss of one batch, ready for the backward pass. Nothing is updated."""
        images, labels = self.inputs(batch)
        self.model.train()
        with self.autocast():
            embeddings = self.model(images)  # (B, D)
            output: HeadOutput = self.head(embeddings, labels, lam)
        return output

    def train_step(self, batch: Batch) -> StepResult:
        """One update of network and head: the only place where the optimiser moves.

        Raises:
            UserError: loss or gradient is not finite; nothing has been updated.
        """
        rate, lam = self.learning_rate(), self.margin_lambda()
        self.optimizer.set_lr(rate)
        self.optimizer.zero_grad(set_to_none=True)
        output = self.forward(batch, lam)
        self.scaler.scale(output.loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        norm = float(self._clip_gradients())
        self._stop_if_not_finite(float(output.loss.detach()), norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        seconds = self.stopwatch.lap()
        self.progress.step += 1
        self.progress.images_seen += len(batch.labels)
        self.progress.seconds += seconds
        detached = HeadOutput(*(part.detach() for part in output))  # or the log's window would keep the graphs
        return StepResult(detached, grad_norm=norm, lr=rate, lam=lam, seconds=seconds)

    def _clip_gradients(self) -> torch.Tensor:
        """Norm over all gradients; scaled down to ``train.clip_grad_norm`` where there is one."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.train.clip_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.train.clip_grad_norm, norm)
        return norm

    def autocast(self) -> AbstractContextManager[Any]:
        """Half precision for the convolutions and products; the head keeps norms, ψ and log-sum-exp in fp32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

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
        run.take_up()
        if resume_from is not None:
            self.restore(resume_from)
            run.set_abandoned_aside(self.progress.step)
            if self.progress.best_step == self.progress.step:  # the kill may have come before best.pt was made
                run.mark_best(self.progress.step)
        run.write_start(self.config, self.versions)
        watch = Watch(
            self.config, run.path, self.progress, self.share, num_images=len(self.source), num_classes=self.num_classes
        )
        with watch:
            if self.share() < 1.0:
                self._train(run, watch)
            self._save_and_evaluate(run, watch, last=True)
        run.write_status("finished", **asdict(self.progress))
        return self.progress

    def _train(self, run: RunFolder, watch: Watch) -> None:
        feed = self.feed()
        batch = next(feed)
        self.stopwatch.restart()  # starting the workers is not training
        while True:
            watch.step(self.train_step(batch), batch)
            if self.share() >= 1.0:
                return
            if self._save_and_evaluate(run, watch):
                self.stopwatch.restart()
            batch = next(feed)

    def feed(self) -> Iterator[Batch]:
        """The endless batches, from the first picture that was not trained on yet."""
        data = self.config.data
        order = BatchOrder(
            len(self.source),
            self.config.train.batch_size,
            seed=self.config.seed,
            augmentation=self.augmentation,
            start=self.progress.images_seen,
            weights=identity_weights(self.source.labels, data.balance),
        )
        return batches(self.crops, order, workers=data.workers, pin_memory=self.device.type == "cuda")

    def _save_and_evaluate(self, run: RunFolder, watch: Watch, *, last: bool = False) -> bool:
        """Do what is due at this step; at the end, whatever was not done at this very step already.

        Saving comes first, so that an evaluation that fails costs nothing.

        Returns:
            Whether anything was done.
        """
        step, done = self.progress.step, False
        if _due(step, self.config.checkpoint.every_steps, last, self.saved_at):
            self._save(run, last=last)
            done = True
        if _due(step, self.config.eval.every_steps, last, self.evaluated_at):
            self.evaluated_at, done = step, True
            best_before = self.progress.best, self.progress.best_step
            if self._evaluate(watch):
                self._save(run, last=last)
                if self.saved_at == step:
                    run.mark_best(step)
                else:  # not written: a later one may still be the best that there is on disk
                    self.progress.best, self.progress.best_step = best_before
        return done

    def _save(self, run: RunFolder, *, last: bool) -> None:
        """Save the state; a full disk does not end a run before its end."""
        summary = {"run": run.path.name, "config_name": self.config.name, **asdict(self.progress)}
        try:
            self.last_saved = run.save(
                self.state(run.path.name), step=self.progress.step, keep=self.config.checkpoint.keep, summary=summary
            )
            self.saved_at = self.progress.step
        except OSError as error:
            reason = f"step {self.progress.step}: the checkpoint could not be written to {run.path}: {error}"
            if last:
                raise UserError(f"{reason} · make room, then go on with --resume {run.path}") from error
            log.error("%s · training goes on and tries again; the one before stays", reason)

    def _evaluate(self, watch: Watch) -> bool:
        """Evaluate every set; True if the selecting one is better than ever before."""
        best = False
        for name, verification in self.validator.evaluate(self.model):
            watch.evaluation(name, verification)
            is_new_best = self.progress.best is None or verification.mean > self.progress.best
            if name == self.config.eval.select and is_new_best:
                self.progress.best, self.progress.best_step, best = verification.mean, self.progress.step, True
        return best

    # ---------------------------------------------------------------- saving and resuming

    def state(self, run_name: str) -> dict[str, Any]:
        """All that a run needs to go on, and all that an evaluation needs: tensors and plain values only.

        The optimiser's state is by parameter name, and holds no setting: those are the configuration's.
        """
        return {
            "meta": {
                **asdict(self.progress),
                "run": run_name,
                "config": self.config.to_dict(),
                "class_names": self.source.class_names,
                "num_images": len(self.source),
                "versions": self.versions,
            },
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "optimizer": {name: self.optimizer.state[p] for name, p in self._named_parameters()},
            "scaler": self.scaler.state_dict(),
            "rng": _rng_states(self.device),
        }

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint: the next step is the one that the saved run would have taken.

        Settings are those of this trainer's configuration; what differs from the saved one's is logged.

        Raises:
            BadCheckpoint: it is damaged, of another network, or of other training data.
        """
        state = load_checkpoint(path, device=self.device)
        try:
            meta, weights, head = state["meta"], state["model"], state["head"]
            optimizer, scaler, rng = state["optimizer"], state["scaler"], state["rng"]
        except KeyError as error:
            raise BadCheckpoint(f"{path}: has no {error} entry, so no training can go on from it") from error
        self._check_data(meta, path)
        load_weights(self.model, weights, path)
        load_weights(self.head, head, path)
        for name, parameter in self._named_parameters():
            self.optimizer.state[parameter] = optimizer[name]
        self.scaler.load_state_dict(scaler)
        _restore_rng(rng, self.device)
        for name in asdict(self.progress):
            setattr(self.progress, name, meta[name])
        self.evaluated_at = self.saved_at = self.progress.step
        self.last_saved = path
        log.info("resumed from %s at step %d", path, self.progress.step)
        for line in differences(meta["config"], self.config.to_dict()):
            log.warning("resumed with another setting: %s", line)

    def _named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        for prefix, module in (("model", self.model), ("head", self.head)):
            yield from ((f"{prefix}.{name}", p) for name, p in module.named_parameters() if p.requires_grad)

    def _check_data(self, meta: dict[str, Any], path: Path) -> None:
        if meta["class_names"] != self.source.class_names or meta["num_images"] != len(self.source):
            names = " (or other names)" if len(meta["class_names"]) == self.num_classes else ""
            raise BadCheckpoint(
                f"{path}: trained on {meta['num_images']} pictures of {len(meta['class_names'])} identities, "
                f"data.train now has {len(self.source)} of {self.num_classes}{names} · "
                "resume with the data that the run was started with"
            )


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
