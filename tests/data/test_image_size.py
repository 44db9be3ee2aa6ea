"""How large an image says it is, and that one which says too much is never decoded."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from sphereface.data.image_size import image_size
from sphereface.data.images import MOST_PIXELS, BadImage, decode, decode_into

NOISE = np.random.default_rng(3).integers(0, 256, (37, 53, 3), dtype=np.uint8)


def saved(form: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(height: int, width: int) -> bytes:
    """A whole one, black, of one bit a pixel; a thousandth of its pixels' size."""
    rows, packer = bytes(1 + -(-width // 8)), zlib.compressobj()
    pixels = b"".join(packer.compress(rows) for _ in range(height)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg(height: int, width: int) -> bytes:
    """A small one whose header says another size."""
    data = saved("JPEG")
    at = data.find(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


WHOLE = {
    "jpeg": saved("JPEG"),
    "progressive jpeg": saved("JPEG", progressive=True),
    "grey jpeg": saved("JPEG", "L"),
    "cmyk jpeg": saved("JPEG", "CMYK"),
    "jpeg with a preview": saved("JPEG", exif=b"Exif\0\0" + saved("JPEG")),
    "jpeg with padding": saved("JPEG")[:2] + b"\xff\xff\xff" + saved("JPEG")[3:],
    "png": saved("PNG"),
    "bmp": saved("BMP"),
    "lossy webp": saved("WEBP"),
    "lossless webp": saved("WEBP", lossless=True),
    "extended webp": saved("WEBP", "RGBA", icc_profile=b"1" * 200),
    "ppm": saved("PPM"),
    "pgm": saved("PPM", "L"),
    "pgm with remarks": b"P5 # a remark\n# another 1 2\n53\n#\n37 255\n" + bytes(37 * 53),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_size_is_that_of_the_pixels(name):
    assert image_size(WHOLE[name]) == decode(WHOLE[name]).shape[:2] == (37, 53)


def test_a_bitmap_s_rows_may_run_from_the_top_and_its_header_be_the_first_kind():
    top_down = bytearray(saved("BMP"))
    top_down[22:26] = struct.pack("<i", -37)
    assert image_size(bytes(top_down)) == decode(bytes(top_down)).shape[:2] == (37, 53)
    old = b"BM" + struct.pack("<IHHI", 26 + 12, 0, 0, 26) + struct.pack("<IHHHH", 12, 3, 1, 1, 24) + bytes(12)
    assert image_size(old) == decode(old).shape[:2] == (1, 3)


@pytest.mark.parametrize("name", WHOLE)
def test_what_ends_early_has_no_size_or_the_right_one(name):
    for length in range(0, 60):
        assert image_size(WHOLE[name][:length]) in (None, (37, 53))


@pytest.mark.parametrize("data", [b"", b"text", b"P5 text", b"BM", b"\xff\xd8\xff\xd9", saved("TIFF"), saved("GIF")])
def test_what_is_none_of_these_formats_has_no_size(data):
    assert image_size(data) is None


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (saved("TIFF"), "a TIFF"),
        (saved("GIF"), "a GIF"),
        (b"%PDF-1.7 ", "a PDF"),
        (b"\0\0\0\x18ftypavif" + bytes(99), "AVIF or a film"),
    ],
)
def test_other_formats_are_refused_by_their_names(data, kind):
    with pytest.raises(BadImage, match=rf"^{kind}, which is not read · .*PPM, HEIC · convert it first$"):
        decode(data)


def test_what_is_no_image_is_told_what_would_be():
    with pytest.raises(BadImage, match=r"^not an image, or damaged · allowed: JPEG, PNG, BMP, WebP, PGM, PPM, HEIC$"):
        decode(b"some text that is long enough for a header of any kind")


BOMBS = {
    "png": png(30_000, 30_000),
    "jpeg": jpeg(30_000, 30_000),
    "bmp": saved("BMP")[:18] + struct.pack("<ii", 30_000, -30_000) + saved("BMP")[26:],
    "webp": saved("WEBP", lossless=True)[:21] + struct.pack("<I", 16382 | 16383 << 14) + bytes(40),
    "ppm": b"P6 30000 30000 255\n" + bytes(100),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("read", [decode, lambda data: decode_into(data, np.empty((112, 96, 3), np.uint8))])
def test_an_image_that_says_it_is_vast_is_never_decoded(name, read, monkeypatch):
    def decoder(*_args: object, buffer: object = None, **_options: object) -> None:
        assert buffer is not None, "decoded into memory of its own"
        raise ValueError("the buffer is too small")  # as simplejpeg does before it decodes

    monkeypatch.setattr(cv2, "imdecode", decoder)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", decoder)
    size = "16384×16383" if name == "webp" else "30000×30000"
    with pytest.raises(BadImage, match=rf"^{size} pixels \(height × width\) · allowed: 200,000,000 in all$"):
        read(BOMBS[name])
    assert len(BOMBS["png"]) < 120_000


def test_the_most_that_is_read_is_in_the_limit():
    assert 16320 * 12240 <= MOST_PIXELS < 30_000 * 30_000  # a telephone's 200 megapixels; a bomb
    data = png(20, 10_000_000)[:33]  # the size is right, the pixels are missing
    with pytest.raises(BadImage, match=r"^20×10000000 pixels .* in 33 bytes · allowed for this file size: 16,000,000$"):
        decode(data)
    with pytest.raises(BadImage, match="^truncated PNG"):
        decode(data + struct.pack(">I", 2_000_000) + b"IDAT" + bytes(1_999_999))
