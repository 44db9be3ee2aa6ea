"""Encoded images: the walk over their headers, and decoding."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import cv2
import numpy as np

from sphereface.data.heic import heic_size, is_heic
from sphereface.data.image_size import image_size
from sphereface.data.images import BadImage, decode, decode_into

from ...images import image
from ..registry import register

SIZE = (32, 24)
_FLAGS: dict[str, list[int]] = {
    "baseline.jpg": [cv2.IMWRITE_JPEG_QUALITY, 80],
    "progressive.jpg": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restart.jpg": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    "plain.png": [], "plain.bmp": [], "plain.webp": [], "plain.ppm": [], "plain.pgm": [],
}  # fmt: skip


def make_images(folder: Path) -> None:
    for number, (name, flags) in enumerate(_FLAGS.items()):
        _write(folder / name, image(number, 0, SIZE), flags)
    _write(folder / "deep.png", image(1, 1, SIZE).astype(np.uint16) * 257, [])
    _write(folder / "alpha.png", np.dstack([image(1, 2, SIZE), np.full(SIZE, 128, np.uint8)]), [])
    jpeg = (folder / "baseline.jpg").read_bytes()
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"  # orientation 6
    (folder / "exif.jpg").write_bytes(b"\xff\xd8\xff\xe1" + (len(turned) + 2).to_bytes(2, "big") + turned + jpeg[2:])


def _write(path: Path, image: np.ndarray, flags: list[int]) -> None:
    suffix = path.suffix if path.suffix != ".pgm" else ".pgm"
    ok, data = cv2.imencode(suffix, image if path.suffix != ".pgm" else image[..., 0], flags)
    assert ok
    path.write_bytes(data.tobytes())


def parse_image(_folder: Path, path: Path) -> None:
    data = path.read_bytes()
    size = image_size(data)
    with contextlib.suppress(BadImage):
        image = decode(data)
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert size is not None
        assert sorted(image.shape[:2]) == sorted(size), (image.shape, size)
    out = np.zeros((*SIZE, 3), np.uint8)
    with contextlib.suppress(BadImage):
        decode_into(data, out)


register("image", make_images, parse_image, reads="data.images data.image_size data.jpeg_holes")


def make_heic(folder: Path) -> None:
    import pillow_heif
    from PIL import Image

    for name, options in {"plain.heic": {}, "grey.heic": {"mode": "L"}, "tiles.heic": {"tile_size": 64}}.items():
        pixels = Image.fromarray(image(1, 0, (80, 72))[..., ::-1]).convert(options.pop("mode", "RGB"))
        file = io.BytesIO()
        pillow_heif.from_pillow(pixels).save(file, quality=60, **options)
        (folder / name).write_bytes(file.getvalue())


def parse_heic(_folder: Path, path: Path) -> None:
    data = path.read_bytes()
    with contextlib.suppress(BadImage):
        decoded = decode(data)
        assert decoded.dtype == np.uint8
        assert decoded.shape[2] == 3
        if is_heic(data):
            assert decoded.shape[:2] == heic_size(data)


register("heic", make_heic, parse_heic, reads="data.images data.heic")
