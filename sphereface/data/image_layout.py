"""Check that the parts of an encoded image lie inside its bytes, before it is decoded.

A decoder trusts the length that a part claims: OpenCV allocates 2 GB for a PNG of 60 bytes.
"""

from __future__ import annotations

import struct

_PNG_START, _PNG_CHUNK = b"\x89PNG\r\n\x1a\n", struct.Struct(">I4s")
_BMP_PLAIN = (0, 3, 6)  # uncompressed, with or without colour masks


def layout_fault(data: bytes) -> str:
    """Describe the fault in the layout of an encoded image; empty if there is none.

    Args:
        data: an image that :func:`.image_size.image_size` knows. The chunks of PNG and WebP, the
            end of PNG and the rows of BMP are checked. The decoders of JPEG and of PBM, PGM and PPM
            find such faults themselves.
    """
    try:
        if data.startswith(_PNG_START):
            return _png(data)
        if data.startswith(b"RIFF"):
            return _webp(data)
        return _bmp(data) if data.startswith(b"BM") else ""
    except struct.error:
        return f"truncated image ({len(data)} bytes, ends inside its header)"


def _png(data: bytes) -> str:
    at = len(_PNG_START)
    while at + 12 <= len(data):
        length, kind = _PNG_CHUNK.unpack_from(data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if kind == b"IEND":
            return ""
        at = end
    return f"truncated PNG ({len(data)} bytes, its chunk at byte {at} is incomplete)"


def _webp(data: bytes) -> str:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        return f"truncated WebP ({len(data)} bytes of {end:,})"
    at = 12
    while at + 8 <= end:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + length > end:
            return f"damaged WebP (its chunk at byte {at} claims {length:,} bytes)"
        at += 8 + length + length % 2
    return ""


def _bmp(data: bytes) -> str:
    """Check that all rows of uncompressed pixels are present."""
    (start,), (header,) = struct.unpack_from("<I", data, 10), struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    rows = abs(height) * (-(-abs(width) * bits // 32) * 4)
    if compression in _BMP_PLAIN and start + rows > len(data):
        return f"truncated BMP ({len(data)} bytes of {start + rows:,})"
    return ""
