"""Select identities of a source, by name or by number of images."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import UserError, shown
from ..identities import Labels, Runs
from ..text_files import read_text_lines, text_lines
from ..walking import nfc
from .base import Encoded, Labelled, Source, read_each

log = logging.getLogger(__name__)

_SHOWN = 5
_BEFORE = re.compile(r"\s*[/#,]")  # the start of a path, a comment, or a second name
_IN_TABLES = tuple(
    map(re.compile, (r'"?(.+?)"?[,; ]+"?[0-9]{1,9}"?', r'"?[0-9]{1,9}"?[,; ]+"?(.+?)"?', r'"(.+)"'))
)  # a name before a number, behind one, or in quotes
_LONGEST_LINE = 300  # of a table, which bounds the time of a match


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


def numbered_of(source: Source) -> frozenset[str]:
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
    names, counts = _names(lines)
    if not names:
        raise UserError(f"data.exclude_file: {path}: got no name · allowed: a name a line, or 'name<tab>…'")
    if _are_row_numbers(lines):
        raise UserError(
            f"data.exclude_file: {path}: got two numbers in each line, of which the first count the lines · allowed: a "
            "name a line, or 'name<tab>…' · delete the column of row numbers"
        )
    return names, counts


def _are_row_numbers(lines: Sequence[str]) -> bool:
    """Return whether each line has two numbers, and the first ones count from 0 or 1."""
    rows = [[field.strip(' "') for field in line.split("\t")] for line in lines if line.strip()]
    if len(rows) > 1 and not rows[0][-1].isdecimal():  # column names
        del rows[0]
    if len(rows) < 2 or not all(len(row) > 1 and row[1].isdecimal() for row in rows):
        return False
    first = rows[0][0]
    return first in ("0", "1") and [row[0] for row in rows] == [str(int(first) + k) for k in range(len(rows))]


def without_numbers(names: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the names of a file without a number before or behind each, and without quotes.

    A file keeps them if one of its lines is an identity as it is, or if not all lines have the same
    form; only a line of column names may differ. Lines with only a number are dropped then.

    Args:
        names: the lines of a file.
        known: the identities of the training set.
    """
    rows = [name for name in names if not name.strip().isdecimal()]
    if not set(names).isdisjoint(known):
        return list(names)
    for plain in zip(*map(_in_tables, rows), strict=True):
        whole = all(plain[1:]) and (plain[0] or not re.search("[0-9]", rows[0]))
        if whole and not set(plain).isdisjoint(known):
            return [name or row for name, row in zip(plain, rows, strict=True)]
    return list(names)


def _in_tables(line: str) -> list[str]:
    """Return the name in a line for each form of a table; empty where the line has another form.

    Of two numbers, either may be the name of an identity, so neither is.
    """
    found = [form.fullmatch(line.strip()) if len(line) <= _LONGEST_LINE else None for form in _IN_TABLES]
    names = ["" if match is None else match[1].replace('""', '"') for match in found]
    return [*("" if name.isdecimal() else name for name in names[:-1]), names[-1]]


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


def check_names(names: Collection[str], key: str, sources: Sequence[Source], *, required: bool = False) -> set[str]:
    """Return the listed identities that the sources contain.

    A warning gives the number of missing names, and the first of them.

    Args:
        names: in Unicode's composed form.
        key: the setting that lists them, for messages.
        sources: those of the training set.
        required: at least one of the names, if there are any, must exist.

    Raises:
        UserError: a name is missing, but a similar one exists: it differs only in blanks, upper
            case or kinds of letters, or is the part before a slash, a comma or a #, or without a
            number or quotes. Or no name exists although one is required.
    """
    known = {name for source in sources for name in source.class_names}
    missing = sorted(name for name in names if name not in known)
    plain = {_plain(name): name for name in known} if missing else {}
    for name in missing:
        parts = map(_plain, (name, _BEFORE.split(name)[0], *_in_tables(name)))
        if (like := next((plain[part] for part in parts if part in plain), None)) is not None:
            raise UserError(
                f"{key}: got {shown(name)}, but data.train has {shown(like)} · allowed: names exactly as in "
                "data.train, with the same blanks and upper case, one a line · correct the name"
            )
    if required and names and len(missing) == len(names):
        numbered = "" if any(source.named for source in sources) else ", which has only numbers of identities"
        raise UserError(
            f"{key}: got {len(names):,} names, such as {shown(missing[0])} · allowed: names of identities in "
            f"data.train{numbered}, which contains none of these · give the list that belongs to this training set, "
            "or none"
        )
    if missing:
        such = ", ".join(map(shown, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        log.warning("%s: %d of %d names are not in data.train: %s", key, len(missing), len(names), such)
    return known & set(names)


def shared_names(source: Source, images: Sequence[str]) -> list[str]:
    """Return the names shared by a training set's identities and the people of images, sorted.

    Args:
        source: the training set; identities with only numbers have no names in common.
        images: names of images. The first and the last folder of each may name its person.
    """
    if not source.named:
        return []
    numbered = numbered_of(source)  # in a joined source, the tag comes first
    known = {name.rpartition("/")[2] or name for name in source.class_names if name.partition("/")[0] not in numbered}
    people = {
        folder for image in images for folder in (*image.split("/")[:1], *image.split("/")[-2:-1]) if "/" in image
    }
    return sorted(known & {nfc(name) for name in people})


def _plain(name: str) -> str:
    """Return a name without details that typing loses: blanks, case, ligatures, wide letters."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


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
