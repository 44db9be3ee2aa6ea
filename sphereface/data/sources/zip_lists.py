"""Find the list of paths and labels among the texts of a zip."""

from __future__ import annotations

import codecs
import itertools
import logging
import posixpath
import re
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ...errors import UserError, count_of, printable
from ..pair_lines import unquoted
from ..text_files import text_lines
from ..walking import OWN_FILES, is_image, nfc
from .listing import parse_list, whole_number

log = logging.getLogger(__name__)

_FIRST_LINES = 40
_NUMBER = re.compile("[0-9]")  # every line of a list has one
_FEW = 16  # texts about one image each, of which more are no lists
_FIELD = re.compile(r'"[^"]*"|\S+')


def without_captions(texts: Mapping[str, zipfile.ZipInfo], images: Collection[str]) -> dict[str, zipfile.ZipInfo]:
    """Return the texts without those that are about one image each, and have its name."""
    stems = {posixpath.splitext(name)[0] for name in images} if len(texts) > _FEW else set()
    others = {name: info for name, info in texts.items() if posixpath.splitext(name)[0] not in stems}
    return others if len(texts) - len(others) > _FEW else dict(texts)


def first_lines(start: bytes) -> list[str]:
    """Return the first lines of a text that have a number and are no comments.

    Text in UTF-16 is decoded too; :func:`.parse_list` then refuses it.
    """
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        start = start.decode("utf-16", "ignore").encode()
    lines = text_lines(start.partition(b"\0")[0], "")
    return list(
        itertools.islice((line for line in lines if _NUMBER.search(line) and line.strip()[0] != "#"), _FIRST_LINES)
    )


def find_list(
    path: Path, lines: Mapping[str, Sequence[str]], images: Collection[str], composed: Collection[str]
) -> str:
    """Return the text that is the list of a zip; empty if there is none.

    Args:
        path: the zip, for messages.
        lines: name of a text → its :func:`first_lines`.
        images: names of the images.
        composed: names of all members, in composed form.

    Raises:
        UserError: several texts are lists.
    """
    found = [name for name, first in lines.items() if _names_members(name, first, composed)]
    found = found or _doubtful(path, lines, images)
    if len(found) > 1:
        such = printable(", ".join(found[:3]))
        raise UserError(f"{path}: got {len(found)} list files ({such}) · allowed: one · take the others out")
    return found[0] if found else ""


def _doubtful(path: Path, lines: Mapping[str, Sequence[str]], images: Collection[str]) -> list[str]:
    """Return the texts that may be lists, but in another form, or with paths from elsewhere.

    Reading one as the list reports its fault. A warning names texts with other facts of images.
    """
    ends = {end_of(name) for name in images} if lines else set()
    if found := [name for name, first in lines.items() if _may_list(first, ends)]:
        return found
    files = set(map(_file, images)) if lines else set()
    fields = {name: [field for line in first for field in _fields(line)] for name, first in lines.items()}
    named = {name: next((field for field in given if _file(field) in files), "") for name, given in fields.items()}
    found = [name for name, field in named.items() if field and posixpath.basename(name) not in OWN_FILES]
    if found:
        such = (path, printable(found[0]), printable(named[found[0]]))
        others = f" (and {count_of(len(found) - 1, 'other text', 'other texts')})" if len(found) > 1 else ""
        sentence = f"names images, such as %s{others}, but has no lines 'path label': the folders are the identities"
        log.warning(f"data: %s: %s {sentence}", *such)
    return []


def _names_members(name: str, lines: Sequence[str], composed: Collection[str]) -> bool:
    """Return whether one of the first lines of a list names a member; other texts rarely do."""
    return any(path and nfc(member_for(name, path)) in composed for path in map(_listed_path, lines))


def _may_list(lines: Sequence[str], ends: Collection[str]) -> bool:
    """Return whether a text may be a list.

    Either a line has one image and a label, in any form, or most lines have a path of an image and
    a label, although the zip has no such image.

    Args:
        lines: the first ones of the text.
        ends: of the images, see :func:`end_of`.
    """
    if any(_may_label(line, ends) for line in lines):
        return True
    paths = list(map(_listed_path, lines))
    return 2 * sum(is_image(path) and sum(map(is_image, _fields(path))) == 1 for path in paths) > len(paths)


def _may_label(line: str, ends: Collection[str]) -> bool:
    """Return whether a line has one image and a label, in any form."""
    if end_of(_listed_path(line)) in ends:
        return True
    fields = _fields(line)
    others = [field for field in fields if end_of(field) not in ends]
    return (
        len(fields) - len(others) == 1 and len(others) <= 2 and any(whole_number(field) is not None for field in others)
    )


def _fields(line: str) -> list[str]:
    """Return the fields of a line of any table."""
    separator = next((each for each in "\t;," if each in line), None)
    return [unquoted(field) for field in (line.split(separator) if separator else _FIELD.findall(line))]


def _file(path: str) -> str:
    """Return the file of a path, in composed form and lower case."""
    return nfc(path).replace("\\", "/").lower().rpartition("/")[2]


def end_of(path: str) -> str:
    """Return the file of a path with its last folder, in composed form and lower case.

    A file in a folder loses the suffix of an image, since lists may have another one or none.
    """
    end = "/".join(nfc(path).replace("\\", "/").lower().split("/")[-2:])
    return posixpath.splitext(end)[0] if "/" in end and is_image(end) else end


def _listed_path(line: str) -> str:
    """Return the path in a line of a list; empty if there is none."""
    try:
        return parse_list(line.encode("utf-8", "surrogateescape"), "")[0][0]
    except UserError:
        return ""


def member_for(list_name: str, path: str) -> str:
    """Return the member for a path in a list, which is relative to the list's own folder."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(list_name), path.replace("\\", "/")))
