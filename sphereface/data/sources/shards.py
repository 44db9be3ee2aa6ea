"""Find the files of a set: a folder of them, or a pattern such as ``x-{00..99}.tar``."""

from __future__ import annotations

import itertools
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import UserError, count_of, printable, shown
from ..walking import NO_SUFFIX, OWN_FILES, is_system_file, kind_of_file, kind_of_path
from .label_folders import JOINED

log = logging.getLogger(__name__)

_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
NUMBER_OF = re.compile(r"(.*?)-?(\d+)-of-(\d+)(-[0-9a-f]{16})?(\..*)?")
"""A name of Hugging Face and of ``sphereface pack``."""
_MOST = 100_000
_SHOWN = 5
_COMPARED = 16  # images
_FACTOR = 1_000_003  # spreads the sums of two hashes
_DESCRIPTIONS = frozenset(
    {".json", ".md", ".idx", ".index", ".lock", ".log", ".html", ".yaml", ".yml", ".py", ".txt", ".csv", ".tsv"}
    | {".crc", ".md5", ".md5sum", ".sha1", ".sha256", ".sha512", NO_SUFFIX}
)
"""Kinds of files that writers put beside a set."""


def is_pattern(path: Path) -> bool:
    """Return whether a path names several files by a range in braces."""
    return _RANGE.search(path.name) is not None


def expanded(path: Path) -> list[Path]:
    """Return the files of a pattern, in its order; a path without a range is one file.

    Raises:
        UserError: a range descends, or there are too many files.
    """
    parts = _RANGE.split(path.name)  # text, first, last, text, …, text
    choices: list[Sequence[str]] = [[parts[0]]]
    for first, last, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        low, high = int(first), int(last)
        if not low <= high < low + _MOST:
            raise UserError(
                f"{path}: got {{{first}..{last}}} · allowed: an ascending range of at most {_MOST:,} numbers, such as "
                "{000000..000099}"
            )
        choices.append([f"{number:0{len(first)}d}{text}" for number in range(low, high + 1)])
    if max(map(len, choices)) ** (len(choices) - 1) > _MOST:
        raise UserError(f"{path}: got a pattern of more than {_MOST:,} files · allowed: one range")
    return [path.with_name("".join(names)) for names in itertools.product(*choices)]


def shard_paths(path: Path, suffix: str) -> list[Path]:
    """Return the files of a set, sorted by name or in the order of the pattern.

    Args:
        path: a file, a folder of files, or a pattern.
        suffix: of the files, in lower case.

    Raises:
        UserError: files are missing, if a pattern or their names (``-00003-of-00010``) give the
            number.
    """
    if kind_of_path(path) == "folder":
        entries = sorted(p for p in path.iterdir() if not is_system_file(p.name))
        paths = [p for p in entries if p.name.lower().endswith(suffix)]
        _log_others(path, [p.name for p in entries if not p.name.lower().endswith(suffix) and p.is_file()], suffix)
        _check_folder(path, [p for p in paths if not p.name.startswith("cache-")])  # ArrowSource leaves these out
        return paths
    paths = expanded(path)
    missing = [each for each in paths if kind_of_path(each) != "file"]
    if missing:
        raise UserError(
            f"{path}: {len(missing):,} of {len(paths):,} files are missing, the first: {printable(missing[0].name)} "
            "· allowed: all files of the set · copy the rest, or give a pattern of the existing files"
        )
    if (found := NUMBER_OF.fullmatch(paths[0].name)) and (count := int(found[3][:9])) > len(paths):
        sentence = "of the %d files of its set · to read all of them, give their folder or a pattern"
        part = "is one" if len(paths) == 1 else f"names {len(paths)}"
        log.warning(f"data: %s: {part} {sentence}", printable(str(path)), count)
    return paths


def log_empty(path: Path, files: Sequence[Path]) -> None:
    """Log files of a set that have no image."""
    if files:
        number, such = count_of(len(files), "file has", "files have"), printable(files[0].name)
        log.warning("data: %s: %s no image, such as %s · copy or pack them again", printable(str(path)), number, such)


def log_copies(
    path: Path,
    files: Sequence[Path],
    numbers: npt.ArrayLike,
    names: Sequence[str | None],
    sizes: Sequence[int] | None,
    content: Callable[[int], bytes],
) -> None:
    """Log images that another file of the set has too, as files left from an earlier run do.

    Writers may count names from 0 in each file, so a sample of the images is compared. Other images
    of equal names, in folders, are logged too, since they may be another set's.

    Args:
        path: of the set, for messages.
        files: its files.
        numbers: (N,) the number of each image's file.
        names: of the images in their files; None: unknown.
        sizes: of the images; None: unknown.
        content: row → the image; it may raise OSError.
    """
    if len(files) < 2:
        return
    of_name = np.fromiter((hash(row if name is None else name) for row, name in enumerate(names)), np.int64)
    hashes, file = of_name if sizes is None else of_name * _FACTOR + np.asarray(sizes), np.asarray(numbers)
    one, other = _in_two_files(hashes, file)
    step = max(1, len(one) // _COMPARED)
    try:
        alike = all(content(int(a)) == content(int(b)) for a, b in zip(one[::step], other[::step], strict=True))
    except OSError:  # reading reports it
        return
    if copies := len(one) > 0 and alike:
        sentence, remedy = "also in another file of the set", "delete the files that an earlier run left"
    else:
        one, other = _in_two_files(of_name, file)
        sentence, remedy = "unlike one of the same name in another file of the set", JOINED
    if len(one) and (copies or _several_folders(str(names[row]) for row in other.tolist())):
        log.warning(
            f"data: %s: %s {sentence}, such as %s: each counts{' again' if copies else ''} · {remedy}",
            printable(str(path)),
            count_of(len(one), "image is", "images are"),
            printable(f"{files[file[other[0]]].name}/{names[other[0]]}"),
        )


def _several_folders(names: Iterable[str]) -> bool:
    """Return whether images are in several folders, which may be those of people."""
    folders = (name.rpartition("/")[0] for name in names)
    first = next(folders, "")
    return any(folder != first for folder in folders)


def _in_two_files(
    hashes: npt.NDArray[np.int64], file: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return pairs of rows with equal hashes in different files."""
    order = np.argsort(hashes, kind="stable")
    one, other = order[:-1], order[1:]
    same = (hashes[one] == hashes[other]) & (file[one] != file[other])
    return one[same], other[same]


def _log_others(folder: Path, names: Sequence[str], suffix: str) -> None:
    """Log files beside those of a set that may belong to it: a download in parts, a packed file."""
    others = [name for name in names if name not in OWN_FILES and kind_of_file(name) not in _DESCRIPTIONS]
    if others:
        kinds = sorted(Counter(map(kind_of_file, others)).items(), key=lambda item: (-item[1], item[0]))
        log.warning(
            "data: %s: %s not read: %s, such as %s · allowed: %s · complete or unpack those that belong to the set, "
            "and move the others elsewhere",
            printable(str(folder)),
            count_of(len(others), "file is", "files are"),
            ", ".join(f"{count:,} {kind}" for kind, count in kinds[:_SHOWN]) + (", …" if len(kinds) > _SHOWN else ""),
            printable(others[0]),
            suffix,
        )


def _check_folder(folder: Path, paths: Sequence[Path]) -> None:
    """Check that no numbered file is missing, and that the files are of one set.

    A missing file is an error if a name contains their number, else a warning. Two numbers of files
    under one name are an error, as the same images may be in both. Files of several names are a
    warning: files are of one set if their names differ only in numbers.
    """
    numbered: dict[tuple[str, str], dict[int, re.Match[str]]] = {}
    numbers: list[str] = []
    sets: dict[str, str] = {}  # name, numbers left out → as a message shows it
    for path in paths:
        if found := NUMBER_OF.fullmatch(path.name):
            before = numbered.setdefault((found[1], found[3]), {}).setdefault(int(found[2]), found)
            if before[0] != found[0] and before[5] == found[5]:  # of another version, by Hugging Face's hash
                raise UserError(
                    f"{folder}: got {printable(before[0])} and {printable(found[0])}, both file {found[2]} of a set · "
                    "allowed: one of them, since the same images may be in both · move the files of one set elsewhere"
                )
            sets[f"{found[1]} of"] = found[1]
            continue
        sets.setdefault(re.sub(r"\d+", "#", path.stem), path.name)
        if found := re.fullmatch(r".*?(\d{1,9})\.[^.\d]*", path.name):
            numbers.append(found[1])
    for (name, count), seen in sorted(numbered.items()):
        if len(seen) != int(count[:9]):
            raise UserError(
                f"{folder}: got {len(seen):,} of the {printable(count)} files {shown(name)} · "
                "allowed: all files of the set · copy the rest"
            )
    for (name, count), (other, total) in itertools.pairwise(sorted(numbered)):
        if name == other:
            last = f"{int(count) - 1:0{len(count)}d}"
            raise UserError(
                f"{folder}: got files {shown(name)} of two sets, of {printable(count)} and of {printable(total)} files "
                "· allowed: one, since the same images may be in both · move one set elsewhere, or give a pattern such "
                f"as {printable(name)}-{{{'0' * len(count)}..{last}}}-of-{printable(count)}"
            )
    if len(sets) > 1:  # Hugging Face puts train and test into one folder
        names = sorted(sets.values())
        shown_sets = ", ".join(printable(name) for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        log.warning(
            "data: %s: contains several sets, and all are read as one: %s · to read only one, give a pattern such as "
            "train-{00000..00009}-of-00010.parquet",
            printable(str(folder)),
            shown_sets,
        )
    if len(numbers) == len(paths) > 1:
        _tell_missing(printable(str(folder)), numbers)


def _tell_missing(folder: str, texts: Sequence[str]) -> None:
    """Warn of numbers that are missing between those of a folder, or before the first.

    Args:
        folder: for messages.
        texts: the numbers in the names. A first number of 1000 or more counts only if it begins
            with a zero; others are dates or sizes.
    """
    numbers = {int(text): text for text in texts}
    first, last = min(numbers), max(numbers)
    if gap := last - first + 1 - len(numbers):
        log.warning("data: %s: between the first and the last file %d numbers are missing", folder, gap)
    if first > 1 and (first < 1000 or numbers[first].startswith("0")):
        log.warning(
            "data: %s: its first file has the number %s · if the set begins at 0 or 1, copy the files before it",
            folder,
            numbers[first],
        )
