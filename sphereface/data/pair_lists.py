"""Read lists of face pairs in other forms than LFW's ``pairs.txt``.

The first lines of a list show its form. It can have one pair a line, with a label 1 (one person) or
0 (two people) and optionally the number of the fold. ``True`` counts as 1::

    a/1.jpg b/2.jpg 0 3
    0 a/1.jpg b/2.jpg 3

It can have two lines a pair, each with an image and a flag (CALFW, CPLFW). The flag is 0 for two
people. For one person it is 1, or the number of the fold::

    Ann_0001.jpg 1
    Ann_0002.jpg 1

It can have two lines a pair, each with only an image (SLLFW). Two images of one folder show one
person::

    Ann/Ann_0001.jpg
    Ann/Ann_0002.jpg

All lines separate fields by tabs, commas or spaces, in the same way. One line of column names may
come first.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError, count_of
from .pair_folds import NUM_FOLDS, BoolArray, IntArray, PairRows, checked_folds, with_folds
from .pair_lines import Line, image_name, is_number, plain_label, quoted

_INTEGER = re.compile(r"[+-]?[0-9]+")
_PATH = re.compile(r"[./\\]")  # in names of images, not of columns
_OPPOSITE = re.compile(r"diff|dis|impost|negativ|unlike|mis.?match|(non|not|un)[-_ ]?(match|same)", re.IGNORECASE)
_SEPARATORS = ("\t", ",", ";", None)  # None: any run of spaces
_ROLES = {
    "label": re.compile(r"(is_?)?(label|same|match|genuine)s?(_\w+)?", re.IGNORECASE),
    "fold": re.compile(r"(cv_?)?(folds?|splits?|subsets?|partition)(_?(id|no|number))?", re.IGNORECASE),
    "group": re.compile(r"groups?|race|ethnicity|gender|sex", re.IGNORECASE),
    "media": re.compile(r"medi(a|um)(_?id)?", re.IGNORECASE),
    "template": re.compile(r"template(_?(id|no|number|name))?", re.IGNORECASE),
}  # of columns, by their names


class Form(Enum):
    """The forms of a line, as messages describe them."""

    LABEL_LAST = "image image 0|1 [fold]"
    LABEL_FIRST = "0|1 image image [fold]"
    FLAG = "image flag"
    FOLDER = "person/image"


_LABEL_COLUMN = {Form.LABEL_LAST: 2, Form.LABEL_FIRST: 0, Form.FLAG: 1}
_COLUMNS = {
    Form.LABEL_LAST: ("image", "image", "label", "fold"),
    Form.LABEL_FIRST: ("label", "image", "image", "fold"),
}


def read_list(path: Path, lines: Sequence[Line]) -> PairRows:
    """Read a list in one of the forms above.

    The list may number its folds, 1 to K or 0 to K − 1. Without numbers there are ten (see
    :func:`with_folds`). For LFW's pairs these are LFW's folds, whether the list has all pairs of
    one person first or 300 of each kind in turn.

    Args:
        path: the file, for messages.
        lines: of :func:`read_lines`.

    Raises:
        UserError: a line has another form, a label is not allowed, half a pair is missing, a name
            leads out of the folder of images, folds have a gap, or a kind has too few pairs.
    """
    layout = _recognise(path, lines)
    rows = [_Row(line.number, line.fields(layout.separator)) for line in layout.lines]
    for row, line in zip(rows, layout.lines, strict=True):
        if len(row.fields) != layout.num_fields:
            raise UserError(
                f"{path}, line {line.number}: got {quoted(line.text)}, {len(row.fields)} fields · "
                f"allowed: {layout.num_fields} ('{layout.form.value}'), as in line {rows[0].number}"
            )
        if (column := _LABEL_COLUMN.get(layout.form)) is not None:
            row.fields[column] = plain_label(row.fields[column])
    if layout.form is Form.FLAG:
        return _read_flagged(path, rows)
    if layout.form is Form.FOLDER:
        return _read_by_folder(path, rows)
    return _read_labelled(path, rows, label_first=layout.form is Form.LABEL_FIRST)


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
    """Return the form of a line by its whole numbers, true and false; an image's name is none."""
    numbers = [bool(_INTEGER.fullmatch(plain_label(field))) for field in fields]
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
    """Return the layout of a list by its first line, or by its second below column names."""
    for index, line in enumerate(lines[:2]):
        for separator in (each for each in _SEPARATORS if each is None or each in line.text):
            fields = line.fields(separator)
            form = _form(fields)
            if form is not None and (index == 0 or _names_columns(lines[0].fields(separator), fields)):
                if index:
                    _check_names(path, lines[0].number, lines[0].fields(separator), form)
                return _Layout(form, separator, len(fields), lines[index:])
    number, got = lines[0].number, quoted(lines[0].text)
    if wrong := _wrong_first_row(lines):
        number, got = lines[1].number, wrong
    raise UserError(
        f"{path}, line {number}: got {got} · allowed: LFW's first line ('10 300' in view 2, "
        f"'500' in view 1), '{Form.LABEL_LAST.value}', '{Form.LABEL_FIRST.value}', or two lines a pair, each "
        f"'{Form.FLAG.value}' or '{Form.FOLDER.value}'"
    )


def _wrong_first_row(lines: Sequence[Line]) -> str:
    """Return what is wrong with the row below column names; empty if the first line has none."""
    for separator in (each for each in _SEPARATORS if each is None or each in lines[0].text):
        first, second = (line.fields(separator) for line in (lines[0], lines[min(1, len(lines) - 1)]))
        if not (_only_words(first) and len(first) > 1 and any(map(_PATH.search, second))):
            continue
        if len(first) != len(second):
            return f"{quoted(lines[1].text)}, {len(second)} fields below {len(first)} names of columns"
        for name, field in zip(first, second, strict=True):
            if not _PATH.search(field) and not _INTEGER.fullmatch(plain_label(field)):
                return f"{quoted(field)} in the column {quoted(name)}"
        return quoted(lines[1].text)
    return ""


def _only_words(fields: Sequence[str]) -> bool:
    """Return whether no field is an image's path, a label or empty."""
    return not any(_PATH.search(field) or _INTEGER.fullmatch(plain_label(field)) or not field for field in fields)


def is_heading(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether the first of two lines ``… … 0|1 …`` names columns: only words, no label."""
    return _only_words(first) and len(first) == len(second) > 2


def check_column_names(path: Path, number: int, names: Sequence[str], roles: Sequence[str]) -> None:
    """Check that column names do not contradict how the columns are read.

    A column that is read as the fold must have the name of one: any other number would pass for it.

    Args:
        path: the list, for messages.
        number: of the line of names, for messages.
        names: of the columns.
        roles: what the columns are read as: image, template, label, fold, group or media.

    Raises:
        UserError: a name is that of another role, or the labels are 1 for two people.
    """
    for place, (name, role) in enumerate(zip(names, roles, strict=False), start=1):
        found = (each for each, pattern in _ROLES.items() if pattern.fullmatch(name))
        named = next(found, "" if role == "fold" else role)
        if named != role and (named != "template" or named in roles):
            remedy = "reorder the columns" if named else "delete that column, or name it 'fold'"
            raise UserError(
                f"{path}, line {number}: got the column {quoted(name)} in place {place} · allowed: "
                f"{', '.join(roles)}, in this order · {remedy}"
            )
        if role == "label":
            _check_label_name(path, number, name)


def _check_names(path: Path, number: int, names: Sequence[str], form: Form) -> None:
    if form in _COLUMNS:
        check_column_names(path, number, names, _COLUMNS[form])
    elif form is Form.FLAG:  # its flags may be folds
        _check_label_name(path, number, names[1])


def _check_label_name(path: Path, number: int, name: str) -> None:
    """Refuse a column of labels whose name means that 1 is two people."""
    if _OPPOSITE.search(name):
        raise UserError(
            f"{path}, line {number}: got the column {quoted(name)} · allowed: labels that are 1 for one person "
            "and 0 for two people · exchange 0 and 1, and name the column 'same'"
        )


def _names_columns(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether the first line has only words, above images with a folder or a suffix."""
    images = [field for field in second if not _INTEGER.fullmatch(plain_label(field))]
    return _only_words(first) and len(first) == len(second) > 1 and all(_PATH.search(image) for image in images)


# ---------------------------------------------------------------- one pair a line


def _read_labelled(path: Path, rows: Sequence[_Row], *, label_first: bool) -> PairRows:
    sides: list[tuple[str, str]] = []
    for number, fields in rows:
        label, left, right = fields[:3] if label_first else (fields[2], *fields[:2])
        if label not in ("0", "1"):
            row_names = label_first and rows[0].fields[0] in ("0", "1") and label == "2" and len(fields) == 4
            remedy = " · if it is a row number, write the list without them (in R: row.names = FALSE)" * row_names
            raise UserError(
                f"{path}, line {number}: got the label {quoted(label)} · allowed: 1 (or true) for one person, "
                f"0 (or false) for two people{remedy}"
            )
        sides.append((image_name(path, number, left), image_name(path, number, right)))
    same = np.array([row.fields[0 if label_first else 2] == "1" for row in rows], dtype=bool)
    if len(rows[0].fields) == 3:
        return with_folds(path, sides, same)
    fold = _given_folds(path, rows)
    _check_kinds(path, rows, same, fold)
    return PairRows(sides, same, fold)


def _check_kinds(path: Path, rows: Sequence[_Row], same: BoolArray, fold: IntArray) -> None:
    """Check that each fold has pairs of both kinds."""
    for kind, what in ((True, "one person"), (False, "two people")):
        absent = np.setdiff1d(fold, fold[same == kind])
        if len(absent):
            first = rows[int(np.flatnonzero(fold == absent[0])[0])]
            raise UserError(
                f"{path}, line {first.number}: got fold {first.fields[-1]}, which has no pair of {what} · allowed: "
                "pairs of both kinds in each fold · move pairs between the folds, or delete their column"
            )


def _given_folds(path: Path, rows: Sequence[_Row]) -> IntArray:
    """Return (P,) folds by the numbers in the last fields, counted from 1."""
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
            f"a fold's threshold comes from the others · delete that column for {NUM_FOLDS} folds"
        )
    return np.asarray(values - expected[0] + 1, dtype=np.int64)


# ---------------------------------------------------------------- two lines a pair


def _sides(path: Path, rows: Sequence[_Row]) -> list[tuple[str, str]]:
    """Return (left, right) of each two lines."""
    if len(rows) % 2:
        raise UserError(
            f"{path}, line {rows[-1].number}: the list ends with the first image of a pair, after "
            f"{count_of(len(rows), 'image', 'images')} · allowed: two lines for each pair · find the "
            "missing line, or download the list again"
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
                f"first image (line {first.number}) has {first.fields[1]} · allowed: one flag for both · look above "
                "for a missing line"
            )
    flags = np.array([int(row.fields[1]) for row in rows[0::2]], dtype=np.int64)
    same = flags > 0
    _refuse_training_list(path, sides, same)
    if flags.max() <= 1:
        return with_folds(path, sides, same)
    own = _given_folds(path, [row for row in rows[0::2] if int(row.fields[1]) > 0])
    fold = checked_folds(path, same, int(own.max()))
    fold[same] = own
    return PairRows(sides, same, fold)


def _refuse_training_list(path: Path, sides: Sequence[tuple[str, str]], same: BoolArray) -> None:
    """Refuse a training list, ``path label``: its flags are identities with their own folders."""
    folders = [(left.rpartition("/")[0], right.rpartition("/")[0]) for left, right in sides]
    of_two = {each for both, is_same in zip(folders, same, strict=True) if not is_same for each in both}
    of_one = {each for both, is_same in zip(folders, same, strict=True) if is_same for each in both}
    if of_two and of_one and of_two.isdisjoint(of_one) and all(left == right for left, right in folders):
        raise UserError(
            f"{path}: got flags that follow the folders: each pair is of one folder, and those with flag 0 are of "
            f"other folders, such as {quoted(min(of_two))} · allowed: 0 for two people · a training list "
            "(path label) is no list of pairs; make pairs with sphereface make-pairs"
        )


def _read_by_folder(path: Path, rows: Sequence[_Row]) -> PairRows:
    sides = _sides(path, rows)
    for row, name in zip(rows, itertools.chain.from_iterable(sides), strict=True):
        if "/" not in name:
            raise UserError(
                f"{path}, line {row.number}: got the image {quoted(name)} without a folder · allowed: "
                f"'{Form.FOLDER.value}', since the folder names the person"
            )
    folders = [(left.rpartition("/")[0], right.rpartition("/")[0]) for left, right in sides]
    _refuse_list_of_images(path, [*itertools.chain.from_iterable(sides)], folders)
    return with_folds(path, sides, np.array([left == right for left, right in folders], dtype=bool))


def _refuse_list_of_images(path: Path, names: Sequence[str], folders: Sequence[tuple[str, str]]) -> None:
    """Refuse a list that names each image once, folder after folder, whose "pairs" end anywhere."""
    if len(set(names)) < len(names):
        return
    runs = [folder for folder, _ in itertools.groupby(itertools.chain.from_iterable(folders))]
    of_one = {left for left, right in folders if left == right}
    different = sum(left != right for left, right in folders)
    cut = sorted({folder for pair in folders if pair[0] != pair[1] for folder in pair} & of_one)
    if cut and len(set(runs)) == len(runs) and 3 * different < len(folders) + 3:  # a list of pairs has about half
        raise UserError(
            f"{path}: got each image once, and all images of a folder together, such as those of {quoted(cut[0])} · "
            "allowed: two lines for each pair · a list of images is no list of pairs; make pairs with sphereface "
            "make-pairs"
        )
