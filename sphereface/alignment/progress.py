"""The landmarks that a detector has found so far, so that a killed run loses none and its file comes out the same.

While a run lasts, each picture's line is appended to ``align-progress.txt``; at its end the lines, sorted by name, are
``landmarks.txt``, whole or not there. What failed or was cropped otherwise is not remembered but tried again.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO

from .landmarks import landmark_line, read_landmarks
from .report import Outcome, Status, cannot_write, earlier_fallbacks, write_or_explain
from .similarity import Points

LANDMARKS_NAME = "landmarks.txt"
PROGRESS_NAME = "align-progress.txt"


class Progress:
    """The landmarks of one destination folder, earlier runs' included.

    Args:
        folder: of the crops.

    Raises:
        UserError: what an earlier run left cannot be read, or nothing can be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.known = _earlier(folder)
        self._crops: dict[str, Points] = {}
        lines = [landmark_line(name, points) for name, points in self.known.items()]
        write_or_explain(folder / PROGRESS_NAME, "".join(lines).encode())  # without the half line that a kill left
        self._file: IO[bytes] = (folder / PROGRESS_NAME).open("ab")

    def add(self, outcome: Outcome) -> None:
        """Remember one picture's landmarks.

        Raises:
            UserError: they cannot be written.
        """
        if outcome.points is None:
            return
        self._crops[outcome.name] = outcome.points
        if outcome.status is not Status.ALIGNED or outcome.name in self.known:
            return
        try:
            self._file.write(landmark_line(outcome.name, outcome.points).encode())
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._folder / PROGRESS_NAME, error) from error

    def close(self) -> None:
        """Close the file; what it lacks is lost and no more."""
        with contextlib.suppress(OSError):  # the same full disk that add has told
            self._file.close()

    def write_landmarks(self) -> Path:
        """Write the landmarks of all crops, sorted by name, and return the file."""
        path = self._folder / LANDMARKS_NAME
        lines = [landmark_line(name, points) for name, points in sorted(self._crops.items())]
        write_or_explain(path, "".join(lines).encode())
        return path

    def forget(self) -> None:
        """Remove what only a run that goes on would need."""
        self.close()
        (self._folder / PROGRESS_NAME).unlink(missing_ok=True)


def _earlier(folder: Path) -> dict[str, Points]:
    """Landmarks that a detector found in earlier runs: of the killed one, else of the finished one."""
    progress, finished = folder / PROGRESS_NAME, folder / LANDMARKS_NAME
    if progress.exists():
        whole = progress.read_bytes().rpartition(b"\n")[0]
        write_or_explain(progress, whole + b"\n" if whole else b"")
        return dict(read_landmarks(progress).points) if whole else {}
    if not finished.exists() or not finished.stat().st_size:
        return {}
    others = earlier_fallbacks(folder)
    return {name: points for name, points in read_landmarks(finished).points.items() if name not in others}
