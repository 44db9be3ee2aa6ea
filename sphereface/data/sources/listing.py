"""Read a list file with a line for each image: its path, and the label of its identity.

A line has one of these forms:

- ``path label``: the original's ``CASIA-WebFace-112X96.txt``; paths may contain spaces
- ``path,label``: a spreadsheet's
- ``1 <tab> path <tab> label``: InsightFace's ``train.lst``; 1 means that the image is aligned
- ``number <tab> label <tab> path``: MXNet's ``im2rec``, which writes labels as ``3.000000``

The first line shows the form of a list, for any suffix; all lines have one form. Labels are whole
numbers. Paths and labels may have quotes, as R writes them. A line ``# identities: labels`` keeps
folders from naming the identities.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import UserError, count_of, printable
from ...files import read_plain, regular_file
from ..pair_lines import quoted, unquoted
from ..text_files import text_lines
from ..walking import nfc
from .base import FileSource
from .grouping import MOST_LABEL, Grouped, by_number

log = logging.getLogger(__name__)

LIST_SUFFIXES = (".txt", ".lst", ".csv", ".tsv")
BY_LABEL = "# identities: labels"
"""Line of a list whose identities have their labels as names, although each has its own folder."""

_SAMPLED = 8
_START = 1 << 20  # bytes in which the first line of a list ends
_INSTEAD = "give their folder instead of the list"
_LONGEST_QUOTE = 200  # characters of a line in a message
_WHOLE = re.compile(r"([0-9]{1,10})(?:\.0{0,20})?")  # limits bound the time of a match
_DECIMAL = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{0,20})?")
_ROW_NAME = re.compile(r'"[^"]*"\s')  # before the path, as R writes it
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_Row = tuple[str, str]  # path, label
_Parser = Callable[[str], _Row | None]


class ListSource(FileSource):
    """Images that a list file names, such as the original's ``CASIA-WebFace-112X96.txt``.

    Classes are in the order of the labels, with gaps closed; their images are sorted by path. If
    each label has its own folder, the folder's name becomes the identity's name, otherwise the
    label does, and always with the line :data:`BY_LABEL`. Memory: the path and 8 bytes an image,
    about 300 while reading.

    Args:
        path: the list, in one of the forms above.
        root: the folder to which paths are relative; None: the folder of the list.

    Raises:
        UserError: it cannot be read, a line is wrong, or none of the sampled files exists.

    Attributes:
        relative: whether a path depends on the root; absolute paths outside it do not.
    """

    def __init__(self, path: Path | str, root: Path | str | None = None) -> None:
        self.path = Path(path)
        folder = self.path.parent if root is None else Path(root)
        try:
            with open(self.path, "rb", opener=regular_file) as file:
                _check_start(file.read(_START), str(self.path))
            text = read_plain(self.path)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: cannot be read ({getattr(error, 'strerror', error)})") from error
        paths, grouped = read_listing(text, str(self.path), inside := f"{folder.absolute()}/", _INSTEAD)
        super().__init__(folder, paths)
        below = (inside, *(f"{form(folder)}{os.sep}" for form in (os.path.abspath, os.path.realpath)))
        self.relative = any(path.startswith(below) or not os.path.isabs(path) for path in paths)  # noqa: PTH117 -- speed
        self.labels, self.class_names, self.named = grouped.labels, grouped.class_names, grouped.named
        self._check_some()

    def _check_some(self) -> None:
        sample = np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(int)).tolist()
        if not any(os.path.isfile(self.root / self._paths[index]) for index in sample):  # noqa: PTH113 -- never raises
            remedy = "move the list there, or set another folder with data.root (--root)"
            with_slashes = [str(self.root / self._paths[index].replace("\\", "/")) for index in sample]
            if any(map(os.path.isfile, with_slashes)):
                remedy = "replace each \\ in its paths by /: files of these names exist"
            raise UserError(
                f"{self.path}: none of {len(sample)} sampled images exists, the first: "
                f"{self.name(sample[0])[:_LONGEST_QUOTE]} · allowed: paths relative to the list's folder · {remedy}"
            )


def _check_start(start: bytes, name: str) -> None:
    """Refuse a file whose first line is of no list, before it is read whole: it may hold images."""
    lines = text_lines(start, name)[:-1]  # the last one may continue
    for number, line in enumerate(lines, 1):
        if line.strip() not in ("", BY_LABEL):
            parse_list("\n".join(lines[:number]).encode("utf-8", "surrogateescape"), name)
            return


def read_listing(text: bytes, name: str, root: str = "", instead: str = "") -> tuple[list[str], Grouped]:
    """Return the paths of a list, ordered by label and path, and their identities.

    Args:
        text, name: as for :func:`parse_list`, with its errors.
        root: the folder to which paths are relative, with a slash at its end; an absolute path may
            begin with it.
        instead: as for :func:`.by_number`.
    """
    paths, given = parse_list(text, name)
    plain = [posixpath.normpath(path.removeprefix(root)) for path in paths]
    composed = list(map(nfc, plain))
    labels = given.tolist()
    named = BY_LABEL.encode() not in text or BY_LABEL not in map(str.strip, text_lines(text, name))
    grouped = by_number(composed, labels, name, last_folder, named=named, instead=instead)
    if len(set(composed)) < len(composed) and len(set(keys := _told_apart(plain, composed, root))) < len(keys):
        _log_repeated(keys, labels, printable(name))
    if text[-1:].isdigit():
        _log_cut(composed, labels, printable(name))
    return [paths[row] for row in grouped.rows.tolist()], grouped


def last_folder(path: str) -> str:
    """Return the name of the folder of a file."""
    return posixpath.basename(posixpath.dirname(path))


def _told_apart(paths: Sequence[str], composed: Sequence[str], root: str) -> Sequence[str]:
    """Return ``composed``, but the path itself where another file has the same composed path.

    Linux keeps é in two forms apart, macOS does not.
    """
    forms: dict[str, set[str]] = {}
    for path, key in zip(paths, composed, strict=True):
        forms.setdefault(key, set()).add(path)
    apart = {key for key, own in forms.items() if len(own) > 1 and len(set(map(_file_of(root), own))) == len(own)}
    return [path if key in apart else key for path, key in zip(paths, composed, strict=True)]


def _file_of(root: str) -> Callable[[str], object]:
    """Return a function of a path: what identifies its file, or None if there is no such file."""

    def identify(path: str) -> object:
        try:
            found = os.stat(root + path)  # noqa: PTH116 -- strings, for speed
        except (OSError, ValueError):
            return None
        return found.st_dev, found.st_ino

    return identify


def _log_repeated(paths: Sequence[str], labels: Sequence[int], name: str) -> None:
    """Log how many lines repeat an image, and how many images have two identities."""
    repeated = len(paths) - len(set(paths))
    such = next(path for path, count in Counter(paths).items() if count > 1)
    number = count_of(repeated, "line repeats", "lines repeat")
    log.warning("data: %s: %s the image of another line, such as %s: each line counts", name, number, printable(such))
    several = [
        path for path, count in Counter(path for path, _ in set(zip(paths, labels, strict=True))).items() if count > 1
    ]
    if several:
        such = printable(several[0])
        number = count_of(len(several), "image has", "images have")
        sentence = "%s two labels or more, such as %s · delete the wrong lines"
        log.warning(f"data: %s: {sentence}, or check the list with --write-list", name, number, such)


def _log_cut(paths: Sequence[str], labels: Sequence[int], name: str) -> None:
    """Log that the last label may have lost digits, by those of the other images in its folder."""
    folder, last = paths[-1].rpartition("/")[0], labels[-1]
    others = {label for path, label in zip(paths[:-1], labels, strict=False) if path.rpartition("/")[0] == folder}
    if folder and len(others) == 1 and last not in others and str(min(others)).startswith(str(last)):
        sentence = "its last line has the label %d and no line end, but all other images of %s have the label %d"
        log.warning(f"data: %s: {sentence} · if the list is cut off, copy it again", name, last, folder, min(others))


def parse_list(text: bytes, name: str) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the paths and labels of a list's lines, in its order, without blank lines.

    Args:
        text: the file, UTF-8.
        name: its name in messages.

    Raises:
        UserError: it is not text, a line has another form or no whole label of 0 or more, or there
            is no line.
    """
    paths: list[str] = []
    labels: list[int] = []
    parse: _Parser = _path_label
    form = ""
    for number, line in enumerate(text_lines(text, name), 1):
        if line.strip() in ("", BY_LABEL):
            continue
        if not form:
            parse, form = _form_of(line)
        path, given = map(_plain, parse(line) or ("", ""))
        label = whole_number(given)
        if not path or label is None or _CONTROL.search(path) or _ROW_NAME.match(path):
            got = f"the label {given} in " if path and label is None and _DECIMAL.fullmatch(given) else ""
            remedy = "" if paths else _remedy(line, path)
            raise UserError(
                f"{name}, line {number}: got {got}{quoted(line.strip(), _LONGEST_QUOTE)} · allowed: {form}, "
                f"with a whole number from 0 to {MOST_LABEL} as the label{remedy}"
            )
        paths.append(path)
        labels.append(label)
    if not paths:
        raise UserError(f"{name}: got no lines · allowed: a line 'path label' for each image")
    plain = [row for row in (0, len(paths) - 1) if not set(paths[row]) & set("./\\")]
    if len(plain) == 1 < len(paths) and "." in paths[1 if plain == [0] else 0]:
        got = quoted(f"{paths[plain[0]]} {labels[plain[0]]}", _LONGEST_QUOTE)
        which = "last" if plain[0] else "first"
        raise UserError(
            f"{name}, {which} line: got {got}, which may be a count · allowed: a line 'path label' for each image · "
            "delete the line"
        )
    return paths, np.array(labels, dtype=np.int64)


def whole_number(text: str) -> int | None:
    """Return a text as a label, from 0 to :data:`MOST_LABEL`; None if it is not one."""
    whole = _WHOLE.fullmatch(text)
    return int(whole[1]) if whole is not None and int(whole[1]) <= MOST_LABEL else None


def _form_of(line: str) -> tuple[_Parser, str]:
    """Return the parser of a list and the description of its form, by its first line."""
    fields = [unquoted(field) for field in line.split("\t")]
    numbers = [_WHOLE.fullmatch(field) is not None for field in fields]
    if len(fields) >= 3 and fields[0] in ("0", "1") and not numbers[1] and numbers[2]:
        return _insightface, "'1<tab>path<tab>label' of InsightFace, where 1 means an aligned image"
    if len(fields) >= 3 and numbers[0] and _DECIMAL.fullmatch(fields[1]):
        return _im2rec, "'number<tab>label<tab>path' of im2rec, with one label"
    path, _, label = line.rpartition(",")
    if whole_number(unquoted(label)) is not None and (label[:1] not in ("", " ") or path.strip()[:1] == '"'):
        return _comma, "'path,label'"
    return _path_label, "'path label'"


def _remedy(line: str, path: str) -> str:
    """Return what to do about a first line that a program for tables writes; else an empty text."""
    if _ROW_NAME.match(path):
        return " · write the list without row names (in R: row.names = FALSE)"
    return "" if any(sign in line for sign in "./\\0123456789") else " · delete the line of column names"


def _plain(field: str) -> str:
    return unquoted(field) if field[:1] == '"' else field


def _path_label(line: str) -> _Row | None:
    fields = line.strip().rsplit(None, 1)
    return (fields[0], fields[1]) if len(fields) == 2 else None


def _comma(line: str) -> _Row | None:
    path, _, label = line.strip().rpartition(",")
    return (path.strip(), label.strip()) if path else None


def _insightface(line: str) -> _Row | None:
    fields = line.split("\t")  # ignores a box and landmarks, which aligned images do not need
    return (fields[1], fields[2].strip()) if len(fields) >= 3 and unquoted(fields[0]) == "1" else None


def _im2rec(line: str) -> _Row | None:
    fields = line.split("\t")
    return (fields[2], fields[1].strip()) if len(fields) == 3 and _WHOLE.fullmatch(unquoted(fields[0])) else None
