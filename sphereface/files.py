"""Write files that are complete or absent, and lock them between processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

_TOKEN_BYTES = 6
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.part", re.DOTALL)
_LONGEST = 255 - len("..") - 2 * _TOKEN_BYTES - len(".part")  # bytes of a file name
_LEFT_AFTER_S = 3600
_WAIT_S = 0.05  # between two attempts to take a lock
_SAMPLED = 256  # bytes of content that content_stamp reads in one place
_PLAIN = 4  # different bytes of the pixels of one colour: red, green, blue and alpha
_cleaned = set[str]()  # folders whose old temporary files this process has removed


def write_whole(path: Path, data: bytes | str | Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """Replace a file as a whole: a kill at any moment leaves the old file or the new one.

    The new one is written beside it as ``.NAME.<12 hexadecimal digits>.part``, a new name for each
    call, then renamed. Several threads or processes may write one file at the same time: the last
    rename wins.

    A temporary file of a killed writer is removed once it is older than an hour, by the first call
    in each process that writes to the folder. The next call for the same file also removes
    ``.NAME.part`` of older versions.

    Args:
        path: the file; its folder is made if need be.
        data: bytes, a text (written as UTF-8), or a function that writes to the open file.
        durable: flush to the disk before the rename, so that the file survives a power cut.

    Raises:
        OSError: the file system refuses, or the path is not a file; it is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # root could replace a device, such as /dev/null, for all programs
        raise OSError(errno.EEXIST, "a folder, a device or a pipe has this name", str(path))
    _remove_leftovers(path)
    part = temporary_name(path)
    try:
        with part.open("xb") as file:  # tempfile would allow only the owner to read the file
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


def temporary_name(path: Path) -> Path:
    """Return a new hidden name beside a file: ``.NAME.<12 hexadecimal digits>.part``."""
    return path.with_name(f".{_shortened(path.name)}.{secrets.token_hex(_TOKEN_BYTES)}.part")


def _shortened(name: str) -> str:
    """Shorten a name so that the temporary name fits the limit of the file system."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST else encoded[:_LONGEST].decode("utf-8", "ignore")


def _remove_leftovers(path: Path) -> None:
    """Remove old temporary files of killed writers; a running writer keeps its file young."""
    oldest = time.time() - _LEFT_AFTER_S
    found = [path.with_name(f".{path.name}.part")]
    if (folder := str(path.parent.absolute())) not in _cleaned:  # listed once: a folder may hold a million files
        _cleaned.add(folder)
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            found += [Path(entry.path) for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for part in found:
        with contextlib.suppress(OSError):  # another process removed it, or another user owns it
            if part.stat().st_mtime < oldest:
                part.unlink()


def flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system allows opening a folder."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def regular_file(path: str, flags: int) -> int:
    """Open a regular file for reading: an ``opener`` for :func:`open`.

    Raises:
        OSError: it cannot be opened, or is a folder, a FIFO, a socket or a device.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, os.strerror(number) if number == errno.EISDIR else "not a regular file", path)
    return descriptor


def read_plain(path: Path) -> bytes:
    """Return the content of a file; see :func:`regular_file`."""
    with open(path, "rb", opener=regular_file) as file:
        return file.read()


def lock_file(path: Path) -> IO[str] | None:
    """Take an exclusive lock that lasts until the returned file is closed or this process ends.

    It is a POSIX record lock: child processes do not keep it when this process is killed. Without
    such locks in the system or the file system, nothing is locked. The holder may remove or move
    the file.

    Returns:
        The open file; None where another process holds the lock.
    """
    while True:
        file = path.open("a", encoding="utf-8")
        try:
            import fcntl  # not on every system

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            return file
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.close()
                return None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its last holder removed or moved it


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of :func:`lock_file` while a block runs, then remove the file.

    Its folder is made if need be.

    Yields:
        True; False where another process holds the lock.

    Raises:
        OSError: the file system refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = lock_file(path)
    try:
        yield file is not None
    finally:
        if file is not None:
            with file, contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def locked_in_turn(path: Path) -> Iterator[None]:
    """Hold a lock like :func:`locked`, but wait until no other process holds it."""
    while True:
        with locked(path) as alone:
            if alone:
                yield
                return
        time.sleep(_WAIT_S)


def in_words(num_bytes: int) -> str:
    """Return a number of bytes as text: ``524 bytes``, ``12.3 KiB``, ``1,024.0 MiB``."""
    if num_bytes < 1 << 10:
        return f"{num_bytes:,} bytes"
    return f"{num_bytes / 2**10:.1f} KiB" if num_bytes < 1 << 20 else f"{num_bytes / 2**20:,.1f} MiB"


def moment(path: Path) -> tuple[int, ...]:
    """Return the identity of a file's content: device, inode, length, time of the last change."""
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def content_stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the size of a regular file, and a number that mixes its time and some bytes of it.

    The bytes are 256 from its middle, and of 64 more places if these are of a plain area. They tell
    files apart that have exchanged their names, also if size and time are equal.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    with open(path, "rb", buffering=0, opener=regular_file) as file:
        about = os.fstat(file.fileno())
        file.seek(about.st_size // 2)
        sample = file.read(_SAMPLED)
        if len(set(sample)) <= _PLAIN:
            for part in range(64):
                file.seek(about.st_size * part // 64)
                sample += file.read(_SAMPLED)
        return about.st_size, about.st_mtime_ns ^ zlib.crc32(sample) << 29


def content_number(data: bytes) -> int:
    """Return a hash of 64 bits."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return sha256_of_open(file)


def sha256_of_open(file: BinaryIO) -> str:
    """Return the SHA-256 of an open file from its start to its end, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
