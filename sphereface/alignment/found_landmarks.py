"""Keep the landmarks that a detector finds, so that a killed run can resume without loss.

During a run, the line of each image is appended to ``align-progress.txt``, with the number of faces
as the score. At the end, the lines are sorted by name and written to ``landmarks.txt``, without
that number and whole or not at all. Failures and fallback crops are not kept; the next run tries
them again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import UserError
from ..files import read_plain, sha256_of
from .fit import looks_like_a_face
from .landmarks import LandmarkTable, landmark_line, named_as, read_landmarks
from .report import REPORT_NAME, EarlierRun, Outcome, Status, earlier_run, explained, write_or_explain
from .similarity import Points

LANDMARKS_NAME = "landmarks.txt"
WRITTEN_NAME = ".landmarks.txt"
"""A copy of what was written, so that lines are known that somebody corrected since."""
PROGRESS_NAME = "align-progress.txt"


class FoundLandmarks:
    """The landmarks of one destination folder, including those of earlier runs.

    Somebody may correct lines of ``landmarks.txt``. The file is compared with a copy of what was
    written, ``.landmarks.txt``, so a corrected line is known whatever the times of the files are,
    and after a kill.

    Args:
        folder: folder of the crops.
        is_current: image name → whether its crop exists and the image did not change since. The
            landmarks of other images are dropped, and so are points that are unlike a face.
        names: of the images.
        source: folder of the images.

    Attributes:
        known: image name → its points.
        edited: image name → points that somebody corrected since the last run that was not killed.
            They replace those in ``known``.
        stamps: image name → SHA-256 of an image whose points were corrected before an earlier run.
            Its points are known until the image has another content.
        changed: images whose corrected points are dropped, since they have another content.

    Raises:
        UserError: a file of an earlier run cannot be read, or nothing can be written.
    """

    def __init__(
        self,
        folder: Path,
        is_current: Callable[[str], bool] = lambda _: True,
        names: Collection[str] = (),
        source: Path = Path(),
    ) -> None:
        self._folder, self._source = folder, source
        earlier = earlier_run(folder)
        table = _points(folder / LANDMARKS_NAME, names, source)
        written = _written(folder, table, earlier)
        self.edited = {name: points for name, points in table.items() if not _same(points, written.get(name))}
        stamps = earlier.corrected if earlier else {}
        present = table.keys() & set(names)  # a report of a stranger may name any file
        stamps = {name: stamp for name, stamp in stamps.items() if name in present and name not in self.edited}
        self.changed = [name for name, stamp in stamps.items() if self._stamp(name) not in (stamp, "")]
        self.stamps = {name: stamp for name, stamp in stamps.items() if name not in self.changed}
        known, self._num_faces = _earlier(folder, table, earlier)
        left_out = {*self.edited, *self.changed, *(written.keys() - table.keys() if table else ())}
        self.known = {
            name: points
            for name, points in known.items()
            if name not in left_out and is_current(name) and looks_like_a_face(points)
        }
        self.known |= {name: table[name] for name in self.stamps}
        self._crops: dict[str, Points] = {}
        self._aligned = set[str]()
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
        kept = outcome.name in self.known or outcome.name in self.edited
        if outcome.points is not None:
            self._crops[outcome.name] = outcome.points
            if outcome.status in (Status.ALIGNED, Status.KEPT):
                self._aligned.add(outcome.name)
            if outcome.status is Status.ALIGNED and not kept:
                with explained(self._folder / PROGRESS_NAME):
                    self._file.write(landmark_line(outcome.name, outcome.points, outcome.num_faces).encode())
                    self._file.flush()
        return replace(outcome, num_faces=self.num_faces(outcome.name)) if kept else outcome

    def close(self) -> None:
        """Close the file; a failure loses only unwritten lines."""
        with contextlib.suppress(OSError):  # add has already reported the full disk
            self._file.close()

    def write_landmarks(self) -> dict[str, str]:
        """Write the landmarks of all crops, sorted by name.

        A corrected line that gave no crop stays in the file, and is tried again by the next run.

        Returns:
            Image name → SHA-256 of the image, of all crops by corrected points.
        """
        corrected = {**self.edited, **{name: self.known[name] for name in self.stamps}}
        unused = {name: points for name, points in corrected.items() if name not in self._aligned}
        for file, points in ((LANDMARKS_NAME, {**self._crops, **unused}), (WRITTEN_NAME, self._crops)):
            lines = [landmark_line(name, five) for name, five in sorted(points.items())]
            write_or_explain(self._folder / file, "".join(lines).encode())
        return {name: self.stamps.get(name) or self._stamp(name) for name in corrected if name in self._aligned}

    def _stamp(self, name: str) -> str:
        """Return the SHA-256 of an image; empty if it cannot be read."""
        try:
            return sha256_of(self._source / name)
        except OSError:
            return ""

    def forget(self) -> None:
        """Delete the file that only a resumed run needs."""
        self.close()
        with explained(self._folder / PROGRESS_NAME):
            (self._folder / PROGRESS_NAME).unlink(missing_ok=True)


def _earlier(
    folder: Path, table: Mapping[str, Points], earlier: EarlierRun | None
) -> tuple[Mapping[str, Points], dict[str, int]]:
    """Return the landmarks and numbers of faces of the killed run, or else of the finished one."""
    progress = folder / PROGRESS_NAME
    if whole := _whole_lines(progress):
        write_or_explain(progress, whole)
        found = _own(progress)
        return found.points, {name: int(score) for name, score in found.scores.items() if 1 < score < 1e6}
    others, several = (earlier.fallbacks, earlier.several_faces) if earlier else (frozenset[str](), frozenset[str]())
    points = {} if progress.exists() else {name: points for name, points in table.items() if name not in others}
    return points, dict.fromkeys(several, 2)


def _points(path: Path, names: Collection[str] = (), source: Path = Path()) -> Mapping[str, Points]:
    """Return the points of a file of an earlier run, under the names of the images; or empty."""
    return named_as(_own(path), names, source).points if path.exists() and path.stat().st_size else {}


def _written(folder: Path, table: Mapping[str, Points], earlier: EarlierRun | None) -> Mapping[str, Points]:
    """Return the landmarks as the last run wrote them.

    Earlier builds kept no copy. Then a file that is later than the report counts as corrected,
    besides the lines of substitute crops.
    """
    path = folder / WRITTEN_NAME
    if not path.exists() and table and earlier:
        corrected = (folder / LANDMARKS_NAME).stat().st_mtime_ns > (folder / REPORT_NAME).stat().st_mtime_ns
        lines = [landmark_line(*line) for line in table.items() if not corrected or line[0] in earlier.fallbacks]
        write_or_explain(path, "".join(lines).encode())
    return _points(path)


def _same(points: Points, written: Points | None) -> bool:
    return written is not None and np.array_equal(points, written)


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
