"""Decode one encoded image. In this package, pixels are uint8, HWC, in BGR order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from ..errors import first_line
from ..files import read_plain
from .heic import HEIC_IS_READ, HEIC_SUFFIXES, decode_heic, heic_size, is_heic
from .image_layout import layout_fault
from .image_size import image_size, unscaled_maximum
from .jpeg_holes import has_hole
from .jpeg_markers import first_image, first_scan, scan_behind_codes

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".pgm", ".ppm"}) | (
    HEIC_SUFFIXES if HEIC_IS_READ else frozenset()
)

MOST_PIXELS = 200_000_000
"""A larger image is not decoded: a few kilobytes can claim 900 million pixels, 3 GB of memory.

The best phones and cameras of today take 200 million, 600 MB.
"""
PIXELS_A_BYTE, ALWAYS_ALLOWED = 100, 16_000_000
"""An image of more than 16 million pixels must have one byte per 100 pixels.

Photographs have 5 bytes per 100 pixels and more.
"""
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"BM": ".bmp", b"RI": ".webp", b"P5": ".pgm", b"P6": ".ppm"}
_NOT_READ = {
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"%PDF": "a PDF",
    b"ftyp": "AVIF or a film",
}
_ALLOWED = "allowed: JPEG, PNG, BMP, WebP, PGM, PPM, HEIC"

_T = TypeVar("_T")

OFF_ALIGNMENT = 8
"""Bytes from an aligned address to the memory of crops.

libjpeg-turbo writes the rows that begin at a multiple of 32 bytes past the processor's cache. That
costs a crop of 112×112 up to a half of its decoding time. No row begins there if the memory lies 8
bytes off, and a row of pixels is a multiple of 16 bytes long: 48, 96, 112, 128, … pixels.
"""

JPEG_END = b"\xff\xd9"
_JPEG_START = b"\xff\xd8"
_JPEG_SCAN = b"\xff\xda"  # cannot occur inside entropy-coded data, which escapes 0xff
_MOST_SCANS = 100  # a progressive JPEG has about ten; each takes ten bytes, but a pass over all pixels
_PLAIN_CHANNELS = (b"\x01", b"\x03")
_EXIF = b"Exif\0\0"
_plain_head = _plain_start = b""  # of the last plain JPEG; crops that one program wrote often share them
_HARMLESS = (
    "Could not determine subsampling level",  # simplejpeg knows neither 3x1 nor CMYK
    "Invalid SOS parameters for sequential JPEG",  # some cameras write them, all decoders ignore them
    "Unknown Adobe color transform code",
    "unknown JFIF revision number",
)


class EncodedImage(Protocol):
    """An encoded image that is read on demand: a :class:`pathlib.Path`, or part of another file.

    ``str()`` of it is its name in messages.
    """

    def read_bytes(self) -> bytes:
        """Return the encoded image. Raises OSError if it cannot be read."""
        ...


def read_encoded(image: EncodedImage) -> bytes:
    """Return the encoded image. A FIFO or a device is refused at once, without waiting for data.

    Raises:
        OSError: it cannot be read.
    """
    return read_plain(image) if isinstance(image, Path) else image.read_bytes()


class BadImage(ValueError):
    """Bytes that are not one whole image. The message gives the reason, without the file's name."""


def suffix_of(data: bytes) -> str | None:
    """Return the usual suffix of an encoded image, such as ``".jpg"``; None for other formats."""
    return ".heic" if is_heic(data) else _SUFFIXES.get(data[:2])


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode one image.

    BGR is the order of the original Caffe pipeline (and of OpenCV); training, evaluation and export
    all use it. Grey images are repeated over the three channels. 16-bit values are reduced to 8
    bits, palettes and CMYK are converted to colours, transparency is dropped, and EXIF rotation is
    applied.

    Args:
        data: an encoded image (JPEG, PNG, …).

    Returns:
        (H, W, 3) uint8 in [0, 255], BGR.

    Raises:
        BadImage: the bytes are empty, not an image of these formats, damaged as far as the format
            shows it (see ``docs/data.md``), or claim more pixels than :data:`MOST_PIXELS`, or than
            so few bytes can hold.
    """
    _check_size(data)
    if data.startswith(_JPEG_START):
        plain = _is_plain_jpeg(data)
        image = _strict(data, "BGR" if plain else "GRAY")  # OpenCV decodes damaged data without a warning
        if plain and image is not None:
            return image
    return _heic(decode_heic, data) if is_heic(data) else _decode_any(data)


def image_memory(shape: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return zeros of a shape, in memory that is fast to decode into; see OFF_ALIGNMENT."""
    size = math.prod(shape)
    memory = np.zeros(size + 32 + OFF_ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % 32 + OFF_ALIGNMENT
    return memory[start : start + size].reshape(shape)


def decode_into(data: bytes, out: npt.NDArray[np.uint8]) -> None:
    """Decode one image into given memory; :func:`centre_crop` cuts a larger one.

    Args:
        data: an encoded image.
        out: (H, W, 3) uint8, contiguous, of the required size. Undefined after an error.

    Raises:
        BadImage: as :func:`decode`, or the image has another size.
    """
    if not (_is_plain_jpeg(data) and _decode_plain(data, out)):
        _decode_other(data, out)


def decode_each(read: Iterable[bytes | OSError], out: npt.NDArray[np.uint8]) -> dict[int, BadImage | OSError]:
    """Decode several images into given memory, as :func:`decode_into`.

    All are read and recognised before the first is decoded. Decoding takes up the processor's
    caches, so alternating would cost 4 µs more for each image.

    Args:
        read: K encoded images; an error takes the place of an image that cannot be read.
        out: (K, H, W, 3) uint8, contiguous.

    Returns:
        Row → error of each image that cannot be used.
    """
    images = list(read)
    plain = [isinstance(data, bytes) and _is_plain_jpeg(data) for data in images]
    errors: dict[int, BadImage | OSError] = {}
    for row, image in enumerate(out):
        data = images[row]
        if isinstance(data, OSError):
            errors[row] = data.with_traceback(None)  # whose frames would hold all of these images
            continue
        if plain[row] and _decode_plain(data, image):
            continue
        try:
            _decode_other(data, image)
        except BadImage as error:
            errors[row] = error.with_traceback(None)
    return errors


def _decode_plain(data: bytes, out: npt.NDArray[np.uint8]) -> bool:
    """Decode a plain JPEG into given memory; return False if it is damaged or has another size."""
    if has_hole(data):
        return False
    try:
        return bool(simplejpeg.decode_jpeg(data, "BGR", buffer=out).shape == out.shape)
    except ValueError:
        return False


def _decode_other(data: bytes, out: npt.NDArray[np.uint8]) -> None:
    height, width = _check_size(data)
    if min(height, width) > max(out.shape[:2]):  # too large in any orientation: do not decode it
        raise _wrong_size((height, width), out.shape)
    out[...] = centre_crop(decode(data), out.shape[:2])


def centre_crop(image: npt.NDArray[np.uint8], size: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Cut a crop that is too long in one direction to its centre; return a view.

    For the usual 112×112 alignment, this is exactly the 112×96 one, whose template lies 8 pixels
    further left. Any other size is an error: an image that is cut or stretched arbitrarily is not
    aligned.

    Args:
        image: (h, w, …).
        size: (H, W) in pixels.

    Raises:
        BadImage: the image is smaller, or larger in both directions.
    """
    (height, width), (wanted_height, wanted_width) = image.shape[:2], size
    top, left = (height - wanted_height) // 2, (width - wanted_width) // 2
    if height < wanted_height or width < wanted_width or (height > wanted_height and width > wanted_width):
        raise _wrong_size((height, width), size)
    return image[top : top + wanted_height, left : left + wanted_width]


def _wrong_size(size: Sequence[int], wanted: Sequence[int]) -> BadImage:
    return BadImage(f"{size[0]}×{size[1]} pixels (height × width), allowed: {wanted[0]}×{wanted[1]}")


def _is_plain_jpeg(data: bytes) -> bool:
    """Return whether simplejpeg gives OpenCV's pixels, bit for bit.

    It does for a JPEG of one or three channels without EXIF data. Both use libjpeg-turbo with its
    accurate transform and smooth upsampling; simplejpeg has less overhead.
    """
    global _plain_head, _plain_start
    if _plain_head and data.startswith(_plain_head):
        return True
    if _plain_start and data.startswith(_plain_start):
        scan = scan_behind_codes(data, len(_plain_start))
        if scan > 0:
            return data[scan + 4 : scan + 5] in _PLAIN_CHANNELS
    if not data.startswith(_JPEG_START):
        return False
    scan, codes = first_scan(data)  # not any 0xff 0xda: it may belong to a thumbnail
    plain = scan > 0 and data[scan + 4 : scan + 5] in _PLAIN_CHANNELS and data.find(_EXIF, 0, scan) < 0
    if plain:
        _plain_head, _plain_start = data[: scan + 5], data[:codes]
    return plain


def _strict(data: bytes, colours: str) -> npt.NDArray[np.uint8] | None:
    """Decode a JPEG, and refuse damage of which libjpeg only warns: it would invent pixels.

    Zeros before the end marker are allowed: some cameras pad to a block with them. None: whole as
    far as its markers show, but of a kind that only OpenCV decodes.
    """
    if has_hole(data):
        raise BadImage("damaged JPEG (a hole of zeros in its pixels)")
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colours), dtype=np.uint8)
    except ValueError as error:
        _, end = first_image(data)
        if end < 0 and data.rfind(JPEG_END) < data.rfind(_JPEG_SCAN):
            raise BadImage(f"truncated JPEG ({len(data)} bytes, no end marker)") from None
        whole = data[: max(end, 0)].rstrip(b"\0") + JPEG_END
        if "extraneous bytes before marker 0xd9" in str(error) and len(whole) < end + 2:
            return _strict(whole, colours)
        if end > 0 and any(words in str(error) for words in _HARMLESS):
            return None
        raise BadImage(f"damaged JPEG ({first_line(error)})") from None


def _check_size(data: bytes) -> tuple[int, int]:
    """Return height and width in pixels, before EXIF turns them, or refuse the image.

    An image of unknown size is not decoded at all, which excludes OpenCV's rarer formats.
    """
    if not data:
        raise BadImage("the file is empty (0 bytes)")
    heic = is_heic(data)
    if not heic and (kind := _NOT_READ.get(data[:4]) or _NOT_READ.get(data[4:8])):
        raise BadImage(f"{kind}, which is not read · {_ALLOWED} · convert it first")
    size = _heic(heic_size, data) if heic else image_size(data)
    if size is None:
        raise BadImage(f"not an image, or damaged · {_ALLOWED}")
    pixels, most = size[0] * size[1], max(ALWAYS_ALLOWED, PIXELS_A_BYTE * len(data))
    if pixels > MOST_PIXELS:
        raise BadImage(f"{size[0]}×{size[1]} pixels (height × width) · allowed: {MOST_PIXELS:,} in all")
    if pixels > most:
        raise BadImage(
            f"{size[0]}×{size[1]} pixels (height × width) in {len(data):,} bytes · allowed for this file size: {most:,}"
        )
    if not data.startswith(_JPEG_START):
        if fault := layout_fault(data):
            raise BadImage(fault)
    elif data.count(_JPEG_SCAN) > _MOST_SCANS and (scans := first_image(data)[0]) > _MOST_SCANS:
        raise BadImage(f"a JPEG of {scans:,} scans · allowed: {_MOST_SCANS}")
    return size


def _heic(read: Callable[[bytes], _T], data: bytes) -> _T:
    try:
        return read(data)
    except ValueError as error:
        raise BadImage(str(error)) from error


def _decode_any(data: bytes) -> npt.NDArray[np.uint8]:
    most = unscaled_maximum(data)
    depth = cv2.IMREAD_ANYDEPTH if most else 0
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR | depth)
    except cv2.error as error:
        raise BadImage(f"undecodable: {error.err}") from error
    if image is None:
        raise BadImage("a damaged image: OpenCV cannot decode it")
    if most:
        image = np.rint(np.minimum(image, most) * (255 / most))
    return np.asarray(image, dtype=np.uint8)
