"""The start time and the steps of a run, from its folder. This module imports nothing large."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_TIME = "%Y-%m-%dT%H:%M:%S.%f%z"


def now_text() -> str:
    """Return the start time of a run that starts now, with its zone, as ``run.json`` has it.

    It has microseconds: scripts start several short runs in a second, and copies keep the time.
    """
    return datetime.now(timezone.utc).astimezone().strftime(_TIME)


def started_at(about: Mapping[str, Any]) -> datetime:
    """Return when a run started, by its ``run.json``; the earliest time if that is not known.

    A time without a zone is in this machine's zone. Earlier versions wrote no parts of a second.
    """
    for form in (_TIME, "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S"):
        try:
            return datetime.strptime(about["started"], form).astimezone(timezone.utc)
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
    return datetime.min.replace(tzinfo=timezone.utc)


def order_of(about: Mapping[str, Any], folder: Path) -> tuple[datetime, int, int, str]:
    """Return a key that sorts runs by their start; a copy of a run has the start of the run.

    Of runs with one start, the one with the most steps is the last, then the shortest name.
    """
    start, name = started_at(about), folder.name
    if start == started_at({}):
        return start, 0, 0, name
    return start, max(map(step_of, folder.glob("step-*.pt")), default=-1), -len(name), name


def step_of(path: Path) -> int:
    """Return the step in the name of a ``step-*.pt``; −1 for another name."""
    digits = re.fullmatch(r"step-(\d{8,15})\.pt", path.name, re.ASCII)
    return int(digits[1]) if digits else -1


def torchrun_job() -> str | None:
    """Return a name of the torchrun job of this process, the same after a restart; None if unknown.

    It is the folder of the job's logs: each job makes its own. ``TORCHELASTIC_RUN_ID`` is the
    same for many jobs.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE", "")  # another form: one that a user has set
    found = re.fullmatch(r"(.+)[/\\]attempt_\d+[/\\]\d+[/\\]error\.json", file, re.DOTALL)
    return found[1] if found else None
