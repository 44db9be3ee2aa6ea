"""Pictures as people have them: every kind comes out as three channels of eight bits, or is refused by name.

Written by Pillow, which the package does not use.
"""

from __future__ import annotations

import io

import numpy as np
import pytest

from sphereface.data.images import BadImage, decode

from ..pictures import picture

Image = pytest.importorskip("PIL.Image")

RGB = np.ascontiguousarray(picture(3, 1, (24, 20))[..., ::-1])


def saved(image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgb_of(data: bytes) -> np.ndarray:
    return decode(data)[..., ::-1].astype(int)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "WEBP"])
def test_lossless_kinds_are_exact(kind):
    data = saved(Image.fromarray(RGB), kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(rgb_of(data), RGB)


def test_a_palette_gives_its_colours():
    image = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(rgb_of(saved(image, "PNG")), np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(rgb_of(saved(image, "BMP")), np.asarray(image.convert("RGB")))


def test_transparency_is_dropped():
    alpha = np.dstack([RGB, np.full(RGB.shape[:2], 7, np.uint8)])
    np.testing.assert_array_equal(rgb_of(saved(Image.fromarray(alpha), "PNG")), RGB)


def test_one_bit_and_sixteen_bits():
    bits = RGB[..., 0] > 128
    np.testing.assert_array_equal(rgb_of(saved(Image.fromarray(bits), "PNG"))[..., 1], bits * 255)
    deep = RGB[..., 0].astype(np.uint16) * 256 + 255
    np.testing.assert_array_equal(rgb_of(saved(Image.fromarray(deep), "PNG"))[..., 2], RGB[..., 0])


def test_cmyk_is_turned_into_colours():
    """A CMYK JPEG of Adobe's, inverted as theirs are; red stays red."""
    flat = np.empty((24, 20, 3), np.uint8)
    flat[:] = (200, 60, 30)
    data = saved(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=100)
    assert np.abs(rgb_of(data) - flat).max() <= 3


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_rotation_is_applied(turn):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = turn  # Orientation
    data = saved(Image.fromarray(RGB), "JPEG", quality=100, subsampling=0, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert upright.shape == ((24, 20, 3) if turn < 5 else (20, 24, 3))
    found = rgb_of(data)
    assert found.shape == upright.shape
    assert np.abs(found - upright).max() <= 2


def test_a_gif_named_jpg_is_refused_by_name():
    with pytest.raises(BadImage, match=r"a GIF, whatever its name · allowed: JPEG, PNG"):
        decode(saved(Image.fromarray(RGB), "GIF"))
