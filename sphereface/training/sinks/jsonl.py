"""``metrics.jsonl`` in the run folder: one JSON object per line."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

from ...files import write_whole
from .base import Session, Sink, register_sink

log = logging.getLogger(__name__)


@register_sink("jsonl")
class JsonLines(Sink):
    """Write scalars to ``metrics.jsonl``, such as ``{"step": 20, "train/loss": 7.1, …}``.

    Each line has ``images_seen`` too. A resume removes the lines after its step. While the disk is
    full, lines wait in memory, which is logged once.
    """

    def __init__(self) -> None:
        self._waiting = b""
        self._logged = False
        self._file: FileIO | None = None

    def start(self, session: Session) -> None:
        """Remove the lines after the session's step, and open the file."""
        self._path = session.folder / "metrics.jsonl"
        try:
            sets = session.config.get("eval", {}).get("sets", {}) if session.evaluates_again else {}
            _drop_lines_after(self._path, session.step, tuple(f"eval/{name}/" for name in sets))
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            self._log_once(error)

    def scalars(self, step: int, values: Mapping[str, float], images_seen: int) -> None:
        """Write a line."""
        self._waiting += json.dumps({"step": step, "images_seen": images_seen, **values}).encode() + b"\n"
        try:
            self._write_waiting()
        except OSError as error:
            self._log_once(error)

    def close(self, complete: bool) -> None:  # noqa: ARG002
        """Close the file."""
        if self._file:
            self._file.close()

    def _write_waiting(self) -> None:
        self._file = self._file or self._path.open("ab", buffering=0)
        end = self._file.tell()
        try:
            self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError:
            self._file.truncate(end)
            raise

    def _log_once(self, error: OSError) -> None:
        if not self._logged:
            log.error("%s could not be written: %s · training continues; the lines wait in memory", self._path, error)
        self._logged = True


def _drop_lines_after(path: Path, step: int, again: tuple[str, ...]) -> None:
    """Remove the lines after a step, and those of the step whose figures begin with ``again``."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            figures = json.loads(line)
            comes_again = figures["step"] == step and any(key.startswith(again) for key in figures)
            if figures["step"] <= step and not comes_again:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a line that a kill cut short, or that is not a line of figures
    write_whole(path, "".join(kept))
