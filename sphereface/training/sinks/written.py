"""Record what earlier sessions sent, for sinks that cannot remove anything."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...files import write_whole
from ...small_files import read_json

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Written:
    """The id of a run in a service, and the last step that was sent of each group of figures.

    A group is a name without its last part: ``train``, ``eval/lfw``. A small JSON file in the run
    folder keeps them. Every call of :meth:`add` rewrites it. A damaged file counts as none, and so
    does that of a copied run folder: the original continues the run.

    Args:
        path: the file.

    Attributes:
        run_id: None if there is none yet.
        row: number of the last row, for a service that counts them; -1 before the first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.run_id: str | None = None
        self.row = -1
        self._before: dict[str, int] = {}
        try:
            found = read_json(path)
        except (OSError, ValueError):
            found = {}
        if original := _original(path, found):
            line = "%s: %s is a copy of %s, where the run %s continues · this folder begins a new one"
            log.warning(line, path.stem, path, original, found["run_id"])
            found = {}
        run_id, steps, row = found.get("run_id"), found.get("steps"), found.get("row")
        if isinstance(run_id, str) and _ID.fullmatch(run_id):
            self.run_id = run_id
        if type(row) is int:
            self.row = row
        if isinstance(steps, dict):
            self._before = {group: step for group, step in steps.items() if type(step) is int}
        self._now = dict(self._before)

    def has(self, step: int, name: str) -> bool:
        """Return whether an earlier session sent the figure ``name`` of this step."""
        return step <= self._before.get(_group(name), -1)

    def begin(self, run_id: str, step: int) -> None:
        """Record the id of the run, in which this session continues after ``step``.

        A new id means that nothing was sent yet.
        """
        if run_id != self.run_id:
            self._before, self._now, self.row = {}, {}, -1
        self.run_id = run_id
        self._save()
        last = max(self._before.values(), default=step)
        if last > step:
            log.info("%s: figures up to step %d stay as an earlier session sent them", self._path.stem, last)

    def add(self, step: int, names: Iterable[str], row: int = -1) -> None:
        """Record what was sent, and in which row."""
        self.row = max(row, self.row)
        for group in {_group(name) for name in names}:
            self._now[group] = max(step, self._now.get(group, -1))
        self._save()

    def _save(self) -> None:
        """Write the file. If the disk is full, a later call writes it, and the sink continues."""
        folder = str(self._path.parent.resolve())
        about = {"run_id": self.run_id, "steps": self._now, "row": self.row, "folder": folder}
        with contextlib.suppress(OSError):
            write_whole(self._path, json.dumps(about) + "\n", durable=False)


def _original(path: Path, found: Mapping[str, Any]) -> Path | None:
    """Return the file that ``path`` is a copy of: the same run in the folder that wrote it."""
    folder, run_id = found.get("folder"), found.get("run_id")
    if not isinstance(folder, str) or run_id is None:
        return None
    file = Path(folder) / path.name
    try:
        copied = read_json(file).get("run_id") == run_id and not file.parent.samefile(path.parent)
    except (OSError, ValueError):  # the folder was moved, and is no longer at its earlier place
        return None
    return file if copied else None


def _group(name: str) -> str:
    return name.rpartition("/")[0]
