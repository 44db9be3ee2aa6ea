"""Map arrays of an ``.npz`` file, without a copy in memory."""

from __future__ import annotations

import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from ..archives import check_directory
from ..files import regular_file

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # zip format; the last two are the lengths of name and extra field
_BLOCK = 1 << 20
_MOST_UNPACKED = 1 << 27  # bytes of a compressed array whose compression exceeds the next limit
_MOST_SHRUNK = 100  # uncompressed size / compressed size; arrays of numbers stay below
_ENCRYPTED = 1  # bit in the flags of a member
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # only the names of fields differ; number arrays have none
}


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open an ``.npz`` file. Raises OSError if it is not a regular file, and BadZipFile."""
    os.close(regular_file(str(path), os.O_RDONLY))  # a FIFO would block
    return zipfile.ZipFile(path)


def map_arrays(path: Path, names: Iterable[str], optional: Collection[str]) -> dict[str, npt.NDArray[Any]]:
    """Return some arrays of an ``.npz`` file like :func:`map_array`, and check its directory.

    Args:
        path: the file.
        names: of the arrays.
        optional: names of arrays that the file may lack; the result lacks them too.
    """
    with open_archive(path) as archive:
        check_directory(archive)
        members = {name.removesuffix(".npy") for name in archive.namelist()}
    return {name: map_array(path, name) for name in names if name in members or name not in optional}


def map_array(path: Path, name: str, *, checked: bool = True) -> npt.NDArray[Any]:
    """Return one array of an ``.npz`` file, mapped read-only if the file does not compress it.

    ``numpy.load`` reads an array of an ``.npz`` whole, and ignores ``mmap_mode``.

    Args:
        path: the file.
        name: of the array.
        checked: compare the bytes of the array with the file's checksum. This reads all of them.

    Raises:
        OSError, MemoryError, or one of :data:`DAMAGED`: the errors of ``numpy.load``, also for a
            wrong checksum or an array of Python objects.
    """
    with open_archive(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.flag_bits & _ENCRYPTED:
            raise zipfile.BadZipFile(f"{member.filename} is encrypted")
        if member.compress_type != zipfile.ZIP_STORED:
            if member.file_size > max(_MOST_UNPACKED, _MOST_SHRUNK * member.compress_size):
                raise ValueError(f"{name}: unpacks from {member.compress_size:,} to {member.file_size:,} bytes")
            with archive.open(member) as stream:
                shape, order, dtype = _header(stream, name, member.file_size)
                data = stream.read()  # zipfile compares the checksum at the end
            return np.asarray(np.ndarray(shape, dtype, data, order=order))
    with path.open("rb") as file:
        start = _start_of(file, member)
        if checked:
            _check(file, start, member)
        file.seek(start)
        shape, order, dtype = _header(file, name, member.file_size)
        if 0 in shape or not dtype.itemsize:
            return np.empty(shape, dtype=dtype, order=order)
        return np.memmap(path, dtype=dtype, mode="r", offset=file.tell(), shape=shape, order=order)


def _header(file: IO[bytes], name: str, num_bytes: int) -> tuple[tuple[int, ...], Literal["F", "C"], np.dtype[Any]]:
    """Read shape, order and type of an array. With its header it takes at most ``num_bytes``."""
    start = file.tell()
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"{name}: version {version} of numpy's format is unknown")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns about a damaged header
        shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > start + num_bytes - file.tell():
        raise ValueError(f"{name}: shape {shape} needs {size:,} bytes, more than the file has")
    if any(side < 0 for side in shape):
        raise ValueError(f"{name}: shape {shape} has a negative length")
    return shape, "F" if fortran else "C", dtype


def _start_of(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Return the offset of a member's bytes in the file."""
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile("bad local header")
    *_, name, extra = _LOCAL_HEADER.unpack(header)
    return int(member.header_offset + _LOCAL_HEADER.size + name + extra)


def _check(file: BinaryIO, start: int, member: zipfile.ZipInfo) -> None:
    """Compare the bytes of a member with its checksum, block by block."""
    file.seek(start)
    found, left = 0, member.file_size
    while left:
        block = file.read(min(_BLOCK, left))
        if not block:
            raise zipfile.BadZipFile(f"{member.filename} ends early")
        found, left = zlib.crc32(block, found), left - len(block)
    if found != member.CRC:
        raise zipfile.BadZipFile(f"bad CRC-32 of {member.filename}")
