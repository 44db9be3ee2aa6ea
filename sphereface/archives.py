"""Check what the readers of zip archives in Python and torch leave unchecked."""

from __future__ import annotations

import lzma
import os
import struct
import tokenize
import zipfile
import zlib

_LONGEST_END = 22 + 2**16  # bytes of the end record of a zip with its comment (PKWARE APPNOTE 4.3.16)
_AT_A_TIME = 2**20  # bytes of an entry of a zip
_LONGEST_PICKLE = 1 << 22  # bytes of the pickle of a small file of weights: 25,000 tensors
BYTEARRAY = b"bytearray\n"  # its name in a pickle of torch.save

DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError,  # of the archive
    ValueError, SyntaxError, tokenize.TokenError,  # of a header, which numpy reads as a Python literal
    ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError,  # of invalid numbers in either
)  # fmt: skip
"""Exceptions of ``numpy.load`` and its maps for a damaged file, besides OSError and MemoryError."""


def check_directory(archive: zipfile.ZipFile) -> None:
    """Compare the number of members with the one in the end record, which :mod:`zipfile` ignores.

    A wrong length in one entry of the directory hides the entries after it. Without zip64, some
    programs write a number of more than 65,535 members modulo 65,536.

    Raises:
        zipfile.BadZipFile: they differ.
    """
    assert archive.fp is not None
    size = archive.fp.seek(0, os.SEEK_END)
    archive.fp.seek(max(0, size - _LONGEST_END - 76))  # 76: the two records of zip64, before the end record
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


def damaged_entry(archive: zipfile.ZipFile) -> str:
    """Return the first entry of a zip whose content is not what its checksum says; empty if none.

    An entry without a checksum, as ``torch.serialization.set_crc32_options(False)`` leaves it, is
    not compared. torch itself compares none.
    """
    for entry in archive.infolist():
        if entry.CRC:
            try:
                with archive.open(entry) as content:
                    while content.read(_AT_A_TIME):
                        pass
            except DAMAGED:
                return entry.filename
    return ""


def costly_pickle(archive: zipfile.ZipFile) -> str:
    """Return why the pickle in a zip of ``torch.save`` is too costly to load; empty if it is not.

    With ``weights_only``, the safe unpickler creates a ``bytearray`` of any length that a file
    names, and takes a microsecond for each byte.

    Raises:
        Those of :data:`DAMAGED`, and OSError.
    """
    for entry in archive.infolist():
        if entry.filename.rpartition("/")[2] != "data.pkl":
            continue
        most = max(_LONGEST_PICKLE, sum(each.file_size for each in archive.infolist()) // 2)
        if entry.file_size > most:
            return f"its data.pkl has {entry.file_size:,} bytes · allowed: {most:,}"
        if not entry.CRC:
            entry.CRC = None  # type: ignore[assignment]  # there is no checksum, and zipfile compares none then
        if BYTEARRAY in archive.read(entry):
            return "it holds a bytearray, which can claim any size"
    return ""
