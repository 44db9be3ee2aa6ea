"""Decode HEIC, the format of phones, by libheif; the extra ``heic`` installs it (pillow-heif)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError, first_line
from ..extras import import_extra

HEIC_SUFFIXES = frozenset({".heic", ".heif"})
HEIC_IS_READ = importlib.util.find_spec("pillow_heif") is not None
"""Whether the extra is installed. Without it, no command counts a HEIC file as an image."""

_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_OTHER_BRANDS = frozenset({b"avif", b"avis"})


def is_heic(data: bytes) -> bool:
    """Return whether bytes begin as HEIC does: with its brand, and without that of AVIF."""
    if data[4:8] != b"ftyp":
        return False
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    named = {brands[at : at + 4] for at in range(0, len(brands), 4) if at != 4}  # at 4: a version
    return bool(named & _BRANDS) and not named & _OTHER_BRANDS


def heic_size(data: bytes) -> tuple[int, int]:
    """Return height and width of a HEIC image in pixels, as it is decoded. Nothing is decoded.

    Raises:
        ValueError: it is damaged, or the extra is not installed.
    """
    width, height = _opened(data).size
    return height, width


def decode_heic(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode the main image of HEIC bytes to (H, W, 3) uint8 BGR.

    The transformations of the format turn it. EXIF data may repeat them and are ignored, as ISO/IEC
    23008-12 demands. More than 8 bits are reduced to 8, and transparency is dropped.

    Raises:
        ValueError: it is damaged, as far as libheif notices, or the extra is not installed.
    """
    image = _opened(data)
    width, height = image.size
    with _as_value_error():
        pixels = np.asarray(image)
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[0]}×{pixels.shape[1]}"
        raise ValueError(f"damaged HEIC (its head claims {height}×{width} pixels, and its image has {found})")
    if pixels.dtype == np.uint16:  # only grey images keep their 16 bits
        pixels = np.rint(pixels / 257).astype(np.uint8)
    channels = pixels[..., 2::-1] if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(channels, dtype=np.uint8)


def _opened(data: bytes) -> Any:
    try:
        module = import_extra("HEIC", "pillow_heif", "heic")
    except UserError as error:
        raise ValueError(str(error)) from error
    with _as_value_error():
        image = module.open_heif(io.BytesIO(data))
        assert image.size  # raises IndexError if there is no image
        return image


@contextlib.contextmanager
def _as_value_error() -> Iterator[None]:
    try:
        yield
    except (EOFError, SyntaxError, RuntimeError, OSError, IndexError, ValueError) as error:  # as pillow_heif documents
        raise ValueError(f"damaged HEIC ({first_line(error)})") from error
