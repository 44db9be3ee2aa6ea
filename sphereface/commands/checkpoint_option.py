"""Which file a checkpoint on the command line means: a file, a folder, ``latest``, or the network
that ships.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError, shown, shown_key
from ..small_files import read_json, reason
from ..training.started import started_at
from ..weights import CARD, CHECKPOINT, DEFAULT, resolve

LATEST = "latest"
HELP = (
    "checkpoint, such as runs/…/best.pt; a run folder or runs/NAME: the newest run's; latest: the newest of runs/; "
    f"{DEFAULT}: the network that ships with this package"
)
_RUNS = Path("runs")
_RESULTS = ("best.pt", "last.pt")


def checkpoint_path(text: str) -> Path:
    """Return the checkpoint file that an option or argument means; the ``type`` of these options.

    A file is taken as it is, and so is what is not there: who opens it says so. Of a run folder it
    is ``best.pt``, or ``last.pt`` where no set chose a best one; of a folder of runs, and of
    ``latest``, that of the run that was started last. The name of the network that ships with this
    package means its file. Stderr says which file was taken.

    Raises:
        UserError: a folder, or ``latest``, without any checkpoint.
    """
    if not text:
        raise UserError("--ckpt: got an empty name · allowed: a checkpoint file, a run folder, or latest")
    path = resolve(text)
    if path == CHECKPOINT:
        sys.stderr.write(f"note: the network {DEFAULT}, which ships with this package, is used · its limits: {CARD}\n")
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
            f"folder of such runs, or {LATEST}, which looks in {_RUNS}/ here"
        )
    sys.stderr.write(f"note: {text}: the checkpoint {found} is used\n")
    return found


def _newest(folder: Path) -> Path | None:
    """The checkpoint of a run folder, or of the newest run in a folder of runs, or of folders of
    runs.

    A run whose ``run.json`` does not say when it started is passed over, with a note.
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
                runs.append((started_at(about), run.name, checkpoint))
            except (OSError, ValueError) as error:
                why = reason(error)
                note = f"passed over, since its run.json does not say when it started ({why}) · to use it, name"
                sys.stderr.write(f"note: {shown_key(str(run))}: {note} {checkpoint.name} in it\n")
    return max(runs)[2] if runs else None


def _run_folders(folder: Path) -> Iterator[Path]:
    """The folders in a folder, and the folders in those."""
    for path in sorted(folder.iterdir() if folder.exists() else ()):
        if path.is_dir():
            yield path
            yield from (below for below in sorted(path.iterdir()) if below.is_dir())


def _result(folder: Path) -> Path | None:
    return next((folder / name for name in _RESULTS if (folder / name).is_file()), None)
