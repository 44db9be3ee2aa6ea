"""Images as people have them: every kind comes out as three channels of eight bits, or is refused by name.

Written by Pillow, which the package does not use.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from sphereface.data.images import BadImage, decode

from ..images import image

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")

RGB = np.ascontiguousarray(image(3, 1, (24, 20))[..., ::-1])


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
    with pytest.raises(BadImage, match=r"a GIF, which is not read · allowed: JPEG, PNG"):
        decode(saved(Image.fromarray(RGB), "GIF"))


@pytest.mark.parametrize(
    ("header", "values"),
    [
        (b"P5 4 1 100\n", bytes([0, 50, 99, 100])),
        (b"P5\n4 1\n# of a camera of 10 bits\n1023\n", struct.pack(">4H", 0, 512, 1013, 1023)),
        (b"P5 4 1 65535\n", struct.pack(">4H", 0, 32800, 64900, 65535)),
        (b"P2 4 1 100\n", b"0 50 99 100\n"),
        (b"P2 4 1 1023\n", b"0 512 1013 1023\n"),
        (b"P6 4 1 100\n", bytes([0, 0, 0, 50, 50, 50, 99, 99, 99, 100, 100, 100])),
    ],
)
def test_white_is_white_whatever_number_a_pgm_has_for_it(header, values):
    np.testing.assert_allclose(decode(header + values)[0, :, 1], [0, 127.5, 252.5, 255], atol=1)


def test_a_pgm_of_one_bit_has_no_number_for_white():
    assert decode(b"P4 16 1\n7 \n")[0, 2, 0] == 0  # its pixels look like such a number: 0x37 0x20


# What is in no image of this project's own encoders, but in those of cameras, scanners and Photoshop.


def jpeg(**options) -> bytes:
    return saved(Image.fromarray(RGB), "JPEG", **options)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def same_as_pillow(data: bytes) -> None:
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")).astype(int)
    assert rgb_of(data).shape == expected.shape
    assert np.abs(rgb_of(data) - expected).mean() < 3


def test_a_film_or_more_images_behind_a_jpeg_count_for_nothing():
    film = np.random.default_rng(0).bytes(1000) + b"\xff\xda\0\x0c" * 300
    for data in (jpeg() + film, jpeg(progressive=True) + jpeg(progressive=True) * 30, jpeg() + jpeg()[:100]):
        same_as_pillow(data)


def test_a_jpeg_of_many_scans_is_refused_wherever_they_are():
    data = jpeg()
    start = data.find(b"\xff\xda")
    scan = data[start:-2]
    with pytest.raises(BadImage, match="a JPEG of 101 scans · allowed: 100"):
        decode(data[:start] + scan * 101 + b"\xff\xd9" + scan)


def test_zeros_before_the_end_of_the_first_of_two_images():
    same_as_pillow(jpeg()[:-2] + b"\0" * 50 + b"\xff\xd9" + jpeg())


@pytest.mark.parametrize("turn", [1, 6])
def test_a_thumbnail_before_the_exif_hides_nothing(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    thumbnail = segment(0xED, b"Photoshop 3.0\0" + saved(Image.fromarray(RGB[::4, ::4]), "JPEG"))
    data = jpeg(exif=exif)
    same_as_pillow(data[:2] + thumbnail + data[2:])
    cmyk = saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", exif=exif)
    same_as_pillow(cmyk[:2] + thumbnail + cmyk[2:])


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_cmyk_of_any_subsampling(subsampling):
    same_as_pillow(saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", subsampling=subsampling))


def oddities() -> dict[str, bytes]:
    """JPEGs that libjpeg warns of, and that every decoder reads alike."""
    data = jpeg()
    scan = data.find(b"\xff\xda")
    last = scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big") - 2  # the end of the spectral selection
    adobe = segment(0xEE, b"Adobe\0d\0\0\0\0\7")
    return {
        "selection": data[:last] + b"\0" + data[last + 1 :],
        "adobe": data[:2] + adobe + data[20:],
        "jfif": data[:11] + b"\x09" + data[12:],
    }


@pytest.mark.parametrize("name", oddities())
def test_an_oddity_of_a_header_is_no_damage(name):
    same_as_pillow(oddities()[name])
    cut = oddities()[name][:-40]
    with pytest.raises(BadImage, match="truncated JPEG"):
        decode(cut)
    with pytest.raises(BadImage, match="damaged JPEG"):
        decode(cut + b"\xff\xe1\xff\xff\xff\xd9")  # the end lies in a segment that is longer than the file
