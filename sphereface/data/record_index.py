"""Find the records of a ``.rec`` by its ``.idx`` or by a scan, and check that none is missing."""

from __future__ import annotations

import codecs
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import regular_file
from .recordio import LENGTH_BITS, LENGTH_MASK, MAGIC, PART, Buffer, read_content

_CHUNK = 1 << 16  # records per chunk
_BLOCK = 1 << 20  # bytes of text per block; larger blocks leave the processor's cache
_DIGITS = 18  # of any number in int64

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


def rising(numbers: npt.NDArray[np.int64]) -> bool:
    """Return whether each number is above the one before; keys and offsets nearly always are."""
    return bool((numbers[1:] > numbers[:-1]).all())


def _counting(keys: npt.NDArray[np.int64]) -> bool:
    """Return whether the keys are 0, 1, 2 … in any order; this is faster than sorting them."""
    if keys.min() != 0 or keys.max() != len(keys) - 1:
        return False
    seen = np.zeros(len(keys), np.bool_)
    seen[keys] = True
    return bool(seen.all())


def in_threads(work: Callable[[_Part], _Result], parts: Iterable[_Part]) -> list[_Result]:
    """Return the result of each part of a work in numpy, which rarely holds Python's lock."""
    with ThreadPoolExecutor(2) as pool:  # the memory that each has used stays in the process
        return list(pool.map(work, parts))


def chunks(count: int) -> Iterator[slice]:
    """Cut this number of records into parts whose arrays stay in the processor's cache."""
    return (slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))


def check_no_gaps(buffer: Buffer, offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], name: str) -> None:
    """Check that each record ends where the next of the index begins, or at the end of the file.

    Args:
        buffer: the file.
        offsets: (R,) first bytes of the records of the index, ascending.
        rows: (K,) the records to check; only their heads are read, and those of the parts of split
            records.
        name: the file's name in messages.

    Raises:
        UserError: bytes of the file belong to no record of the index, or to two.
    """
    words = np.frombuffer(buffer, "<u4", count=len(buffer) // 4)
    starts, nexts = offsets[rows], offsets[np.minimum(rows + 1, len(offsets) - 1)]
    nexts[rows == len(offsets) - 1] = len(buffer)
    word = words[starts // 4 + 1]
    length = (word & LENGTH_MASK).astype(np.int64)
    ends = starts + PART.size + length + -length % 4
    for row in np.flatnonzero(word >> LENGTH_BITS != 0):
        ends[row] = _end_of_parts(buffer, int(starts[row]), int(nexts[row]))
    start, end, wanted = 0, 0, int(offsets[0]) if len(rows) and rows[0] == 0 else 0
    if wanted == 0 and (wrong := ends != nexts).any():
        row = wrong.argmax()
        start, end, wanted = int(starts[row]), int(ends[row]), int(nexts[row])
    if end < wanted:
        raise UserError(
            f"{name}: its index has no record in the bytes {end} to {wanted}, so it is incomplete or belongs to "
            "another .rec · copy .rec and .idx again, or move the .idx away: the .rec can be read without it"
        )
    if end > wanted:
        raise UserError(
            f"{name}: its index has a record at byte {wanted}, inside the record at byte {start} · "
            "copy .rec and .idx again, or move the .idx away: the .rec can be read without it"
        )


def _end_of_parts(buffer: Buffer, offset: int, stop: int) -> int:
    """Return the end of the last part of a record; stop as soon as a part ends behind ``stop``."""
    cflag = 1
    while cflag in (1, 2) and offset < stop and offset + PART.size <= len(buffer):
        magic, word = PART.unpack_from(buffer, offset)
        cflag, length = word >> LENGTH_BITS, word & LENGTH_MASK
        offset = offset + PART.size + length + -length % 4 if magic == MAGIC else stop + 1
    return offset


def find_records(buffer: Buffer, name: str) -> npt.NDArray[np.int64]:
    """Return the first bytes of records, found by a scan of the whole file.

    Raises:
        UserError: the file ends inside a record, or is not a RecordIO file.
    """
    found, offset, size, cflag = array("q"), 0, len(buffer), 0
    while offset < size:
        if offset + PART.size > size:
            offset = size + 1
            break
        magic, word = PART.unpack_from(buffer, offset)
        if magic != MAGIC:
            raise UserError(f"{name}: no record begins at byte {offset} · allowed: a .rec file as mxnet writes it")
        begins, due = word >> LENGTH_BITS in (0, 1), cflag in (0, 3)
        cflag = word >> LENGTH_BITS
        if begins != due or cflag > 3:
            raise UserError(
                f"{name}: the part at byte {offset} is of the wrong kind {cflag}: parts are missing or in "
                "another order · copy the .rec again"
            )
        if begins:
            found.append(offset)
        length = word & LENGTH_MASK
        offset += PART.size + length + -length % 4
    if offset > size or cflag in (1, 2):
        raise UserError(f"{name}: truncated: the file ends at byte {size}, inside its last record · copy it again")
    return np.array(found, dtype=np.int64)


def read_index(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the keys and offsets of an ``.idx``, in its order.

    Blank lines at its ends and a byte order mark are ignored.

    Returns:
        Two (R,) int64 arrays.

    Raises:
        UserError: the file cannot be read, is not an index, or has a key twice.
    """
    try:
        with open(path, "rb", opener=regular_file) as file:
            text = file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if text.startswith(codecs.BOM_UTF8) or text[:1].isspace() or text[-2:-1].isspace():  # rare; copies the text
        text = text.removeprefix(codecs.BOM_UTF8).strip()
    pairs = _pairs(text, len(text) - text.endswith(b"\n"))
    if pairs is None:
        raise UserError(
            f"{path}: not an index · allowed: a line 'key<tab>offset' for each record · move it "
            "away: the .rec can be read without it"
        )
    keys, offsets = pairs
    if not _counting(keys):
        ordered = np.sort(keys, kind="stable")
        if len(twice := ordered[1:][ordered[1:] == ordered[:-1]]):
            raise UserError(f"{path}: the key {twice[0]} occurs twice · allowed: once · make a new index")
        if ordered[0] < 0:
            raise UserError(f"{path}: got the key {ordered[0]} · allowed: 0 or more · make a new index")
    places = offsets if rising(offsets) else np.sort(offsets, kind="stable")
    if len(twice := places[1:][places[1:] == places[:-1]]):
        first, second = keys[offsets == twice[0]][:2]
        raise UserError(
            f"{path}: the keys {first} and {second} both point to byte {twice[0]} · allowed: one key per record "
            "· make a new index"
        )
    return keys, offsets


def _pairs(text: bytes, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Return the two numbers of each line before ``stop``; None if a line does not have two.

    Threads read blocks of lines. A block whose lines have one length, as nearly all have, is read
    by columns, in half the time of ``np.fromstring`` and without Python's lock.
    """
    blocks, num_lines = _blocks(text, stop)
    keys, offsets = np.empty(num_lines, np.int64), np.empty(num_lines, np.int64)

    def read(block: _Block) -> bool:
        lines = np.frombuffer(text, np.uint8, min(block.end + 1, len(text)) - block.start, block.start)
        return _read_columns(lines, keys[block.rows], offsets[block.rows])

    others = [block for block, done in zip(blocks, in_threads(read, blocks), strict=True) if not done]
    pairs = ((text[block.start : block.end], keys[block.rows], offsets[block.rows]) for block in others)
    return (keys, offsets) if num_lines and all(_read_numbers(*each) for each in pairs) else None


class _Block(NamedTuple):
    """Whole lines of a text without the last line's end, and the rows of their numbers."""

    start: int
    end: int
    rows: slice


def _blocks(text: bytes, stop: int) -> tuple[list[_Block], int]:
    """Cut a text before ``stop`` at ends of lines; also return its number of lines."""
    blocks, row, start = [], 0, 0
    while start < stop:
        end = text.find(b"\n", start + _BLOCK, stop)
        end = stop if end < 0 else end
        lines = np.frombuffer(text, np.uint8, end - start, start)
        count = int(np.count_nonzero(lines == ord("\n"))) + 1  # a tenth of the time of text.count
        blocks.append(_Block(start, end, slice(row, row + count)))
        row, start = row + count, end + 1
    return blocks, row


def _read_columns(lines: npt.NDArray[np.uint8], keys: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> bool:
    """Read lines of one length into the arrays; return False if these are no such lines."""
    first = lines[: 2 * _DIGITS + 2].tobytes()
    width, tab = first.find(b"\n") + 1, first.find(b"\t")
    if width * len(keys) != len(lines) or not (0 < tab <= _DIGITS and 0 < width - tab - 2 <= _DIGITS):
        return False
    columns = np.ascontiguousarray(lines.reshape(-1, width).T)
    digits = columns - np.uint8(ord("0"))  # other characters become 10 or more
    parts = ((keys, digits[:tab]), (offsets, digits[tab + 1 : -1]))
    if not ((columns[tab] == ord("\t")).all() and (columns[-1] == ord("\n")).all()):
        return False
    if any(part.max() > 9 for _, part in parts):
        return False
    for numbers, part in parts:
        numbers[:] = part[0]
        for column in part[1:]:
            numbers *= 10
            numbers += column
    return True


def _read_numbers(lines: bytes, keys: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> bool:
    """Read lines of any length into the arrays; return False if a line has not two."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy only warns of text that is not a number
            numbers = np.fromstring(lines, dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        return False
    if len(numbers) != 2 * len(keys):
        return False
    keys[:], offsets[:] = numbers[::2], numbers[1::2]
    return True


def check_end(buffer: Buffer, path: Path, index: Path, last: int) -> None:
    """Check that the last record of the index is whole, to find a truncated copy at once."""
    if last >= len(buffer):
        raise UserError(
            f"{index}: points to byte {last}, but {path.name} has {len(buffer)} bytes · "
            "the .rec is truncated, or belongs to another .idx: copy both again"
        )
    try:
        read_content(buffer, last)
    except OSError as error:
        raise UserError(f"{path}: truncated or damaged: its last record: {error} · copy .rec and .idx again") from error
