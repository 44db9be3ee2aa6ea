"""Read lists of face pairs in other forms than LFW's ``pairs.txt``.

The first lines of a list show its form. It can have one pair a line, with a label 1 (one person) or
0 (two people) and optionally the number of the fold. ``True`` and ``yes`` count as 1::

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
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError, count_of
from .pair_folds import NUM_FOLDS, BoolArray, IntArray, PairRows, checked_folds, with_folds
from .pair_forms import Form, recognise
from .pair_lines import Line, image_name, is_number, plain_label, quoted

_LABEL_COLUMN = {Form.LABEL_LAST: 2, Form.LABEL_FIRST: 0, Form.FLAG: 1}


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
    layout = recognise(path, lines)
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


class _Row(NamedTuple):
    number: int  # of the line
    fields: list[str]


# ---------------------------------------------------------------- one pair a line


def _read_labelled(path: Path, rows: Sequence[_Row], *, label_first: bool) -> PairRows:
    sides: list[tuple[str, str]] = []
    for number, fields in rows:
        label, left, right = fields[:3] if label_first else (fields[2], *fields[:2])
        if label not in ("0", "1"):
            row_names = label_first and rows[0].fields[0] in ("0", "1") and label == "2" and len(fields) == 4
            remedy = " · if it is a row number, write the list without them (in R: row.names = FALSE)" * row_names
            raise UserError(
                f"{path}, line {number}: got the label {quoted(label)} · allowed: 1 (or true, yes) for one person, "
                f"0 (or false, no) for two people{remedy}"
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
