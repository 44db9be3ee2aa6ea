"""Read and write five-point landmark files, one image a line: ``file x1 y1 … x5 y5 [score]``.

Coordinates are pixels of the image, the first pixel at 0, in the order of ``templates.TEMPLATES``.
Fields are separated by tabs, or by commas or spaces if no file name has any. They may have quotes,
as R and spreadsheets write them. File names are relative to the folder of images, with forward
slashes, or absolute paths inside it. Lines end as on any system. Blank lines are skipped. An
eleventh number is the detector's score, as in IJB-C's ``ijbc_name_5pts_score.txt``; alignment
ignores it. Either all lines have a score or none has.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..data.pair_lines import quoted, unquoted
from ..data.walking import nfc
from ..errors import UserError, printable, shown
from ..files import read_plain
from .similarity import Points

_NUM_COORDINATES = 10
_MANY_POINTS = 21  # files of 21, 29, 68, 98 and 106 points are common
_QUOTED_NAME = re.compile(r'"(?:[^"]|"")*"(?=[\s,])')
_LONGEST_QUOTE = 60  # characters of a bad line that a message shows


@dataclass(frozen=True)
class LandmarkTable:
    """The landmarks of many images.

    Args:
        points: file name → (5, 2) float64 (x, y) in pixels. About 250 bytes an image.
        digest: SHA-256 of the landmark file.
        source: the file's name in messages.
        scores: file name → the eleventh number of its line, if lines have one.
    """

    points: Mapping[str, Points]
    digest: str
    source: str = "landmarks"
    scores: Mapping[str, float] = field(default_factory=dict)


def read_landmarks(path: Path) -> LandmarkTable:
    """Read a landmark file.

    Raises:
        UserError: the file cannot be read, a line is malformed, only some lines have a score, or an
            image has two lines.
    """
    try:
        data = read_plain(path)
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        is_text = not isinstance(error, UnicodeDecodeError)
        reason = (getattr(error, "strerror", None) or error) if is_text else "not UTF-8 text"
        raise UserError(f"{path}: {reason} · allowed: a landmark file with lines of file x1 y1 … x5 y5") from error

    points: dict[str, Points] = {}
    scores: dict[str, float] = {}
    for number, name, coordinates, score in _entries(text, path):
        if name in points:
            raise UserError(
                f"{path}, line {number}: a second line for {name} · allowed: one line per image"
                " · keep the line of the right face"
            )
        points[name] = coordinates
        if score is not None:
            scores[name] = score
    if not points:
        raise UserError(f"{path}: contains no landmarks · allowed: lines of file x1 y1 … x5 y5")
    return LandmarkTable(points, hashlib.sha256(data).hexdigest(), str(path), scores)


def landmark_line(name: str, points: Points, score: float | None = None) -> str:
    """Return one line of a landmark file with its line end; numbers are exact when read again."""
    numbers = [repr(float(number)) for number in points.ravel()] + ([] if score is None else [repr(score)])
    return "\t".join([name, *numbers]) + "\n"


def can_hold(name: str) -> bool:
    """Return whether a landmark file can hold a name.

    It must be UTF-8, without tabs, line ends or a space at either end.
    """
    try:
        name.encode()
    except UnicodeEncodeError:  # a file name that is not valid Unicode
        return False
    return "\n" not in name and _split(f"{name}\t0".strip()) == (name, ["0"])


def named_as(table: LandmarkTable, names: Collection[str], root: Path) -> LandmarkTable:
    r"""Return a table under the names of the images, where it has them in another form.

    ``./a/b.jpg``, ``a\b.jpg``, ``a/é.jpg`` in another form of Unicode, and an absolute path inside
    ``root`` mean these images. A name of no image stays as it is.

    Args:
        table: the landmarks.
        names: the images, relative to ``root``.
        root: the folder of the images.

    Raises:
        UserError: two lines mean one image, or an absolute path is outside ``root``.
    """
    present = set(names)
    if present.issuperset(table.points):
        return table
    known = {nfc(name): name for name in names}
    relative = {name: _below(name, root) for name in table.points if name not in present}
    if outside := [name for name, below in relative.items() if below is None]:
        raise UserError(
            f"{table.source}: {len(outside):,} of {len(table.points):,} lines have an absolute path outside {root}, "
            f"such as {shown(outside[0])} · allowed: names relative to that folder, or absolute paths inside it"
        )
    own = {name: name if name in present else known.get(nfc(relative[name] or ""), name) for name in table.points}
    if len(set(own.values())) < len(own):
        double = next(name for name, count in Counter(own.values()).items() if count > 1)
        both = " and ".join(printable(name) for name in own if own[name] == double)
        raise UserError(f"{table.source}: got lines for {both}, which are one image · allowed: one line per image")
    points = {own[name]: value for name, value in table.points.items()}
    return replace(table, points=points, scores={own[name]: value for name, value in table.scores.items()})


def likely_images(missing: Collection[str], names: Collection[str]) -> dict[str, str]:
    """Return the image that a name of no image may mean.

    It is the only one that differs in its suffix or in case, or else in the folders before it.
    Other names have no entry.
    """
    stems = {name: _stem(name) for name in missing}
    wanted = set(stems.values())
    by_stem: dict[str, list[str]] = {}
    by_tail: dict[str, list[str]] = {}  # without some folders
    deepest = 0
    for image in names if missing else ():
        stem = _stem(image)
        by_stem.setdefault(stem, []).append(image)
        deepest = max(deepest, stem.count("/"))
        for tail in wanted.intersection(_tails(stem)):
            by_tail.setdefault(tail, []).append(image)
    likely: dict[str, str] = {}
    for name, stem in stems.items():
        deeper = [image for tail in _tails(stem, deepest) for image in by_stem.get(tail, ())]
        found = by_stem.get(stem) or [*by_tail.get(stem, ())[:2], *deeper]
        if len(found) == 1:
            likely[name] = found[0]
    return likely


def _tails(stem: str, most: int | None = None) -> Iterator[str]:
    """Yield a name without some of its first folders; at most ``most`` folders are left."""
    parts = stem.split("/")
    for count in range(1, len(parts) if most is None else min(len(parts), most + 2)):
        yield "/".join(parts[-count:])


def _stem(name: str) -> str:
    return nfc(posixpath.splitext(posixpath.normpath(name.replace("\\", "/")))[0]).casefold()


def _below(name: str, root: Path) -> str | None:
    """Return a name as a path relative to ``root``; None for an absolute path outside it."""
    plain = posixpath.normpath(name.replace("\\", "/"))
    if not plain.startswith("/") or "\0" in plain:
        return plain
    for path, folder in ((plain, os.path.abspath(root)), (os.path.realpath(plain), os.path.realpath(root))):  # noqa: PTH100
        below = os.path.relpath(path, folder).replace("\\", "/")
        if not below.startswith("../") and below not in ("..", "."):
            return below
    return None


def _entries(text: str, path: Path) -> Iterator[tuple[int, str, Points, float | None]]:
    """Yield (line number, file name, (5, 2) points, score) of each line that is not blank."""
    first: tuple[int, int] | None = None  # first line: its number, and its count of fields after the name
    end = "\n" if "\n" in text else "\r"  # with \n, a file name may contain \r
    for number, line in enumerate(text.split(end), start=1):
        if not line.strip():
            continue
        name, fields = _split(line.strip())
        values = _numbers(fields)
        if len(values) not in (_NUM_COORDINATES, _NUM_COORDINATES + 1):
            got = f"{quoted(line.strip(), _LONGEST_QUOTE)}{_other_kind(len(values))}"
            advice = "a file name with spaces needs tabs as separators"
            if first is None and _is_heading(name, fields):
                advice = "delete the line of column names"
            raise UserError(
                f"{path}, line {number}: got {got} · allowed: a file name and ten "
                f"numbers, or eleven with the detector's score · {advice}"
            )
        first = first or (number, len(values))
        if len(values) != first[1]:
            raise UserError(
                f"{path}, line {number}: got {len(values)} numbers, but {first[1]} in line {first[0]} · allowed: the "
                "detector's score as the eleventh number in every line, or in none"
            )
        score = float(values[_NUM_COORDINATES]) if len(values) > _NUM_COORDINATES else None
        yield number, name, values[:_NUM_COORDINATES].reshape(5, 2), score


def _numbers(fields: list[str]) -> Points:
    """Return the fields as numbers; an empty array if one is not a number."""
    try:
        if any("_" in text for text in fields):  # Python reads 1_0 as 10
            return np.empty(0)
        return np.array([float(text) for text in fields])
    except ValueError:
        return np.empty(0)


def _is_heading(name: str, fields: list[str]) -> bool:
    """Return whether a line has the names of columns; the first column may have none."""
    columns = [name, *fields]
    is_file = "." in name or "/" in name
    return not is_file and len(columns) >= _NUM_COORDINATES and not any(_numbers([text]).size for text in columns)


def _other_kind(count: int) -> str:
    """Describe a line of a file with more points."""
    if count < 2 * _MANY_POINTS:
        return f", {count} numbers" if count else ""
    return f", {count} numbers ({count // 2} points: use the mean of each eye, the nose tip and the mouth corners)"


def _split(line: str) -> tuple[str, list[str]]:
    """Return the file name and the other fields; the name ends at the first separator.

    A name in quotes may contain commas and spaces.
    """
    separator = "\t" if "\t" in line else "," if line.count(",") >= _NUM_COORDINATES else " "
    if separator != "\t" and (found := _QUOTED_NAME.match(line)):
        name, rest = found[0], line[found.end() :]
    else:
        name, _, rest = line.partition(separator)
    if separator == ",":
        rest = rest.replace(",", " ")
    return unquoted(name), rest.replace('"', "").split()
