"""Keep the landmarks that a detector finds, so that a killed run can resume without loss.

During a run, the line of each image is appended to ``align-progress.txt``, with the number of faces
as the score. At the end, the lines are sorted by name and written to ``landmarks.txt``, without
that number and whole or not at all. Failures and fallback crops are not kept; the next run tries
them again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from ..errors import UserError
from ..files import read_plain
from .fit import looks_like_a_face
from .landmarks import LandmarkTable, landmark_line, read_landmarks
from .report import REPORT_NAME, Outcome, Status, earlier_run, explained, write_or_explain
from .similarity import Points

LANDMARKS_NAME = "landmarks.txt"
PROGRESS_NAME = "align-progress.txt"


class FoundLandmarks:
    """The landmarks of one destination folder, including those of earlier runs.

    Args:
        folder: folder of the crops.
        is_current: image name → whether its crop exists and the image did not change since. The
            landmarks of other images are dropped, and so are points that are unlike a face.

    Raises:
        UserError: a file of an earlier run cannot be read, or nothing can be written.
    """

    def __init__(self, folder: Path, is_current: Callable[[str], bool] = lambda _: True) -> None:
        self._folder = folder
        known, self._num_faces = _earlier(folder)
        self.known = {name: points for name, points in known.items() if is_current(name) and looks_like_a_face(points)}
        self._crops: dict[str, Points] = {}
        lines = [landmark_line(name, points, self.num_faces(name)) for name, points in self.known.items()]
        write_or_explain(folder / PROGRESS_NAME, "".join(lines).encode())  # drops a half-written last line
        with explained(folder / PROGRESS_NAME):
            self._file: IO[bytes] = (folder / PROGRESS_NAME).open("ab")

    def num_faces(self, name: str) -> int:
        """Return the number of faces in an image by an earlier run; 1 if it is unknown."""
        return self._num_faces.get(name, 1)

    def add(self, outcome: Outcome) -> Outcome:
        """Keep the landmarks of one image; return its outcome, with the number of faces.

        Raises:
            UserError: they cannot be written.
        """
        if outcome.points is not None:
            self._crops[outcome.name] = outcome.points
            if outcome.status is Status.ALIGNED and outcome.name not in self.known:
                with explained(self._folder / PROGRESS_NAME):
                    self._file.write(landmark_line(outcome.name, outcome.points, outcome.num_faces).encode())
                    self._file.flush()
        return replace(outcome, num_faces=self.num_faces(outcome.name)) if outcome.name in self.known else outcome

    def close(self) -> None:
        """Close the file; a failure loses only unwritten lines."""
        with contextlib.suppress(OSError):  # add has already reported the full disk
            self._file.close()

    def write_landmarks(self) -> None:
        """Write the landmarks of all crops, sorted by name."""
        lines = [landmark_line(name, points) for name, points in sorted(self._crops.items())]
        write_or_explain(self._folder / LANDMARKS_NAME, "".join(lines).encode())

    def forget(self) -> None:
        """Delete the file that only a resumed run needs."""
        self.close()
        with explained(self._folder / PROGRESS_NAME):
            (self._folder / PROGRESS_NAME).unlink(missing_ok=True)


def are_edited(folder: Path) -> bool:
    """Return whether somebody changed the landmarks of a folder after its report was written."""
    try:
        return (folder / LANDMARKS_NAME).stat().st_mtime_ns > (folder / REPORT_NAME).stat().st_mtime_ns
    except OSError:
        return False


def keep_edited(folder: Path) -> None:
    """Let edited landmarks stay later than the report, so that a killed run repeats all crops."""
    before = (folder / LANDMARKS_NAME).stat().st_mtime_ns - 1
    with explained(folder / REPORT_NAME):
        os.utime(folder / REPORT_NAME, ns=(before, before))


def _earlier(folder: Path) -> tuple[dict[str, Points], dict[str, int]]:
    """Return the landmarks and numbers of faces of the killed run, or else of the finished one."""
    progress, finished = folder / PROGRESS_NAME, folder / LANDMARKS_NAME
    if whole := _whole_lines(progress):
        write_or_explain(progress, whole)
        table = _own(progress)
        return dict(table.points), {name: int(score) for name, score in table.scores.items() if 1 < score < 1e6}
    if progress.exists() or not finished.exists() or not finished.stat().st_size:
        return {}, {}
    earlier = earlier_run(folder)
    others = earlier.fallbacks if earlier else frozenset()
    several = earlier.several_faces if earlier else frozenset()
    points = {name: points for name, points in _own(finished).points.items() if name not in others}
    return points, dict.fromkeys(several, 2)


def _own(path: Path) -> LandmarkTable:
    try:
        return read_landmarks(path)
    except UserError as error:
        raise UserError(
            f"{error} · an earlier align wrote this file, and it is damaged · delete it to detect the faces again"
        ) from error


def _whole_lines(path: Path) -> bytes:
    """Return a progress file up to its last line end; a killed run may leave half a line."""
    try:
        data = read_plain(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}) · delete it, or give another folder") from error
    whole, end, _ = data.rpartition(b"\n")
    return whole + end
