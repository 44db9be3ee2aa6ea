"""``runs/<name>/<time>/``: where a run keeps all that it writes, and how an unfinished one is found again."""

from __future__ import annotations

import json
import logging
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import torch
import yaml

from ..checkpoint import (
    BadCheckpoint,
    link_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from ..config import Config, config_from_dict
from ..errors import UserError
from ..files import lock_file, write_whole
from ..losses.margins import MARGINS
from ..models import BACKBONES

log = logging.getLogger(__name__)


class RunFolder:
    """One run's files: ``config.yaml``, ``run.json``, ``train.log``, ``metrics.jsonl``, events, checkpoints.

    Args:
        path: the folder; it must exist (see :meth:`create`, :meth:`of_resume`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @classmethod
    def create(cls, config: Config) -> RunFolder:
        """A new folder under ``runs_dir/name``, named by the local time."""
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
            return cls(path)
        raise UserError(f"runs_dir: {parent} has a hundred runs of this second")

    @classmethod
    def of_resume(cls, resume: str, config: Config) -> tuple[RunFolder, Path | None]:
        """The folder and checkpoint that ``--resume`` means.

        Args:
            resume: ``auto``, a run folder, or a checkpoint file in one.
            config: the resolved configuration; ``auto`` looks for the newest unfinished run of this one.

        Returns:
            The folder to go on in, and the checkpoint to go on from (None: start from the beginning).
        """
        if resume == "auto":
            unfinished = cls.newest(config, finished=False)
            if unfinished is None:
                log.info("resume auto: no unfinished run of this config, starting a new one")
                return cls.create(config), None
            checkpoint = unfinished.newest_checkpoint()
            where = checkpoint.name if checkpoint else "no checkpoint yet: from the beginning"
            log.info("resume auto: going on in %s (%s)", unfinished.path, where)
            return unfinished, checkpoint
        path = Path(resume)
        if path.is_dir():
            folder = cls(path)
            checkpoint = folder.newest_checkpoint()
            if checkpoint is None or folder.about() is None:
                raise UserError(
                    f"--resume: {path} is no run folder with a checkpoint (run.json, step-*.pt) · "
                    "start anew without --resume"
                )
            return folder, checkpoint
        if not path.is_file():
            raise UserError(f"--resume: got {resume!r} · allowed: auto, a run folder, or a checkpoint file")
        folder = cls(path.parent)
        if folder.about() is None:
            raise UserError(f"--resume: {path} lies in no run folder (no run.json beside it) · allowed: one that does")
        return folder, path

    @classmethod
    def newest(cls, config: Config, *, finished: bool) -> RunFolder | None:
        """The newest run of this configuration that did, or did not, reach its end.

        Settings of log, checkpoints, workers and memory may differ: they do not change what is trained.
        """
        parent = Path(config.runs_dir) / config.name
        folders = [cls(path) for path in parent.iterdir()] if parent.is_dir() else []
        matching = [
            (about.get("started", ""), folder.path.name, folder)
            for folder in folders
            if (about := folder.about())
            and (about.get("status") == "finished") == finished
            and folder._trains_as(config)
        ]
        return max(matching, key=lambda found: found[:2])[2] if matching else None

    def about(self) -> dict[str, Any] | None:
        """What ``run.json`` says; None where this is no run folder."""
        try:
            about = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return about if isinstance(about, dict) else None

    def _trains_as(self, config: Config) -> bool:
        """Whether this run's configuration, keys that it did not know yet at their defaults, trains as that one."""
        try:
            values = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                return False
            known = config_from_dict(values, source=str(self.path), losses=MARGINS, backbones=BACKBONES)
        except (OSError, ValueError, yaml.YAMLError, UserError):
            return False
        return _what_trains(known) == _what_trains(config)

    def result(self, config: Config) -> Path:
        """The checkpoint to use: ``best.pt``, or ``last.pt`` where no set chose a best one."""
        chosen = config.eval.select is not None and not self._chose_none()
        return self.path / ("best.pt" if chosen else "last.pt")

    def _chose_none(self) -> bool:
        """Whether the figure of the selecting set was never defined, so that no checkpoint is the best."""
        try:
            last = json.loads((self.path / "last.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(last, dict) and last.get("best", 0.0) is None and not (self.path / "best.pt").is_file()

    def take_up(self) -> None:
        """Claim the folder for this process until its end, and remove what a kill left half-written.

        Raises:
            UserError: another process trains in it.
        """
        self._lock = lock_file(self.path / ".lock")
        if self._lock is None:
            raise UserError(
                f"{self.path}: another process trains in this run folder · wait for its end, or start a run of your "
                "own without --resume"
            )
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)

    def write_start(self, config: Config, about: Mapping[str, Any]) -> None:
        """Write what is needed to repeat the run: resolved config, versions, revision, command."""
        write_whole(self.path / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True))
        started = (self.about() or {}).get("started") or time.strftime("%Y-%m-%dT%H:%M:%S%z")
        self._write_about({"status": "running", "started": started, "command": sys.argv, **about})

    def write_status(self, status: str, **figures: Any) -> None:
        """Say in ``run.json`` how the run stands: running, finished or stopped, with its last figures."""
        self._write_about({**(self.about() or {}), "status": status, **figures})

    def save(self, state: Mapping[str, Any], *, step: int, keep: int, summary: Mapping[str, Any]) -> Path:
        """Save ``step-<step>.pt``, point ``last.pt`` at it, and drop all but the ``keep`` newest."""
        path = self._step_path(step)
        save_checkpoint(path, state, {"step": step, **summary})
        link_checkpoint(path, "last")
        for old in self._step_checkpoints()[keep:]:
            old.unlink()
            old.with_suffix(".json").unlink(missing_ok=True)
        return path

    def room(self, state: Mapping[str, Any]) -> str:
        """What a checkpoint takes, and what its disk has left, in words."""
        needed, free = _bytes_of(state) / 2**20, shutil.disk_usage(self.path).free / 2**20
        missing = f", {needed - free:.1f} MiB are missing" if needed > free else ""
        return f"a checkpoint takes {needed:.1f} MiB, {free:.1f} MiB are free{missing}"

    def mark_best(self, step: int) -> None:
        """Point ``best.pt`` at the checkpoint of this step."""
        link_checkpoint(self._step_path(step), "best")

    def set_abandoned_aside(self, step: int) -> None:
        """Move checkpoints of later steps, which a run resumed at ``step`` leaves behind, into ``abandoned/``."""
        later = [path for path in self._step_checkpoints() if path > self._step_path(step)]
        for path in later:
            aside = self.path / "abandoned"
            aside.mkdir(exist_ok=True)
            for file in (path, path.with_suffix(".json")):
                if file.exists():
                    file.replace(aside / file.name)
            log.warning("%s is of a later step than %d, where this run goes on: moved to %s", path.name, step, aside)

    def newest_checkpoint(self) -> Path | None:
        """The newest checkpoint that reads back whole; a damaged one is named and stepped over."""
        for path in self._step_checkpoints():
            try:
                load_checkpoint(path)
            except BadCheckpoint as error:
                log.warning("%s · trying the one before", error)
                continue
            return path
        last = self.path / "last.pt"
        return last if last.is_file() else None

    def _step_path(self, step: int) -> Path:
        return self.path / f"step-{step:08d}.pt"

    def _step_checkpoints(self) -> list[Path]:
        return sorted(self.path.glob("step-*.pt"), reverse=True)

    def _write_about(self, about: Mapping[str, Any]) -> None:
        write_whole(self.path / "run.json", json.dumps(about, indent=2) + "\n")


class QuietFolder(RunFolder):
    """A run's folder as all its processes but the first have it: they write nothing."""

    def take_up(self) -> None:
        """The first process does."""

    def write_start(self, config: Config, about: Mapping[str, Any]) -> None:
        """The first process does."""

    def write_status(self, status: str, **figures: Any) -> None:
        """The first process does."""

    def save(self, state: object, *, step: int, keep: int, summary: object) -> Path:  # noqa: ARG002
        """The first process does; returns where."""
        return self._step_path(step)

    def mark_best(self, step: int) -> None:
        """The first process does."""

    def set_abandoned_aside(self, step: int) -> None:
        """The first process does."""


def _what_trains(config: Config) -> dict[str, Any]:
    """A plain configuration without the settings that leave weights and figures as they are."""
    plain = config.to_dict()
    for section in ("log", "checkpoint"):
        del plain[section]
    for name in ("workers", "keep_mb"):
        del plain["data"][name]
    return plain


def _bytes_of(value: object) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(_bytes_of(part) for part in value.values())
    return sum(_bytes_of(part) for part in value) if isinstance(value, (list, tuple)) else 0


def versions() -> dict[str, str]:
    """Package versions, Python, platform and the git revision of this code ('+' where it was changed since)."""
    names = ("sphereface", "torchvision", "numpy", "opencv-python")
    found = {"torch": str(torch.__version__)}  # with the build, such as +cu130
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return {
        **found,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "revision": _git_revision(),
    }


def _git_revision() -> str:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "unknown"
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "unknown"
