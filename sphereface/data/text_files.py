"""Text files that people write or move between systems: lists of images, of pairs, of names."""

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
        OSError: see :func:`regular_file`; a path with a NUL counts as one that is not there.
    """
    if "\0" in str(path):
        raise FileNotFoundError(errno.ENOENT, "a path holds no NUL", str(path))
    return open(path, encoding="utf-8-sig", opener=regular_file)


def text_lines(text: bytes, name: str, *, strict: bool = False) -> list[str]:
    r"""Split a text file into its lines: all that stands before ``\n``, ``\r\n`` or ``\r``, blanks
    included.

    Args:
        text: the file.
        name: what messages call it.
        strict: refuse what is no UTF-8; else such bytes are kept as names of files keep them.

    Raises:
        UserError: it is no text, with the line: it holds a NUL, is UTF-16, or (if ``strict``) no
            UTF-8.
    """
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{name}: cannot be read as UTF-8 text (it is UTF-16) · save it as UTF-8")
    if (at := text.find(b"\0")) >= 0:
        raise UserError(f"{name}, line {_line_of(text, at)}: holds a NUL byte, so it is no text · allowed: UTF-8 text")
    try:
        decoded = text.decode("utf-8", "strict" if strict else "surrogateescape")
    except UnicodeDecodeError as error:
        line = _line_of(text, error.start)
        raise UserError(
            f"{name}: cannot be read as UTF-8 text (byte {text[error.start]:#04x} in line {line}) · save it as UTF-8"
        ) from None
    return decoded.removeprefix(_BOM).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_text_lines(path: Path, expected: str, *, strict: bool = False) -> list[str]:
    """Read the lines of a file; see :func:`text_lines`.

    Args:
        path: the file.
        expected: what should be there, for messages.
        strict: refuse what is no UTF-8.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        text = read_plain(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file · expected {expected}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}) · expected {expected}") from None
    return text_lines(text, str(path), strict=strict)


def _line_of(text: bytes, at: int) -> int:
    """The number, from 1, of the line that holds a byte."""
    before = text[:at]
    return 1 + before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")
