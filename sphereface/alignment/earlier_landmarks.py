"""Read the landmark files that earlier runs with a detector left in their folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from ..errors import UserError
from ..files import read_plain
from .earlier_report import EarlierRun
from .landmarks import LandmarkTable, landmark_line, named_as, read_landmarks
from .report import REPORT_NAME, write_or_explain
from .similarity import Points

LANDMARKS_NAME = "landmarks.txt"
WRITTEN_NAME = ".landmarks.txt"
"""A copy of what was written, so that lines are known that somebody corrected since."""
PROGRESS_NAME = "align-progress.txt"


def points_of(path: Path, names: Collection[str] = (), source: Path = Path()) -> Mapping[str, Points]:
    """Return the points of a file of an earlier run, under the names of the images; or empty.

    Raises:
        UserError: the file is damaged, or is empty although its copy is not.
    """
    is_empty = not any(each.exists() and each.stat().st_size for each in (path, path.with_name(WRITTEN_NAME)))
    return {} if is_empty or not path.exists() else named_as(_own(path), names, source).points


def written_points(folder: Path, table: Mapping[str, Points], earlier: EarlierRun | None) -> Mapping[str, Points]:
    """Return the landmarks as the last run wrote them.

    Earlier builds kept no copy. Then a file that is later than the report counts as corrected,
    besides the lines of substitute crops.
    """
    path = folder / WRITTEN_NAME
    if not path.exists() and table and earlier:
        corrected = (folder / LANDMARKS_NAME).stat().st_mtime_ns > (folder / REPORT_NAME).stat().st_mtime_ns
        lines = [landmark_line(*line) for line in table.items() if not corrected or line[0] in earlier.fallbacks]
        write_or_explain(path, "".join(lines).encode())
    return points_of(path)


def earlier_points(
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


def _own(path: Path) -> LandmarkTable:
    try:
        return read_landmarks(path)
    except UserError as error:
        advice = "an earlier align wrote this file, and it is damaged · delete it to detect the faces again"
        if path.name == LANDMARKS_NAME:
            copy = (
                f", or copy {WRITTEN_NAME} over it, as the last run wrote it," * path.with_name(WRITTEN_NAME).exists()
            )
            advice = (
                f"correct the file{copy} and run the same command again · without the file, all faces are detected "
                "again, and all corrections are lost"
            )
        raise UserError(f"{error} · {advice}") from error


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
