"""Landmarks of a larger version of the images are a warning; faces at an edge are none."""

from __future__ import annotations

import numpy as np
import pytest

from sphereface.alignment.align import align_folder
from sphereface.alignment.landmarks import LandmarkTable
from sphereface.alignment.orders import refuse_wrong_landmarks
from sphereface.alignment.similarity import template
from tests.alignment.faces import write_photographs

SIDE = 160
NAMES = [f"{number}.png" for number in range(20)]
SMALL = (template() - template().mean(axis=0)) * 0.4  # eyes 14 pixels apart; 14 by 16 pixels around the centre
ADVICE = " · look at some crops: if they belong to a larger version of the images, scale the landmarks to these images"
QUARTER = "my.txt: the landmarks of {} of 20 checked images lie in the lower right quarter" + ADVICE
BEYOND = "my.txt: the landmarks of {} of 20 checked images lie beyond the right or lower edge" + ADVICE


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("larger") / "in"
    write_photographs(folder, NAMES, SIDE)
    return folder


def told(folder, places):
    points = {name: SMALL + place for name, place in zip(NAMES, places, strict=False)}
    return refuse_wrong_landmarks(points, folder, "my.txt")


def around(*middle, scatter=3.0, count=20):
    return np.array(middle) + np.random.default_rng(0).uniform(-scatter, scatter, (count, 2))


def test_faces_near_the_centre_times_one_and_a_half_are_a_warning(photographs, tmp_path):
    right = around(78, 72)
    assert told(photographs, right) == ""
    points = {name: (SMALL + place) * 1.5 for name, place in zip(NAMES, right, strict=True)}
    report = align_folder(photographs, tmp_path / "out", LandmarkTable(points, "d", source="my.txt"))
    assert report.aligned == 20
    assert QUARTER.format(20) in report.table().splitlines()


def test_faces_all_over_the_image_times_one_and_a_half_are_a_warning_by_those_beyond_an_edge(photographs):
    """Of 20 faces on a diagonal, in steps of 5, those from 105 on leave the image when they are 1.5 times as far."""
    places = np.arange(30, 130, 5)[:, None] * np.ones(2)
    assert told(photographs, places) == ""
    larger = {name: (SMALL + place) * 1.5 for name, place in zip(NAMES, places, strict=True)}
    # a crop is 1.67 times as large as these faces: 20 of its pixels are 12 of the image
    beyond = sum((points > SIDE - 1 + 12).any() for points in larger.values())
    assert 3 < beyond <= 5
    assert refuse_wrong_landmarks(larger, photographs, "my.txt") == BEYOND.format(beyond)


@pytest.mark.parametrize(
    ("place", "count", "warns"),
    [
        ((100, 100), 18, QUARTER.format(18)),  # nine in ten
        ((100, 100), 17, ""),
        ((100, 50), 20, ""),  # right
        ((50, 100), 20, ""),  # below
        ((190, 80), 4, BEYOND.format(4)),
        ((80, 190), 4, BEYOND.format(4)),
        ((190, 80), 3, ""),
        ((-30, 80), 4, ""),  # left
        ((80, -30), 4, ""),  # above
        ((155, 80), 10, ""),  # the right edge cuts half of the faces
        ((80, 155), 10, ""),  # the lower edge does
    ],
)
def test_only_most_in_the_quarter_or_several_beyond_an_edge_are_a_warning(photographs, place, count, warns):
    assert told(photographs, [*around(*place, count=count), *around(80, 75, count=20 - count)]) == warns


def test_three_images_are_too_few_to_doubt(photographs):
    assert told(photographs, around(110, 110, count=3)) == ""
    assert "of 4 of 4 checked images lie in the lower right" in told(photographs, around(110, 110, count=4))


def test_four_in_a_hundred_may_be_single_mistakes(photographs, tmp_path):
    names = [f"{number}.png" for number in range(100)]
    for name in names:
        (tmp_path / name).write_bytes((photographs / "0.png").read_bytes())
    for count, warns in ((4, ""), (5, "of 5 of 100 checked images lie beyond")):
        places = [*around(190, 80, count=count), *around(80, 75, count=100 - count)]
        points = {name: SMALL + place for name, place in zip(names, places, strict=True)}
        said = refuse_wrong_landmarks(points, tmp_path, "my.txt")
        assert (warns in said) if warns else not said
