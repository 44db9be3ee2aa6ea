"""Check small files of unknown origin before they are read, and parse their JSON. No torch."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from .errors import UserError, first_line, shown, shown_key
from .files import regular_file
from .options import parse_options

T = TypeVar("T")

MOST_BYTES = 1 << 24
"""Limit for a small file. This package's largest, an evaluation report, has about 100 kB."""


def is_file(path: Path) -> bool:
    """Return whether a path is a file; False also for a too long name or a closed folder."""
    try:
        return path.is_file()
    except OSError:
        return False


def mode_of(path: Path, error_kind: type[UserError] = UserError) -> int:
    """Return the mode of a file (see :mod:`stat`); 0 if it does not exist.

    Raises:
        UserError: the system cannot read it; of the given kind.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise error_kind(f"{shown_key(str(path))}: cannot be read ({reason(error)})") from error


def check_replaceable(path: Path, mark: bytes, key: str) -> None:
    """Refuse to replace a file that this package did not write. A missing or empty file is allowed.

    Args:
        path: the file to write.
        mark: bytes in every such file of this package.
        key: the option that names it, for the message.

    Raises:
        UserError: there is a file without the mark, or one that cannot be read.
    """
    try:
        with open(path, "rb", opener=regular_file) as file:
            if not os.fstat(file.fileno()).st_size:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                known = data.find(mark) >= 0
    except (FileNotFoundError, NotADirectoryError):  # the write reports it
        return
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be written ({error.strerror}) · give another name") from error
    if not known:
        raise UserError(
            f"{key}: got {path}, a file that this command did not write · allowed: a new name, or that of an earlier "
            "result · give another name, or move the file away"
        )


def check_results(directory: Path, names: Iterable[str], mark: bytes, key: str = "--output") -> None:
    """Refuse to replace files in a folder of results, before hours of work.

    A JSON file is recognised by its mark, another file by such a JSON file beside it.

    Args:
        directory: the folder, which may be missing.
        names: of the files to write.
        mark, key: see :func:`check_replaceable`.

    Raises:
        UserError: one of them is a file that this package did not write.
    """
    ours = any(_is_marked(path, mark) for path in directory.glob("*.json"))
    for name in names:
        if name.endswith(".json") or not ours:
            check_replaceable(directory / name, mark, key)


def _is_marked(path: Path, mark: bytes) -> bool:
    try:
        check_replaceable(path, mark, "")
        return path.stat().st_size > 0
    except (OSError, UserError):
        return False


def read_text(path: Path, *, most: int = MOST_BYTES) -> str:
    """Read a small text file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        most: largest size in bytes.

    Raises:
        OSError: the system refuses, or it is no regular file
            (:func:`~sphereface.files.regular_file`).
        ValueError: it is too large, or not UTF-8.
    """
    with open(path, "rb", opener=regular_file) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most:,} bytes")
    return data.decode("utf-8-sig")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object: each key once, nesting within Python's limits.

    Raises:
        OSError, ValueError: see :func:`read_text`; also for other JSON.
    """
    try:
        found = json.loads(read_text(path), object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"got {shown(found)} · allowed: an object with keys")
    return found


def read_form(path: Path, form: type[T]) -> T:
    """Read a JSON object into an option class, which declares types and ranges of its keys.

    Raises:
        OSError, ValueError: see :func:`read_json`; also for the first key that is missing, unknown,
            of another type or out of range.
    """
    return parse_form(read_json(path), form)


def parse_form(values: dict[str, Any], form: type[T]) -> T:
    """Parse values like :func:`read_form`, after they were read."""
    problems: list[str] = []
    parsed = parse_options(form, values, prefix="", problems=problems, exact=True)
    if parsed is None:
        raise ValueError(problems[0])
    return parsed


def reason(error: Exception) -> str:
    """Return in one line why a file could not be read: the system's or the content's fault."""
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
