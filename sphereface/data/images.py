"""One encoded picture to pixels. Everywhere in this package pixels are uint8, HWC, in BGR order."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm"})

_JPEG_START = b"\xff\xd8"
_JPEG_SCAN = b"\xff\xda"  # cannot occur inside entropy-coded data, where 0xff is stuffed
_JPEG_END = b"\xff\xd9"


class Picture(Protocol):
    """An encoded picture that is read when it is needed: a :class:`pathlib.Path`, or one inside another file.

    ``str()`` of it is what messages call it.
    """

    def read_bytes(self) -> bytes:
        """The encoded picture. Raises OSError where it cannot be read."""
        ...


class BadImage(ValueError):
    """Bytes that do not hold one whole picture. The message says why, without the file's name."""


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode one picture.

    BGR is the order of the original Caffe pipeline (and of OpenCV); training, evaluation and export all use it.
    Grey pictures are repeated over the three channels, 16-bit ones reduced to 8, palettes and CMYK turned into
    colours, transparency is dropped, EXIF rotation is applied.

    Args:
        data: an encoded picture (JPEG, PNG, …).

    Returns:
        (H, W, 3) uint8 in [0, 255], BGR.

    Raises:
        BadImage: the bytes are empty, no picture or a GIF, or end before the picture does.
    """
    if not data:
        raise BadImage("the file is empty (0 bytes)")
    if data.startswith(b"GIF8"):  # some builds of OpenCV read it, some do not
        raise BadImage("a GIF, whatever its name · allowed: JPEG, PNG, BMP, WebP, PGM, PPM")
    if data.startswith(_JPEG_START) and data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN):
        raise BadImage(f"truncated JPEG ({len(data)} bytes, no end marker)")  # OpenCV would fill in grey
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise BadImage(f"undecodable: {error.err}") from error
    if image is None:
        raise BadImage("not a picture that OpenCV can decode")
    return np.asarray(image, dtype=np.uint8)
