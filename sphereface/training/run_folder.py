"""``runs/<name>/<time>/``: the files of a run, and the search for an unfinished run."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from ..config import Config, differences
from ..errors import UserError, refusing, shown_key
from ..files import lock_file, write_whole
from ..small_files import mode_of, read_json
from ..yaml_text import dump_yaml
from .progress import Progress
from .run_checkpoints import RunCheckpoints, is_set_aside, set_aside_advice
from .same_run import saved_config, unknown_runs, what_trains, why_new
from .started import now_text, order_of, started_at, torchrun_job

log = logging.getLogger(__name__)

_WRITTEN_THROUGH = frozenset({".lock", "train.log", "metrics.jsonl", "crops.png"})  # writing follows a link
_OF_FILES = frozenset({".pt", ".json", ".yaml", ".jsonl", ".log", ".png", ".lock"})


class RunFolder(RunCheckpoints):
    """The files of one run: config, ``run.json``, logs, metrics, events and checkpoints.

    Args:
        path: the folder; it must exist (see :meth:`create`, :meth:`of_resume`).
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock: IO[str] | None = None
        self._new = False  # whether this process created it, and it is still empty
        self._started = False  # whether this process wrote config.yaml and run.json

    @classmethod
    def create(cls, config: Config) -> RunFolder:
        """Create a folder under ``runs_dir/name``, named by the local time."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        parent = Path(config.runs_dir) / config.name
        for attempt in range(100):
            path = parent / (f"{stamp}-{attempt}" if attempt else stamp)
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise UserError(f"runs_dir: cannot make {path}: {error.strerror}") from error
            run = cls(path)
            run._new = True
            return run
        raise UserError(f"runs_dir: {parent} has 100 runs that started in this second · start again")

    @classmethod
    def of_resume(cls, resume: str, config: Config) -> tuple[RunFolder, Path | None]:
        """Find a run as :meth:`find` does; create a folder if ``auto`` finds none."""
        return cls.find(resume, config) or (cls.create(config), None)

    @classmethod
    def find(cls, resume: str, config: Config) -> tuple[RunFolder, Path | None] | None:
        """Find the folder and the checkpoint of ``--resume``; nothing is written.

        Args:
            resume: ``auto``, a run folder, or a checkpoint file in one.
            config: the resolved configuration; ``auto`` finds its newest unfinished run.

        Returns:
            The folder to resume in, and the checkpoint to resume from (None: start from the
            beginning). None if ``auto`` finds no unfinished run.

        Raises:
            UserError: the path is not a run folder, or has no checkpoint.
        """
        if resume == "auto":
            if done := cls._finished_by(torchrun_job(), config):
                log.info("resume auto: this torchrun job finished %s before it was restarted", done.path)
                return done, done.newest_checkpoint()
            runs = cls.runs(config, finished=False)
            unfinished = _same(runs)
            if unfinished is None:
                log.info("resume auto: %s", why_new([(folder.path, lines) for folder, lines in runs]))
                return None
            checkpoint = unfinished.newest_checkpoint()
            where = checkpoint.name if checkpoint else "no checkpoint yet: from the beginning"
            log.info("resume auto: resuming in %s (%s)", unfinished.path, where)
            unfinished._warn_of_copies(config)
            return unfinished, checkpoint
        path = Path(resume)
        mode = mode_of(path)
        if stat.S_ISDIR(mode):
            folder = cls(path)
            checkpoint = folder.newest_checkpoint()
            if checkpoint is None:
                advice = "start a new run without --resume, or use --resume auto for one that saved nothing yet"
                raise UserError(f"--resume: {path}: got a folder without a checkpoint (step-*.pt) · {advice}")
            folder._check_about(checkpoint)
            return folder, checkpoint
        if not stat.S_ISREG(mode):
            raise UserError(f"--resume: got {resume!r} · allowed: auto, a run folder, or a checkpoint file")
        folder = cls(path.parent)
        if path.suffix.lower() in _OF_FILES - {".pt"}:
            advice = f"--resume {path.parent}" if folder.about() else f"a checkpoint, such as {path.with_suffix('.pt')}"
            what = f"{path}, {'a configuration' if path.suffix == '.yaml' else 'which is no checkpoint'}"
            raise UserError(f"--resume: got {what} · allowed: auto, a run folder, or a checkpoint file · give {advice}")
        folder._check_about(path)
        return folder, path

    def _check_about(self, checkpoint: Path) -> None:
        """Raise UserError if ``run.json`` is not beside a checkpoint: it marks a run folder."""
        if self.about() is None:
            if is_set_aside(checkpoint):
                raise UserError(f"--resume: {set_aside_advice(checkpoint)}")
            raise UserError(
                f"--resume: {self.path} is not a run folder: its run.json is missing or damaged · put it back, or "
                f"start a new run from the weights: train.init_from={checkpoint}, without --resume"
            )

    @classmethod
    def newest(cls, config: Config, *, finished: bool) -> RunFolder | None:
        """Return the newest run of this configuration that did, or did not, reach its end.

        Settings that do not change what is trained may differ
        (:func:`~sphereface.training.same_run.what_trains`).
        """
        return _same(cls.runs(config, finished=finished))

    @classmethod
    def _finished_by(cls, job: str | None, config: Config) -> RunFolder | None:
        """Return the run of this configuration that a torchrun job has finished, if it is whole."""
        runs = [] if job is None else cls.runs(config, finished=True, only=lambda about: about.get("torchrun") == job)
        return next((run for run, lines in runs if not lines and run.result(config).is_file()), None)

    def _warn_of_copies(self, config: Config) -> None:
        """Warn of other runs of this configuration with the same start: ``cp -r`` keeps it."""
        start = started_at(self.about() or {})
        if start == started_at({}):
            return
        runs = [
            pair
            for finished in (False, True)
            for pair in self.runs(config, finished=finished, only=lambda about: started_at(about) == start)
        ]
        if others := [str(run.path) for run, lines in runs if not lines and run.path != self.path]:
            log.warning(
                "resume auto: %s started at the same time as %s, so one may be a copy · of the unfinished ones, one "
                "with the most steps is resumed · to resume another one: stop, and give --resume FOLDER",
                ", ".join(others[:10]),
                self.path,
            )

    @classmethod
    def runs(
        cls, config: Config, *, finished: bool, only: Callable[[Mapping[str, Any]], bool] | None = None
    ) -> list[tuple[RunFolder, list[str]]]:
        """Return the runs of this name, the newest first, each with its other settings.

        With ``only``, those whose ``run.json`` it accepts. Without, the log names unreadable runs.
        """
        parent = Path(config.runs_dir) / config.name
        with refusing(f"runs_dir: {parent}: cannot be read"):
            folders = [cls(path) for path in parent.iterdir()] if parent.is_dir() else []
        for line in unknown_runs(folder.path for folder in folders if not (folder.about() or finished or only)):
            log.warning("resume auto: %s", line)
        abouts = [(about, folder) for folder in folders if (about := folder.about())]
        abouts.sort(key=lambda found: order_of(found[0], found[1].path), reverse=True)
        runs, wanted = [], what_trains(config)
        for about, folder in abouts:
            if (about.get("status") == "finished") != finished or not (only is None or only(about)):
                continue
            try:
                runs.append((folder, differences(what_trains(saved_config(folder.path)), wanted)))
            except UserError as error:
                log.warning("resume auto: %s skipped: %s", folder.path, " ".join(str(error).split())[:300])
        return runs

    def ended_with(self, progress: Progress) -> bool:
        """Return whether ``run.json`` says that the run finished with this progress."""
        expected = {"status": "finished", "step": progress.step, "best_step": progress.best_step}
        about = self.about() or {}
        return all(about.get(key) == value for key, value in expected.items())

    def about(self) -> dict[str, Any] | None:
        """Return the content of ``run.json``; None if this is not a run folder."""
        try:
            return read_json(self.path / "run.json")
        except (OSError, ValueError):
            return None

    def result(self, config: Config) -> Path:
        """Return the checkpoint to use: ``best.pt``, or ``last.pt`` if no set chose a best one."""
        chosen = config.eval.select is not None and not self._chose_none()
        return self.path / ("best.pt" if chosen else "last.pt")

    def _chose_none(self) -> bool:
        """Return whether the selecting set never had a defined figure, so that no one is best."""
        try:
            last = read_json(self.path / "last.json")
        except (OSError, ValueError):
            return False
        return last.get("best", 0.0) is None and not (self.path / "best.pt").is_file()

    def claim(self) -> None:
        """Claim the folder for this process until its end. A second call does nothing.

        Raises:
            UserError: another process trains in it, it cannot be written, or it holds something
                that is not a plain file.
        """
        if self._lock is not None:
            return
        self._check_plain()
        advice = "make it writable, or start a new run without --resume"
        with refusing(f"{self.path}: the run folder cannot be written", advice):
            self._lock = lock_file(self.path / ".lock")
        if self._lock is None:
            raise UserError(
                f"{self.path}: another process trains in this run folder · wait for its end, or start a new "
                "run without --resume"
            )

    def _check_plain(self) -> None:
        """Refuse a folder in which a write would follow a link or block, as a foreign one may."""
        with refusing(f"{self.path}: the run folder cannot be read"), os.scandir(self.path) as entries:
            found = [(entry.name, entry.is_symlink(), mode_of(Path(entry.path))) for entry in entries]
        for name, link, mode in found:
            folder = stat.S_ISDIR(mode) and Path(f"x{name}").suffix not in _OF_FILES
            if not (stat.S_ISREG(mode) or folder) or (link and name in _WRITTEN_THROUGH):
                raise UserError(f"{self.path / shown_key(name)}: not a regular file · a run cannot use it: remove it")

    def write_start(self, config: Config, about: Mapping[str, Any]) -> None:
        """Write what is needed to repeat the run: resolved config, versions, revision, command.

        Half-written files of a killed process are removed.

        Raises:
            UserError: the folder cannot be written.
        """
        started = (self.about() or {}).get("started") or now_text()
        try:
            for part in self.path.glob(".*.part"):
                part.unlink(missing_ok=True)
            write_whole(self.path / "config.yaml", dump_yaml(config.to_dict()))
            job = {} if (name := torchrun_job()) is None else {"torchrun": name}
            self._write_about({"status": "running", "started": started, "command": sys.argv, **job, **about})
        except OSError as error:
            if self._new:
                shutil.rmtree(self.path, ignore_errors=True)
            raise UserError(
                f"{self.path}: the run folder cannot be written ({error.strerror}) · make room, or set runs_dir to a "
                "folder on another disk"
            ) from error
        self._new, self._started = False, True

    def write_status(self, status: str, **figures: Any) -> None:
        """Write the status of the run and its figures to ``run.json``.

        The status is running, finished or stopped. A run that this process did not start does not
        change. A full disk is only logged.
        """
        if not self._started:
            return
        try:
            self._write_about({**(self.about() or {}), "status": status, **figures})
        except OSError as error:
            reason = error.strerror
            log.warning("%s could not be written (%s): its status is not %r", self.path / "run.json", reason, status)

    def _write_about(self, about: Mapping[str, Any]) -> None:
        write_whole(self.path / "run.json", json.dumps(about, indent=2) + "\n")


class QuietFolder(RunFolder):
    """The run folder in all processes but the first: it writes nothing."""

    def claim(self) -> None:
        """Do nothing: the first process does it."""

    def write_start(self, config: Config, about: Mapping[str, Any]) -> None:
        """Do nothing: the first process does it."""

    def write_status(self, status: str, **figures: Any) -> None:
        """Do nothing: the first process does it."""

    def save(self, state: object, *, step: int, keep: int, summary: object) -> Path:  # noqa: ARG002
        """Return the path to which the first process saves."""
        return self._step_path(step)

    def mark_best(self, step: int) -> None:
        """Do nothing: the first process does it."""

    def branch_at(self, checkpoint: Path, step: int, best_step: int | None) -> bool:  # noqa: ARG002
        """Do nothing: the first process does it, and only its result is used."""
        return True


def _same(runs: list[tuple[RunFolder, list[str]]]) -> RunFolder | None:
    """Return the first run without other settings."""
    return next((folder for folder, lines in runs if not lines), None)
