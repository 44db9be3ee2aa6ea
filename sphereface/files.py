"""Files that are whole or not there, and a lock."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import lzma
import os
import re
import secrets
import struct
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO

_TOKEN_BYTES = 6
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.part", re.DOTALL)
_LONGEST = 255 - len("..") - 2 * _TOKEN_BYTES - len(".part")  # bytes of a name
_LEFT_AFTER_S = 3600
_cleaned = set[str]()  # folders in which this process has looked for what killed writers left


DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError,  # of the archive
    ValueError, SyntaxError, tokenize.TokenError,  # of a header, which numpy reads as a literal of Python
    ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError,  # of figures in either that are nonsense
)  # fmt: skip
"""What ``numpy.load`` and what maps its arrays raise for a damaged file, besides OSError and MemoryError."""


def write_whole(path: Path, data: bytes | str | Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """Replace a file as a whole: a kill at any moment leaves the old one or the new one.

    The new one is written beside it as ``.NAME.<12 hexadecimal digits>.part``, a name of its own for each call, then
    renamed. Several threads or processes may write one file at the same time: the last rename wins. What a killed
    writer leaves is removed once it is older than an hour, by the first call in each process that writes to the folder;
    so is ``.NAME.part`` of older versions, by the next call for the same file.

    Args:
        path: the file; its folder is made if need be.
        data: bytes, a text (written as UTF-8), or a function that writes to the open file.
        durable: flush to the disk before the rename, so that it lasts through a power cut too.

    Raises:
        OSError: the file system refuses; an earlier file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    part = path.with_name(f".{_shortened(path.name)}.{secrets.token_hex(_TOKEN_BYTES)}.part")
    try:
        with part.open("xb") as file:  # not tempfile, whose files only their owner may read
            if callable(data):
                data(file)
            else:
                file.write(data.encode("utf-8") if isinstance(data, str) else data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        flush_folder(path.parent)


def _shortened(name: str) -> str:
    """Return so much of a name that the temporary name is no longer than a file system allows."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST else encoded[:_LONGEST].decode("utf-8", "ignore")


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers left: they are old, since a writer at work changes its file all the time."""
    oldest = time.time() - _LEFT_AFTER_S
    found = [path.with_name(f".{path.name}.part")]
    if (folder := str(path.parent.absolute())) not in _cleaned:  # listed once: a folder may hold a million files
        _cleaned.add(folder)
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            found += [Path(entry.path) for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for part in found:
        with contextlib.suppress(OSError):  # another process removed it, or it belongs to somebody else
            if part.stat().st_mtime < oldest:
                part.unlink()


def flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_file(path: Path) -> IO[str] | None:
    """Take an exclusive lock that lasts until the returned file is closed or this process ends, however it ends.

    A lock of POSIX's record kind: processes that this one forks do not hold it on when this one is killed. Where the
    system or the file system knows no such locks, nothing is locked.

    Returns:
        The open file; None where another process holds the lock.
    """
    file = path.open("a", encoding="utf-8")
    try:
        import fcntl  # not on every system

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.close()
            return None
    return file


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
