"""One encoded picture to pixels. Everywhere in this package pixels are uint8, HWC, in BGR order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from .picture_size import picture_size

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm"})

MOST_PIXELS = 200_000_000
"""A larger picture is not decoded: a few kilobytes can say that they are 900 million pixels, 3 GB of memory. The best
of today's telephones and cameras take 200 million, 600 MB."""
_NOT_READ = {
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"%PDF": "a PDF",
    b"ftyp": "HEIC, AVIF or a film",
}
_ALLOWED = "allowed: JPEG, PNG, BMP, WebP, PGM, PPM"

JPEG_END = b"\xff\xd9"
_JPEG_START = b"\xff\xd8"
_JPEG_SCAN = b"\xff\xda"  # cannot occur inside entropy-coded data, where 0xff is stuffed
_EXIF = b"Exif\0\0"


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
        BadImage: the bytes are empty, no picture of these formats, end before the picture does, or would be more than
            :data:`MOST_PIXELS`.
    """
    _check_size(data)
    if _is_plain_jpeg(data):
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, "BGR"), dtype=np.uint8)
        except ValueError:
            pass  # damaged: OpenCV says what it makes of it
    return _decode_any(data)


def decode_into(data: bytes, out: npt.NDArray[np.uint8]) -> None:
    """As :func:`decode`, into the memory that the picture is wanted in, cut by :func:`centre_crop` where it is larger.

    Args:
        data: an encoded picture.
        out: (H, W, 3) uint8, contiguous, of the size that the picture must have. Undefined after an error.

    Raises:
        BadImage: as :func:`decode`, or the picture is of another size.
    """
    if _is_plain_jpeg(data):
        try:
            image = simplejpeg.decode_jpeg(data, "BGR", buffer=out)
        except ValueError:
            pass  # damaged, or larger than wanted
        else:
            if image.shape == out.shape:
                return
    out[...] = centre_crop(decode(data), out.shape[:2])


def centre_crop(image: npt.NDArray[np.uint8], size: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Cut a crop that is too long in one direction to its centre; a view.

    Of the usual 112×112 alignment that is exactly the 112×96 one, whose template lies 8 pixels further left. Any other
    size is an error: a picture that is cut or stretched at will is not aligned.

    Args:
        image: (h, w, …).
        size: (H, W) in pixels.

    Raises:
        BadImage: it is smaller than wanted, or larger both ways.
    """
    (height, width), (wanted_height, wanted_width) = image.shape[:2], size
    top, left = (height - wanted_height) // 2, (width - wanted_width) // 2
    if height < wanted_height or width < wanted_width or (height > wanted_height and width > wanted_width):
        raise BadImage(f"{height}×{width} pixels (height × width) where {wanted_height}×{wanted_width} are wanted")
    return image[top : top + wanted_height, left : left + wanted_width]


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether simplejpeg gives OpenCV's pixels, bit for bit: a JPEG of one or three channels that is not to be turned.

    Both are libjpeg-turbo with its accurate transform and smooth upsampling; simplejpeg wastes less time around it.
    """
    if not data.startswith(_JPEG_START):
        return False
    scan = data.find(_JPEG_SCAN)
    return data[scan + 4 : scan + 5] in (b"\x01", b"\x03") and data.find(_EXIF, 0, scan) < 0


def _check_size(data: bytes) -> None:
    """Look before decoding. What tells no size is not decoded at all, which leaves out OpenCV's rarer formats."""
    if not data:
        raise BadImage("the file is empty (0 bytes)")
    if kind := _NOT_READ.get(data[:4]) or _NOT_READ.get(data[4:8]):
        raise BadImage(f"{kind}, whatever its name · {_ALLOWED}")
    size = picture_size(data)
    if size is None:
        raise BadImage(f"not a picture, or a damaged one · {_ALLOWED}")
    if size[0] * size[1] > MOST_PIXELS:
        raise BadImage(f"{size[0]}×{size[1]} pixels (height × width) · allowed: {MOST_PIXELS:,} in all")


def _decode_any(data: bytes) -> npt.NDArray[np.uint8]:
    if data.startswith(_JPEG_START) and data.rfind(JPEG_END) < data.rfind(_JPEG_SCAN):
        raise BadImage(f"truncated JPEG ({len(data)} bytes, no end marker)")  # OpenCV would fill in grey
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise BadImage(f"undecodable: {error.err}") from error
    if image is None:
        raise BadImage("a damaged picture: OpenCV cannot decode it")
    return np.asarray(image, dtype=np.uint8)
