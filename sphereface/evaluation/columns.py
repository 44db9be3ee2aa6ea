"""Read large text files of numbers in columns, in bounded memory.

numpy reads such files as fast as pyarrow does, so no other library is needed.
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

    Args:
        path: the file.
        what: description of the expected file, for errors.

    Raises:
        UserError: it cannot be opened.
    """
    try:
        return open_text(path)
    except OSError as error:
        raise unreadable(path, error, what) from None


def unreadable(path: Path, error: Exception, what: str) -> UserError:
    """Return the error for a file that cannot be opened or is not UTF-8 text."""
    reason = error.strerror if isinstance(error, OSError) else error
    return UserError(f"{path}: cannot be read as UTF-8 text ({reason}) · expected {what}")


def lines_of(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without blanks at its ends) of each line that is not blank.

    Raises:
        UserError: the file cannot be read, or all its lines are blank.
    """
    empty = True
    with open_columns(path, what) as file:
        try:
            for number, line in enumerate(file, start=1):
                stripped = line.strip()
                if "\0" in line:
                    raise UserError(f"{path}, line {number}: holds a NUL byte, so it is not text · expected {what}")
                if stripped:
                    empty = False
                    yield number, stripped
        except (OSError, UnicodeDecodeError) as error:
            raise unreadable(path, error, what) from None
    if empty:
        raise UserError(f"{path}: is empty · expected {what}")


def integer_blocks(path: Path, what: str) -> Iterator[Int32Array]:
    """Yield lines of integers separated by spaces or tabs, a million lines at a time.

    Blank lines are skipped.

    Args:
        path: the file.
        what: description of the expected file, for errors.

    Yields:
        (lines, columns) int32. A file without lines yields nothing.

    Raises:
        UserError: the file cannot be read.
        ValueError: a line has another number of columns than the first line of its block, or a
            field is not an int32. The message and the line number come from numpy and do not help a
            user. The caller must read the lines again to find the fault.
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
    """Return whether a field is a plain integer in [0, 2^31)."""
    return field.isascii() and field.isdigit() and len(field) <= _MOST_DIGITS and int(field) <= _LARGEST


def finite_number(field: str) -> float | None:
    """Return the value of a finite decimal number in ASCII; None for any other field.

    ``nan``, ``1e999``, and ``1_000``, which Python accepts, give None.
    """
    value = float(field) if _NUMBER.fullmatch(field) else math.inf
    return value if math.isfinite(value) else None


def bad_line(path: Path, number: int, line: str, expected: str) -> UserError:
    """Return the error for a line that does not have the form ``expected``."""
    return UserError(f"{path}, line {number}: got {quoted(line)} · expected {expected}")


def _load(file: TextIO) -> Int32Array:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*contained no data")  # blank lines, and the end of the file
        return np.loadtxt(file, dtype=np.int32, comments=None, ndmin=2, max_rows=_LINES)
