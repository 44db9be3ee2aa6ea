"""Where the records of a ``.rec`` are: its ``.idx``, or a walk through the file; and whether that
is all of them.
"""

from __future__ import annotations

import codecs
import warnings
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import regular_file
from .recordio import LENGTH_BITS, LENGTH_MASK, MAGIC, PART, Buffer, read_content

_CHUNK = 1 << 20  # records looked at together
_BLOCK = 1 << 20  # bytes of text read together: numpy grows and copies its array again and again for a large one


def rising(numbers: npt.NDArray[np.int64]) -> bool:
    """Whether each number is above the one before, as keys and offsets nearly always are."""
    return bool((numbers[1:] > numbers[:-1]).all())


def chunks(count: int) -> Iterator[slice]:
    """Cut so many records into parts whose arrays need little memory."""
    return (slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))


def check_no_gaps(buffer: Buffer, offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], name: str) -> None:
    """See that records end where the next one of the index begins, or the file ends: the index
    lacks none.

    Args:
        buffer: the file.
        offsets: (R,) where the records of the index begin, rising.
        rows: (K,) those to look at; only their heads are read, and those of the parts of records
            that are cut.
        name: what to call the file in a message.

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
            f"{name}: its index knows of no record in the bytes {end} to {wanted}, so it is a part only, or belongs to "
            "another .rec · copy .rec and .idx again, or move the .idx away: the .rec is read without it"
        )
    if end > wanted:
        raise UserError(
            f"{name}: its index says that a record begins at byte {wanted}, inside the record at byte {start} · "
            "copy .rec and .idx again, or move the .idx away: the .rec is read without it"
        )


def _end_of_parts(buffer: Buffer, offset: int, stop: int) -> int:
    """Where the last part of a record ends; behind ``stop`` as soon as one does."""
    cflag = 1
    while cflag in (1, 2) and offset < stop and offset + PART.size <= len(buffer):
        magic, word = PART.unpack_from(buffer, offset)
        cflag, length = word >> LENGTH_BITS, word & LENGTH_MASK
        offset = offset + PART.size + length + -length % 4 if magic == MAGIC else stop + 1
    return offset


def find_records(buffer: Buffer, name: str) -> npt.NDArray[np.int64]:
    """Where records begin, found by walking through the whole file.

    Raises:
        UserError: the file ends inside a record, or is no RecordIO.
    """
    found, offset, size, cflag = array("q"), 0, len(buffer), 0
    while offset < size:
        if offset + PART.size > size:
            offset = size + 1
            break
        magic, word = PART.unpack_from(buffer, offset)
        if magic != MAGIC:
            raise UserError(f"{name}: byte {offset} begins no record · allowed: a .rec file as mxnet writes it")
        begins, due = word >> LENGTH_BITS in (0, 1), cflag in (0, 3)
        cflag = word >> LENGTH_BITS
        if begins != due or cflag > 3:
            raise UserError(
                f"{name}: the part at byte {offset} is of kind {cflag}, another is due there: parts are missing or in "
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
    """Keys and offsets of an ``.idx``, in its order; blank lines at its ends and a byte order mark
    are passed over.

    Returns:
        Two (R,) int64 arrays.

    Raises:
        UserError: it cannot be read, is no such file, or has a key twice.
    """
    try:
        with open(path, "rb", opener=regular_file) as file:
            text = file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if text.startswith(codecs.BOM_UTF8) or text[:1].isspace() or text[-2:-1].isspace():  # seldom: it copies the text
        text = text.removeprefix(codecs.BOM_UTF8).strip()
    pairs = _pairs(text, len(text) - text.endswith(b"\n"))
    if pairs is None:
        raise UserError(
            f"{path}: got a text that is no index · allowed: a line 'key<tab>offset' for each record · move it "
            "away, and the .rec is read without it"
        )
    keys, offsets = pairs
    ordered = keys if rising(keys) else np.sort(keys, kind="stable")
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise UserError(f"{path}: the key {twice[0]} stands twice · allowed: once · make a new index")
    if ordered[0] < 0:
        raise UserError(f"{path}: got the key {ordered[0]} · allowed: 0 or more · make a new index")
    places = offsets if rising(offsets) else np.sort(offsets, kind="stable")
    if len(twice := places[1:][places[1:] == places[:-1]]):
        first, second = keys[offsets == twice[0]][:2]
        raise UserError(
            f"{path}: the keys {first} and {second} both stand for the record at byte {twice[0]} · allowed: a record "
            "each · make a new index"
        )
    return keys, offsets


def _pairs(text: bytes, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """The two numbers of each line before ``stop``, read in blocks of lines; None where a line has
    not two.
    """
    num_lines = text.count(b"\n", 0, stop) + 1
    keys, offsets = np.empty(num_lines, np.int64), np.empty(num_lines, np.int64)
    row = start = 0
    while start < stop:
        end = text.find(b"\n", start + _BLOCK, stop)
        end = stop if end < 0 else end
        count = text.count(b"\n", start, end) + 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # numpy only warns where a text stops being numbers
                numbers = np.fromstring(text[start:end], dtype=np.int64, sep=" ")
        except (ValueError, DeprecationWarning):
            return None
        if len(numbers) != 2 * count:
            return None
        keys[row : row + count], offsets[row : row + count] = numbers[::2], numbers[1::2]
        row, start = row + count, end + 1
    return (keys, offsets) if row == num_lines else None


def check_end(buffer: Buffer, path: Path, index: Path, last: int) -> None:
    """Whether the last record of the index is whole: a copy that was cut short is noticed at
    once.
    """
    if last >= len(buffer):
        raise UserError(
            f"{index}: points to byte {last}, {path.name} has {len(buffer)} · "
            ".rec and .idx belong together, and this .rec is truncated or another one: copy both again"
        )
    try:
        read_content(buffer, last)
    except OSError as error:
        raise UserError(f"{path}: truncated or damaged: its last record: {error} · copy .rec and .idx again") from error
