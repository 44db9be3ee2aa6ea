"""Files that are whole or not there, and a lock."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import lzma
import os
import re
import secrets
import stat
import struct
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

_TOKEN_BYTES = 6
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.part", re.DOTALL)
_LONGEST = 255 - len("..") - 2 * _TOKEN_BYTES - len(".part")  # bytes of a name
_LEFT_AFTER_S = 3600
_WAIT_S = 0.05  # between two looks at a lock
_LONGEST_END = 22 + 2**16  # bytes of the end record of a zip with its comment (PKWARE APPNOTE 4.3.16)
_LONGEST_PICKLE = 1 << 22  # bytes of the pickle of a small file of weights: 25,000 tensors
BYTEARRAY = b"bytearray\n"  # as a pickle of torch.save names it
_cleaned = set[str]()  # folders in which this process has looked for what killed writers left


DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError,  # of the archive
    ValueError, SyntaxError, tokenize.TokenError,  # of a header, which numpy reads as a literal of Python
    ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError,  # of figures in either that are nonsense
)  # fmt: skip
"""What ``numpy.load`` and what maps its arrays raise for a damaged file, besides OSError and MemoryError."""


def write_whole(path: Path, data: bytes | str | Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """Replace a file as a whole: a kill at any moment leaves the old one or the new one.

    The new one is written beside it as ``.NAME.<12 hexadecimal digits>.part``, a name of its own
    for each call, then renamed. Several threads or processes may write one file at the same time:
    the last rename wins. What a killed writer leaves is removed once it is older than an hour, by
    the first call in each process that writes to the folder; so is ``.NAME.part`` of older
    versions, by the next call for the same file.

    Args:
        path: the file; its folder is made if need be.
        data: bytes, a text (written as UTF-8), or a function that writes to the open file.
        durable: flush to the disk before the rename, so that it lasts through a power cut too.

    Raises:
        OSError: the file system refuses, or there is something else than a file; it is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # root could replace a device, such as /dev/null, for all programs
        raise OSError(errno.EEXIST, "a folder, a device or a pipe is there", str(path))
    _remove_leftovers(path)
    part = temporary_name(path)
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


def temporary_name(path: Path) -> Path:
    """Return a hidden name beside a file, of its own for each call: ``.NAME.<12 hexadecimal
    digits>.part``.
    """
    return path.with_name(f".{_shortened(path.name)}.{secrets.token_hex(_TOKEN_BYTES)}.part")


def _shortened(name: str) -> str:
    """Return so much of a name that the temporary name is no longer than a file system allows."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST else encoded[:_LONGEST].decode("utf-8", "ignore")


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers left: they are old, since a writer at work changes its file all
    the time.
    """
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


def regular_file(path: str, flags: int) -> int:
    """Open a file for reading: an ``opener`` for :func:`open`. What waits for a writer or never
    ends is refused.

    Raises:
        OSError: it cannot be opened, or is a folder, a FIFO, a socket or a device.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, os.strerror(number) if number == errno.EISDIR else "no plain file", path)
    return descriptor


def read_plain(path: Path) -> bytes:
    """Return the content of a file; see :func:`regular_file`."""
    with open(path, "rb", opener=regular_file) as file:
        return file.read()


def check_directory(archive: zipfile.ZipFile) -> None:
    """Compare the number of members with the one in the end record, which :mod:`zipfile` ignores.

    A wrong length in one entry of the directory hides the entries behind it. Without zip64, some
    programs write the number of more than 65,535 members modulo 65,536.

    Raises:
        zipfile.BadZipFile: they differ.
    """
    assert archive.fp is not None
    size = archive.fp.seek(0, os.SEEK_END)
    archive.fp.seek(max(0, size - _LONGEST_END - 76))  # 76: the two records of zip64, in front of the end record
    tail = archive.fp.read()
    at = tail.rfind(b"PK\x05\x06")
    (count,), found = struct.unpack_from("<H", tail, at + 10), len(archive.infolist())
    zip64 = tail[max(0, at - 76) : at]
    if zip64[:4] == b"PK\x06\x06" and zip64[56:60] == b"PK\x06\x07":
        (count,) = struct.unpack_from("<Q", zip64, 32)
    elif found >= 1 << 16:
        count += found >> 16 << 16
    if count != found:
        raise zipfile.BadZipFile(f"its end counts {count:,} members, its directory lists {found:,}")


def costly_pickle(archive: zipfile.ZipFile) -> str:
    """Say why the pickle in a zip of ``torch.save`` must not be loaded, though ``weights_only``
    would; empty if it may.

    The safe unpickler makes a ``bytearray`` of any length that a file names, and takes a
    microsecond for each byte.

    Raises:
        Those of :data:`DAMAGED`, and OSError.
    """
    for entry in archive.infolist():
        if entry.filename.rpartition("/")[2] != "data.pkl":
            continue
        most = max(_LONGEST_PICKLE, sum(each.file_size for each in archive.infolist()) // 2)
        if entry.file_size > most:
            return f"its data.pkl has {entry.file_size:,} bytes · allowed: {most:,}"
        if BYTEARRAY in archive.read(entry):
            return "it holds a bytearray, which can claim any size"
    return ""


def lock_file(path: Path) -> IO[str] | None:
    """Take an exclusive lock that lasts until the returned file is closed or this process ends,
    however it ends.

    A lock of POSIX's record kind: processes that this one forks do not hold it on when this one is
    killed. Where the system or the file system knows no such locks, nothing is locked. The holder
    may remove or move the file.

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
        file.close()  # its last holder has just removed or moved it


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock of :func:`lock_file` while a block runs, then remove the file, whose folder is
    made if need be.

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
    """As :func:`locked`, but wait until no other process holds the lock."""
    while True:
        with locked(path) as alone:
            if alone:
                yield
                return
        time.sleep(_WAIT_S)


def in_words(num_bytes: int) -> str:
    """Return a number of bytes in words, three digits or more of it: ``524 bytes``, ``12.3 KiB``,
    ``1,024.0 MiB``.
    """
    if num_bytes < 1 << 10:
        return f"{num_bytes:,} bytes"
    return f"{num_bytes / 2**10:.1f} KiB" if num_bytes < 1 << 20 else f"{num_bytes / 2**20:,.1f} MiB"


def moment(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is replaced or written to: device, inode, length, time of the
    last change.
    """
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return sha256_of_open(file)


def sha256_of_open(file: BinaryIO) -> str:
    """SHA-256 of an open file from its start to its end, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
