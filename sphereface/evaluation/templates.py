"""Read templates: sets of images or video frames of one person, compared as one (IJB, YTF).

The list of images has a line ``path template [media]`` for each image. The list of pairs has lines
``template template same [fold]``, with same = 1 for one person and 0 for two. Tabs separate the
fields; spaces do too if no path contains any. The first line may hold column names. IJB-B and IJB-C
have such files: ``ijbc_face_tid_mid.txt`` and ``ijbc_template_pair_label.txt``.
"""

from __future__ import annotations

import itertools
import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.pair_forms import check_column_names, is_heading
from ..data.pair_lines import plain_label, quoted, unquoted
from ..data.pairs import Pairs
from ..errors import UserError, listed, printable
from ..metrics import BoolArray, FloatArray, IntArray
from .columns import integer_blocks, is_integer, lines_of
from .embeddings import Features
from .images import Images
from .labels import check_both_kinds, check_labels
from .pooling import PoolMode, pool
from .template_rows import RowOfTemplate, rows_of_block

_WHAT = "a list of templates"
_NO_FOLD = -1
_MODE = PoolMode(normalise=True, detector_score=False, flip="none")
_Columns = tuple[IntArray, IntArray, BoolArray, IntArray]


@dataclass(frozen=True)
class Templates:
    """The template and the medium of each image.

    Attributes:
        path: the list of images.
        names: (T,) names of the templates, in order of appearance.
        template: (N,) int64, the template of each image.
        media: (N,) int64; equal numbers mean one medium of one template, such as the frames of one
            video.
    """

    path: Path
    names: tuple[str, ...]
    template: IntArray
    media: IntArray

    def pool(self, features: Features) -> FloatArray:
        """Pool the embeddings of images to one embedding for each template.

        The method normalises the embedding of each image, averages those of a medium, adds the
        media of a template, and normalises the sum. So a video of 300 frames weighs as much as one
        photograph. This is test mode N0D0F0 of :mod:`.pooling`. It ignores undefined embeddings.

        Args:
            features: (N, F) float, a row for each image.

        Returns:
            (T, F) float64 unit vectors; NaN for a template without a direction.
        """
        return pool(features, None, self.template, self.media, mode=_MODE).templates


def read_templates(root: Path, path: Path, *, find_images: bool = True) -> tuple[Templates, Images]:
    """Read the list of images.

    Args:
        root: folder of the images.
        path: the list.
        find_images: search the images on disk.

    Returns:
        The templates, and the N images.

    Raises:
        UserError: the file is missing, a line has another form, or images are missing.
    """
    images: list[str] = []
    names: dict[str, int] = {}
    media: dict[tuple[str, ...], int] = {}
    template, medium = array("q"), array("q")

    def names_columns(first: list[str], second: list[str]) -> bool:
        found = _names_columns(first, second)
        if found:
            check_column_names(path, 1, first, ("image", "template", "media"))
        return found

    for number, fields in _body(path, names_columns):
        if len(fields) not in (2, 3):
            got = quoted(" | ".join(fields))
            raise UserError(f"{path}, line {number}: got {got} · expected 'path template [media]'")
        images.append(fields[0])
        template.append(names.setdefault(fields[1], len(names)))
        key = (fields[1], fields[2]) if len(fields) == 3 else (str(number),)  # unnamed: its own medium
        medium.append(media.setdefault(key, len(media)))
    missing = [printable(str(path)) for path in _missing(root, images)] if find_images else []
    if missing:
        raise UserError(f"{path}: {len(missing)} of its {len(images)} images are not under {root}:{listed(missing)}")
    files = tuple([root / image for image in images]) if find_images else None
    return Templates(path, tuple(names), np.array(template), np.array(medium)), Images(root, tuple(images), files)


def read_template_pairs(path: Path, templates: Templates) -> Pairs:
    """Read the list of pairs of templates, as rows of ``templates.names``.

    If all names are integers, it reads millions of lines in seconds.

    Raises:
        UserError: the file is missing, a line has another form, a template is unknown, the list or
            a fold has pairs of one kind only, the folds are not 1 to K or 0 to K - 1 with K of 2 or
            more, or labels contradict each other.
    """
    columns = _read_integers(path, templates.names)
    left, right, same, fold = columns if columns is not None else _read_fields(path, templates)
    fold = _folds(path, same, fold)
    check_labels(path, left, right, same, templates.names, fold=fold)
    return Pairs(path, templates.names, left, right, same, fold, int(fold.max()))


def _read_integers(path: Path, names: tuple[str, ...]) -> _Columns | None:
    """Return the columns of a file of integers; None for another file, or one with an error."""
    if not all(is_integer(name) and name == str(int(name)) for name in names):
        return None
    ids = np.array([int(name) for name in names], dtype=np.int64)
    row_of = RowOfTemplate(np.sort(ids))
    order = np.argsort(ids)
    blocks: list[_Columns] = []
    try:
        for block in integer_blocks(path, _WHAT):
            if block.shape[1] > 4:
                return None
            rows, same = rows_of_block(block, row_of)
            fold = block[:, 3].astype(np.int64) if block.shape[1] == 4 else np.full(len(block), _NO_FOLD)
            blocks.append((order[rows[0]], order[rows[1]], same, fold))
    except ValueError:
        return None
    if not blocks:
        return None
    left, right, labels, folds = map(np.concatenate, zip(*blocks, strict=True))
    return left, right, labels, folds


def _read_fields(path: Path, templates: Templates) -> _Columns:
    """Return the columns of a file with any names."""
    row = {name: index for index, name in enumerate(templates.names)}
    left, right, same, fold = array("q"), array("q"), array("b"), array("q")

    def names_columns(first: list[str], second: list[str]) -> bool:
        found = is_heading(first, second)
        if found:
            check_column_names(path, 1, first, ("template", "template", "label", "fold"))
        return found

    for number, fields in _body(path, names_columns):
        label = plain_label("".join(fields[2:3]))
        if len(fields) not in (3, 4) or label not in ("0", "1") or (len(fields) == 4 and not is_integer(fields[3])):
            got = quoted(" | ".join(fields))
            raise UserError(f"{path}, line {number}: got {got} · expected 'template template 0|1 [fold]'")
        for name in fields[:2]:
            if name not in row:
                raise UserError(f"{path}, line {number}: template {quoted(name)} is not in {templates.path}")
        left.append(row[fields[0]])
        right.append(row[fields[1]])
        same.append(int(label))
        fold.append(int(fields[3]) if len(fields) == 4 else _NO_FOLD)
    return np.array(left), np.array(right), np.array(same, dtype=bool), np.array(fold)


def _missing(root: Path, images: Sequence[str]) -> list[Path]:
    """Return the missing images; listing a folder is faster than one check for each file."""
    present: set[str] = set()
    for folder in {image.rpartition("/")[0] for image in images}:
        try:
            with os.scandir(root / folder) as entries:
                before = f"{folder}/" if folder else ""
                present.update(before + entry.name for entry in entries if entry.is_file())
        except OSError:
            continue
    # not Path.is_file, which raises if a name is too long or a folder cannot be read
    return [root / image for image in images if image not in present and not os.path.isfile(root / image)]  # noqa: PTH113


def _folds(path: Path, same: BoolArray, given: IntArray) -> IntArray:
    """Return (P,) folds from 1, or all 0 without folds; ``given`` numbers them from 0 or 1."""
    check_both_kinds(path, same.sum(), (~same).sum())
    none = given == _NO_FOLD
    if none.all():
        return np.zeros_like(given)
    allowed = "allowed: no folds, or 0 to K-1 or 1 to K with K of 2 or more, in every line"
    if none.any():
        raise UserError(f"{path}: {none.sum():,} of {len(given):,} pairs have no fold · {allowed}")
    found = np.unique(given)
    if len(found) < 2 or found[0] > 1 or found[-1] - found[0] != len(found) - 1:
        raise UserError(f"{path}: has folds {found[:12].tolist()} · {allowed}")
    for kind, what in ((True, "one person"), (False, "two people")):
        absent = np.setdiff1d(found, given[same == kind])
        if len(absent):
            raise UserError(
                f"{path}: fold {absent[0]} has no pair of {what} · allowed: pairs of both kinds in each fold · move "
                "pairs between the folds, or omit the column of folds"
            )
    return np.asarray(given - found[0] + 1, dtype=np.int64)


def _body(path: Path, is_heading: Callable[[list[str], list[str]], bool]) -> Iterator[tuple[int, list[str]]]:
    """Return (number from 1, fields) of the lines after a line of column names, or of all lines."""
    lines = (
        (number, [unquoted(field) for field in line.split("\t" if "\t" in line else None)])
        for number, line in lines_of(path, _WHAT)
    )
    first = list(itertools.islice(lines, 2))
    if len(first) == 2 and is_heading(first[0][1], first[1][1]):
        del first[0]
    return itertools.chain(first, lines)


def _names_columns(first: list[str], second: list[str]) -> bool:
    """Return whether the first line of a list of images holds column names."""
    plain = not any(re.search(r"[./\\0-9]", field) for field in first)
    return plain and len(first) == len(second) > 1 and re.search(r"[./\\]", second[0]) is not None
