"""Read the files of IJB-B and IJB-C, as NIST and InsightFace distribute them.

| file | one line |
|---|---|
| ``ijbc_face_tid_mid.txt`` | ``image template medium``, one for each image |
| ``ijbc_template_pair_label.txt`` | ``template template 0`` (two subjects) or ``1`` (one) |
| ``ijbc_name_5pts_score.txt`` | ``image``, ten landmark numbers ``x y``, detector score |

Spaces or tabs separate the fields. Templates and media are integers in [0, 2^31).
:mod:`.ijb_subjects` reads the csv files of 1:N search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.pair_lines import quoted
from ..data.walking import check_readable
from ..errors import UserError, count_of
from ..metrics import BoolArray, FloatArray, IntArray
from .columns import Int32Array, bad_line, finite_number, integer_blocks, is_integer, lines_of
from .labels import check_both_kinds, check_labels
from .template_rows import RowOfTemplate, rows_of_block

_MEDIA, _PAIRS, _SCORES = "*_face_tid_mid.txt", "*_template_pair_label.txt", "*_name_5pts_score.txt"
_GALLERIES, _PROBES = ("*_1N_gallery_[GS]1.csv", "*_1N_gallery_[GS]2.csv"), "*_1N_probe_mixed.csv"
_LANDMARKS = 10
_LARGEST_COORDINATE = 100_000  # pixels; a landmark may lie outside its image
_HIGHEST_SCORE = 1.001  # a score of 1, rounded
_MEDIA_LINE = "'image template medium', the last two integers"
_PAIR_LINE = "'template template 0' or 'template template 1'"
_SCORE_LINE = "an image, ten landmark numbers and a detector score"


@dataclass(frozen=True)
class IjbFiles:
    """The files of one benchmark.

    Attributes:
        name: start of their names, such as ``"ijbc"``.
        media: the list of images.
        pairs: the pairs of templates.
        scores: landmarks and detector scores; None if there is no such file.
        galleries: the two galleries of 1:N search; () if they or the probes are missing.
        probes: the probes of 1:N search; None if they or the galleries are missing.
        missing: patterns of the names of missing optional files.
    """

    name: str
    media: Path
    pairs: Path
    scores: Path | None
    galleries: tuple[Path, ...]
    probes: Path | None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageList:
    """The template and the medium of each image.

    Attributes:
        images: (N,) names of the images, in the order of the file.
        template, media: (N,) int64.
    """

    images: tuple[str, ...]
    template: IntArray
    media: IntArray

    @property
    def templates(self) -> IntArray:
        """(T,) int64: all templates, sorted, each once."""
        return np.unique(self.template)


@dataclass(frozen=True)
class TemplatePairs:
    """Pairs of templates.

    Attributes:
        left, right: (P,) int32 rows of the sorted templates.
        same: (P,) bool, True if both are of one subject.
    """

    left: Int32Array
    right: Int32Array
    same: BoolArray


def find_ijb(directory: Path, *, detector_scores: bool = False) -> IjbFiles:
    """Find the files of IJB-B or IJB-C in a folder, or in its subfolder ``meta``.

    Args:
        directory: the folder.
        detector_scores: require the detector scores.

    Raises:
        UserError: the folder or a required file is missing, or the folder holds files of several
            benchmarks.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder · expected the folder with {_MEDIA} and {_PAIRS}")
    folders = [folder for folder in (directory / "meta", directory) if _matches(folder, _MEDIA)]
    folder = folders[0] if folders else directory
    required = [_MEDIA, _PAIRS, *([_SCORES] if detector_scores else [])]
    found = {pattern: _only(folder, pattern) for pattern in (_MEDIA, _PAIRS, _SCORES, *_GALLERIES, _PROBES)}
    missing = [pattern for pattern in required if found[pattern] is None]
    if missing:
        raise UserError(f"{folder}: has no {' and no '.join(missing)} · copy the files of IJB-B or IJB-C to it")
    media, pairs = found[_MEDIA], found[_PAIRS]
    assert media is not None
    assert pairs is not None
    search = [found[pattern] for pattern in (*_GALLERIES, _PROBES)]
    complete = [path for path in search if path is not None]
    galleries = tuple(complete[:2]) if len(complete) == len(search) else ()
    name = media.name.removesuffix(_MEDIA[1:])
    lacking = tuple(pattern for pattern, path in found.items() if path is None)
    return IjbFiles(name, media, pairs, found[_SCORES], galleries, found[_PROBES] if galleries else None, lacking)


def read_image_list(path: Path) -> ImageList:
    """Read ``*_face_tid_mid.txt``.

    Raises:
        UserError: the file cannot be read, or a line has another form.
    """
    images, numbers = [], []
    for number, line in lines_of(path, f"lines {_MEDIA_LINE}"):
        fields = line.split()
        if len(fields) != 3 or not (is_integer(fields[1]) and is_integer(fields[2])):
            raise bad_line(path, number, line, _MEDIA_LINE)
        images.append(fields[0])
        numbers.append((int(fields[1]), int(fields[2])))
    template, media = np.array(numbers, dtype=np.int64).T.copy()
    return ImageList(tuple(images), template, media)


def read_template_pairs(path: Path, templates: IntArray) -> TemplatePairs:
    """Read ``*_template_pair_label.txt``: 15.7 million lines in IJB-C.

    Args:
        path: the file.
        templates: (T,) all templates, sorted.

    Raises:
        UserError: the file cannot be read, a line has another form, a template is unknown, all
            pairs are of one kind, or labels contradict each other.
    """
    row_of = RowOfTemplate(templates)
    blocks = []
    try:
        for block in integer_blocks(path, f"lines {_PAIR_LINE}"):
            if block.shape[1] != 3:
                raise ValueError
            blocks.append(rows_of_block(block, row_of))
    except ValueError:
        raise _first_bad_pair(path, templates) from None
    if not blocks:
        raise UserError(f"{path}: is empty · expected lines {_PAIR_LINE}")
    rows, same = zip(*blocks, strict=True)
    left, right = np.concatenate(rows, axis=1)
    pairs = TemplatePairs(left, right, np.concatenate(same))
    num_same = int(pairs.same.sum())
    check_both_kinds(path, num_same, len(pairs.same) - num_same, "one subject", "two subjects")
    check_labels(path, pairs.left, pairs.right, pairs.same, templates.tolist())
    return pairs


def read_detector_scores(path: Path, images: Sequence[str]) -> FloatArray:
    """Read the scores of ``*_name_5pts_score.txt``, and check its landmarks.

    Args:
        path: the file.
        images: (N,) names of the images; the file must list the same images in the same order.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        UserError: the file cannot be read, a line has another form, a number is out of range, or
            the images differ.
    """
    scores = np.empty(len(images))
    row = 0
    for number, line in lines_of(path, f"lines with {_SCORE_LINE}"):
        fields = line.split()
        values = [value for field in fields[1:] if (value := finite_number(field)) is not None]
        if not len(values) == len(fields) - 1 == _LANDMARKS + 1:
            raise bad_line(path, number, line, _SCORE_LINE)
        if max(map(abs, values[:-1])) > _LARGEST_COORDINATE or not 0 <= values[-1] <= _HIGHEST_SCORE:
            raise UserError(
                f"{path}, line {number}: got {quoted(' '.join(fields[1:]))} · allowed: landmarks within "
                f"±{_LARGEST_COORDINATE:,} pixels and a detector score from 0 to 1"
            )
        if row == len(images) or fields[0] != images[row]:
            expected = "no more lines" if row == len(images) else quoted(images[row])
            raise UserError(
                f"{path}, line {number}: got image {quoted(fields[0])} · expected {expected}: "
                "the images of *_face_tid_mid.txt in their order"
            )
        scores[row] = values[-1]
        row += 1
    if row < len(images):
        ends = f"ends after {count_of(row, 'image', 'images')}"
        raise UserError(f"{path}: {ends} · {_MEDIA} has {len(images)}, next {quoted(images[row])}")
    return scores


def _matches(folder: Path, pattern: str) -> list[Path]:
    check_readable(folder, "")  # glob finds nothing in a folder without read permission
    return sorted(folder.glob(pattern))


def _only(folder: Path, pattern: str) -> Path | None:
    found = _matches(folder, pattern)
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise UserError(f"{folder}: has {names} · allowed: one {pattern} · keep each benchmark in a folder of its own")
    return found[0] if found else None


def _first_bad_pair(path: Path, templates: IntArray) -> UserError:
    known = set(templates.tolist())
    for number, line in lines_of(path, f"lines {_PAIR_LINE}"):
        fields = line.split()
        if len(fields) != 3 or not all(map(is_integer, fields)) or int(fields[2]) > 1:
            return bad_line(path, number, line, _PAIR_LINE)
        for field in fields[:2]:
            if int(field) not in known:
                return UserError(
                    f"{path}, line {number}: template {field} is not in *_face_tid_mid.txt · use files of one benchmark"
                )
    return UserError(f"{path}: cannot be read as lines {_PAIR_LINE}")
