"""Find the markers of a JPEG as libjpeg does: bytes between two segments are skipped."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

SCAN, END = 0xDA, 0xD9
_IN_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # a marker in entropy-coded data, except a restart
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})  # markers without a segment
_HEAD = struct.Struct(">HH").unpack_from  # marker and length of a segment
_SEGMENTS = frozenset(range(0xFFC0, 0xFFFF)) - {0xFF00 | marker for marker in (*range(0xD0, 0xD9), SCAN, END)}
_CODES = 0xFFC4  # marker of a segment with Huffman codes
_BEFORE_CODES = _SEGMENTS - {_CODES}


def header_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, place of its 0xff) of each segment up to the first scan or the end.

    A thumbnail inside a segment is skipped with its segment.

    Args:
        data: a JPEG.

    Raises:
        struct.error: the data ends too early.
    """
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:
        (marker,) = struct.unpack_from("B", data, at + 1)
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            yield marker, at
            if marker in (SCAN, END):
                return
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def first_scan(data: bytes) -> tuple[int, int]:
    """Find the first scan of a JPEG.

    Returns:
        The place of the 0xff of its marker, -1 if there is none; and the place of the first segment
        with Huffman codes, or of what no segment precedes. Crops that one program wrote are often
        equal up to there.
    """
    at = codes = 2
    try:
        marker, length = _HEAD(data, at)
        while marker in _BEFORE_CODES:  # three times faster than the generator
            at += 2 + length
            marker, length = _HEAD(data, at)
        codes = at
        while marker in _SEGMENTS:  # nearly always up to the scan
            at += 2 + length
            marker, length = _HEAD(data, at)
        if marker == 0xFF00 | SCAN:
            return at, codes
        return next((at for marker, at in header_markers(data) if marker == SCAN), -1), codes
    except struct.error:
        return -1, codes


def scan_behind_codes(data: bytes, at: int) -> int:
    """Return the place of the scan that follows segments with Huffman codes; -1 if others follow.

    Args:
        data: a JPEG.
        at: place of the first of these segments.
    """
    try:
        marker, length = _HEAD(data, at)
        while marker == _CODES:
            at += 2 + length
            marker, length = _HEAD(data, at)
    except struct.error:
        return -1
    return at if marker == 0xFF00 | SCAN else -1


def first_image(data: bytes) -> tuple[int, int]:
    """Count the scans of the first image of a JPEG and find its end.

    Phones append a video or more images.

    Args:
        data: a JPEG.

    Returns:
        The number of scans, and the place of the 0xff of the end marker; -1 if there is none.
    """
    scans = 0
    try:
        marker, at = list(header_markers(data))[-1]
        while marker != END:
            scans += marker == SCAN
            behind = at + 2 if marker in _ALONE else at + 2 + struct.unpack_from(">H", data, at + 2)[0]
            if (found := _IN_SCAN.search(data, behind)) is None:
                return scans, -1
            marker, at = data[found.end() - 1], found.end() - 2
    except (struct.error, IndexError):
        return scans, -1
    return scans, at
