"""Read text files that people write or move between systems: lists of images, pairs and names."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TextIO

from ..errors import UserError
from ..files import read_plain, regular_file

_BOM = "\ufeff"


def open_text(path: Path) -> TextIO:
    r"""Open UTF-8 text, with or without a byte order mark. Lines end in ``\n``, ``\r\n`` or ``\r``.

    Raises:
        OSError: see :func:`regular_file`; a path with a NUL counts as a missing file.
    """
    if "\0" in str(path):
        raise FileNotFoundError(errno.ENOENT, "a path cannot contain NUL", str(path))
    return open(path, encoding="utf-8-sig", opener=regular_file)


def text_lines(text: bytes, name: str, *, strict: bool = False) -> list[str]:
    r"""Split a text file at ``\n``, ``\r\n`` and ``\r`` into lines, blank ones included.

    Args:
        text: the file.
        name: its name in messages.
        strict: refuse text that is not UTF-8; otherwise keep such bytes as Python does in file
            names.

    Raises:
        UserError: it contains a NUL, is UTF-16, or (if ``strict``) not UTF-8; the message gives the
            line.
    """
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{name}: cannot be read as UTF-8 text (it is UTF-16) · save it as UTF-8")
    if (at := text.find(b"\0")) >= 0:
        raise UserError(f"{name}, line {_line_of(text, at)}: contains a NUL byte · allowed: UTF-8 text")
    try:
        decoded = text.decode("utf-8", "strict" if strict else "surrogateescape")
    except UnicodeDecodeError as error:
        line = _line_of(text, error.start)
        raise UserError(
            f"{name}: cannot be read as UTF-8 text (byte {text[error.start]:#04x} in line {line}) · save it as UTF-8"
        ) from None
    return decoded.removeprefix(_BOM).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_text_lines(path: Path, allowed: str, *, strict: bool = False) -> list[str]:
    """Read the lines of a file; see :func:`text_lines`.

    Args:
        path: the file.
        allowed: the kind of file that is allowed, for messages.
        strict: refuse text that is not UTF-8.

    Raises:
        UserError: it cannot be read, or is not text.
    """
    try:
        text = read_plain(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file · allowed: {allowed}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}) · allowed: {allowed}") from None
    return text_lines(text, str(path), strict=strict)


def _line_of(text: bytes, at: int) -> int:
    """Return the number, from 1, of the line that contains a byte."""
    before = text[:at]
    return 1 + before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")
