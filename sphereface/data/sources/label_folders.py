"""Compare labels with the folders of their images, and log labels that join people."""

from __future__ import annotations

import logging
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from ...errors import printable
from ..identities import Labels
from ..walking import nfc
from .base import grouped
from .folder import first_folders

log = logging.getLogger(__name__)

SPLITS = frozenset(
    {"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval", "evaluation", "holdout"}
    | {"trainset", "testset", "gallery", "probe", "session", "fold"}
)
"""Folders that are parts of one set; see :func:`is_split`."""
JOINED = "if two sets were joined, give each as its own path in data.train"
"""What to do about files or parts that contradict each other, for messages."""
_WORD, _LETTERS = re.compile(r"[^\W_]+"), re.compile(r"[^\W\d_]+")


def folder_names(names: Sequence[str], labels: Labels, parent: Callable[[str], str]) -> list[str] | None:
    """Return the folder of each label if each has its own, else None.

    Args:
        names: (N,) of the images, in normal and composed form.
        labels: of the images.
        parent: name of an image → its folder, for labels without a first folder of their own.
    """
    first = _names_of_labels(first_folders(names)[0], labels)
    return first or _names_of_labels(list(map(parent, names)), labels)


def _names_of_labels(folders: Sequence[str], labels: Labels) -> list[str] | None:
    """Return the folder of each label if each has its own, else None.

    Args:
        folders: (N,) of the images.
        labels: of the images.
    """
    names = [folders[start] for start in labels.firsts[:-1].tolist()]
    if "" in names or len(set(names)) < len(names):
        return None
    alike = all(folder == names[label] for folder, label in zip(folders, labels.tolist(), strict=True))
    return names if alike else None


def is_split(folder: str) -> bool:
    """Return whether a folder is a part of one set: ``Train``, ``test_set``, ``fold1``."""
    return "".join(_LETTERS.findall(folder.lower())) in SPLITS


def _without_split(path: str) -> str:
    """Return a path without the names of the parts of one set, such as ``train`` and ``val``."""
    return "/".join(part for part in path.split("/") if not is_split(part))


def log_joined(names: Sequence[str], numbers: Sequence[int], files: Sequence[int], place: str) -> bool:
    """Log labels that have other folders in another part, as two lists joined by ``cat`` have.

    A part is a file, or begins where labels descend, unless they do so more often than there are
    labels. Only parts count in which each label has its own folder, and, within a file, those of
    half of the labels up to their largest. Folders of one name are one person's, unless it is a
    number.

    Args:
        names: of the images, in the order of the source.
        numbers: the label of each.
        files: the number of each image's file; empty: one file.
        place: the source's name in messages.

    Returns:
        Whether there are such labels.
    """
    values = np.asarray(numbers, dtype=np.int64)
    edges = edges_of_files = np.flatnonzero(np.diff(np.asarray(files))) + 1
    num_labels = len(np.unique(values))
    if len(descents := np.flatnonzero(np.diff(values) < 0) + 1) < num_labels:
        edges = np.union1d(edges, descents)
    if len(edges) == 0 or not any("/" in name for name in names):
        return False
    known: dict[int, tuple[str, str]] = {}  # label → its folder, and the path of that
    unlike: dict[int, tuple[str, str]] = {}
    for start, end in pairwise([0, *edges.tolist(), len(names)]):
        rows = start + np.argsort(values[start:end], kind="stable")
        labels, own = grouped(values[rows])
        part = [nfc(names[row]) for row in rows.tolist()]
        folders = folder_names(part, labels, lambda name: name.rpartition("/")[0].rpartition("/")[2])
        few = len(edges_of_files) == 0 and own[-1] - values.min() >= 2 * len(own)  # lists begin at the first label
        if folders is None or len(folders) < 2 or (known and few):
            continue
        least, other = min(len(folders), len(known)), dict[int, tuple[str, str]]()
        for label, folder, first in zip(own.tolist(), folders, labels.firsts[:-1].tolist(), strict=True):
            path = _without_split(f"/{part[first]}".partition(f"/{folder}/")[0][1:]) + f"/{folder}"
            before = known.setdefault(label, (folder, path))
            if path != before[1] and (folder != before[0] or folder.isdecimal()):
                other[label] = (before[1], path)
        if 2 * len(other) >= least:  # fewer are people who have two folders
            for label, paths in other.items():
                unlike.setdefault(label, paths)
    if unlike:
        first = min(unlike)
        log.warning(
            "data: %s: %d of %d labels have other folders in another part of the set, such as %d in %s and in %s: each "
            f"label is one identity · {JOINED}",
            *(place, len(unlike), num_labels, first),
            *(printable(path.lstrip("/")) for path in unlike[first]),
        )
    return bool(unlike)


def folders_of_labels(names: Sequence[str], numbers: Sequence[int]) -> list[tuple[int, str]]:
    """Return the different (label, folder) of images by their names and labels, ascending."""
    pairs = {(label, name.rpartition("/")[0]) for label, name in zip(numbers, names, strict=True)}
    return sorted({(label, nfc(folder)) for label, folder in pairs})


def log_doubled(given: Sequence[tuple[int, str]], place: str) -> bool:
    """Log labels of two people, as in two lists that were joined, then shuffled or sorted by label.

    Folders must be the identities: none has two labels, and each label has one, or another one as
    well. Two joined lists show in one of two ways:

    - A few folders contain those of all identities. The labels in each of them are consecutive.
    - The smallest labels are the doubled ones, and names ascend with the labels in both lists.

    Elsewhere, labels with two folders may be people who have these. So they are if the folders have
    one name, or a common word that no other label has.

    Args:
        given: of :func:`folders_of_labels`.
        place: the source's name in messages.

    Returns:
        Whether there are such labels.
    """
    depth = 1 + min(folder.count("/") for _, folder in given)  # albums are below a person's folder
    pairs = sorted({(label, "/".join(folder.split("/")[:depth])) for label, folder in given})
    folders: dict[int, list[str]] = {}
    for label, folder in pairs:
        folders.setdefault(label, []).append(folder)
    doubled = [label for label, both in folders.items() if len(both) > 1]
    if not doubled or len({folder for _, folder in pairs}) < len(pairs):
        return False
    people = _with_two_people(folders, doubled)
    if not people or not (_consecutive(folders) or _both_ascend(folders, doubled)):
        return False
    _log_two(place, folders, people)
    return True


def _log_two(place: str, folders: Mapping[int, Sequence[str]], people: Sequence[int]) -> None:
    one, other, *_ = folders[people[0]]
    log.warning(
        "data: %s: %d of %d labels are in two folders or more, such as %d in %s and in %s: each label is one "
        f"identity · {JOINED}",
        *(place, len(people), len(folders), people[0], printable(one), printable(other)),
    )


def log_numbered(given: Sequence[tuple[int, str]], place: str) -> bool:
    """Log labels of two people, in two lists of folders 0, 1, … whose names are the labels.

    Each folder with such folders must begin at the smallest label, and have more of them than gaps.
    Parts of one set count as one, and so do folders that differ only in a number, such as cameras.
    Folders with other numbers are ids, so equal ones are one person.

    Args:
        given: of :func:`folders_of_labels`.
        place: the source's name in messages.

    Returns:
        Whether there are such labels.
    """
    for first in (0, 1):  # folders of labels from 0 are often numbered from 1
        # a session's folder may have the person's number, so the outer and the inner one must tell
        outer, inner = (_in_two_sets(given, first, end) for end in (0, -1))
        if outer and inner:
            people = [label for label, both in inner.items() if len(both) > 1]
            _log_two(place, {label: list(both.values()) for label, both in inner.items()}, people)
            return True
    return False


def _in_two_sets(given: Sequence[tuple[int, str]], first: int, end: int) -> dict[int, dict[str, str]]:
    """Return the folder of each label in each set of :func:`log_numbered`; empty without two sets.

    Args:
        given: of :func:`folders_of_labels`.
        first: number of the folder of label 0.
        end: which of several folders with the number of the label is taken: 0 or -1.
    """
    inside: dict[str, set[int]] = {}
    folders: dict[int, dict[str, str]] = {}
    for label, path in given:
        parts = path.split("/")
        ends = [row for row, part in enumerate(parts) if _is_number(part, label + first)]
        if not ends:
            return {}
        set_of_it = re.sub(r"\d+", "#", _without_split("/".join(parts[: ends[end]])))
        inside.setdefault(set_of_it, set()).add(label)
        folders.setdefault(label, {}).setdefault(set_of_it, "/".join(parts[: ends[end] + 1]))
    least = given[0][0]
    two = len(inside) > 1 and all(least in own and max(own) - least < 2 * len(own) for own in inside.values())
    return folders if two else {}


def _is_number(text: str, number: int) -> bool:
    return text.isdecimal() and (text.lstrip("0") or "0") == str(number)


def log_split(given: Sequence[tuple[int, str]], place: str) -> None:
    """Log people who have another label in each part of the set, such as ``train`` and ``val``.

    Each folder must have one label; of those in several parts, half or more must have several.
    """
    labels: dict[str, set[int]] = {}
    for label, folder in given:
        labels.setdefault(folder, set()).add(label)
    people: dict[str, list[str]] = {}
    for folder in sorted(labels):
        people.setdefault(_without_split(folder), []).append(folder)
    common = [both for person, both in people.items() if person and len(both) > 1]
    several = [both for both in common if not set.intersection(*(labels[folder] for folder in both))]
    if several and 2 * len(several) >= len(common) and all(len(own) == 1 for own in labels.values()):
        one = several[0][0]
        other = next(folder for folder in several[0] if labels[folder] != labels[one])
        log.warning(
            "data: %s: %d of %d folders that are in several parts of the set have a label in each, such as %d in %s "
            "and %d in %s: each label is one identity · if they are the same people, give each one label",
            *(place, len(several), len(common)),
            *(min(labels[one]), printable(one), min(labels[other]), printable(other)),
        )


def _with_two_people(folders: Mapping[int, Sequence[str]], doubled: Sequence[int]) -> list[int]:
    """Return the doubled labels whose folders have neither one name nor a word of their own."""
    words = {label: [_words(path.rpartition("/")[2]) for path in paths] for label, paths in folders.items()}
    counts = Counter(word for each in words.values() for word in set().union(*each))
    return [
        label
        for label in doubled
        if len({path.rpartition("/")[2] for path in folders[label]}) == len(folders[label])
        and all(counts[word] > 1 for word in set.intersection(*words[label]))
    ]


def _words(name: str) -> set[str]:
    """Return the words in a name, also without numbers: ``Anna_2`` and ``Anna3`` share one."""
    return {word for form in (_WORD, _LETTERS) for word in form.findall(name.lower()) if not word.isdecimal()}


def _consecutive(folders: Mapping[int, Sequence[str]]) -> bool:
    """Return whether a few folders contain all, and the labels in each of them are consecutive."""
    parts = [path.split("/") for paths in folders.values() for path in paths]
    level = len(posixpath.commonprefix(parts))
    places: dict[str, list[int]] = {}
    for place, paths in enumerate(folders.values()):
        for path in paths:
            places.setdefault(path.split("/")[level], []).append(place)
    few = 2 * len(places) <= len(folders)
    return few and all(rows == list(range(rows[0], rows[0] + len(rows))) for rows in places.values())


def _both_ascend(folders: Mapping[int, Sequence[str]], doubled: Sequence[int]) -> bool:
    """Return whether the smallest labels are the doubled ones, and names ascend in two lists."""
    if len(doubled) < 2 or list(folders)[: len(doubled)] != doubled:
        return False
    for numbered in (False, True):  # sorted as texts, or by their numbers
        keys = [
            sorted(re.sub(r"\d+", lambda digits: digits[0].zfill(20), path) if numbered else path for path in paths)
            for paths in folders.values()
        ]
        lows, highs = [own[0] for own in keys], [own[-1] for own in keys[: len(doubled)]]
        if lows[1] < highs[0] and lows == sorted(lows) and highs == sorted(highs):
            return True
    return False
