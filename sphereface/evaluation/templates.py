"""Templates: several pictures or video frames of one person compared as one (IJB, YTF).

The list of pictures has a line ``path template [media]`` for each picture, the list of pairs a line
``template template same [fold]`` with same = 1 for one person and 0 for two. Fields are separated by tabs, or by
spaces where no path holds one. IJB-B and IJB-C come with such files: ``ijbc_face_tid_mid.txt`` and
``ijbc_template_pair_label.txt``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.pairs import Pairs
from ..errors import UserError, listed
from ..metrics import FloatArray, IntArray
from .people import Features, unit_rows


@dataclass(frozen=True)
class Templates:
    """Which pictures make up which template.

    Attributes:
        path: the list they came from.
        names: (T,) of the templates, in order of appearance.
        template: (N,) int64, the template of each picture.
        media: (N,) int64, numbered so that equal numbers mean one medium of one template (a video's frames).
    """

    path: Path
    names: tuple[str, ...]
    template: IntArray
    media: IntArray

    def pool(self, features: Features) -> FloatArray:
        """One embedding for each template.

        Each picture's embedding is normalised, those of a medium are averaged, the media of a template are added, the
        sum is normalised: a video of 300 frames weighs as much as one photograph.

        Args:
            features: (N, F) float, a row for each picture.

        Returns:
            (T, F) float64 unit vectors.
        """
        units = unit_rows(features, None)
        frames = np.bincount(self.media)
        pooled = np.zeros((len(self.names), features.shape[1]))
        np.add.at(pooled, self.template, units / frames[self.media][:, None])
        norms = np.linalg.norm(pooled, axis=1, keepdims=True)
        return np.asarray(np.divide(pooled, norms, out=np.full_like(pooled, np.nan), where=norms > 0))


def read_templates(root: Path, path: Path) -> tuple[Templates, tuple[Path, ...]]:
    """Read the list of pictures.

    Returns:
        The templates, and the (N,) pictures under ``root``.

    Raises:
        UserError: no such file, a line of another form, or missing pictures.
    """
    files: list[Path] = []
    names: dict[str, int] = {}
    media: dict[tuple[str, ...], int] = {}
    template, medium = array("q"), array("q")
    for number, fields in _lines(path):
        if len(fields) not in (2, 3):
            raise UserError(f"{path}, line {number}: got {' | '.join(fields)!r} · expected 'path template [media]'")
        files.append(root / fields[0])
        template.append(names.setdefault(fields[1], len(names)))
        key = (fields[1], fields[2]) if len(fields) == 3 else (str(number),)  # unnamed: a medium of its own
        medium.append(media.setdefault(key, len(media)))
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{path}: {len(missing)} of its {len(files)} pictures are not under {root}:{listed(missing)}")
    return Templates(path, tuple(names), _int64(template), _int64(medium)), tuple(files)


def read_template_pairs(path: Path, templates: Templates) -> Pairs:
    """Read the list of pairs of templates, as rows into ``templates.names``.

    Raises:
        UserError: no such file, a line of another form, an unknown template, pairs of one kind only, or folds that
            are not 1 to K with 2 or more.
    """
    row = {name: index for index, name in enumerate(templates.names)}
    left, right, same, fold = array("q"), array("q"), array("b"), array("q")
    for number, fields in _lines(path):
        if len(fields) not in (3, 4) or fields[2] not in ("0", "1") or (len(fields) == 4 and not fields[3].isdigit()):
            raise UserError(
                f"{path}, line {number}: got {' | '.join(fields)!r} · expected 'template template 0|1 [fold]'"
            )
        for name in fields[:2]:
            if name not in row:
                raise UserError(f"{path}, line {number}: template {name!r} is not in {templates.path}")
        left.append(row[fields[0]])
        right.append(row[fields[1]])
        same.append(int(fields[2]))
        fold.append(int(fields[3]) if len(fields) == 4 else 0)
    is_same, folds = np.array(same, dtype=bool), _int64(fold)
    _check(path, is_same, folds)
    return Pairs(path, templates.names, _int64(left), _int64(right), is_same, folds, int(folds.max()))


def _check(path: Path, same: npt.NDArray[np.bool_], folds: IntArray) -> None:
    if same.all() or not same.any():
        raise UserError(f"{path}: {same.sum()} pairs of one person and {(~same).sum()} of two · both are needed")
    found = np.unique(folds).tolist()
    if found != [0] and (found != list(range(1, len(found) + 1)) or len(found) < 2):
        raise UserError(f"{path}: has folds {found[:12]} · allowed: none at all, or 1 to K with K of 2 or more")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number from 1, fields) of each line that is not blank; at least one."""
    empty = True
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    empty = False
                    yield number, [field.strip() for field in line.strip().split("\t" if "\t" in line else None)]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error}) · expected a list of templates") from None
    if empty:
        raise UserError(f"{path}: is empty · expected a list of templates")


def _int64(values: array[int]) -> IntArray:
    return np.array(values, dtype=np.int64)
