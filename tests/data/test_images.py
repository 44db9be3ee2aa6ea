"""Decoding: what comes out, and what is refused."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from sphereface.data import images
from sphereface.data.images import BadImage, decode, decode_into

from ..images import image


def encode(suffix: str, image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


def test_channels_come_out_in_bgr_order():
    image = np.zeros((8, 6, 3), np.uint8)
    image[..., 0] = 255  # OpenCV encodes BGR: this is blue
    ppm_blue = b"P6 1 1 255 " + bytes([0, 0, 255])  # R, G, B as text says
    assert decode(encode(".png", image))[0, 0].tolist() == [255, 0, 0]
    assert decode(ppm_blue)[0, 0].tolist() == [255, 0, 0]


def test_grey_and_sixteen_bit_become_three_channels_of_eight_bit():
    grey = np.full((4, 4), 200, np.uint8)
    assert decode(encode(".png", grey)).tolist() == np.full((4, 4, 3), 200).tolist()
    deep = np.full((4, 4, 3), 200 * 256, np.uint16)
    out = decode(encode(".png", deep))
    assert (out.dtype, out.shape, int(out.max())) == (np.uint8, (4, 4, 3), 200)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"not an image", "not an image"),
        (encode(".jpg", np.zeros((64, 64, 3), np.uint8))[:-40], "truncated JPEG"),
        (
            encode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))[:200],
            "truncated PNG",
        ),
    ],
)
def test_what_is_no_whole_image_is_refused(data, message):
    with pytest.raises(BadImage, match=message):
        decode(data)


def test_a_whole_jpeg_with_bytes_behind_it_is_fine():
    assert decode(encode(".jpg", np.zeros((16, 16, 3), np.uint8)) + b"comment").shape == (16, 16, 3)


def opencv(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with the Exif tag 0x0112 that cameras write."""
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def cmyk() -> bytes:
    file = io.BytesIO()
    Image.fromarray(image(0, 0)).convert("CMYK").save(file, "JPEG")
    return file.getvalue()


PLAIN = {
    "colour": encode(".jpg", image(0, 0)),
    "without subsampling": encode(".jpg", image(0, 1), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111),
    "progressive": encode(".jpg", image(0, 2), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "poor": encode(".jpg", image(0, 3), cv2.IMWRITE_JPEG_QUALITY, 5),
    "grey": encode(".jpg", image(0, 4)[..., 0]),
}
ODD = {
    "turned": with_exif(encode(".jpg", image(1, 0, (96, 112))), 6),
    "upright": with_exif(encode(".jpg", image(1, 1)), 1),
    "cmyk": cmyk(),
    "png": encode(".png", image(1, 2)),
}


@pytest.mark.parametrize("name", [*PLAIN, *ODD])
def test_every_decoder_gives_opencv_s_pixels(name):
    data, out = {**PLAIN, **ODD}[name], np.empty((112, 96, 3), np.uint8)
    decode_into(data, out)
    np.testing.assert_array_equal(decode(data), opencv(data))
    np.testing.assert_array_equal(out, opencv(data))


def test_a_turned_image_is_set_upright():
    on_its_side = cv2.imdecode(np.frombuffer(encode(".jpg", image(1, 0, (96, 112))), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode(ODD["turned"]), np.rot90(on_its_side, -1))


def test_only_odd_images_take_the_slow_way(monkeypatch):
    slow = []
    monkeypatch.setattr(images, "_decode_any", lambda data: slow.append(data) or opencv(data))
    for data in (*PLAIN.values(), *ODD.values()):
        decode(data)
        decode_into(data, np.empty((112, 96, 3), np.uint8))
    assert slow == [data for data in ODD.values() for _ in range(2)]


@pytest.mark.parametrize("size", [(120, 112), (113, 97), (50, 40), (112, 90)])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_another_size_is_refused_and_named(size, suffix):
    with pytest.raises(BadImage, match=f"^{size[0]}×{size[1]} pixels .*, allowed: 112×96$"):
        decode_into(encode(suffix, image(0, 0, size)), np.empty((112, 96, 3), np.uint8))


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [((112, 112), slice(0, 112), slice(8, 104)), ((117, 96), slice(2, 114), slice(0, 96))],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_image_too_long_one_way_is_cut_to_its_centre(size, rows, columns, suffix):
    data, out = encode(suffix, image(0, 0, size)), np.empty((112, 96, 3), np.uint8)
    decode_into(data, out)
    assert np.array_equal(out, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[rows, columns])


def test_a_cut_off_jpeg_is_refused_in_place_too():
    with pytest.raises(BadImage, match="truncated JPEG"):
        decode_into(PLAIN["colour"][:-40], np.empty((112, 96, 3), np.uint8))


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


@pytest.mark.parametrize(
    ("before", "plain"),
    [
        (b"", True),
        (segment(0xFE, b"\xff\xda\x00\x0c\x04"), True),  # the mark of a scan inside a comment
        (segment(0xFE, b"text") + b"\xff\xff", True),  # padding before a marker
        (b"\xff\x01", True),  # a marker without a segment
        (b"\xff\xd0", True),
        (segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0"), False),
        (segment(0xE0, b"\xff\xda") + segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0"), False),
    ],
)
def test_the_first_scan_decides_and_not_its_mark_inside_a_segment(before, plain):
    whole = encode(".jpg", image(0, 0))
    data = whole[:2] + before + whole[2:]
    assert images._is_plain_jpeg(data) == plain
    np.testing.assert_array_equal(decode(data), opencv(data))


def test_each_jpeg_is_judged_by_its_own_head():
    """In any order: colour, grey, other tables, EXIF data before or behind the tables, and four channels."""
    plain = [encode(".jpg", image(0, 0)), encode(".jpg", image(1, 0)), encode(".jpg", image(0, 0)[..., 0])]
    plain.append(cv2.imencode(".jpg", image(0, 0), [cv2.IMWRITE_JPEG_OPTIMIZE, 1])[1].tobytes())
    exif, scan = segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0"), plain[0].index(b"\xff\xda")
    other = [plain[0][:2] + exif + plain[0][2:], plain[0][:scan] + exif + plain[0][scan:]]
    other += [plain[0][: scan + 4] + b"\x04" + plain[0][scan + 5 :], plain[0][:scan], b"", b"\x89PNG"]
    kinds = [(data, True) for data in plain] + [(data, False) for data in other]
    for first, _ in kinds:
        for data, wanted in kinds:
            images._is_plain_jpeg(first)
            assert images._is_plain_jpeg(data) == wanted


def test_jpegs_that_are_equal_up_to_their_own_codes_are_judged_by_what_follows(monkeypatch):
    """Encoders that optimise write other Huffman codes into each image."""
    first, data = (
        cv2.imencode(".jpg", image(0, number), [cv2.IMWRITE_JPEG_OPTIMIZE, 1])[1].tobytes() for number in range(2)
    )
    codes, scan = data.index(b"\xff\xc4"), data.index(b"\xff\xda")
    assert first[:codes] == data[:codes]
    assert not data.startswith(first[: first.index(b"\xff\xda")])
    second = codes + 2 + int.from_bytes(data[codes + 2 : codes + 4], "big")
    assert data[second : second + 2] == b"\xff\xc4"
    exif, comment = segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0"), segment(0xFE, b"\xff\xda\x00\x0c\x04")
    kinds = [(data, True), (data[:scan] + comment + data[scan:], True), (data[:second] + comment + data[second:], True)]
    kinds += [(data[:at] + exif + data[at:], False) for at in (codes, second, scan)]
    kinds += [(data[: scan + 4] + b"\x04" + data[scan + 5 :], False)]
    kinds += [(data[:end], False) for end in (codes, codes + 3, second, second + 3, scan, scan + 3, scan + 4)]
    for given, wanted in kinds:
        monkeypatch.setattr(images, "_plain_head", b"")
        assert images._is_plain_jpeg(first)
        assert images._is_plain_jpeg(given) == wanted


@pytest.mark.parametrize("end", [2, 3, 4, 5, 20, 100])
def test_a_jpeg_without_a_scan_is_not_plain(end):
    data = encode(".jpg", image(0, 0))[:end]
    assert not images._is_plain_jpeg(data)
    assert not images._is_plain_jpeg(data + b"\xff\xd9")


def test_images_decoded_together_are_those_decoded_alone_and_errors_keep_their_rows():
    plain, grey = encode(".jpg", image(0, 0)), encode(".jpg", image(0, 1)[..., 0])
    png, small = encode(".png", image(1, 0)), encode(".jpg", image(0, 0, (40, 40)))
    given = [plain, OSError("gone"), png, plain[:-40], grey, small, b""]
    out = np.empty((len(given), *image(0, 0).shape), np.uint8)
    errors = images.decode_each(iter(given), out)
    assert {row: str(error) for row, error in errors.items()} == {
        1: "gone",
        3: f"truncated JPEG ({len(plain) - 40} bytes, no end marker)",
        5: f"40×40 pixels (height × width), allowed: {out.shape[1]}×{out.shape[2]}",
        6: "the file is empty (0 bytes)",
    }
    for row in (0, 2, 4):
        np.testing.assert_array_equal(out[row], opencv(given[row]))
