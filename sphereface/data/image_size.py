"""Read the size of an encoded image from its first bytes, before it is decoded."""

from __future__ import annotations

import re
import struct

from .jpeg_markers import header_markers

_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
_PNM_MOST = re.compile(rb"(?:\s|#[^\n]*\n)*(\d{1,5})\s")


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width in pixels, before EXIF turns them.

    Args:
        data: an encoded image.

    Returns:
        (H, W) of a JPEG, PNG, BMP, WebP, PBM, PGM or PPM; None for other formats, or if the bytes
        end too early.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", data, 16)
            return height, width
        if data.startswith(b"BM"):
            return _bmp(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
    except struct.error:
        return None
    return (int(found[2]), int(found[1])) if (found := _PNM.match(data, 0, 4096)) else None


def unscaled_maximum(data: bytes) -> int | None:
    """Return the value of white in a PGM or PPM that OpenCV does not scale to 255, else None."""
    size = _PNM.match(data, 0, 4096)
    most = size and data[1:2] in b"2356" and _PNM_MOST.match(data, size.end(), size.end() + 4096)
    if not most or int(most[1]) in (0, 255, 65535):
        return None
    return None if data[1:2] in b"23" and int(most[1]) < 255 else int(most[1])


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Read the frame header (SOF0 to SOF15)."""
    for marker, at in header_markers(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
    return None


def _bmp(data: bytes) -> tuple[int, int]:
    """Read a BMP header, with 16-bit sizes in the old form; the height may be negative."""
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return abs(height), abs(width)


def _webp(data: bytes) -> tuple[int, int] | None:
    """Read a lossy (VP8), lossless (VP8L) or extended (VP8X) header."""
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8X":
        low = struct.unpack_from("<6B", data, 24)
        return (low[3] | low[4] << 8 | low[5] << 16) + 1, (low[0] | low[1] << 8 | low[2] << 16) + 1
    return None
