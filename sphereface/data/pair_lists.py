"""Lists of face pairs in other forms than LFW's ``pairs.txt``. The first lines of a list show which
form it has.

One pair a line, with a label 1 (one person) or 0 (two people) and, if wanted, the number of the
fold::

    a/1.jpg b/2.jpg 0 3
    0 a/1.jpg b/2.jpg 3

Two lines a pair, each with an image and a flag (CALFW, CPLFW). The flag is 0 for two people. For
one person it is 1, or the number of the fold::

    Ann_0001.jpg 1
    Ann_0002.jpg 1

Two lines a pair, each with an image alone (SLLFW). Two images of one folder show one person::

    Ann/Ann_0001.jpg
    Ann/Ann_0002.jpg

Fields are separated by tabs, commas or spaces, in the whole list alike. One line of column names
may come first.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .text_files import read_text_lines

NUM_FOLDS = 10
"""Folds of a list that does not number its own, as in LFW and InsightFace."""
MOST_DIGITS = 9  # of a number, so that products of two fit into int64
LONGEST_COMPONENT = 255  # bytes of one file name in UTF-8, on all usual file systems
LONGEST_NAME = 4000  # bytes of a whole path, likewise

_LONGEST_QUOTE = 100  # characters of a bad line worth showing
_INTEGER = re.compile(r"[+-]?[0-9]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PATH = re.compile(r"[./\\]")  # what images' names have and names of columns have not
_OPPOSITE = re.compile(r"diff|dis|impost|negativ|unlike|mis.?match|(non|not|un)[-_ ]?(match|same)", re.IGNORECASE)
_SEPARATORS = ("\t", ",", ";", None)  # None: any run of spaces
_QUOTED = re.compile(r'"([^"]*)"')  # as spreadsheets write fields

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class Form(Enum):
    """What a line of a list looks like, in the words of messages."""

    LABEL_LAST = "image image 0|1 [fold]"
    LABEL_FIRST = "0|1 image image [fold]"
    FLAG = "image flag"
    FOLDER = "person/image"


@dataclass(frozen=True)
class Line:
    """One line that is not blank, without space at its ends; ``number`` counts all lines from 1."""

    number: int
    text: str

    def fields(self, separator: str | None) -> list[str]:
        """The fields between the separators, None being any run of spaces, without the quotes
        around them.
        """
        fields = (field.strip() for field in self.text.split(separator))
        return [found.group(1) if (found := _QUOTED.fullmatch(field)) else field for field in fields]


@dataclass(frozen=True)
class PairRows:
    """Pairs in the order of their list.

    Attributes:
        sides: (P,) the names of the left and the right image.
        same: (P,) bool, True for one person.
        fold: (P,) int64 from 1 to ``num_folds``; all 0 without folds.
        num_folds: 0 without folds.
    """

    sides: Sequence[tuple[str, str]]
    same: BoolArray
    fold: IntArray
    num_folds: int


def read_lines(path: Path) -> list[Line]:
    """Read the lines that are not blank, at least one. Line ends of any system and a byte order
    mark do no harm.

    The leading column of row numbers that pandas writes is left out: ``,left,right,same`` above
    ``0,a.jpg,b.jpg,1``.

    Raises:
        UserError: no such file, no text, or an empty file.
    """
    text = read_text_lines(path, "a list of pairs such as LFW's pairs.txt", strict=True)
    lines = [Line(number, line.strip()) for number, line in enumerate(text, start=1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: is empty · expected a list of pairs such as LFW's pairs.txt")
    return _without_row_numbers(lines)


def _without_row_numbers(lines: list[Line]) -> list[Line]:
    separator = lines[0].text[0]
    if separator not in ",;":
        return lines
    parts = [line.text.partition(separator) for line in lines]
    if [first for first, _, _ in parts] != ["", *map(str, range(len(lines) - 1))]:
        return lines
    return [Line(line.number, rest) for line, (_, _, rest) in zip(lines, parts, strict=True)]


def read_list(path: Path, lines: Sequence[Line]) -> PairRows:
    """Read a list in one of the forms above.

    Folds as the list numbers them, 1 to K or 0 to K − 1. Without numbers there are ten (see
    :func:`with_folds`). For LFW's pairs these are LFW's folds, whether the list has all pairs of
    one person first or 300 of each kind in turn.

    Args:
        path: the file, for messages.
        lines: of :func:`read_lines`.

    Raises:
        UserError: a line of another form, a label that is not allowed, half a pair, a name that
            leaves the folder of images, folds with a gap, or too few pairs of a kind.
    """
    layout = _recognise(path, lines)
    rows = [_Row(line.number, line.fields(layout.separator)) for line in layout.lines]
    for row, line in zip(rows, layout.lines, strict=True):
        if len(row.fields) != layout.num_fields:
            raise UserError(
                f"{path}, line {line.number}: got {quoted(line.text)}, {len(row.fields)} fields · "
                f"expected {layout.num_fields} ('{layout.form.value}'), as in line {rows[0].number}"
            )
    if layout.form is Form.FLAG:
        return _read_flagged(path, rows)
    if layout.form is Form.FOLDER:
        return _read_by_folder(path, rows)
    return _read_labelled(path, rows, label_first=layout.form is Form.LABEL_FIRST)


def is_number(field: str) -> bool:
    """Return whether a field is a whole number from 0 with at most nine ASCII digits."""
    return field.isascii() and field.isdecimal() and len(field) <= MOST_DIGITS


def quoted(text: str) -> str:
    """Return the start of a text between quotes, on one line, for a message."""
    return repr(text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…")


def image_name(path: Path, number: int, name: str) -> str:
    """Check the name of an image, which has to lie below the folder of images.

    Args:
        path: the list, for messages.
        number: of the line, for messages.
        name: as listed; backslashes count as slashes.

    Returns:
        The name with forward slashes, without empty parts and ``.``.

    Raises:
        UserError: an absolute path, ``..``, control characters, or a name that no file system
            holds.
    """
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or re.match(r"[A-Za-z]:", plain) or ".." in parts or not parts:
        raise UserError(
            f"{path}, line {number}: got the image {quoted(name)} · allowed: names below the folder of images, "
            "no absolute path and no '..' · shorten the names to what follows that folder"
        )
    if _CONTROL.search(plain):
        raise UserError(
            f"{path}, line {number}: got the image {quoted(name)} · allowed: names without control characters"
        )
    longest = max(len(part.encode()) for part in parts)
    if longest > LONGEST_COMPONENT or len(plain.encode()) > LONGEST_NAME:
        raise UserError(
            f"{path}, line {number}: got an image's name of {len(plain.encode())} bytes, {quoted(name)} · allowed: "
            f"{LONGEST_COMPONENT} bytes for a file or a folder, {LONGEST_NAME} in all"
        )
    return "/".join(parts)


# ---------------------------------------------------------------- which form


class _Layout(NamedTuple):
    form: Form
    separator: str | None
    num_fields: int
    lines: Sequence[Line]  # without the names of columns


class _Row(NamedTuple):
    number: int  # of the line
    fields: list[str]


def _form(fields: Sequence[str]) -> Form | None:
    """The form of a line by its fields: which of them are whole numbers. An image's name never is
    one.
    """
    numbers = [bool(_INTEGER.fullmatch(field)) for field in fields]
    if not all(fields):
        return None
    if numbers[:3] == [False, False, True] and numbers[3:] in ([], [True]):
        return Form.LABEL_LAST
    if numbers[:3] == [True, False, False] and numbers[3:] in ([], [True]):
        return Form.LABEL_FIRST
    if numbers == [False, True]:
        return Form.FLAG
    if numbers == [False] and re.search(r"[/\\]", fields[0]):
        return Form.FOLDER
    return None


def _recognise(path: Path, lines: Sequence[Line]) -> _Layout:
    """The layout of a list by its first line, or by its second where the first one names
    columns.
    """
    for index, line in enumerate(lines[:2]):
        for separator in (each for each in _SEPARATORS if each is None or each in line.text):
            fields = line.fields(separator)
            form = _form(fields)
            if form is not None and (index == 0 or _names_columns(lines[0].fields(separator), fields)):
                if index:
                    _check_label_name(path, lines[0], lines[0].fields(separator), form)
                return _Layout(form, separator, len(fields), lines[index:])
    raise UserError(
        f"{path}, line {lines[0].number}: got {quoted(lines[0].text)} · expected LFW's first line ('10 300' in view 2, "
        f"'500' in view 1), '{Form.LABEL_LAST.value}', '{Form.LABEL_FIRST.value}', or two lines a pair, each "
        f"'{Form.FLAG.value}' or '{Form.FOLDER.value}'"
    )


def _check_label_name(path: Path, line: Line, names: Sequence[str], form: Form) -> None:
    check_label_name(path, line.number, names[{Form.LABEL_LAST: 2, Form.LABEL_FIRST: 0}.get(form, -1)])


def is_heading(first: Sequence[str], second: Sequence[str]) -> bool:
    """Say whether a first line names columns above a line ``… … 0|1 …``: plain words without a
    label.
    """
    plain = not any(_PATH.search(field) or _INTEGER.fullmatch(field) or not field for field in first)
    return plain and len(first) == len(second) > 2 and second[2] in ("0", "1")


def check_label_name(path: Path, number: int, name: str) -> None:
    """Refuse a column of labels whose name says that a 1 means two people.

    Raises:
        UserError: it does.
    """
    if _OPPOSITE.search(name):
        raise UserError(
            f"{path}, line {number}: got the column {quoted(name)} · allowed: labels that are 1 for one person "
            "and 0 for two people · exchange 0 and 1, and name the column 'same'"
        )


def _names_columns(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether the first line has plain words only, above images that have a folder or a suffix."""
    images = [field for field in second if not _INTEGER.fullmatch(field)]
    words = [field for field in first if not _PATH.search(field) and not _INTEGER.fullmatch(field)]
    return len(words) == len(first) == len(second) > 1 and all(_PATH.search(image) for image in images)


# ---------------------------------------------------------------- one pair a line


def _read_labelled(path: Path, rows: Sequence[_Row], *, label_first: bool) -> PairRows:
    sides: list[tuple[str, str]] = []
    for number, fields in rows:
        label, left, right = fields[:3] if label_first else (fields[2], *fields[:2])
        if label not in ("0", "1"):
            raise UserError(
                f"{path}, line {number}: got the label {quoted(label)} · allowed: 1 for one person, 0 for two people"
            )
        sides.append((image_name(path, number, left), image_name(path, number, right)))
    same = np.array([row.fields[0 if label_first else 2] == "1" for row in rows], dtype=bool)
    if len(rows[0].fields) == 3:
        return with_folds(path, sides, same)
    fold = _given_folds(path, rows)
    _check_kinds(path, rows, same, fold)
    return PairRows(sides, same, fold, int(fold.max()))


def _check_kinds(path: Path, rows: Sequence[_Row], same: BoolArray, fold: IntArray) -> None:
    """Each fold has pairs of both kinds."""
    for kind, what in ((True, "one person"), (False, "two people")):
        absent = np.setdiff1d(fold, fold[same == kind])
        if len(absent):
            first = rows[int(np.flatnonzero(fold == absent[0])[0])]
            raise UserError(
                f"{path}, line {first.number}: got fold {first.fields[-1]}, which has no pair of {what} · allowed: "
                "pairs of both kinds in each fold · move pairs between the folds, or leave out their column"
            )


def _given_folds(path: Path, rows: Sequence[_Row]) -> IntArray:
    """(P,) folds as the last fields number them, counted from 1."""
    for row in rows:
        if not is_number(row.fields[-1]):
            raise UserError(
                f"{path}, line {row.number}: got the fold {quoted(row.fields[-1])} · allowed: whole numbers, from 1 "
                "(or 0) to the last fold's"
            )
    values = np.array([int(row.fields[-1]) for row in rows], dtype=np.int64)
    present = np.unique(values)
    expected = np.arange(len(present)) + min(int(present[0]), 1)
    wrong = np.flatnonzero(present != expected)
    if len(wrong):
        row = rows[int(np.flatnonzero(values == present[wrong[0]])[0])]
        raise UserError(
            f"{path}, line {row.number}: got fold {present[wrong[0]]}, but no pair is in fold {expected[wrong[0]]} · "
            "allowed: every number from 1 (or 0) to the last fold's"
        )
    if len(present) < 2:
        raise UserError(
            f"{path}, line {rows[0].number}: got fold {present[0]} for every pair · allowed: two folds or more, since "
            f"a fold's threshold comes from the others · leave out that column for {NUM_FOLDS} folds"
        )
    return np.asarray(values - expected[0] + 1, dtype=np.int64)


def with_folds(path: Path, sides: Sequence[tuple[str, str]], same: BoolArray) -> PairRows:
    """Return pairs that their list puts in no folds, in ten; in fewer where it has fewer than ten
    pairs of a kind.

    Each fold takes the same share of the pairs of one person and of two people, in the order of the
    list.

    Raises:
        UserError: fewer than two pairs of a kind.
    """
    num_folds = max(2, min(NUM_FOLDS, int(same.sum()), int((~same).sum())))
    return PairRows(sides, same, _checked_folds(path, same, num_folds), num_folds)


def _checked_folds(path: Path, same: BoolArray, num_folds: int) -> IntArray:
    """(P,) folds from 1. Each kind of pairs is divided into consecutive runs; the first runs may be
    longer by one.
    """
    num_genuine, num_impostor = int(same.sum()), int((~same).sum())
    if min(num_genuine, num_impostor) < num_folds:
        raise UserError(
            f"{path}: has {num_genuine} pairs of one person and {num_impostor} of two people · allowed: {num_folds} or "
            f"more of each for {num_folds} folds, because a fold's threshold comes from the others · add pairs"
        )
    return consecutive_folds(same, num_folds)


def consecutive_folds(same: BoolArray, num_folds: int) -> IntArray:
    """Return (P,) folds from 1: each has the same share of the pairs of each kind, in the order of
    the list.
    """
    fold = np.zeros(len(same), dtype=np.int64)
    for kind in (True, False):
        for number, rows in enumerate(np.array_split(np.flatnonzero(same == kind), num_folds), start=1):
            fold[rows] = number
    return fold


# ---------------------------------------------------------------- two lines a pair


def _sides(path: Path, rows: Sequence[_Row]) -> list[tuple[str, str]]:
    """(left, right) of each two lines."""
    if len(rows) % 2:
        raise UserError(
            f"{path}, line {rows[-1].number}: the list ends with the first image of a pair, after {len(rows)} images · "
            "expected two lines for each pair · look for a line that is missing, or download the list again"
        )
    names = [image_name(path, number, fields[0]) for number, fields in rows]
    return list(zip(names[0::2], names[1::2], strict=True))


def _read_flagged(path: Path, rows: Sequence[_Row]) -> PairRows:
    for number, (_, flag) in rows:
        if not is_number(flag):
            raise UserError(
                f"{path}, line {number}: got the flag {quoted(flag)} · allowed: 0 for two people; 1, or the number of "
                "the fold, for one person"
            )
    sides = _sides(path, rows)
    for first, second in zip(rows[0::2], rows[1::2], strict=True):
        if int(first.fields[1]) != int(second.fields[1]):
            raise UserError(
                f"{path}, line {second.number}: got the flag {second.fields[1]} for the second image of a pair, whose "
                f"first image (line {first.number}) has {first.fields[1]} · expected one flag for both · look above "
                "for a line that is missing"
            )
    flags = np.array([int(row.fields[1]) for row in rows[0::2]], dtype=np.int64)
    same = flags > 0
    if flags.max() <= 1:
        return with_folds(path, sides, same)
    own = _given_folds(path, [row for row in rows[0::2] if int(row.fields[1]) > 0])
    fold = _checked_folds(path, same, int(own.max()))
    fold[same] = own
    return PairRows(sides, same, fold, int(own.max()))


def _read_by_folder(path: Path, rows: Sequence[_Row]) -> PairRows:
    sides = _sides(path, rows)
    for row, name in zip(rows, itertools.chain.from_iterable(sides), strict=True):
        if "/" not in name:
            raise UserError(
                f"{path}, line {row.number}: got the image {quoted(name)} without a folder · expected "
                f"'{Form.FOLDER.value}', since the folder says who is on it"
            )
    same = np.array([left.rpartition("/")[0] == right.rpartition("/")[0] for left, right in sides], dtype=bool)
    return with_folds(path, sides, same)
