"""Select identities of a source, and read and compare their names."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...errors import UserError, shown
from ..identities import Labels, Runs
from ..images import EncodedImage, read_encoded
from ..text_files import read_text_lines, text_lines
from ..walking import nfc
from .base import Encoded, Labelled, Source, read_each

_COMPARED = 8  # people
_MADE = re.compile(r"(?:.*/)?([0-9]+)/\1_([0-9]+)(?:\.\w+)?")  # by make-pairs, 17/17_0001.png
_NUMBERED = re.compile(r"(?:.*/)?([^/]+)_[0-9]+(?:\.\w+)?")  # an image of LFW, Ann_0001.jpg


class Identities(Protocol):
    """The identities of a training set: those of a source, or those that a checkpoint names."""

    @property
    def class_names(self) -> Sequence[str]: ...

    @property
    def named(self) -> bool: ...


class SelectedSource(Labelled):
    """Some identities of a source, with labels without gaps. Memory: 24 more bytes an identity.

    Args:
        source: the whole.
        keep: (C,) bool, the classes to keep.
    """

    def __init__(self, source: Source, keep: npt.NDArray[np.bool_]) -> None:
        self._source = source
        labels = Labels.of(source.labels)
        self.labels = Labels.of_counts(labels.counts[keep])
        self._rows = Runs(labels.firsts[:-1][keep], labels.counts[keep])
        self.class_names = [name for name, stays in zip(source.class_names, keep.tolist(), strict=True) if stays]
        self.named = source.named
        self.numbered = numbered_of(source)

    @property
    def mapped(self) -> bool:
        return self._source.mapped

    def read(self, index: int) -> bytes:
        return self._source.read(self._rows[index])

    def read_each(self, indices: Sequence[int]) -> Iterator[Encoded]:
        return read_each(self._source, self._rows.of(np.asarray(indices, dtype=np.int64)).tolist())

    def name(self, index: int) -> str:
        return self._source.name(self._rows[index])


def numbered_of(source: Identities) -> frozenset[str]:
    """Return the tags of joined sources that have only numbers; see ``JoinedSource``."""
    numbered: frozenset[str] = getattr(source, "numbered", frozenset())
    return numbered


def without(source: Source, names: Collection[str]) -> Source:
    """Return the source without the identities of these names (in Unicode's composed form)."""
    return _selected(source, np.array([name not in names for name in source.class_names], dtype=np.bool_))


def with_images(source: Source, least: int) -> Source:
    """Return the source without the identities that have fewer images."""
    return _selected(source, Labels.of(source.labels).counts >= least)


def _selected(source: Source, keep: npt.NDArray[np.bool_]) -> Source:
    return source if keep.all() else SelectedSource(source, keep)


def read_names(path: Path | str) -> tuple[list[str], list[str]]:
    """Read identities from a file, one name a line; blanks are part of a name.

    A name ends at the first tab. In a file with tabs, such as LFW's ``people.txt`` (``Name <tab>
    images`` below lines with counts), a number alone on its line is a count.

    Returns:
        The names, and the counts as texts.

    Raises:
        UserError: the file cannot be read, is not text, or contains no names.
    """
    try:
        lines = read_text_lines(Path(path), "a name a line, or 'name<tab>…'")
    except UserError as error:
        raise UserError(f"data.exclude_file: {error}") from None
    if _are_pairs(lines):
        raise UserError(
            f"data.exclude_file: {path}: got pairs, with two people in some lines · allowed: a name a line, or "
            "'name<tab>…' · give the list of these people, such as people.txt"
        )
    names, counts = _names(lines)
    if not names:
        raise UserError(f"data.exclude_file: {path}: got no name · allowed: a name a line, or 'name<tab>…'")
    if _are_row_numbers(lines):
        raise UserError(
            f"data.exclude_file: {path}: got two numbers in each line, of which the first count the lines · allowed: a "
            "name a line, or 'name<tab>…' · delete the column of row numbers"
        )
    return names, counts


def _are_pairs(lines: Sequence[str]) -> bool:
    """Return whether lines are ``name n1 n2``, and others ``name1 n1 name2 n2``, with tabs."""
    rows = [[field.strip() for field in line.split("\t")] for line in lines]
    one = any(len(row) == 3 and row[1].isdecimal() and row[2].isdecimal() for row in rows)
    return one and any(len(row) == 4 and row[1].isdecimal() and row[3].isdecimal() for row in rows)


def _are_row_numbers(lines: Sequence[str]) -> bool:
    """Return whether each line has two numbers, and the first ones count from 0 or 1."""
    rows = [[field.strip(' "') for field in line.split("\t")] for line in lines if line.strip()]
    if len(rows) > 1 and not rows[0][-1].isdecimal():  # column names
        del rows[0]
    if len(rows) < 2 or not all(len(row) > 1 and row[1].isdecimal() for row in rows):
        return False
    first = rows[0][0]
    return first in ("0", "1") and [row[0] for row in rows] == [str(int(first) + k) for k in range(len(rows))]


def names_text(names: Sequence[str], place: Path) -> bytes:
    """Return the file from which :func:`read_names` reads these names.

    Args:
        names: of identities.
        place: the file's path, for messages.

    Raises:
        UserError: no line can contain a name, because it has a line break or a tab, or is blank.
    """
    for name in names:
        if _names(text_lines(_encoded(name), ""))[0] != [nfc(name)]:
            raise UserError(
                f"{place}: cannot list the identity {shown(name)} · allowed: names that are one line of text, without "
                "tabs · rename its folder"
            )
    return b"".join(map(_encoded, names))


def shared_names(source: Identities, images: Sequence[str]) -> list[str]:
    """Return the identities of a training set whose names people of images have, sorted.

    Names are compared without upper case, and an underscore is a blank.

    Args:
        source: the training set; identities with only numbers have no names in common.
        images: names of images. The first and the last folder of each may name its person. If all
            are in one folder, the name before a number may, as in LFW.
    """
    if not source.named:
        return []
    people = {
        folder for image in images for folder in (*image.split("/")[:1], *image.split("/")[-2:-1]) if "/" in image
    }
    if len({image.rpartition("/")[0] for image in images}) == 1:
        flat = {match[1] for image in images if (match := _NUMBERED.fullmatch(image))}
        people |= {name for name in flat if not name.isdecimal()}
    forms, found, numbered = set(map(spelled, people)), dict[str, str](), numbered_of(source)
    for name in source.class_names:
        own = name.rpartition("/")[2]  # in a joined source, the tag comes first
        if own and (form := spelled(own)) in forms and name.partition("/")[0] not in numbered:
            found.setdefault(form, own)
    return sorted(found.values())


def shared_image(source: Source, names: Sequence[str], images: Sequence[EncodedImage]) -> str:
    """Return an identity with only a number whose image ``make-pairs`` copied to a set; "" if none.

    Numbers of two sets are unrelated, so one image of each of some people is compared.

    Args:
        source: the training set.
        names: names of the set's images, such as ``17/17_0001.png``: the first of identity 17.
        images: the set's images.
    """
    chosen = {match[1]: (int(match[2]), row) for row, name in enumerate(names) if (match := _MADE.fullmatch(name))}
    firsts, numbered = Labels.of(source.labels).firsts.tolist(), numbered_of(source)
    parts = (name.rpartition("/") for name in (source.class_names if chosen else ()))
    alike = [
        (label, own)
        for label, (tag, _, own) in enumerate(parts)
        if own in chosen and (tag in numbered or not source.named)
    ]
    for label, own in alike[:: max(1, len(alike) // _COMPARED)]:
        number, row = chosen[own]
        index = firsts[label] + number - 1
        with contextlib.suppress(OSError):
            if firsts[label] <= index < firsts[label + 1] and source.read(index) == read_encoded(images[row]):
                return own
    return ""


def spelled(name: str) -> str:
    """Return a name without upper case, ligatures and wide letters; a blank is an underscore."""
    return "_".join(unicodedata.normalize("NFKC", name).casefold().split())


def _names(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return names and counts: in a file with tabs, a number alone on its line is a count."""
    tabs = any("\t" in line for line in lines)
    names: list[str] = []
    counts: list[str] = []
    for line in lines:
        name = nfc(line.partition("\t")[0])
        is_count = tabs and "\t" not in line and name.strip().isdecimal()
        if name.strip():
            (counts if is_count else names).append(name)
    return names, counts


def _encoded(name: str) -> bytes:
    return f"{name}\n".encode("utf-8", "surrogateescape")
