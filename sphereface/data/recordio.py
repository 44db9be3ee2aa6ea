"""Read and write RecordIO with image records: the ``.rec`` and ``.idx`` files of mxnet.

All numbers are little-endian. A ``.rec`` is a sequence of parts without header or trailer
(dmlc-core, ``dmlc/recordio.h``)::

    uint32 magic 0xced7230a | uint32 cflag << 29 | length
    length bytes | zeros up to a multiple of 4

cflag 0 is a whole record. If a record contains the magic itself at a multiple of 4 bytes from its
start, the writer splits it there and drops those 4 bytes. The first part has cflag 1, the last 3,
those between 2. A magic at another place stays, so a search for it does not find records.

A record begins with 24 bytes (mxnet, ``src/io/image_recordio.h``; ``IRHeader`` of
``mxnet/recordio.py``)::

    uint32 flag | float32 label | uint64 id | uint64 id2

With flag n > 0, n float32 labels follow, and ``label`` is not used. The rest is the encoded image.

An ``.idx`` is text: a line ``key <tab> offset`` for each record, in the order of the file.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError

MAGIC = 0xCED7230A
EXACT_IN_FLOAT = 2**24  # labels are float32; larger whole numbers are not all exact
_MAGIC_BYTES = struct.pack("<I", MAGIC)
LENGTH_BITS = 29
LENGTH_MASK = (1 << LENGTH_BITS) - 1
PART = struct.Struct("<II")  # the beginning of a part: magic, then cflag and length
_START = struct.Struct("<IIIf")  # the same, then the record's flag and single label
_HEAD = struct.Struct("<IfQQ")  # flag, label, id, id2
_LABEL = struct.Struct("<f")
_MOST_HEAD_PARTS = 16  # more than a head with two labels can have

Buffer = bytes | mmap.mmap


class Heads(NamedTuple):
    """The beginnings of R records, in arrays.

    Attributes:
        label: (R,) float32, the record's label, or the first of several.
        second: (R,) float32, the second of several labels; NaN if there is none.
        id: (R,) uint64.
        flag: (R,) int64: number of labels of an array, 0 for a single one.
        empty: (R,) bool: there is no image.
    """

    label: npt.NDArray[np.float32]
    second: npt.NDArray[np.float32]
    id: npt.NDArray[np.uint64]
    flag: npt.NDArray[np.int64]
    empty: npt.NDArray[np.bool_]


# -------------------------------------------------------------------- reading


def read_image(buffer: Buffer, offset: int, label: float | None = None) -> bytes:
    """Return the encoded image of the record at an offset.

    Args:
        buffer: the file.
        offset: first byte of the record.
        label: its required label, or the first of several; None: any.

    Raises:
        OSError: there is no whole record, or it has another label.
    """
    if 0 <= offset <= len(buffer) - _START.size:
        magic, word, flag, found = _START.unpack_from(buffer, offset)
        start, end = offset + PART.size + _HEAD.size + 4 * flag, offset + PART.size + word
        if magic == MAGIC and word <= LENGTH_MASK and start <= end <= len(buffer):  # cflag 0: nearly all records
            _check_label(_LABEL.unpack_from(buffer, offset + PART.size + _HEAD.size)[0] if flag else found, label)
            return buffer[start:end]
    content = read_content(buffer, offset)
    start = _content_start(content, offset)
    flag, found, _, _ = _HEAD.unpack_from(content)
    _check_label(_LABEL.unpack_from(content, _HEAD.size)[0] if flag else found, label)
    return content[start:]


def _check_label(found: float, label: float | None) -> None:
    if label is not None and found != label:  # NaN too
        raise OSError(
            f"its record has the label {found:g}, but its identity has {label:g}: "
            ".rec and .idx are damaged, or belong to two sets"
        )


def read_content(buffer: Buffer, offset: int) -> bytes:
    """Return the whole record at an offset, its parts joined. Raises OSError if there is none."""
    return _joined(buffer, offset)[0]


def _joined(buffer: Buffer, offset: int, most: int | None = None) -> tuple[bytes, bool]:
    """Return the joined parts of a record, at most ``most``, and whether these are all."""
    parts: list[bytes] = []
    while True:
        cflag, data, offset = _read_part(buffer, offset)
        if (cflag in (0, 1)) != (not parts):
            raise OSError(f"no whole record: a part of the wrong kind {cflag}")
        parts.append(data)
        if cflag in (0, 3) or len(parts) == most:
            return _MAGIC_BYTES.join(parts), cflag in (0, 3)


def _read_part(buffer: Buffer, offset: int) -> tuple[int, bytes, int]:
    """Return a part's cflag, its bytes, and the offset of the next part."""
    if not 0 <= offset <= len(buffer) - PART.size:
        raise OSError(f"the record at byte {offset} is cut off: the file ends at {len(buffer)}")
    magic, word = PART.unpack_from(buffer, offset)
    if magic != MAGIC:
        raise OSError(f"no record at byte {offset}: got {magic:#010x} instead of the mark {MAGIC:#010x}")
    start, length = offset + PART.size, word & LENGTH_MASK
    data = buffer[start : start + length]
    if len(data) < length:
        raise OSError(f"the record at byte {offset} is cut off: {len(data)} of {length} bytes")
    return word >> LENGTH_BITS, data, start + length + -length % 4


def _content_start(content: bytes, offset: int) -> int:
    """Return where the image begins inside a record."""
    start = _HEAD.size + 4 * _HEAD.unpack_from(content)[0] if len(content) >= _HEAD.size else _HEAD.size
    if start > len(content):
        raise OSError(f"the record at byte {offset} is too short: {len(content)} bytes")
    return start


def read_heads(buffer: Buffer, offsets: npt.NDArray[np.int64], name: str) -> Heads:
    """Return the beginnings of many records at once, without the rest.

    Args:
        buffer: the file.
        offsets: (R,) first bytes of the records.
        name: the file's name in messages.

    Raises:
        UserError: no record begins at one of them.
    """
    words = np.frombuffer(buffer, "<u4", count=len(buffer) // 4)
    at = offsets // 4
    wrong = (offsets % 4 != 0) | (offsets < 0) | (at + 8 > len(words))
    wrong[~wrong] = words[at[~wrong]] != MAGIC
    if wrong.any():
        raise UserError(
            f"{name}: its index has a record at byte {offsets[wrong.argmax()]}, but none begins there · "
            "the .idx belongs to another file, or one of them is damaged: copy both again, or make an index "
            "with sphereface pack from a copy of the .rec without .idx"
        )
    begun = np.lib.stride_tricks.sliding_window_view(words, 8)[at] if len(at) else np.empty((0, 8), words.dtype)
    cut, length = begun[:, 1] >> LENGTH_BITS != 0, (begun[:, 1] & LENGTH_MASK).astype(np.int64)
    flag = begun[:, 2].astype(np.int64)
    label, second = begun[:, 3].copy().view("<f4"), np.full(len(at), np.nan, np.float32)
    for array, rows in enumerate((np.flatnonzero(flag > 0), np.flatnonzero(flag > 1))):  # labels after the head
        (label, second)[array][rows] = words[np.minimum(at[rows] + 8 + array, len(words) - 1)].view("<f4")
    heads = Heads(
        label=label,
        second=second,
        id=begun[:, 4].astype(np.uint64) | begun[:, 5].astype(np.uint64) << np.uint64(32),
        flag=flag,
        empty=~cut & (length <= _HEAD.size + 4 * flag),
    )
    if (short := ~cut & (length < _HEAD.size)).any():
        row = short.argmax()
        raise UserError(
            f"{name}: the record at byte {offsets[row]} has {length[row]} bytes · allowed: {_HEAD.size} or more, as "
            "image records have a head · use a .rec of images"
        )
    for row in np.flatnonzero(cut & (length < 32)):  # split inside the head
        try:
            _read_cut_head(buffer, int(offsets[row]), heads, row)
        except OSError as error:
            raise UserError(f"{name}: truncated or damaged: {error} · copy .rec and .idx again") from error
    return heads


def _read_cut_head(buffer: Buffer, offset: int, heads: Heads, row: np.intp) -> None:
    content, whole = _joined(buffer, offset, _MOST_HEAD_PARTS)
    size = len(content) if len(content) < _HEAD.size else _content_start(content, offset) if whole else _HEAD.size
    if size < _HEAD.size:
        raise OSError(f"the record at byte {offset} is too short: {size} bytes")
    flag, label, number, _ = _HEAD.unpack_from(content)
    labels = np.frombuffer(content, "<f4", count=min(flag, (len(content) - _HEAD.size) // 4), offset=_HEAD.size)
    if len(labels) < min(flag, 2):
        raise OSError(f"the record at byte {offset} has a head in more than {_MOST_HEAD_PARTS} parts")
    heads.flag[row], heads.id[row], heads.empty[row] = flag, number, whole and size == len(content)
    heads.label[row] = labels[0] if flag else label
    heads.second[row] = labels[1] if flag > 1 else np.nan


# -------------------------------------------------------------------- writing


def record_content(label: float | Sequence[float], number: int, image: bytes = b"") -> bytes:
    """Return a record as mxnet packs it (``mxnet.recordio.pack``).

    Args:
        label: one label (flag 0), or several (flag n).
        number: its id, which is also its key.
        image: encoded.
    """
    if isinstance(label, (int, float)):
        return _HEAD.pack(0, label, number, 0) + image
    return _HEAD.pack(len(label), 0.0, number, 0) + struct.pack(f"<{len(label)}f", *label) + image


class RecordWriter:
    """Write records to a ``.rec`` and their keys to an ``.idx``, byte for byte as mxnet does.

    Args:
        records, index: empty files, open for writing.
    """

    def __init__(self, records: BinaryIO, index: BinaryIO) -> None:
        self._records, self._index = records, index
        self._offset = 0

    def write(self, key: int, content: bytes) -> None:
        """Append a record.

        Raises:
            ValueError: it has 2^29 bytes or more, which the format cannot represent.
            OSError: the disk is full.
        """
        if len(content) > LENGTH_MASK:
            raise ValueError(f"a record of {len(content)} bytes · allowed: less than {LENGTH_MASK + 1}")
        parts = _cut(content)
        data = bytearray()
        for number, part in enumerate(parts):
            cflag = 0 if len(parts) == 1 else 1 if number == 0 else 3 if number == len(parts) - 1 else 2
            data += PART.pack(MAGIC, cflag << LENGTH_BITS | len(part)) + part
        data += bytes(-len(data) % 4)
        self._index.write(b"%d\t%d\n" % (key, self._offset))
        self._records.write(data)
        self._offset += len(data)


def _cut(content: bytes) -> list[bytes]:
    """Split a record at the magics that lie at multiples of 4 bytes."""
    parts, start, found = [], 0, content.find(_MAGIC_BYTES)
    while found >= 0:
        if found % 4 == 0:
            parts.append(content[start:found])
            start = found + 4
        found = content.find(_MAGIC_BYTES, found + 4)
    return [*parts, content[start:]]
