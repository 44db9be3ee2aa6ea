"""The training loop: batch → embedding → margin loss → one optimiser step; saved and resumable."""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import BadCheckpoint, check_savable, load_with_sha256, origin_of
from ..config import Config
from ..data.batch import Batch
from ..data.prefetch import prefetched
from ..device import make_deterministic, use_machine
from ..weights import resolve
from .alike import check_data, check_files, check_settings, check_start
from .distributed import World
from .learner import Learner
from .loop import Loop
from .plan import Plan, Setting
from .progress import Progress, Stopwatch
from .resuming import changed_set, changed_sets, check_sections, check_state, other_choice, resume_warnings, same_choice
from .run_folder import RunFolder
from .sinks import check_sinks
from .starting import changed_start, start_from, start_head_from_teacher
from .stopping import StopRequest
from .teacher import open_teacher
from .training_set import TrainingSet
from .validation import Validator
from .versions import versions
from .watch import StepResult

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
        check_settings(self.world, config)
        check_sinks(config.log.sinks)
        torch.manual_seed(config.seed)
        make_deterministic(config.deterministic)
        use_machine(device, deterministic=config.deterministic, matmul=config.train.matmul)
        self.data = TrainingSet(config, self.world)
        check_data(self.world, self.data)
        self.source = self.data.source
        self.data.teacher = open_teacher(config, self.source, device, self.world, pretend=to_measure)
        self.num_classes = len(self.source.class_names)
        self.progress = Progress()
        self.learner = Learner(config, self.num_classes, device, self.world, self.data.teacher)
        self.stop = StopRequest(quiet=not self.world.first)
        self.validator = Validator(config, device, self.world, self.stop)
        teacher = None if self.data.teacher is None else self.data.teacher.sha256
        codes = self.learner.codes()
        check_files(self.world, teacher, codes, self.validator.digests)
        self.validator.warn_of_shared_people(self.source)
        self.validator.warn_of_templates(self.data.template)
        if self.data.teacher is not None:
            self.data.teacher.warn_of_template(self.data.template)
        self.stopwatch = Stopwatch()
        plugins = {key: code for key, code in codes.items() if code}
        self.versions = {**versions(), **plugins}  # of the code that trains, even if somebody commits later
        per_epoch = len(self.source) / config.train.batch_size
        self.total_steps = config.train.steps or math.ceil((config.train.epochs or 0) * per_epoch)
        self.plan = Plan(config, self.total_steps)
        self._announced = self.plan.at(0.0)
        self._begun = False
        self.changed_sets: list[str] = []  # names of sets that had other content in the resumed checkpoint
        self._earlier_digests: dict[str, str] = {}  # of sets that may be absent now and return later
        self._news: list[tuple[int, str]] = []  # lines of begin(), for the log of a later run folder
        self.one_by_one = False  # wait for each step, because one of the next is not finite
        model, head = self.learner.model.state_dict(), self.learner.head.state_dict()
        check_savable({"meta": self._meta(""), "model": model, "head": head}, "the run")

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
            NotFinite: loss, gradient or ‖x‖ is not finite; nothing was updated, and the step does
                not count. If the host learns this later, :class:`.loop.Loop` restores the counters.
        """
        setting = self.setting()
        if setting.stage != self._announced.stage:
            loss = "" if setting.margin == self._announced.margin else f", loss {setting.margin}"
            self._announced = setting
            height, width = setting.input_size or self.config.model.input_spec.size
            place = f"step {self.progress.step + 1}: stage {setting.stage + 1}"
            log.info("%s: crops of %d×%d%s", place, height, width, loss)
        result = self.learner.step(batch, setting, at_once=self.one_by_one)
        self.count_time()
        self.progress.step += 1
        self.progress.images_seen += self.config.train.batch_size
        return result

    def count_time(self) -> None:
        """Add the time since the last call to the progress."""
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
            path = resolve(self.config.train.init_from)
            line, warnings = start_from(self.learner, path, self.source.class_names, self.data.sample)
            check_start(self.world, "train.init_from", self.learner.origin["init_from"]["sha256"])
            self._news += [(logging.INFO, line), *((logging.WARNING, each) for each in warnings)]
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
        return Loop(self, run, resume_from).fit()

    def feed(self) -> Generator[Batch]:
        """Return this process's part of the endless batches, from the first unseen image on."""
        batches = self.data.batches(self.progress.images_seen, pin_memory=self.device.type == "cuda")
        return prefetched(batches, self.device)

    # ---------------------------------------------------------------- saving and resuming

    def state(self, run_name: str) -> dict[str, Any]:
        """Return all that a resume and an evaluation need: tensors and plain values only."""
        return {"meta": self._meta(run_name), **self.learner.state()}

    def _meta(self, run_name: str) -> dict[str, Any]:
        return {
            **asdict(self.progress),
            "run": run_name,
            "config": self.config.to_dict(),
            **self.data.about(),
            **self.learner.origin,
            "digests": {**self._earlier_digests, **self.validator.digests},
            "total_steps": self.total_steps,
            "versions": self.versions,
        }

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint: the next step is the next step of the saved run.

        The settings are those of this trainer's configuration. :meth:`fit` logs what differs from
        the saved ones.

        Raises:
            BadCheckpoint: it is damaged, of another network or optimiser, or of other training
                data.
        """
        # Each process reads its rows of a sharded head.
        state, sha256 = load_with_sha256(path, mapped=self.world.size > 1)
        check_start(self.world, str(path), sha256)
        check_sections(state, path)
        meta = state["meta"]
        try:
            self.data.check(meta, path)  # first, because other identities also change the head's shape
            check_state(self.learner, state, path)
            progress = {name: meta[name] for name in asdict(self.progress)}
        except KeyError as error:
            raise BadCheckpoint(f"{path}: has no {error} entry, so no training can resume from it") from error
        if not self.world.broadcast(same_choice(meta, self.config, self.validator)):
            progress |= dict.fromkeys(("best", "best_step", "evaluated_step"))
        self.learner.restore(state, path)
        origin = origin_of(meta)
        self.learner.origin = {} if origin is None else {"init_from": origin}
        if more := sorted({*meta.get("more_people", ()), *self.data.about().get("more_people", ())}):
            self.learner.origin["more_people"] = more
        self.data.resume(meta)
        for name, value in progress.items():
            setattr(self.progress, name, value)
        self._earlier_digests = meta.get("digests", {})
        self._news.append((logging.INFO, f"resumed from {path} at step {self.progress.step}"))
        lines = resume_warnings(self.learner, state, path, self.total_steps)
        self.changed_sets, told = changed_sets(meta, self.validator), None
        if meta["best"] is not None and progress["best"] is None:
            lines.append(other_choice(meta))
            told = self.config.eval.select
        lines += [changed_set(name, meta) for name in self.changed_sets if name != told]
        if self.world.first:
            lines += changed_start(meta, self.config.train, path)
        self._news += [(logging.WARNING, line) for line in lines]
