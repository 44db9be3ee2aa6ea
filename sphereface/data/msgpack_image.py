"""Find the image in a record ``[image, label, …]`` of MessagePack, without a copy."""

from __future__ import annotations

import struct

from .recordio import Buffer

_INTS = {
    **{0xCC: struct.Struct(">B"), 0xCD: struct.Struct(">H"), 0xCE: struct.Struct(">I"), 0xCF: struct.Struct(">Q")},
    **{0xD0: struct.Struct(">b"), 0xD1: struct.Struct(">h"), 0xD2: struct.Struct(">i"), 0xD3: struct.Struct(">q")},
}
_LENGTHS = {  # of bytes (bin), and of strings, which older writers use for bytes
    **{0xC4: struct.Struct(">B"), 0xC5: struct.Struct(">H"), 0xC6: struct.Struct(">I")},
    **{0xD9: struct.Struct(">B"), 0xDA: struct.Struct(">H"), 0xDB: struct.Struct(">I")},
}
_MOST_ITEMS = 16


def image_and_label(buffer: Buffer, start: int, size: int) -> tuple[int, int, int] | None:
    """Find the image of a record, its first item, and the label, the first whole number after it.

    Args:
        buffer: the file.
        start, size: the place of the record in it.

    Returns:
        First byte and size of the image, and the label; None if the record has another form.
    """
    end = start + size
    count = buffer[start] - 0x90 if size else 0
    if not 2 <= count <= _MOST_ITEMS - 1:
        return None
    image = _bytes_at(buffer, start + 1, end)
    if image is None:
        return None
    at = sum(image)
    for _ in range(count - 1):
        number = int_at(buffer, at, end)
        if number is not None:
            return *image, number
        skipped = _bytes_at(buffer, at, end)  # some sets contain embeddings
        if skipped is None:
            return None
        at = sum(skipped)
    return None


def int_at(buffer: Buffer, at: int, end: int) -> int | None:
    """Return the whole number at a place; None if there is another type."""
    if at >= end:
        return None
    kind = buffer[at]
    if kind < 0x80:
        return kind
    form = _INTS.get(kind)
    return None if form is None or at + 1 + form.size > end else int(form.unpack_from(buffer, at + 1)[0])


def _bytes_at(buffer: Buffer, at: int, end: int) -> tuple[int, int] | None:
    """Return start and size of the bytes or string at a place."""
    if at >= end:
        return None
    kind = buffer[at]
    if 0xA0 <= kind <= 0xBF:
        start, size = at + 1, kind - 0xA0
    elif (form := _LENGTHS.get(kind)) is not None and at + 1 + form.size <= end:
        start, size = at + 1 + form.size, int(form.unpack_from(buffer, at + 1)[0])
    else:
        return None
    return (start, size) if start + size <= end else None
