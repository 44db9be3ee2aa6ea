"""Decoding: what comes out, and what is refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sphereface.data.images import BadImage, decode


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
        (b"not a picture", "not a picture"),
        (encode(".jpg", np.zeros((64, 64, 3), np.uint8))[:-40], "truncated JPEG"),
        (
            encode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))[:200],
            "picture",
        ),
    ],
)
def test_what_is_no_whole_picture_is_refused(data, message):
    with pytest.raises(BadImage, match=message):
        decode(data)


def test_a_whole_jpeg_with_bytes_behind_it_is_fine():
    assert decode(encode(".jpg", np.zeros((16, 16, 3), np.uint8)) + b"comment").shape == (16, 16, 3)
