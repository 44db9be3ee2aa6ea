"""The loop of a run: train, report, save and evaluate, to the end or until a signal."""

from __future__ import annotations

import logging
import math
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.batch import Batch
from ..data.identities import Labels
from ..data.prefetch import moved
from ..errors import UserError, count_of
from .deferred import NotFinite
from .nonfinite import NonFiniteGuard
from .plan import doubtful
from .progress import Progress
from .run_folder import RunFolder
from .stopping import Interruption
from .watch import QuietWatch, StepResult, Watch

if TYPE_CHECKING:
    from .trainer import Trainer

log = logging.getLogger(__name__)


class Loop:
    """Train, and write what comes of it to a run folder.

    Args:
        trainer: what trains, after :meth:`.trainer.Trainer.begin`.
        run: the folder, which this process has claimed.
        resumed_from: the checkpoint in that folder that ``trainer`` was restored from.
    """

    watch: Watch

    def __init__(self, trainer: Trainer, run: RunFolder, resumed_from: Path | None = None) -> None:
        self.trainer, self.run = trainer, run
        self.config, self.progress = trainer.config, trainer.progress
        self.world, self.stop = trainer.world, trainer.stop
        self.guard = NonFiniteGuard(self.config, run.path, self.world)
        self.last_saved = resumed_from
        self.saved_at = -1 if resumed_from is None else self.progress.step

    def fit(self) -> Progress:
        """Train to the end of the schedule; see :meth:`.trainer.Trainer.fit`."""
        with self.stop:
            self._fit()
        self.run.write_status("finished", **asdict(self.progress))
        return self.progress

    def _fit(self) -> None:
        progress, again = self.progress, False
        if self.last_saved is not None:
            if not self.world.broadcast(self.run.branch_at(self.last_saved, progress.step, progress.best_step)):
                log.warning("%s", self.run.lost_best(progress.best, progress.best_step, self.last_saved))
                progress.best = progress.best_step = None
            again = self._evaluation_is_due(last=self.trainer.share() >= 1.0)  # a signal may have interrupted it
        self.run.write_start(self.config, self.trainer.versions)
        self.trainer.log_begin()
        for line in doubtful(self.config, self.trainer.total_steps):
            log.warning("%s", line)
        self.watch = self.new_watch(again)
        with self.watch:
            self.watch.changed(self.trainer.changed_sets)
            if again:
                self._evaluate(last=False)
            if self.trainer.share() < 1.0:
                while not self._train_on():
                    pass
            self._save_and_evaluate(last=True)
            if self.stop.agreed is not None:
                raise self.stop.stopped(f"at step {progress.step} · saved: {self.last_saved}")

    def new_watch(self, evaluates_again: bool) -> Watch:
        """Return the watch of this process; that of the first process reports."""
        if not self.world.first:
            return QuietWatch()
        trainer = self.trainer
        return Watch(
            self.config,
            self.run.path,
            self.progress,
            trainer.share,
            num_images=len(trainer.source),
            num_classes=trainer.num_classes,
            most_images=int(Labels.of(trainer.source.labels).counts.max()),
            total_steps=trainer.total_steps,
            doing=lambda: trainer.validator.doing,
            evaluates_again=evaluates_again,
        )

    def _train_on(self) -> bool:
        """Train to the end, or until a signal requests a stop.

        Returns:
            False if steps were taken back. Then a new feed must start at the first of them.
        """
        with closing(self.trainer.feed()) as feed:
            batch = next(feed)
            self.trainer.stopwatch.restart()  # starting the workers is not training
            while True:
                result = self._guarded_step(batch)
                batch = self._exchange(batch)
                if self.take_back():
                    return False
                if result is not None:
                    self.watch.step(result, batch)
                if self.trainer.share() >= 1.0:
                    return True
                if self._save_and_evaluate():
                    self.trainer.stopwatch.restart()
                if self.stop.agreed is not None:
                    return True
                batch = next(feed)

    def _guarded_step(self, batch: Batch) -> StepResult | None:
        """Train on a batch; return None if its step was skipped."""
        try:
            result = self.trainer.train_step(batch)
        except NotFinite as error:
            whole = Batch.joined(self.world.all_gather(moved(batch, "cpu")))
            kept = {**whole._asdict(), "augment": dict(whole.augment)}
            step = {"batch": kept, "position": self.trainer.position()}
            self.guard.handle(str(error), {**self.trainer.state(self.run.path.name), **step}, self.last_saved)
            self.progress.images_seen += self.config.train.batch_size
            return None
        self.guard.finite()
        self.trainer.one_by_one = False
        return result

    def _exchange(self, batch: Batch) -> Batch:
        """Exchange requests to stop and unusable images with the other processes, after each step.

        The messages use main memory, so that no process waits for a GPU.

        Returns:
            The batch with the bad images of all processes.
        """
        num_bad, *requests = self.world.all_reduce_sum(len(batch.bad), *self.stop.requests())
        self.stop.settle(requests)
        if not num_bad:
            return batch
        return batch._replace(bad=[bad for part in self.world.all_gather(batch.bad) for bad in part])

    def writes_now(self) -> bool:
        """Return whether the steps so far are reported or saved after this one, or the run ends."""
        config, step = self.config, self.progress.step
        every = [config.log.every_steps, config.log.histogram_every_steps]
        every += [config.checkpoint.every_steps, config.eval.every_steps]
        ends = self.trainer.share() >= 1.0 or self.stop.agreed is not None
        return ends or any(step % steps == 0 for steps in every)

    def take_back(self) -> bool:
        """Take back the last steps if one of them was not finite, and repeat it with waiting."""
        if not self.trainer.learner.check.late or not self.writes_now():
            return False
        lost = self.trainer.learner.lost_steps()
        self.trainer.count_time()  # with the wait for the device
        if lost == 0:
            return False
        again = count_of(lost, "step is", "steps are")
        log.info("step %d was not finite: %s repeated", self.progress.step - lost + 1, again)
        self.progress.step -= lost
        self.progress.images_seen -= lost * self.config.train.batch_size
        self.watch.take_back(lost - 1)  # it has not recorded the last one
        self.trainer.one_by_one = True
        return True

    def _save_and_evaluate(self, *, last: bool = False) -> bool:
        """Save and evaluate if due at this step; at the end, unless just done.

        Saving comes first, so that an evaluation that fails or is stopped costs nothing.

        Returns:
            Whether anything was done.
        """
        step, done = self.progress.step, False
        if step != self.saved_at and (last or step % self.config.checkpoint.every_steps == 0):
            self._save(last=last)
            done = True
        if self._evaluation_is_due(last):
            self._evaluate(last=last)
            done = True
        return done

    def _evaluation_is_due(self, last: bool) -> bool:
        step = self.progress.step
        return step != self.progress.evaluated_step and (last or step % self.config.eval.every_steps == 0)

    def _save(self, *, last: bool) -> None:
        """Save the state; a full disk ends a run only at its end."""
        run, step = self.run, self.progress.step
        summary = {"run": run.path.name, "config_name": self.config.name, **asdict(self.progress)}
        state = self.trainer.state(run.path.name)
        saved: Path | None = None
        reason = ""
        try:
            saved = run.save(state, step=step, keep=self.config.checkpoint.keep, summary=summary)
        except OSError as error:
            room = run.room(state)
            reason = f"step {step}: the checkpoint could not be written to {run.path}: {error} · {room}"
        saved, reason = self.world.broadcast((saved, reason))  # wait until it is written
        if saved is not None:
            self.last_saved, self.saved_at = saved, step
        elif last:
            again = (
                "start a new run: nothing was saved" if self.last_saved is None else f"resume with --resume {run.path}"
            )
            raise UserError(f"{reason} · make room, then {again}")
        else:
            kept = "nothing is saved yet" if self.last_saved is None else "the last checkpoint is kept"
            log.error("%s · training continues and tries again; %s", reason, kept)

    def _evaluate(self, *, last: bool) -> None:
        """Evaluate every set, and save best.pt if the selecting set has a new best figure.

        A signal to stop cancels the evaluation without any change; the resumed run repeats it.
        """
        progress, step = self.progress, self.progress.step
        try:
            with self.trainer.learner.evaluated() as model:
                outcomes = list(self.trainer.validator.evaluate(model))
            figures = {name: result.figure() for name, result in outcomes}
            for name, result in outcomes:
                self.watch.evaluation(name, result)
        except Interruption:
            return
        except Exception:  # of a set that changed, or of a plugin
            if self.world.size == 1 and self.saved_at != step:  # several processes might not all be here
                self._save(last=False)
            raise
        before = progress.best, progress.best_step
        progress.evaluated_step = step
        figure = figures.get(self.config.eval.select or "", math.nan)
        if figure > progress.best if progress.best is not None else not math.isnan(figure):
            progress.best, progress.best_step = figure, step
        if progress.best_step == step:
            self._save(last=last)
            if self.saved_at == step:
                self.run.mark_best(step)
            else:  # not written: the best on disk may still be a later one
                progress.best, progress.best_step = before
