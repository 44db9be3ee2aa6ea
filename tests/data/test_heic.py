"""HEIC, as phones write it: read like a JPEG wherever an image is, or named with its extra."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sphereface.cli import main
from sphereface.data.heic import heic_size, is_heic
from sphereface.data.images import MOST_PIXELS, BadImage, decode, decode_into, suffix_of
from sphereface.data.pairs import read_pairs
from sphereface.data.sources import open_path
from sphereface.data.walking import walk_images

from ..images import image

pillow_heif = pytest.importorskip("pillow_heif")

SIZE = (112, 96)
RGB = np.ascontiguousarray(image(3, 1, SIZE)[..., ::-1])


def heic(pixels: np.ndarray = RGB, mode: str = "RGB", **options: object) -> bytes:
    """Write an image as phones do; quality -1 is lossless up to the conversion of colours."""
    file = io.BytesIO()
    written = pillow_heif.from_pillow(Image.fromarray(pixels).convert(mode))
    written.save(file, **{"quality": -1, "chroma": 444, **options})
    return file.getvalue()


def rgb_of(data: bytes) -> np.ndarray:
    return decode(data)[..., ::-1].astype(int)


@pytest.mark.parametrize("turn", range(1, 9))
def test_heic_is_turned_as_a_jpeg_of_the_same_orientation(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    jpeg = io.BytesIO()
    Image.fromarray(RGB).save(jpeg, "JPEG", quality=100, subsampling=0, exif=exif)
    data = heic(exif=exif.tobytes())  # written as a transformation of the format, which EXIF data repeat
    upright = np.asarray(ImageOps.exif_transpose(Image.open(jpeg)))
    assert heic_size(data) == upright.shape[:2]
    for found in (rgb_of(data), rgb_of(jpeg.getvalue())):
        assert found.shape == upright.shape
        assert np.abs(found - upright).max() <= 4


@pytest.mark.parametrize("options", [{}, {"quality": 90, "chroma": 420}, {"tile_size": 64}])
def test_heic_of_every_kind_gives_its_pixels(options):
    found = rgb_of(heic(**options))
    assert found.shape == (*SIZE, 3)
    assert np.abs(found - RGB).mean() < (8 if options else 2)


def test_grey_and_transparent_heic_have_three_channels():
    grey = rgb_of(heic(mode="L"))
    assert (grey == grey[..., :1]).all()
    assert np.abs(grey[..., 0] - np.asarray(Image.fromarray(RGB).convert("L"))).max() <= 2
    assert np.abs(rgb_of(heic(np.dstack([RGB, np.full(SIZE, 9, np.uint8)]), "RGBA")) - RGB).max() <= 4


def test_deep_heic_is_reduced_to_eight_bits():
    file = io.BytesIO()
    deep = Image.fromarray(RGB[..., 0].astype(np.uint16) * 257)
    pillow_heif.from_pillow(deep).save(file, quality=-1)
    assert np.abs(rgb_of(file.getvalue())[..., 2] - RGB[..., 0]).max() <= 2


def test_the_main_image_of_several_is_read():
    file, other = io.BytesIO(), Image.fromarray(255 - RGB)
    several = pillow_heif.from_pillow(other)
    several.add_from_pillow(Image.fromarray(RGB))
    several.save(file, quality=-1, chroma=444, primary_index=1)
    assert np.abs(rgb_of(file.getvalue()) - RGB).max() <= 4


def test_a_crop_is_decoded_into_given_memory_and_another_size_is_refused():
    out = np.zeros((*SIZE, 3), np.uint8)
    decode_into(heic(), out)
    np.testing.assert_array_equal(out, decode(heic()))
    with pytest.raises(BadImage, match=r"24×20 pixels \(height × width\), allowed: 112×96"):
        decode_into(heic(image(1, 1, (24, 20))), out)


def test_every_cut_is_refused():
    data = heic(quality=50)
    for length in [*range(12, len(data), 37), len(data) - 1]:
        with pytest.raises(BadImage, match="damaged HEIC"):
            decode(data[:length])


def test_a_size_that_is_too_large_is_refused_before_it_is_decoded():
    data = bytearray(heic())
    at = data.find(b"ispe") + 8
    data[at : at + 8] = (20_000).to_bytes(4, "big") * 2
    assert MOST_PIXELS < 20_000**2
    with pytest.raises(BadImage, match="20000×20000 pixels"):
        decode(bytes(data))


def test_an_image_without_a_size_in_its_head_is_refused():
    """It would pass every limit on the size."""
    data = bytearray(heic())
    at = data.find(b"\x81\x02\x03", data.find(b"ipma")) + 2  # the properties of the image; the third is its size
    data[at] = 1
    assert heic_size(bytes(data)) == (0, 0)
    with pytest.raises(BadImage, match="claims 0×0 pixels, and its image has 112×96"):
        decode(bytes(data))


@pytest.mark.parametrize("brands", [b"avif\0\0\0\0mif1", b"isom\0\0\0\0mp42", b"qt  \0\0\0\0qt  "])
def test_avif_and_films_are_not_heic(brands):
    data = (16 + len(brands) - 8).to_bytes(4, "big") + b"ftyp" + brands + bytes(99)
    assert not is_heic(data)
    with pytest.raises(BadImage, match="AVIF or a film, which is not read"):
        decode(data)


def write_faces(folder: Path, people: int = 3) -> None:
    for person in range(people):
        (folder / f"p{person}").mkdir(parents=True)
        for number in range(2):
            (folder / f"p{person}/{number}.HEIC").write_bytes(heic(image(person, number)[..., ::-1]))


def test_heic_is_read_in_a_folder_packed_and_checked(tmp_path, capsys):
    write_faces(tmp_path / "faces")
    walked = walk_images(tmp_path / "faces")
    assert (len(walked.names), walked.not_read()) == (6, "")
    assert suffix_of(walked.images[0].read_bytes()) == ".heic"
    folder = open_path(tmp_path / "faces")
    for target in ("packed.rec", "packed.tar"):
        assert main(["pack", str(tmp_path / "faces"), str(tmp_path / target)]) == 0
        packed = open_path(tmp_path / target)
        assert [packed.read(row) for row in range(6)] == [folder.read(row) for row in range(6)]
    assert packed.name(0).endswith(".heic")
    output = tmp_path / "report"
    assert main(["check", str(tmp_path / "faces"), "--workers", "0", "--output", str(output)]) == 0
    assert json.loads((output / "report.json").read_text())["num_images"] == 6
    assert main(["verify", *(str(tmp_path / f"faces/p{p}/0.HEIC") for p in (0, 0)), "--aligned"]) == 0
    assert "cosine       1.0000" in capsys.readouterr().out


def test_pairs_are_made_of_heic_and_found_again(tmp_path):
    write_faces(tmp_path / "faces", people=6)
    assert main(["make-pairs", str(tmp_path / "faces"), str(tmp_path / "verify"), "--folds", "2"]) == 0
    pairs = read_pairs(tmp_path / "verify/pairs.txt")
    found = pairs.resolve(tmp_path / "verify")
    assert {path.suffix for path in found} == {".heic"}
    assert {name.rpartition(".")[2] for name in pairs.names} == {"jpg"}


WITHOUT = """
import sys
sys.modules["pillow_heif"] = None
from sphereface.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_the_extra(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    return done.returncode, done.stderr


def test_without_the_extra_one_line_names_it(tmp_path):
    write_faces(tmp_path / "faces")
    extra = "pip install '.[heic]' in this project's folder"
    code, said = without_the_extra("pack", tmp_path / "faces", tmp_path / "packed.rec")
    assert code == 2
    assert "6 files were not read: 6 .heic" in said
    assert extra in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("packed*"))
    (tmp_path / "list.txt").write_text("".join(f"faces/p{p}/{n}.HEIC {p}\n" for p in range(3) for n in range(2)))
    code, said = without_the_extra("check", tmp_path / "list.txt", "--workers", "0", "--output", tmp_path / "report")
    assert code == 2
    assert f"HEIC: pillow_heif is not installed · {extra}" in said
    assert "Traceback" not in said
