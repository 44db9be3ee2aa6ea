"""Small files that strangers may have written: checked before they are read, and JSON of a declared form. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from .errors import first_line, shown
from .files import regular_file
from .options import parse_options

T = TypeVar("T")

MOST_BYTES = 1 << 24
"""Of a small file. The largest that this package writes, a report of an evaluation, takes some hundred kilobytes."""


def is_file(path: Path) -> bool:
    """Whether there is a file at a path; False also where the name is too long or the folder is closed."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_text(path: Path, *, most: int = MOST_BYTES) -> str:
    """Read a small text file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        most: largest size in bytes.

    Raises:
        OSError: the system refuses, or it is no regular file (:func:`~sphereface.files.regular_file`).
        ValueError: it is too large, or not UTF-8.
    """
    with open(path, "rb", opener=regular_file) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most:,} bytes")
    return data.decode("utf-8-sig")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object of JSON: each key once, nesting within Python's limits.

    Raises:
        OSError, ValueError: as :func:`read_text`, and for what is no such JSON.
    """
    try:
        found = json.loads(read_text(path), object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"got {shown(found)} · allowed: an object with keys")
    return found


def read_form(path: Path, form: type[T]) -> T:
    """Read an object of JSON into an option class, which declares types and ranges of its keys.

    Raises:
        OSError, ValueError: as :func:`read_json`, and for the first key that is missing, unknown, of another type or
            out of range.
    """
    return parse_form(read_json(path), form)


def parse_form(values: dict[str, Any], form: type[T]) -> T:
    """As :func:`read_form`, of values that were read already."""
    problems: list[str] = []
    parsed = parse_options(form, values, prefix="", problems=problems, exact=True)
    if parsed is None:
        raise ValueError(problems[0])
    return parsed


def reason(error: Exception) -> str:
    """Return why a file could not be read, in one line: what the system says, or what is wrong with the content."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason} at byte {error.start}"
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error)


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} occurs twice")
        found[key] = value
    return found
