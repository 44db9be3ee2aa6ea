"""``runs/<name>/<time>/``: where a run keeps all that it writes, and how an unfinished one is found again."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from ..checkpoint import (
    BadCheckpoint,
    link_checkpoint,
    load_checkpoint,
    save_checkpoint,
    write_text_atomically,
)
from ..config import Config
from ..errors import UserError

log = logging.getLogger(__name__)


class RunFolder:
    """One run's files: ``config.yaml``, ``run.json``, ``train.log``, ``metrics.jsonl``, events, checkpoints.

    Args:
        path: the folder; it must exist (see :meth:`create`, :meth:`of_resume`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path

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
            config: the resolved configuration; ``auto`` looks for the newest unfinished run of exactly this one.

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
            if checkpoint is None:
                raise UserError(f"--resume: {path} holds no checkpoint (last.pt) · start anew without --resume")
            return folder, checkpoint
        if not path.is_file():
            raise UserError(f"--resume: got {resume!r} · allowed: auto, a run folder, or a checkpoint file")
        return cls(path.parent), path

    @classmethod
    def newest(cls, config: Config, *, finished: bool) -> RunFolder | None:
        """The newest run of exactly this configuration that did, or did not, reach its end."""
        parent = Path(config.runs_dir) / config.name
        candidates = sorted(parent.iterdir(), reverse=True) if parent.is_dir() else []
        folders = (cls(path) for path in candidates)
        return next((folder for folder in folders if folder._status_if_of(config) == finished), None)

    def _status_if_of(self, config: Config) -> bool | None:
        """Whether the run here is finished; None where there is no run of this configuration."""
        try:
            about = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            saved = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return None
        return about.get("status") == "finished" if saved == config.to_dict() else None

    def result(self, config: Config) -> Path:
        """The checkpoint to use: ``best.pt``, or ``last.pt`` where no set was to choose a best."""
        return self.path / ("last.pt" if config.eval.select is None else "best.pt")

    def write_start(self, config: Config) -> None:
        """Write what is needed to repeat the run: resolved config, versions, revision, command."""
        text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
        write_text_atomically(self.path / "config.yaml", text)
        self._write_about({"status": "running", "command": sys.argv, **versions()})

    def write_end(self, result: Mapping[str, Any]) -> None:
        """Mark the run as finished, with its last figures."""
        about = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        self._write_about({**about, "status": "finished", **result})

    def save(self, state: Mapping[str, Any], *, step: int, keep: int, best: bool, summary: Mapping[str, Any]) -> Path:
        """Save ``step-<step>.pt``, point ``last.pt`` (and ``best.pt``) at it, and drop all but the ``keep`` newest."""
        path = self.path / f"step-{step:08d}.pt"
        save_checkpoint(path, state, {"step": step, **summary})
        link_checkpoint(path, "last")
        if best:
            link_checkpoint(path, "best")
        for old in self._step_checkpoints()[keep:]:
            old.unlink()
            old.with_suffix(".json").unlink(missing_ok=True)
        return path

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

    def _step_checkpoints(self) -> list[Path]:
        return sorted(self.path.glob("step-*.pt"), reverse=True)

    def _write_about(self, about: Mapping[str, Any]) -> None:
        write_text_atomically(self.path / "run.json", json.dumps(about, indent=2) + "\n")


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
