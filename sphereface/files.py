"""Files that are whole or not there, and a lock."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO


def write_whole(path: Path, data: bytes | str | Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """Replace a file as a whole: a kill at any moment leaves the old one or the new one.

    The new one is written beside it under a name that starts with a dot and ends in ``.part``, always the same, so
    that what a kill leaves is overwritten by the next try.

    Args:
        path: the file; its folder is made if need be.
        data: bytes, a text (written as UTF-8), or a function that writes to the open file.
        durable: flush to the disk before the rename, so that it lasts through a power cut too.

    Raises:
        OSError: the file system refuses; an earlier file is untouched.
    """
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as file:
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
