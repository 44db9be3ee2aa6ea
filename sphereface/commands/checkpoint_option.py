"""Resolve a checkpoint on the command line: a file, a folder, ``latest`` or the shipped network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from ..errors import UserError, shown, shown_key
from ..small_files import read_json, reason
from ..training.started import order_of, started_at
from ..weights import CARD, CHECKPOINT, DEFAULT, resolve

LATEST = "latest"
HELP = (
    "a checkpoint, such as runs/…/best.pt; or a run folder; or runs/NAME: its newest run; or latest: the newest run in "
    f"runs/; or {DEFAULT}: the network that ships with this package"
)
_RUNS = Path("runs")
_RESULTS = ("best.pt", "last.pt")
_LEVELS = 5  # of folders that are searched below runs/: up to four parts of a name, and the time


def checkpoint_path(text: str) -> Path:
    """Return the checkpoint file that an option means; argparse calls it as the option's ``type``.

    A file means itself. So does a missing path: the code that opens it reports the error. A run
    folder means its ``best.pt``, or its ``last.pt`` if the run has no best one. A folder of runs
    and ``latest`` mean the run that started last; of its copies, the one with the most steps. The
    name of the shipped network means its file. A note on stderr names the chosen file.

    Raises:
        UserError: the folder, or ``runs/`` for ``latest``, holds no checkpoint.
    """
    if not text:
        raise UserError("--ckpt: got an empty name · allowed: a checkpoint file, a run folder, or latest")
    path = resolve(text)
    if path == CHECKPOINT:
        sys.stderr.write(f"note: using {DEFAULT}, the network that ships with this package · its limits: {CARD}\n")
        return path
    try:
        if path.is_file() or not (path.is_dir() or text == LATEST):
            return path
        found = _newest(path if path.is_dir() else _RUNS)
    except OSError as error:
        raise UserError(f"--ckpt: {text}: cannot be read ({error.strerror}) · name a checkpoint file") from error
    if found is None:
        where = f"no run in {_RUNS}/ has a checkpoint" if text == LATEST else "no checkpoint in this folder"
        raise UserError(
            f"--ckpt: got {text!r}: {where} · allowed: a checkpoint file, a run folder with best.pt or last.pt, a "
            f"folder of such runs, or {LATEST}, which searches {_RUNS}/ in the current folder"
        )
    sys.stderr.write(f"note: {text}: using the checkpoint {found}\n")
    return found


def _newest(folder: Path) -> Path | None:
    """Return the checkpoint of a run folder, or of the newest run below a folder.

    A run whose ``run.json`` has no start time is skipped with a note, and so is a newer one without
    a checkpoint.
    """
    if own := _result(folder):
        return own
    runs = []
    for run in _run_folders(folder):
        if checkpoint := _result(run):
            try:
                about = read_json(run / "run.json")
                if started_at(about) == started_at({}):
                    raise ValueError(f"started: got {shown(about.get('started'))}")
                runs.append((order_of(about, run), checkpoint))
            except (OSError, ValueError) as error:
                why = reason(error)
                note = f"skipped, since its run.json has no valid start time ({why}) · to use this run, give the path"
                sys.stderr.write(f"note: {shown_key(str(run))}: {note} of its {checkpoint.name}\n")
    if not runs:
        return None
    (key, found), *others = sorted(runs, reverse=True)
    if same := [shown_key(str(checkpoint)) for other, checkpoint in others if other[0] == key[0]]:
        note = f"this run started at the same time as {', '.join(same[:10])}, so one may be a copy"
        sys.stderr.write(f"note: {shown_key(str(found))}: {note} · to use another one, give its path\n")
    for run in _run_folders(folder):
        if _starts_after(run, key[0]):  # it has no checkpoint, or it would be the one
            sys.stderr.write(f"note: {shown_key(str(run))}: skipped, a newer run without best.pt or last.pt\n")
    return found


def _starts_after(run: Path, time: datetime) -> bool:
    try:
        return started_at(read_json(run / "run.json")) > time
    except (OSError, ValueError):
        return False


def _run_folders(folder: Path, levels: int = _LEVELS) -> Iterator[Path]:
    """Yield the folders below a folder, down to those of runs: a run's name may have slashes."""
    for path in sorted(folder.iterdir() if folder.exists() else ()):
        if path.is_dir():
            yield path
            if levels > 1 and not (path / "run.json").exists():
                yield from _run_folders(path, levels - 1)


def _result(folder: Path) -> Path | None:
    return next((folder / name for name in _RESULTS if (folder / name).is_file()), None)
