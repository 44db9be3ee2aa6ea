"""The training loop: batch → embedding → margin loss → one optimiser step; saved and resumable."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import BadCheckpoint, load_checkpoint
from ..config import Config
from ..data.batch import Batch
from ..data.identities import Labels
from ..data.prefetch import moved, prefetched
from ..device import make_deterministic, use_machine
from ..errors import Stopped, UserError
from ..weights import resolve
from .deferred import NotFinite
from .distributed import World
from .learner import Learner
from .nonfinite import NonFiniteGuard
from .plan import Plan, Setting, doubtful
from .progress import Progress, Stopwatch
from .resuming import check_sections, check_state, resume_warnings, same_choice
from .run_folder import RunFolder
from .sinks import check_sinks
from .starting import start_from, start_head_from_teacher
from .stopping import Interruption, StopRequest
from .teacher import open_teacher
from .training_set import TrainingSet
from .validation import Validator
from .versions import versions
from .watch import QuietWatch, StepResult, Watch

log = logging.getLogger(__name__)


class Trainer:
    """Build all parts of a run from its configuration, and train.

    Args:
        config: the resolved configuration.
        device: where the network runs.
        world: the processes that train together; None for this process alone.
        to_measure: the run is only measured, so the teacher does not embed the training images.

    Raises:
        UserError: the data, the verification sets or the device do not fit the configuration.
    """

    def __init__(
        self, config: Config, device: torch.device, world: World | None = None, *, to_measure: bool = False
    ) -> None:
        self.config, self.device, self.world = config, device, world or World()
        check_sinks(config.log.sinks)
        torch.manual_seed(config.seed)
        make_deterministic(config.deterministic)
        use_machine(device, deterministic=config.deterministic, matmul=config.train.matmul)
        self.data = TrainingSet(config, self.world)
        self.source = self.data.source
        self.data.teacher = open_teacher(config, self.source, device, self.world, pretend=to_measure)
        self.num_classes = len(self.source.class_names)
        self.progress = Progress()
        self.learner = Learner(config, self.num_classes, device, self.world, self.data.teacher)
        self.stop = StopRequest(quiet=not self.world.first)
        self.validator = Validator(config, device, self.world, self.stop)
        self.validator.warn_of_shared_people(self.source)
        self.stopwatch = Stopwatch()
        self.versions = versions()  # of the code that trains, even if somebody commits later
        self.last_saved: Path | None = None
        self.saved_at = -1
        per_epoch = len(self.source) / config.train.batch_size
        self.total_steps = config.train.steps or math.ceil((config.train.epochs or 0) * per_epoch)
        self.plan = Plan(config, self.total_steps)
        self._stage = 0
        self._begun = False
        self._news: list[tuple[int, str]] = []  # lines of begin(), for the log of a later run folder
        self._one_by_one = False  # wait for each step, because one of the next is not finite

    # ---------------------------------------------------------------- schedules

    def share(self) -> float:
        """Return the finished share of the run, in [0, 1]."""
        return self.progress.share(self.total_steps, self.config.train.max_minutes)

    def position(self) -> float:
        """Return the position on the schedules, in steps from 0 to ``total_steps``.

        With ``train.max_minutes``, the larger share counts: that of time or of steps.
        """
        by_clock = self.total_steps * self.progress.clock_share(self.config.train.max_minutes)
        return min(max(self.progress.step, by_clock), self.total_steps)

    def setting(self) -> Setting:
        """Return learning rate, margin and λ of the next update."""
        return self.plan.at(self.position(), self.progress.step)

    def train_step(self, batch: Batch) -> StepResult:
        """Update network and head once, and count the step and its time.

        Raises:
            NotFinite: loss or gradient is not finite; nothing was updated, and the step does not
                count. If the host learns this later, :meth:`_take_back` restores the counters.
        """
        setting = self.setting()
        if setting.stage != self._stage:
            self._stage = setting.stage
            height, width = setting.input_size or self.config.model.input_spec.size
            place = f"step {self.progress.step + 1}: stage {setting.stage + 1}"
            log.info("%s: crops of %d×%d, loss %s", place, height, width, setting.margin)
        result = self.learner.step(batch, setting, at_once=self._one_by_one)
        self._count_time()
        self.progress.step += 1
        self.progress.images_seen += self.config.train.batch_size
        return result

    def _count_time(self) -> None:
        seconds = self.stopwatch.lap()
        if self.config.train.max_minutes is not None:  # all processes use one clock
            (seconds,) = self.world.all_reduce_sum(seconds if self.world.first else 0.0)
        self.progress.seconds += seconds

    # ---------------------------------------------------------------- the run

    def begin(self, resume_from: Path | None = None) -> None:
        """Load the checkpoint to resume from, or else the weights of ``train.init_from``.

        Nothing is written. A second call does nothing.

        Raises:
            UserError: the checkpoint is damaged, or does not fit the configuration or the data.
        """
        if self._begun:
            return
        self._begun = True
        if resume_from is not None:
            self.restore(resume_from)
            return
        if self.config.train.init_from is not None:
            line = start_from(self.learner, resolve(self.config.train.init_from), self.source.class_names)
            self._news.append((logging.INFO, line))
        if self.config.train.init_head == "teacher":
            start_head_from_teacher(self.learner, self.source.labels)
            self._news.append((logging.INFO, "the head starts at the teacher's mean of each identity"))

    def log_begin(self) -> None:
        """Log what :meth:`begin` found, such as settings that differ from the checkpoint's."""
        for level, line in self._news:
            log.log(level, "%s", line)

    def fit(self, run: RunFolder, resume_from: Path | None = None) -> Progress:
        """Train to the end of the schedule, and evaluate and save on the way.

        Args:
            run: the folder in which everything is written.
            resume_from: a checkpoint in that folder to resume from, of the same network and
                identities.

        Returns:
            The final progress.

        Raises:
            UserError: another process trains in the folder, the checkpoint does not fit (then
                nothing was written), or the run cannot continue.
        """
        run.claim()
        self.begin(resume_from)
        again = False
        if resume_from is not None:
            progress = self.progress
            if not self.world.broadcast(run.branch_at(resume_from, progress.step, progress.best_step)):
                progress.best = progress.best_step = None
            again = self._evaluation_is_due(last=self.share() >= 1.0)  # a signal may have interrupted it
        run.write_start(self.config, self.versions)
        self.log_begin()
        for line in doubtful(self.config, self.total_steps):
            log.warning("%s", line)
        with self.stop, self._watch(run, again) as watch:
            if again:
                self._evaluate(run, watch, last=False)
            if self.share() < 1.0:
                self._train(run, watch)
            self._save_and_evaluate(run, watch, last=True)
            if self.stop.agreed is not None:
                raise self._stopped()
        run.write_status("finished", **asdict(self.progress))
        return self.progress

    def _watch(self, run: RunFolder, evaluates_again: bool) -> Watch:
        if not self.world.first:
            return QuietWatch()
        return Watch(
            self.config,
            run.path,
            self.progress,
            self.share,
            num_images=len(self.source),
            num_classes=self.num_classes,
            most_images=int(Labels.of(self.source.labels).counts.max()),
            total_steps=self.total_steps,
            doing=lambda: self.validator.doing,
            evaluates_again=evaluates_again,
        )

    def _train(self, run: RunFolder, watch: Watch) -> None:
        guard = NonFiniteGuard(self.config, run.path, self.world)
        while not self._train_on(guard, run, watch):
            pass

    def _train_on(self, guard: NonFiniteGuard, run: RunFolder, watch: Watch) -> bool:
        """Train to the end, or until a signal requests a stop.

        Returns:
            False if steps were taken back. Then a new feed must start at the first of them.
        """
        with closing(self.feed()) as feed:
            batch = next(feed)
            self.stopwatch.restart()  # starting the workers is not training
            while True:
                result = self._guarded_step(batch, guard, run)
                batch = self._exchange(batch)
                if self._take_back(watch):
                    return False
                if result is not None:
                    watch.step(result, batch)
                if self.share() >= 1.0:
                    return True
                if self._save_and_evaluate(run, watch):
                    self.stopwatch.restart()
                if self.stop.agreed is not None:
                    return True
                batch = next(feed)

    def _guarded_step(self, batch: Batch, guard: NonFiniteGuard, run: RunFolder) -> StepResult | None:
        """Train on a batch; return None if its step was skipped."""
        try:
            result = self.train_step(batch)
        except NotFinite as error:
            whole = Batch.joined(self.world.all_gather(moved(batch, "cpu")))
            kept = {**whole._asdict(), "augment": dict(whole.augment)}
            step = {"batch": kept, "position": self.position()}
            guard.handle(str(error), {**self.state(run.path.name), **step}, self.last_saved)
            self.progress.images_seen += self.config.train.batch_size
            return None
        guard.finite()
        self._one_by_one = False
        return result

    def _writes_now(self) -> bool:
        """Return whether the steps so far are reported or saved after this one, or the run ends."""
        config, step = self.config, self.progress.step
        every = [config.log.every_steps, config.log.histogram_every_steps]
        every += [config.checkpoint.every_steps, config.eval.every_steps]
        ends = self.share() >= 1.0 or self.stop.agreed is not None
        return ends or any(step % steps == 0 for steps in every)

    def _take_back(self, watch: Watch) -> bool:
        """Take back the last steps if one of them was not finite, and repeat it with waiting."""
        if not self.learner.check.late or not self._writes_now():
            return False
        lost = self.learner.lost_steps()
        self._count_time()  # with the wait for the device
        if lost == 0:
            return False
        log.info("step %d was not finite: %d steps are repeated", self.progress.step - lost + 1, lost)
        self.progress.step -= lost
        self.progress.images_seen -= lost * self.config.train.batch_size
        watch.take_back(lost - 1)  # it has not recorded the last one
        self._one_by_one = True
        return True

    def _exchange(self, batch: Batch) -> Batch:
        """Exchange requests to stop and unusable images with the other processes, after each step.

        The messages use main memory, so that no process waits for a GPU.

        Returns:
            The batch with the bad images of all processes.
        """
        num_bad, *requests = self.world.all_reduce_sum(len(batch.bad), *self.stop.requests())
        self.stop.settle(requests)
        return (
            batch._replace(bad=[bad for part in self.world.all_gather(batch.bad) for bad in part]) if num_bad else batch
        )

    def feed(self) -> Generator[Batch]:
        """Return this process's part of the endless batches, from the first unseen image on."""
        batches = self.data.batches(self.progress.images_seen, pin_memory=self.device.type == "cuda")
        return prefetched(batches, self.device)

    def _save_and_evaluate(self, run: RunFolder, watch: Watch, *, last: bool = False) -> bool:
        """Save and evaluate if due at this step; at the end, unless just done.

        Saving comes first, so that an evaluation that fails or is stopped costs nothing.

        Returns:
            Whether anything was done.
        """
        step, done = self.progress.step, False
        if step != self.saved_at and (last or step % self.config.checkpoint.every_steps == 0):
            self._save(run, last=last)
            done = True
        if self._evaluation_is_due(last):
            self._evaluate(run, watch, last=last)
            done = True
        return done

    def _evaluation_is_due(self, last: bool) -> bool:
        step = self.progress.step
        return step != self.progress.evaluated_step and (last or step % self.config.eval.every_steps == 0)

    def _save(self, run: RunFolder, *, last: bool) -> None:
        """Save the state; a full disk ends a run only at its end."""
        summary = {"run": run.path.name, "config_name": self.config.name, **asdict(self.progress)}
        state = self.state(run.path.name)
        saved: Path | None = None
        reason = ""
        try:
            saved = run.save(state, step=self.progress.step, keep=self.config.checkpoint.keep, summary=summary)
        except OSError as error:
            room = run.room(state)
            reason = f"step {self.progress.step}: the checkpoint could not be written to {run.path}: {error} · {room}"
        saved, reason = self.world.broadcast((saved, reason))  # wait until it is written
        if saved is not None:
            self.last_saved, self.saved_at = saved, self.progress.step
        elif last:
            raise UserError(f"{reason} · make room, then resume with --resume {run.path}")
        else:
            log.error("%s · training continues and tries again; the last checkpoint is kept", reason)

    def _evaluate(self, run: RunFolder, watch: Watch, *, last: bool) -> None:
        """Evaluate every set, and save best.pt if the selecting set has a new best figure.

        A signal to stop cancels the evaluation without any change; the resumed run repeats it.
        """
        try:
            with self.learner.evaluated() as model:
                outcomes = list(self.validator.evaluate(model))
        except Interruption:
            return
        progress, step = self.progress, self.progress.step
        before = progress.best, progress.best_step
        progress.evaluated_step = step
        for name, result in outcomes:
            watch.evaluation(name, result)
            _, figure = result.headline()
            if name == self.config.eval.select and (
                figure > progress.best if progress.best is not None else not math.isnan(figure)
            ):
                progress.best, progress.best_step = figure, step
        if progress.best_step == step:
            self._save(run, last=last)
            if self.saved_at == step:
                run.mark_best(step)
            else:  # not written: the best on disk may still be a later one
                progress.best, progress.best_step = before

    def _stopped(self) -> Stopped:
        assert self.stop.agreed is not None
        return Stopped(
            f"stopped by {self.stop.agreed.name} at step {self.progress.step} · saved: {self.last_saved} · "
            "to resume: the same command with --resume auto",
            self.stop.exit_code,
        )

    # ---------------------------------------------------------------- saving and resuming

    def state(self, run_name: str) -> dict[str, Any]:
        """Return all that a resume and an evaluation need: tensors and plain values only."""
        meta = {
            **asdict(self.progress),
            "run": run_name,
            "config": self.config.to_dict(),
            **self.data.about(),
            "total_steps": self.total_steps,
            "versions": self.versions,
        }
        return {"meta": meta, **self.learner.state()}

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint: the next step is the next step of the saved run.

        The settings are those of this trainer's configuration. :meth:`fit` logs what differs from
        the saved ones.

        Raises:
            BadCheckpoint: it is damaged, of another network or optimiser, or of other training
                data.
        """
        state = load_checkpoint(path, mapped=self.world.size > 1)  # each process reads its rows of a sharded head
        check_sections(state, path)
        meta = state["meta"]
        try:
            self.data.check(meta, path)  # first, because other identities also change the head's shape
            check_state(self.learner, state, path)
            progress = {name: meta[name] for name in asdict(self.progress)}
        except KeyError as error:
            raise BadCheckpoint(f"{path}: has no {error} entry, so no training can resume from it") from error
        if not same_choice(meta, self.config):
            progress |= dict.fromkeys(("best", "best_step", "evaluated_step"))
        self.learner.restore(state, path)
        self.data.resume(meta)
        for name, value in progress.items():
            setattr(self.progress, name, value)
        self.saved_at = self.progress.step
        self.last_saved = path
        self._news.append((logging.INFO, f"resumed from {path} at step {self.progress.step}"))
        self._news += [(logging.WARNING, line) for line in resume_warnings(self.learner, state, path, self.total_steps)]
