"""A source less some of its identities."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import UserError, shown
from ..identities import Labels, Runs
from ..text_files import read_text_lines, text_lines
from ..walking import nfc
from .base import Source

log = logging.getLogger(__name__)

_SHOWN = 5
_BEFORE = re.compile(r"\s*[/#,]")  # begins a path below an identity's folder, a comment, or a second name


class SelectedSource:
    """Some identities of a source, their labels without gaps. Memory: 24 bytes an identity beside
    the source's.

    Args:
        source: the whole.
        keep: (C,) bool, which of its classes stay.
    """

    def __init__(self, source: Source, keep: npt.NDArray[np.bool_]) -> None:
        self._source = source
        labels = Labels.of(source.labels)
        self.labels = Labels.of_counts(labels.counts[keep])
        self._rows = Runs(labels.firsts[:-1][keep], labels.counts[keep])
        self.class_names = [name for name, stays in zip(source.class_names, keep.tolist(), strict=True) if stays]
        self.named, self.mapped = source.named, source.mapped
        self.numbered = numbered_of(source)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> bytes:
        return self._source.read(self._rows[index])

    def name(self, index: int) -> str:
        return self._source.name(self._rows[index])


def numbered_of(source: Source) -> frozenset[str]:
    """Return the first parts of joined names, ``<tag>/<number>``, that are no names of people; see
    ``JoinedSource``.
    """
    numbered: frozenset[str] = getattr(source, "numbered", frozenset())
    return numbered


def without(source: Source, names: Collection[str]) -> Source:
    """The source less the identities of these names (in Unicode's composed form)."""
    return _selected(source, np.array([name not in names for name in source.class_names], dtype=np.bool_))


def with_images(source: Source, least: int) -> Source:
    """The source less the identities with fewer images."""
    return _selected(source, Labels.of(source.labels).counts >= least)


def _selected(source: Source, keep: npt.NDArray[np.bool_]) -> Source:
    return source if keep.all() else SelectedSource(source, keep)


def read_names(path: Path | str) -> tuple[list[str], list[str]]:
    """Identities that a file lists, a name a line: all of the line but its end, blanks included.

    A name ends at the first tab. In a file with tabs, such as LFW's ``people.txt`` (``Name <tab>
    images`` below lines that count), a number alone on its line is no name but a count.

    Returns:
        The names, and the counts as texts.

    Raises:
        UserError: it cannot be read, is no text, or lists nobody.
    """
    try:
        lines = read_text_lines(Path(path), "a name a line, or 'name<tab>…'")
    except UserError as error:
        raise UserError(f"data.exclude_file: {error}") from None
    names, counts = _names(lines)
    if not names:
        raise UserError(f"data.exclude_file: {path}: got no name · allowed: a name a line, or 'name<tab>…'")
    return names, counts


def names_text(names: Sequence[str], place: Path) -> bytes:
    """The file that :func:`read_names` reads these names from.

    Args:
        names: of identities.
        place: where the file will be, for messages.

    Raises:
        UserError: a name that no line can hold: it has a line break, or a tab, or is blank.
    """
    for name in names:
        if _names(text_lines(_encoded(name), ""))[0] != [nfc(name)]:
            raise UserError(
                f"{place}: cannot list the identity {shown(name)} · allowed: names that are one line of text, without "
                "tabs · rename its folder"
            )
    return b"".join(map(_encoded, names))


def check_names(names: Collection[str], key: str, sources: Sequence[Source], *, required: bool = False) -> set[str]:
    """Return which of a list of identities the sources know, each by the names that it has itself.

    A warning says how many they do not know, and the first of them.

    Args:
        names: in Unicode's composed form.
        key: the setting that lists them, for messages.
        sources: the training set's.
        required: one of the names, if there are any, has to be known.

    Raises:
        UserError: a name is not there, but one is that differs in blanks, in upper case or in kinds
            of letters alone, or that it begins with, before a slash, a comma or a #; or none is
            there where one has to be.
    """
    known = {name for source in sources for name in source.class_names}
    missing = sorted(name for name in names if name not in known)
    plain = {_plain(name): name for name in known} if missing else {}
    for name in missing:
        if (like := plain.get(_plain(name)) or plain.get(_plain(_BEFORE.split(name)[0]))) is not None:
            raise UserError(
                f"{key}: got {shown(name)}, and data.train has {shown(like)} · allowed: names exactly as data.train "
                "has them, with their blanks and their upper case, a line each · correct the name"
            )
    if required and names and len(missing) == len(names):
        numbered = "" if any(source.named for source in sources) else ", which knows its identities by number alone"
        raise UserError(
            f"{key}: got {len(names):,} names, such as {shown(missing[0])} · allowed: names of identities in "
            f"data.train{numbered}: none of these is there, so nobody would be left out · give the list that belongs "
            "to this training set, or none"
        )
    if missing:
        such = ", ".join(map(shown, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        log.warning("%s: %d of %d names are not in data.train: %s", key, len(missing), len(names), such)
    return known & set(names)


def shared_names(source: Source, images: Sequence[str]) -> list[str]:
    """Names that identities of a training set and people on images have in common, sorted.

    Args:
        source: the training set; identities that it knows by number alone have nothing in common
            with people.
        images: names of images. The first and the last folder of each may name the person on it.
    """
    if not source.named:
        return []
    numbered = numbered_of(source)  # joined: the source's name comes first
    known = {name.rpartition("/")[2] or name for name in source.class_names if name.partition("/")[0] not in numbered}
    people = {
        folder for image in images for folder in (*image.split("/")[:1], *image.split("/")[-2:-1]) if "/" in image
    }
    return sorted(known & {nfc(name) for name in people})


def _plain(name: str) -> str:
    """A name without what is lost when it is typed or passed on: blanks, upper case, ligatures and
    wide letters.
    """
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _names(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return names and counts: in a file with tabs, a number alone on its line is a count, as in
    LFW's.
    """
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
