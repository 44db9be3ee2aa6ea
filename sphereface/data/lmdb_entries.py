"""Find the entries of an LMDB file by walking its tree of pages.

The LMDB library is not used: it trusts the file, so that a damaged one crashes the process. Only
what reading needs is here. The layout is that of LMDB 0.9 (``mdb.c``: ``MDB_meta``, ``MDB_page``,
``MDB_node``), little-endian, 64 bits::

    page   uint64 number | uint16 pad | uint16 flags
           | uint16 lower, uint16 upper, or uint32 number of pages
    meta   page | uint32 magic, version | uint64 address, mapsize | two trees
           | uint64 last page, transaction
    tree   uint32 pad | uint16 flags, depth
           | uint64 branch, leaf, overflow pages, entries, root page
    node   uint16 size, uint16 size above 2¹⁶ | uint16 flags | uint16 length of key
           | key | value, or its page
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .recordio import Buffer

_HEAD = struct.Struct("<8xHHHH")  # pad, flags, lower, upper
_META = struct.Struct("<16xII16x")
_TREE = struct.Struct("<IHHQQQQQ")
_TAIL = struct.Struct("<QQ")
_NODE = struct.Struct("<HHHH")
_PAGE = struct.Struct("<Q")
_MAGIC, _VERSION, _NONE = 0xBEEFC0DE, 1, 2**64 - 1
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4
_BIG, _OTHER = 1, 2 | 4  # values on separate pages; subtrees and duplicates below an entry
_DEEPEST = 32
_META_BYTES = _META.size + 2 * _TREE.size + _TAIL.size


class Entry(NamedTuple):
    """An entry: its key, and the place of its value in the file."""

    key: bytes
    start: int
    size: int


class _Meta(NamedTuple):
    page_size: int
    transaction: int
    last_page: int
    root: int
    entries: int
    flags: int


def lmdb_entries(buffer: Buffer, path: Path) -> Iterator[Entry]:
    """Yield all entries of the main database, sorted by key.

    Args:
        buffer: the file.
        path: its name in messages.

    Raises:
        UserError: the file is not an LMDB file or has another version, is truncated or damaged, or
            contains several databases or a wrong number of entries.
    """
    meta = _newest(buffer, path)
    page_size, found = meta.page_size, 0
    if (end := (meta.last_page + 1) * page_size) > len(buffer):
        raise UserError(f"{path}: truncated: {len(buffer)} of {end} bytes · copy it again")
    left = [] if meta.root == _NONE else [meta.root]
    most, walked = meta.last_page + 1, 0
    while left:
        number = left.pop()
        walked += 1
        if number > meta.last_page or walked > most:
            raise _damaged(path, number)
        start = number * page_size
        _, kind, lower, _ = _HEAD.unpack_from(buffer, start)
        page = bytes(buffer[start : start + page_size])
        nodes = (
            struct.unpack_from(f"<{(lower - _HEAD.size) // 2}H", page, _HEAD.size) if 16 <= lower <= page_size else ()
        )
        if kind & _BRANCH and nodes and len(left) < _DEEPEST * page_size:
            children = (_node(page, at, path, number) for at in reversed(nodes))
            left += [low | middle << 16 | high << 32 for low, middle, high, _ in children]
        elif kind & _LEAF and nodes:
            for at in nodes:
                yield _entry(buffer, page, at, start, meta, path)
            found += len(nodes)
        else:
            raise _damaged(path, number)
    if found != meta.entries:
        raise UserError(f"{path}: holds {found} entries, but its header claims {meta.entries} · copy it again")


def _newest(buffer: Buffer, path: Path) -> _Meta:
    """Return the newer of the two metas, which transactions write alternately."""
    first = _meta(buffer, 0, path)
    if first is None:
        raise UserError(f"{path}: not an LMDB file · allowed: data.mdb, or a file that lmdb wrote with subdir=False")
    second = _meta(buffer, first.page_size, path)
    return first if second is None or second.transaction < first.transaction else second


def _meta(buffer: Buffer, start: int, path: Path) -> _Meta | None:
    if start + _META_BYTES > len(buffer):
        return None
    magic, version = _META.unpack_from(buffer, start)
    if magic != _MAGIC:
        return None
    if version != _VERSION:
        raise UserError(f"{path}: got version {version} of LMDB's format · allowed: {_VERSION}, that of LMDB 0.9")
    free = _TREE.unpack_from(buffer, start + _META.size)
    main = _TREE.unpack_from(buffer, start + _META.size + _TREE.size)
    last_page, transaction = _TAIL.unpack_from(buffer, start + _META.size + 2 * _TREE.size)
    page_size = free[0]
    if page_size not in (2**power for power in range(9, 17)) or last_page > len(buffer) << 16:
        raise UserError(f"{path}: damaged: it claims {last_page} pages of {page_size} bytes · copy it again")
    return _Meta(page_size, transaction, last_page, root=main[7], entries=main[6], flags=main[1])


def _node(page: bytes, at: int, path: Path, number: int) -> tuple[int, int, int, int]:
    if not _HEAD.size <= at <= len(page) - _NODE.size:
        raise _damaged(path, number)
    return _NODE.unpack_from(page, at)


def _entry(buffer: Buffer, page: bytes, at: int, start: int, meta: _Meta, path: Path) -> Entry:
    number = start // meta.page_size
    low, high, flags, key_size = _node(page, at, path, number)
    value, size = at + _NODE.size + key_size, low | high << 16
    if flags & _OTHER:
        raise UserError(
            f"{path}: holds several databases, or several values of a key · allowed: one value for each key"
        )
    if value + (_PAGE.size if flags & _BIG else size) > len(page):
        raise _damaged(path, number)
    key = page[at + _NODE.size : value]
    if not flags & _BIG:
        return Entry(key, start + value, size)
    (big,) = _PAGE.unpack_from(page, value)
    begin = big * meta.page_size
    if (
        big > meta.last_page
        or begin + _HEAD.size + size > len(buffer)
        or not _HEAD.unpack_from(buffer, begin)[1] & _OVERFLOW
    ):
        raise _damaged(path, big)
    return Entry(key, begin + _HEAD.size, size)


def _damaged(path: Path, number: int) -> UserError:
    return UserError(f"{path}: damaged: page {number} does not fit its tree · copy it again")
