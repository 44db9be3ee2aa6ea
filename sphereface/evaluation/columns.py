"""Large text files of numbers in columns, read in bounded memory.

numpy's reader is as fast as pyarrow's for such files, so that no other library is needed.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from ..data.pair_lines import quoted
from ..data.text_files import open_text
from ..errors import UserError

Int32Array = npt.NDArray[np.int32]

_LARGEST = 2**31 - 1
_MOST_DIGITS = len(str(_LARGEST))
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
_LINES = 2**20  # lines parsed at a time: 12 MB with three columns


def open_columns(path: Path, what: str) -> TextIO:
    """Open a UTF-8 file, with or without a byte order mark, with line ends of any system.

    Raises:
        UserError: it cannot be opened. ``what`` says what was expected there.
    """
    try:
        return open_text(path)
    except OSError as error:
        raise unreadable(path, error, what) from None


def unreadable(path: Path, error: Exception, what: str) -> UserError:
    """The error of a file that cannot be opened, or is no UTF-8 text."""
    reason = error.strerror if isinstance(error, OSError) else error
    return UserError(f"{path}: cannot be read as UTF-8 text ({reason}) · expected {what}")


def lines_of(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line without blanks at its ends) of each line that is not blank; at least
    one.

    Raises:
        UserError: the file cannot be read, or has no such line.
    """
    empty = True
    with open_columns(path, what) as file:
        try:
            for number, line in enumerate(file, start=1):
                stripped = line.strip()
                if "\0" in line:
                    raise UserError(f"{path}, line {number}: holds a NUL byte, so it is no text · expected {what}")
                if stripped:
                    empty = False
                    yield number, stripped
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable(path, error, what) from None
    if empty:
        raise UserError(f"{path}: is empty · expected {what}")


def integer_blocks(path: Path, what: str) -> Iterator[Int32Array]:
    """Lines of integers separated by spaces or tabs, a million lines at a time. Blank lines are
    passed over.

    Args:
        path: the file.
        what: what was expected there, for errors.

    Yields:
        (lines, columns) int32. A file without lines yields nothing.

    Raises:
        UserError: the file cannot be read.
        ValueError: a line has another number of columns than the first of its block, or a field
            that is no int32. Neither numpy's message nor its line number is fit for a user: read
            the lines again to find the fault.
    """
    with open_columns(path, what) as file:
        while True:
            try:
                block = _load(file)
            except UnicodeDecodeError as error:
                raise unreadable(path, error, what) from None
            if not len(block):
                return
            yield block


def is_integer(field: str) -> bool:
    """Whether a field is a plain integer in [0, 2^31)."""
    return field.isascii() and field.isdigit() and len(field) <= _MOST_DIGITS and int(field) <= _LARGEST


def finite_number(field: str) -> float | None:
    """Return a decimal number in ASCII; None for all else, such as ``1_000``, which Python reads,
    ``nan`` or 1e999.
    """
    value = float(field) if _NUMBER.fullmatch(field) else math.inf
    return value if math.isfinite(value) else None


def bad_line(path: Path, number: int, line: str, expected: str) -> UserError:
    """The error of a line of another form than ``expected``."""
    return UserError(f"{path}, line {number}: got {quoted(line)} · expected {expected}")


def _load(file: TextIO) -> Int32Array:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*contained no data")  # blank lines, and the end of the file
        return np.loadtxt(file, dtype=np.int32, comments=None, ndmin=2, max_rows=_LINES)
