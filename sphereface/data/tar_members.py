"""List the members of a tar file by its headers; nothing is extracted, and no link is followed.

The formats are those of POSIX (ustar and pax) and of GNU. Python's :mod:`tarfile` is not used: it
treats a truncated header as the end of the archive, and takes six times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError, shown
from .recordio import Buffer

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_LONGEST_NAME = 2**16  # bytes; more than any file system allows
_RECORD = 10_240  # bytes; programs pad a file with zeros to a multiple of it, or of those below
_RECORDS = (*range(_BLOCK, 2**16 + 1, _BLOCK), 2**17, 2**18, 2**19, 2**20)
_PLAIN = (b"0", b"\0", b"7")
_WITHOUT_DATA = b"123456"  # links, devices, folders, FIFOs: the size in their header does not count
_GZIP, _ZSTD, _XZ, _BZ2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"
_COMPRESSED = {_GZIP: "gzip", _ZSTD: "zstd", _XZ: "xz", _BZ2: "bzip2"}


class Member(NamedTuple):
    """A member of a tar file.

    Attributes:
        name: as in the archive; bytes that are not UTF-8 are kept as in file names of Python.
        start: the first byte of its content.
        size: of its content in bytes.
        plain: whether it is a file; folders, links and devices are not.
    """

    name: str
    start: int
    size: int
    plain: bool


def tar_members(buffer: Buffer, path: Path) -> Iterator[Member]:
    """Yield the members of a tar file in their order, after a check that each is whole.

    Args:
        buffer: the file.
        path: its name in messages.

    Raises:
        UserError: the file is not a tar file, is compressed, is truncated (inside a member or
            before its end mark of two blocks of zeros), continues after its end mark, or ends with
            more zeros than programs write.
    """
    offset, total = 0, len(buffer)
    longer: dict[str, bytes] = {}  # from extended headers, for the next member
    while (head := bytes(buffer[offset : offset + _BLOCK])) != _ZEROS:
        size, kind = _checked(head, offset, total, path)
        start = offset + _BLOCK
        if kind in b"LKxXg":
            offset = _next(start, size, total, path, "")
            if kind != b"g" and kind != b"K":
                longer |= _extended(bytes(buffer[start : start + size]), kind, path)
            continue
        if "size" in longer:
            size = _not_negative(_decimal(longer["size"]), longer["size"], path)
        name = (longer.get("path") or _name(head)).decode("utf-8", "surrogateescape")
        plain = kind in _PLAIN and not name.endswith("/")
        if kind == b"S" or any(key.startswith("GNU.sparse") for key in longer):
            raise UserError(f"{path}: {shown(name)} is a sparse file · allowed: files without holes")
        if kind in _WITHOUT_DATA:
            size = 0
        offset = _next(start, size, total, path, name)
        longer = {}
        yield Member(name, start, size, plain)
    _check_end(buffer, offset, path)


def _checked(head: bytes, offset: int, total: int, path: Path) -> tuple[int, bytes]:
    """Return the size and the type of a header."""
    if offset == 0:
        for magic, program in _COMPRESSED.items():
            if head.startswith(magic):
                raise UserError(f"{path}: is compressed by {program} · allowed: a plain tar file · unpack it first")
    if len(head) < _BLOCK:
        why = "without the two blocks of zeros that end a tar file" if not head else "inside a header"
        raise UserError(f"{path}: truncated: it ends at byte {total}, {why} · copy it again")
    if sum(head) - sum(head[148:156]) + 8 * ord(" ") != _octal(head[148:156]):
        what = "not a tar file" if offset == 0 else f"damaged: no header begins at byte {offset}"
        raise UserError(f"{path}: {what} · copy it again")
    return _number(head[124:136], path), head[156:157]


def _number(field: bytes, path: Path) -> int:
    if field[:1] == b"\x80":  # GNU: above 8 GiB, in base 256
        return int.from_bytes(field[1:], "big")
    return _not_negative(_octal(field), field, path)


def _not_negative(number: int, field: bytes, path: Path) -> int:
    if number < 0:
        raise UserError(f"{path}: damaged: a header has the size {shown(field)} · copy it again")
    return number


def _octal(field: bytes) -> int:
    digits = field.strip(b"\0 ")
    return int(digits or b"0", 8) if not digits.strip(b"01234567") else -1


def _decimal(field: bytes) -> int:
    return int(field) if field.isdigit() and len(field) < 20 else -1


def _name(head: bytes) -> bytes:
    name = head[:100].partition(b"\0")[0]
    prefix = head[345:500].partition(b"\0")[0] if head[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _next(start: int, size: int, total: int, path: Path, name: str) -> int:
    """Return where the next header begins."""
    if start + size > total:
        what = shown(name) if name else "a long name"
        raise UserError(f"{path}: truncated: it ends at byte {total}, inside {what} · copy it again")
    return start + size + -size % _BLOCK


def _extended(content: bytes, kind: bytes, path: Path) -> dict[str, bytes]:
    """Return the contents of an extended header: GNU's long name, or pax's ``length key=value``."""
    if len(content) > _LONGEST_NAME:
        raise UserError(f"{path}: got a header of {len(content):,} bytes · allowed: {_LONGEST_NAME:,} · copy it again")
    if kind == b"L":
        return {"path": content.partition(b"\0")[0]}
    found = {}
    while content.strip(b"\0"):
        digits, _, rest = content.partition(b" ")
        length = _decimal(digits)
        key, equals, value = content[len(digits) + 1 : max(length, 0)].partition(b"=")
        if not rest or not equals or not value.endswith(b"\n"):
            raise UserError(f"{path}: damaged: an extended header contains {shown(content[:40])} · copy it again")
        found[key.decode("utf-8", "replace")] = value[:-1]
        content = content[length:]
    return found


def _check_end(buffer: Buffer, offset: int, path: Path) -> None:
    """Check that the end mark is whole, and that only zeros follow it, and few."""
    if bytes(buffer[offset + _BLOCK : offset + 2 * _BLOCK]) != _ZEROS:
        raise UserError(f"{path}: truncated: its end mark at byte {offset} is not two blocks of zeros · copy it again")
    rest = np.frombuffer(buffer, np.uint8, offset=offset)
    if rest.any():
        at = offset + int(rest.argmax())
        raise UserError(
            f"{path}: continues after its end mark, at byte {at} · allowed: one tar file, not several joined by "
            "cat · give them as files of a folder"
        )
    record = max([_RECORD, *(size for size in _RECORDS if len(buffer) % size == 0)])
    if len(rest) > record + 2 * _BLOCK:
        raise UserError(
            f"{path}: got {len(rest):,} bytes of zeros after its last member, at byte {offset} · allowed: up to "
            f"{record:,}, which programs add · an unfinished download leaves such an end: copy it again · or, if it is "
            "whole, write it again with tar -b 20"
        )
