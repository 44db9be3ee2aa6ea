"""Read LFW's lists of pairs, ``pairs.txt`` (view 2) and ``pairsDev*.txt`` (view 1).

:mod:`.pair_lists` reads other forms. View 2 starts with the number of folds and the number n of
pairs of each kind in a fold, view 1 with n alone. Then n lines ``name n1 n2`` (one person) and n
lines ``name1 n1 name2 n2`` (two people) follow, in view 2 once for each fold. Fields are separated
by tabs, or by spaces if no name contains one. Image k of a person is ``name/name_%04d.jpg``, or has
another suffix of :data:`SUFFIXES`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import UserError, count_of, listed
from .images import IMAGE_SUFFIXES
from .pair_folds import PairRows, with_folds
from .pair_lines import Line, image_name, is_number, quoted, read_lines
from .pair_lists import read_list
from .walking import kind_of_path

SUFFIXES = (".jpg", *sorted(IMAGE_SUFFIXES - {".jpg"}))  # in order of search, each in upper case too
_LFW_VIEW2_TEXT = """
49f30dcd 6f1273ec daa19582 844ec212 0c67b0f3 97349118 be0c88ca 82a34a77 500c04f3 86ab8f9e
6face2f1 db6e3738 214abcaf c9d3e49f 7ed8c922 2f2f5f62 62be4d07 812f00b7 c0318554 aa5f748a
23398d5f c46ca84e 1af8b845 99c26c22 e39860d7 d55a348e 61422ce7 5d2d6a39 5871aaf7 c7f68254
1118db8e ef8e31f1 714b7f99 a73b6964 da8553c2 dcbb4abc 2506533f bc8317d0 bab9d362 842e9faa
21498af0 fa416f16 45e8ee08 eb6fb0de 5f2c54f1 0de89905 9d13c274 b719d4d8 652d1f6c e3dfcbd3
fe2958f4 3599fac0 fc2a8934 fd40adea eff1a3ef 6142d6ce 44ab241d c780e276 5d6e9467 987d1b1d
"""
_LFW_VIEW2 = frozenset(_LFW_VIEW2_TEXT.split())  # hashes of 60 of its 6,000 pairs
_LFW_STEM = re.compile(r"(.+)_[0-9]{4}")  # of an image name


@dataclass(frozen=True)
class Pairs:
    """Pairs of images, as rows into a list of names.

    Attributes:
        path: the file of the pairs.
        names: distinct images relative to a root (``Name/Name_0001.jpg``), sorted.
        left, right: (P,) int64 rows into ``names``; pairs in the order of the file, with
            duplicates.
        same: (P,) bool, True for a pair of one person.
        fold: (P,) int64 from 1 to ``num_folds``; all 0 in view 1.
        num_folds: 0 in view 1.
    """

    path: Path
    names: tuple[str, ...]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    same: npt.NDArray[np.bool_]
    fold: npt.NDArray[np.int64]
    num_folds: int

    def __len__(self) -> int:
        return len(self.same)

    def resolve(self, root: str | Path) -> list[Path]:
        """Find each of ``names`` under ``root``, with any suffix of :data:`SUFFIXES`.

        If no image is at its listed place, and all file names differ, the images may also be in one
        flat folder: ``root/Name_0001.jpg`` for ``Name/Name_0001.jpg``.

        Returns:
            The files, in the order of ``names``.

        Raises:
            UserError: ``root`` is not a folder, or images are missing; the message gives their
                number and the first ten.
        """
        root = Path(root)
        if kind_of_path(root) != "folder":
            raise UserError(f"{root}: no such folder · allowed: a folder with the aligned crops of {self.path}")
        found = _find_all(root, self.names)
        if not any(found):
            last_parts = [name.rpartition("/")[2] for name in self.names]
            if len(set(last_parts)) == len(last_parts):
                found = _find_all(root, last_parts)
        missing = [name for name, file in zip(self.names, found, strict=True) if file is None]
        if missing:
            raise UserError(
                f"{root}: {len(missing)} of the {len(found)} images in {self.path} are missing "
                f"(looked for {', '.join(SUFFIXES)} · give the folder that these names start from):{listed(missing)}"
            )
        return [file for file in found if file is not None]

    def over(self, names: Sequence[str]) -> Pairs:
        """Return the same pairs as rows into another list of names, which must contain theirs."""
        row = {name: index for index, name in enumerate(names)}
        rows = np.array([row[name] for name in self.names], dtype=np.int64)
        return dataclasses.replace(self, names=tuple(names), left=rows[self.left], right=rows[self.right])


def read_pairs(path: str | Path) -> Pairs:
    """Read a list of pairs, in LFW's form or in one of :mod:`.pair_lists`.

    The first lines show the form. Within a fold the pairs may have any order. Windows line ends, a
    byte order mark and blank lines are allowed.

    Raises:
        UserError: there is no such file, a line has another form, or the number of pairs is wrong;
            the message gives the line, what was got and what is allowed.
    """
    path = Path(path)
    lines = read_lines(path)
    read = _read_lfw if _is_lfw_header(lines[0]) else _read_headless if _is_lfw_line(lines[0]) else read_list
    rows = read(path, lines)
    names = sorted({name for pair in rows.sides for name in pair})
    row = {name: index for index, name in enumerate(names)}
    left, right = np.array([[row[left], row[right]] for left, right in rows.sides], dtype=np.int64).T
    return Pairs(path, tuple(names), left, right, rows.same, rows.fold, num_folds=int(rows.fold.max(initial=0)))


def _find_all(root: Path, names: Sequence[str]) -> list[Path | None]:
    """Return the file of each name, or None; two names share no file unless it has one's name."""
    found = [find_image(root / name) for name in names]
    uses = Counter(file for file in found if file is not None)
    return [
        file if file is None or uses[file] == 1 or file == root / name else None
        for file, name in zip(found, names, strict=True)
    ]


def find_image(file: Path) -> Path | None:
    """Return the file, or the one with another suffix of :data:`SUFFIXES`; None without one."""
    if os.path.isfile(file):  # noqa: PTH113 -- Path.is_file raises in a folder without search permission
        return file
    known = file.suffix.lower() in IMAGE_SUFFIXES
    stem = str(file)[: -len(file.suffix)] if known else str(file)  # not with_suffix: 'frame.0001' has none
    candidates = (stem + case for suffix in SUFFIXES for case in (suffix, suffix.upper()))
    return next((Path(candidate) for candidate in candidates if os.path.isfile(candidate)), None)  # noqa: PTH113


# ---------------------------------------------------------------- LFW's form


def _is_lfw_header(line: Line) -> bool:
    """Return whether all fields of a line are whole numbers."""
    return all(field.isascii() and field.isdecimal() for field in _split(line))


def _is_lfw_line(line: Line) -> bool:
    """Return whether a line is ``name n1 n2`` or ``name1 n1 name2 n2``."""
    fields = _split(line)
    counts = [_is_count(field) for field in fields]
    return all(fields) and counts in ([False, True, True], [False, True, False, True])


def _read_headless(path: Path, lines: Sequence[Line]) -> PairRows:
    """Read RFW's lists, and LFW's without the first line: each fold is a tenth of the list."""
    same = np.array([len(_split(line)) == 3 for line in lines], dtype=bool)
    return with_folds(path, [_parse_line(path, line) for line in lines], same)


def _read_lfw(path: Path, lines: Sequence[Line]) -> PairRows:
    num_folds, num_each = _parse_header(path, lines[0])
    lines = lines[1:]
    sides = [_parse_line(path, line) for line in lines]
    same = np.array([len(_split(line)) == 3 for line in lines], dtype=bool)
    _check_counts(path, [line.number for line in lines], same, max(1, num_folds), num_each)
    fold = np.arange(len(same)) // (2 * num_each) + 1 if num_folds else np.zeros(len(same))
    return PairRows(sides, same, fold.astype(np.int64))


def _split(line: Line) -> list[str]:
    """Split at tabs if there are any, since names may then contain spaces, else at spaces."""
    return line.fields("\t" if "\t" in line.text else None)


def _parse_header(path: Path, header: Line) -> tuple[int, int]:
    """Return (number of folds, 0 for view 1; pairs of each kind in a fold)."""
    fields = _split(header)
    numbers = [int(field) for field in fields if _is_count(field)]
    if len(numbers) == len(fields) == 1:
        return 0, numbers[0]
    if len(numbers) == len(fields) == 2 and numbers[0] >= 2:  # a fold's threshold comes from the others
        return numbers[0], numbers[1]
    raise UserError(
        f"{path}, line {header.number}: got {quoted(' '.join(fields))} · allowed: the numbers of folds (2 or more) and "
        "of pairs of each kind in a fold ('10 300'), or for view 1 the number of pairs of each kind ('500')"
    )


def _parse_line(path: Path, line: Line) -> tuple[str, str]:
    """Return the names of the two images of a line."""
    fields = _split(line)
    if len(fields) == 3 and _is_count(fields[1]) and _is_count(fields[2]):
        people = (fields[0], fields[0])
    elif len(fields) == 4 and _is_count(fields[1]) and _is_count(fields[3]):
        people = (fields[0], fields[2])
    else:
        raise UserError(
            f"{path}, line {line.number}: got {quoted(' | '.join(fields))} · allowed: 'name n1 n2' or "
            "'name1 n1 name2 n2' with image numbers from 1, separated by tabs (or by spaces if no name contains one)"
        )
    left, right = (f"{name}/{name}_{int(n):04d}.jpg" for name, n in zip(people, (fields[1], fields[-1]), strict=True))
    return image_name(path, line.number, left), image_name(path, line.number, right)


def _is_count(field: str) -> bool:
    return is_number(field) and int(field) > 0


def _check_counts(
    path: Path, numbers: Sequence[int], same: npt.NDArray[np.bool_], num_blocks: int, num_each: int
) -> None:
    """Check that each block (a fold, or view 1) has num_each pairs of each kind.

    Nothing may follow the last block.
    """
    size = 2 * num_each
    for block in range(num_blocks):
        got = same[block * size : (block + 1) * size]
        where = f"fold {block + 1}" if num_blocks > 1 else "the list"
        if len(got) < size:
            last = numbers[-1] if numbers else 1
            raise UserError(
                f"{path}, line {last}: the file ends after {count_of(len(same), 'pair', 'pairs')}, with "
                f"{len(got)} in {where} · its first line announces {num_blocks * size} pairs, {size} in {where}"
            )
        if got.sum() != num_each:
            first, last = numbers[block * size], numbers[(block + 1) * size - 1]
            raise UserError(
                f"{path}, lines {first} to {last}: {where} has {count_of(int(got.sum()), 'pair', 'pairs')} of one "
                f"person and {size - got.sum()} of two · allowed: {num_each} of each, as in its first line"
            )
    if len(same) > num_blocks * size:
        raise UserError(
            f"{path}, line {numbers[num_blocks * size]}: got pair {num_blocks * size + 1} of {len(same)} · "
            f"its first line announces {num_blocks * size}"
        )


def is_lfw_view2(pairs: Pairs) -> bool:
    """Return whether these pairs contain a quarter or more of LFW's view 2.

    Order, form and folders of the list do not matter. The module has hashes of one in a hundred of
    view 2's 6,000 pairs, and a quarter of the hashes must occur. SLLFW has view 2's pairs of one
    person, so it counts as well. A ``.bin`` contains no names, so its file name decides, such as
    ``lfw.bin``.
    """
    if pairs.path.suffix.lower() == ".bin":
        return pairs.path.stem.lower().startswith("lfw")
    names = [_as_in_lfw(name) for name in pairs.names]
    hashes = {
        hashlib.sha256(" ".join(sorted((names[left], names[right]))).encode()).hexdigest()[:8]
        for left, right in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
    }
    return len(hashes & _LFW_VIEW2) * 4 >= len(_LFW_VIEW2)


def _as_in_lfw(name: str) -> str:
    """Return ``Name/Name_0001.jpg`` for such an image in any folder, with any suffix.

    Other names are returned unchanged.
    """
    stem = Path(name).stem
    match = _LFW_STEM.fullmatch(stem)
    return f"{match[1]}/{stem}.jpg" if match else name
