"""Group images by identity, from labels or folders."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import UserError, count_of, printable, shown
from ..identities import Labels
from ..walking import nfc
from .base import FileSource, Source, grouped, log_gaps
from .folder import FolderSource, first_folders, log_forms
from .label_folders import folder_names, folders_of_labels, is_split, log_doubled, log_joined, log_numbered, log_split
from .slipped import log_slipped

log = logging.getLogger(__name__)

Label = int | str

MOST_LABEL = 2**31 - 1
_FEWEST = 20  # images for which a warning of single ones comes
_MOST_CONTRARY = 0.05  # of the images
_LONGEST_NAME = 1_000
_NO_LINE = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]")  # line breaks, and what UTF-8 cannot encode


class Grouped(NamedTuple):
    """The images of a source.

    Attributes:
        rows: (N,) int64, the original row of each image; those of one identity are adjacent.
        labels: of the images in that order.
        class_names: the identities.
        named: whether these are names.
    """

    rows: npt.NDArray[np.int64]
    labels: Labels
    class_names: list[str]
    named: bool


def by_folder(names: Sequence[str]) -> tuple[Grouped, list[str], int]:
    """Group images by the first folder of their names, below the common one.

    Args:
        names: with forward slashes, in normal form.

    Returns:
        The images in a folder; the sorted names of the others; the number of images deeper than the
        first folder.
    """
    identities, num_deeper = first_folders(names)
    loose = sorted(name for name, identity in zip(names, identities, strict=True) if not identity)
    rows = [row for row, identity in enumerate(identities) if identity]
    return _by_name(names, identities, rows), loose, num_deeper


def by_label(
    names: Sequence[str],
    labels: Sequence[Label | None],
    place: str,
    what: str,
    *,
    files: Sequence[int] = (),
    instead: str = "correct the labels",
) -> Grouped:
    """Group images by label: numbers in ascending order, names sorted.

    If each number has its own folder in the names of the images, the folder's name becomes the
    identity's name.

    Args:
        names: of the images.
        labels: of each; see :func:`checked_label`.
        place: the source's name in messages.
        what: what should contain a label, for messages.
        files: the number of each image's file, if there are several.
        instead: what to do if the folders are the identities, for messages.

    Raises:
        UserError: some images have no label, or some have numbers and others names.
    """
    if missing := [row for row, label in enumerate(labels) if label is None]:
        such = printable(names[missing[0]])
        raise UserError(
            f"{place}: {len(missing):,} of {len(labels):,} images have no label, such as {such} · allowed: {what} for "
            "each image"
        )
    numbers = [label for label in labels if isinstance(label, int)]
    if 0 < len(numbers) < len(labels):
        name = next(label for label in labels if isinstance(label, str))
        raise UserError(
            f"{place}: got numbers for some identities and names for others, {numbers[0]} and {shown(name)} · allowed: "
            "numbers for all, or names for all"
        )
    if not numbers:
        log_forms({str(label) for label in labels})
        images = _by_name(names, [nfc(str(label)) for label in labels], range(len(names)))
        if not log_slipped(names, [str(label) for label in labels], _folder, place):
            log_across([names[row] for row in images.rows.tolist()], images, place, instead)
        return images
    return by_number(names, numbers, place, _folder, files=files, instead=instead)


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def checked_label(value: object, place: str) -> Label:
    """Return a label from a file as a whole number from 0, or as a name.

    Raises:
        UserError: it is neither.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_LABEL
    name = isinstance(value, str) and value.strip() and len(value) <= _LONGEST_NAME and not _NO_LINE.search(value)
    if not number and not name:
        raise UserError(
            f"{place}: got {shown(value)} · allowed: an identity's number, 0 to {MOST_LABEL}, or its name on one line"
        )
    assert isinstance(value, (int, str))
    return value


def _by_name(names: Sequence[str], identities: Sequence[str], rows: Sequence[int]) -> Grouped:
    ordered = sorted(rows, key=lambda row: (identities[row], nfc(names[row]), names[row]))  # ties keep their order
    class_names = sorted({identities[row] for row in rows})
    place = {name: label for label, name in enumerate(class_names)}
    labels = np.array([place[identities[row]] for row in ordered], dtype=np.int32)
    return Grouped(np.array(ordered, dtype=np.int64), Labels.of(labels), class_names, True)


def by_number(
    names: Sequence[str],
    numbers: Sequence[int],
    place: str,
    parent: Callable[[str], str],
    *,
    named: bool = True,
    files: Sequence[int] = (),
    instead: str = "",
) -> Grouped:
    """Group images by number in ascending order; gaps are closed, and logged.

    Args:
        names: of the images.
        numbers: of each, none negative.
        place: the source's name in messages.
        parent: name of an image → its folder, for identities without a first folder of their own.
        named: whether folders may name the identities.
        files, instead: as for :func:`by_label`; without ``instead``, numbers across the folders are
            not logged.
    """
    ordered = sorted(range(len(numbers)), key=lambda row: (numbers[row], nfc(names[row]), names[row]))
    labels, values = grouped(np.array([numbers[row] for row in ordered], dtype=np.int64))
    log_gaps(values, place)
    folders = folder_names([nfc(names[row]) for row in ordered], labels, parent) if named else None
    class_names = folders or [str(value) for value in values.tolist()]
    images = Grouped(np.array(ordered, dtype=np.int64), labels, class_names, folders is not None)
    if folders is None or any(map(str.isdecimal, folders)):
        joined = log_joined(names, numbers, files, place)
        given = folders_of_labels(names, numbers) if named and not joined else []
        joined = joined or (named and log_numbered(given, place))
        joined = joined or (named and folders is None and log_doubled(given, place))
        joined = joined or (folders is None and bool(instead) and log_slipped(names, numbers, parent, place))
        if named and not joined and folders is None:
            rows = [names[row] for row in ordered]
            if instead:
                log_split(given, place)
            if not instead or not log_across(rows, images, place, instead):
                log_contrary(rows, images, parent, place)
    return images


def log_across(names: Sequence[str], images: Grouped, place: str, instead: str) -> bool:
    """Log that half of the labels or more are in several first folders, as people's ages are.

    Nothing is logged if there are fewer folders than labels, as with folders of years or of parts.

    Args:
        names: of the images, in their order.
        images: their labels.
        place: the source's name in messages.
        instead: what to do if the folders are the identities.

    Returns:
        Whether there are such labels.
    """
    folders, _ = first_folders([nfc(name) for name in names])
    num_folders, num_labels = len(set(folders) - {""}), len(images.class_names)
    if num_folders < num_labels or all(map(is_split, set(folders) - {""})):
        return False
    both = {(label, folder) for label, folder in zip(images.labels.tolist(), folders, strict=True) if folder}
    several = [label for label, count in Counter(label for label, _ in both).items() if count > 1]
    told = len(several) > 0 and 2 * len(several) >= num_labels
    if told:
        first = min(several)
        one, other, *_ = sorted(folder for label, folder in both if label == first)
        log.warning(
            "data: %s: the identities are the labels, and %d of %d are in several of %d folders, such as %s in %s and "
            f"%s · if the folders are the identities, {instead}",
            *(place, len(several), num_labels, num_folders),
            *map(printable, (images.class_names[first], one, other)),
        )
    return told


def log_contrary(names: Sequence[str], images: Grouped, parent: Callable[[str], str], place: str) -> None:
    """Log the few images that have another label than their folder, as after a wrong keystroke.

    A folder belongs to a label that has most of its images there, and half or more of all images
    there. Nearly every label must have one. Other folders, such as a person's second one, tell
    nothing.

    Args:
        names, images, place: as for :func:`log_across`.
        parent: as for :func:`by_number`.
    """
    if 2 * len({name.rpartition("/")[0] for name in names}) < len(images.class_names):  # saves time
        return
    labels, composed = np.asarray(images.labels), [nfc(name) for name in names]
    for folders in (first_folders(composed)[0], list(map(parent, composed))):
        codes = {folder: code for code, folder in enumerate(dict.fromkeys(folders))}
        of_image = np.array([codes[folder] for folder in folders], dtype=np.int64)
        pairs, which, counts = np.unique(labels * len(codes) + of_image, return_inverse=True, return_counts=True)
        label, folder = np.divmod(pairs, len(codes))
        home = np.zeros(len(pairs), np.bool_)
        order = np.lexsort((-counts, label))  # of each label, the folder with most images first
        home[order[np.unique(label[order], return_index=True)[1]]] = True
        owns = home & (2 * counts >= np.bincount(of_image)[folder]) & (folder != codes.get("", -1))
        owner = np.full(len(codes), -1)
        owner[folder[owns]] = label[owns]
        contrary = (owner[folder] >= 0) & (owner[folder] != label)
        found = np.flatnonzero(contrary[which])
        if 0 < len(found) <= max(1, _MOST_CONTRARY * len(labels)) and _own_folders(owner, label[~contrary]):
            row = int(found[0])
            log.warning(
                "data: %s: nearly every label has its own folder, but %s, such as %s with label %s in the folder of "
                "label %s: so the identities are named by their labels, not by the folders · if the folders are right, "
                "correct these labels",
                *(place, count_of(len(found), "image contradicts", "images contradict"), printable(names[row])),
                *(images.class_names[label] for label in (labels[row], owner[of_image[row]])),
            )
            return


def _own_folders(owner: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> bool:
    """Return whether two labels or more, and nearly all of these labels, own a folder."""
    num_owners = np.count_nonzero(owner >= 0)
    return bool(num_owners >= max(2, 0.9 * len(np.unique(labels))))


def log_single(source: Source, place: str) -> None:
    """Log a source with one image for nearly every identity, as labels that count the images give.

    Args:
        source: the training set.
        place: its name in messages.
    """
    if len(source) >= _FEWEST and 0.9 * len(source) < len(source.class_names):
        images, people = len(source), len(source.class_names)
        log.warning(
            "data: %s: got %s of %s: nearly every identity has one image, so hardly any label says which images show "
            "one person · if the labels or folders are numbers of images, give each image the identity of its person",
            *(place, count_of(images, "image", "images"), count_of(people, "identity", "identities")),
        )


def parents_of_identities(source: Source) -> list[Path]:
    """Return the folders that contain the identities' folders, if identities have their own."""
    if isinstance(source, FolderSource):
        return [source.root]
    if not isinstance(source, FileSource) or not source.named:
        return []
    firsts = Labels.of(source.labels).firsts.tolist()
    paths = [
        (name, Path(os.path.normpath(source.name(row)))) for name, row in zip(source.class_names, firsts, strict=False)
    ]
    parents = (next((up.parent for up in path.parents if nfc(up.name) == name), None) for name, path in paths)
    return sorted({parent for parent in parents if parent is not None})
