"""Damaged images: what the format shows is found wherever an image is decoded, and before it costs anything."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from sphereface.data.check import inspect_image
from sphereface.data.crops import CropBatches
from sphereface.data.images import ALWAYS_ALLOWED, BadImage, decode, decode_into
from sphereface.data.sampler import Draw
from sphereface.data.sources import FolderSource

from ..images import image

SIZE = (112, 96)


def saved(form: str, mode: str = "RGB", seed: int = 0, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image(seed, 0)[..., ::-1]).convert(mode).save(file, form, **options)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x112] = 6
    return saved("JPEG", exif=exif.tobytes())


JPEGS = {
    "plain": saved("JPEG"),
    "grey": saved("JPEG", "L"),
    "progressive": saved("JPEG", progressive=True),
    "to be turned": turned(),
    "cmyk": saved("JPEG", "CMYK"),
    "with restarts": saved("JPEG", restart_marker_blocks=4),
}
OTHERS = {
    "png": saved("PNG"),
    "palette": saved("PNG", "P"),
    "bmp": saved("BMP"),
    "grey bmp": saved("BMP", "L"),
    "bmp of one bit": saved("BMP", "1"),
    "webp": saved("WEBP"),
    "lossless webp": saved("WEBP", lossless=True),
    "extended webp": saved("WEBP", "RGBA", icc_profile=b"1" * 200),
    "ppm": saved("PPM"),
    "pgm": saved("PPM", "L"),
    "pbm": saved("PPM", "1"),
}


def read(data: bytes) -> None:
    """Through every way in; each must refuse it."""
    with pytest.raises(BadImage) as whole:
        decode(data)
    with pytest.raises(BadImage):
        decode_into(data, np.empty((*SIZE, 3), np.uint8))
    assert inspect_image(data).reason == str(whole.value)


def without(data: bytes, length: int, seed: int) -> bytes:
    """Bytes lost in the middle of the pixels; header and end marker stay."""
    first = data.find(b"\xff\xda") + 14
    start = np.random.default_rng(seed).integers(first, len(data) - 2 - length)
    return data[:start] + data[start + length :]


def zeroed(data: bytes, length: int, seed: int) -> bytes:
    """A block of the disk that was never written."""
    first = data.find(b"\xff\xda") + 14
    start = np.random.default_rng(seed).integers(first, len(data) - 2 - length)
    return data[:start] + bytes(length) + data[start + length :]


@pytest.mark.parametrize("damage", [without, zeroed])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_lost_a_block_but_has_its_end_marker(name, damage):
    found, accepted = 0, 0
    for seed in range(20):
        data = damage(JPEGS[name], 512, seed)
        assert data.endswith(b"\xff\xd9")
        accepted += cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None
        if reason := inspect_image(data).reason:
            assert reason.startswith("damaged JPEG (")
            read(data)
            found += 1
    assert accepted >= 10  # by OpenCV, which fills in grey
    assert found >= 19  # now and then the rest decodes to as many blocks as are due


SEQUENTIAL = {
    **{name: data for name, data in JPEGS.items() if name != "progressive"},
    "quality 95": saved("JPEG", quality=95),  # here zeros take as many bytes a block as the block did
    "quality 30": saved("JPEG", quality=30),
    "own codes": saved("JPEG", optimize=True),
    "without subsampling": saved("JPEG", subsampling=0, quality=100),
}


@pytest.mark.parametrize("name", SEQUENTIAL)
@pytest.mark.parametrize("length", [64, 200, 512])
def test_every_hole_of_zeros_in_a_sequential_jpeg_is_found(name, length):
    for seed in range(20):
        data = zeroed(SEQUENTIAL[name], length, seed)
        if not data.endswith(b"\0\xff\xd9"):  # such zeros are padding
            read(data)


def test_a_hole_is_named_where_libjpeg_decodes_it_without_a_warning():
    """24 zero bytes are a block, and the blocks of this image have about as many."""
    noise = np.random.default_rng(0).normal(0, 16, (*SIZE, 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(image(0, 0) + noise, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=75)
    data = [zeroed(file.getvalue(), 512, seed) for seed in range(20)]
    silent = [each for each in data if not _warned(each)]
    assert len(silent) > 3
    for each in silent:
        with pytest.raises(BadImage, match=r"damaged JPEG \(a hole of zeros in its pixels\)"):
            decode(each)


def _warned(data: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(data)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}])
@pytest.mark.parametrize("around", ["whole", "half"])
def test_zeros_of_plain_images_are_no_hole(grey, options, around):
    """With codes of their own, the pixels of one colour are zeros."""
    pixels = np.zeros((600, 600, 3), np.uint8)
    if around == "half":
        pixels[:112, :96] = image(0, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).convert("L" if grey else "RGB").save(file, "JPEG", **options)
    data = file.getvalue()
    if "optimize" in options and around == "whole":
        assert bytes(64) in data[data.rfind(b"\xff\xda") :]
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode(data), expected)
    decode_into(data, np.empty((600, 600, 3), np.uint8))


def test_plain_colours_in_a_scan_of_their_own_are_no_hole():
    """With the usual codes for colours, a block without details is the bits 0000."""
    colour, grey = saved("JPEG", subsampling=0), saved("JPEG", "L")
    scan = grey.find(b"\xff\xda")
    brightness = grey[scan + 10 : -2]
    head = colour[: colour.find(b"\xff\xda")]
    blocks = bytes(-(-SIZE[0] // 8) * -(-SIZE[1] // 8) // 2)
    assert len(blocks) > 64
    scans = [(1, 0x00, brightness), (2, 0x11, blocks), (3, 0x11, blocks)]
    data = head + b"".join(
        b"\xff\xda\0\x08\x01" + bytes([component, tables, 0, 63, 0]) + codes for component, tables, codes in scans
    )
    out = decode(data + b"\xff\xd9")
    np.testing.assert_array_equal(out, cv2.imdecode(np.frombuffer(data + b"\xff\xd9", np.uint8), cv2.IMREAD_COLOR))
    np.testing.assert_array_equal(out[..., 0], out[..., 2])  # no colour
    assert np.abs(out.astype(int) - decode(grey)).max() <= 1


def test_zeros_outside_the_pixels_are_no_hole():
    plain = saved("JPEG", quality=95)
    expected = decode(plain)
    profile = saved("JPEG", quality=95, icc_profile=bytes(5000))
    assert bytes(4000) in profile
    padded = plain[:-2] + bytes(300) + plain[-2:]
    for data in (profile, padded, plain + bytes(4096), plain + saved("JPEG", "L") + bytes(999) + b"film"):
        np.testing.assert_array_equal(decode(data), expected)
        out = np.empty((*SIZE, 3), np.uint8)
        decode_into(data, out)
        np.testing.assert_array_equal(out, expected)
    hole = zeroed(profile, 128, 3)
    read(hole)
    read(hole + b"film" + bytes(4096))
    read(plain[:-900] + bytes(100) + plain[-800:-2] + bytes(300) + plain[-2:])


@pytest.mark.parametrize("name", [*JPEGS, *OTHERS])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_what_is_cut_off_is_refused_in_every_format(name, share):
    data = {**JPEGS, **OTHERS}[name]
    read(data[: int(len(data) * share)])


def test_training_takes_another_image_in_the_place_of_a_damaged_one(tmp_path):
    for k, data in enumerate([saved("JPEG", seed=0), without(saved("JPEG", seed=1), 512, 0), saved("JPEG", seed=2)]):
        (tmp_path / f"p{k}").mkdir()
        (tmp_path / f"p{k}" / "0.jfif").write_bytes(data)
    crops = CropBatches(FolderSource(tmp_path), SIZE)
    draw = Draw(np.arange(3), np.zeros(3, bool), np.zeros((3, 2), int), {})
    batch = np.empty((3, *SIZE, 3), np.uint8)
    (filled,) = crops.fill([draw], [batch])
    assert filled.labels.tolist() == [0, 2, 2]
    ((name, why),) = filled.bad
    assert name.endswith("p1/0.jfif")
    assert why.startswith("damaged JPEG (")


@pytest.mark.parametrize("zeros", [1, 7, 500])
def test_zeros_before_the_end_marker_are_no_damage(zeros):
    data = JPEGS["plain"][:-2] + bytes(zeros) + b"\xff\xd9"
    out = np.empty((*SIZE, 3), np.uint8)
    decode_into(data, out)
    np.testing.assert_array_equal(decode(data), decode(JPEGS["plain"]))
    np.testing.assert_array_equal(out, decode(JPEGS["plain"]))
    read(JPEGS["plain"][:-2] + b"other bytes" + b"\xff\xd9")


def test_any_byte_of_a_png_that_changes_is_found():
    data = OTHERS["palette"]
    for place in range(8, len(data), 37):
        changed = bytearray(data)
        changed[place] ^= 0x10
        read(bytes(changed))


def chunk(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    size = struct.pack(">I", len(content) if length is None else length)
    return size + kind + content + struct.pack(">I", zlib.crc32(kind + content))


PNG, IHDR = b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 112, 8, 2, 0, 0, 0))
WIDE = struct.pack("<I", 2**31 - 20)


def with_size(height: int, width: int) -> bytes:
    data = JPEGS["plain"]
    at = data.find(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


LIES = {
    "a png's chunk": (PNG + IHDR + chunk(b"IDAT", b"1234", 2**31 - 20), "truncated PNG"),
    "a png's text": (PNG + IHDR + chunk(b"tEXt", b"1234", 2**31 - 1) + bytes(50), "truncated PNG"),
    "a png without an end": (PNG + IHDR + chunk(b"IDAT", b"1234"), "truncated PNG"),
    "a webp's file": (OTHERS["webp"][:4] + WIDE + OTHERS["webp"][8:], "truncated WebP"),
    "a webp's chunk": (OTHERS["webp"][:16] + WIDE + OTHERS["webp"][20:], "damaged WebP"),
    "a bmp's rows": (OTHERS["bmp"][:10] + WIDE + OTHERS["bmp"][14:], "truncated BMP"),
    "a jpeg's size": (
        with_size(9_000, 9_000),
        "9000×9000 pixels .* in .* bytes · allowed for this file size: 16,000,000",
    ),
    "a jpeg's scans": (
        JPEGS["plain"][:-2] + (b"\xff\xda\0\x08\x01\x01\0\0\0\0") * 200 + b"\xff\xd9",
        "a JPEG of 201 sca",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_what_claims_more_than_there_is_is_never_decoded(name, monkeypatch):
    def decoder(*_args: object, buffer: object = None, **_options: object) -> None:
        assert buffer is not None, "decoded into memory of its own"
        raise ValueError("the buffer is too small")

    monkeypatch.setattr(cv2, "imdecode", decoder)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", decoder)
    data, message = LIES[name]
    for way in (decode, lambda data: decode_into(data, np.empty((*SIZE, 3), np.uint8))):
        with pytest.raises(BadImage, match=message):
            way(data)


def test_an_image_far_larger_than_what_is_wanted_is_not_decoded(monkeypatch):
    large = saved("PNG", seed=1), cv2.imencode(".bmp", np.zeros((300, 300, 3), np.uint8))[1].tobytes()
    decode_into(large[0], np.empty((*SIZE, 3), np.uint8))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(BadImage, match=r"^300×300 pixels \(height × width\), allowed: 112×96$"):
        decode_into(large[1], np.empty((*SIZE, 3), np.uint8))


def test_a_large_photograph_of_few_details_is_read():
    """Of 24 million pixels; a clear sky takes more than a byte for every 100."""
    sky = np.linspace(100, 200, 4_000, dtype=np.uint8)[:, None, None].repeat(6_000, axis=1).repeat(3, axis=2)
    data = cv2.imencode(".jpg", sky, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    assert sky.size // 3 > ALWAYS_ALLOWED
    assert decode(data).shape == sky.shape
