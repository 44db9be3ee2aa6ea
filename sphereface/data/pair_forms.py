"""Recognise the form of a list of face pairs by its first lines, and check its names of columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .images import IMAGE_SUFFIXES
from .pair_lines import Line, plain_label, quoted

_TWO_IMAGES = re.compile(rf"({'|'.join(map(re.escape, IMAGE_SUFFIXES))})[\"']?[,;\t]", re.IGNORECASE)
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


_COLUMNS = {
    Form.LABEL_LAST: ("image", "image", "label", "fold"),
    Form.LABEL_FIRST: ("label", "image", "image", "fold"),
}


class Layout(NamedTuple):
    """How all lines of a list are written."""

    form: Form
    separator: str | None
    num_fields: int
    lines: Sequence[Line]  # without the names of columns


def recognise(path: Path, lines: Sequence[Line]) -> Layout:
    """Return the layout of a list by its first line, or by its second below column names."""
    for index, line in enumerate(lines[:2]):
        for separator in (each for each in _SEPARATORS if each is None or each in line.text):
            fields = line.fields(separator)
            form = _form(fields)
            if form is not None and (index == 0 or _names_columns(lines[0].fields(separator), fields)):
                if index:
                    _check_names(path, lines[0].number, lines[0].fields(separator), form)
                return Layout(form, separator, len(fields), lines[index:])
    number, got = lines[0].number, quoted(lines[0].text)
    if wrong := _wrong_first_row(lines):
        number, got = lines[1].number, wrong
    raise UserError(
        f"{path}, line {number}: got {got} · allowed: LFW's first line ('10 300' in view 2, "
        f"'500' in view 1), '{Form.LABEL_LAST.value}', '{Form.LABEL_FIRST.value}', or two lines a pair, each "
        f"'{Form.FLAG.value}' or '{Form.FOLDER.value}'"
    )


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
    if numbers == [False] and re.search(r"[/\\]", fields[0]) and not _TWO_IMAGES.search(fields[0]):
        return Form.FOLDER
    return None


def _names_columns(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether the first line has only words, above images with a folder or a suffix."""
    images = [field for field in second if not _INTEGER.fullmatch(plain_label(field))]
    return _only_words(first) and len(first) == len(second) > 1 and all(_PATH.search(image) for image in images)


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
    words = ["number", *fields[1:]] if fields[0].lower() == "no" else fields  # a column of row numbers
    return not any(_PATH.search(field) or _INTEGER.fullmatch(plain_label(field)) or not field for field in words)


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
