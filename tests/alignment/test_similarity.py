"""Known transforms, numpy's least squares, and images whose crop can be written down by indexing."""

from __future__ import annotations

import numpy as np
import pytest

from sphereface.alignment.similarity import BadLandmarks, align, similarity, template

SPHEREFACE = [
    [30.2946, 51.6963],
    [65.5318, 51.5014],
    [48.0252, 71.7366],
    [33.5493, 92.3655],
    [62.7299, 92.2041],
]
ARCFACE = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
MIRROR = np.array([-1.0, 1.0])


def lstsq_oracle(points, target):
    """Solve x' = p·x − q·y + u, y' = q·x + p·y + v for p, q, u, v: ten real equations, four unknowns."""
    rows, right = [], []
    for (x, y), (to_x, to_y) in zip(points, target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        right += [to_x, to_y]
    p, q, u, v = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    return np.array([[p, -q, u], [q, p, v]])


def random_face(rng):
    """The template, turned, scaled, shifted and disturbed by some pixels, as a detector would find it."""
    angle, scale = rng.uniform(-3, 3), rng.uniform(0.3, 8)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * (template() + rng.normal(0, 3, (5, 2))) @ turn.T + rng.uniform(-500, 500, 2)


@pytest.mark.parametrize(("size", "numbers"), [((112, 96), SPHEREFACE), ((112, 112), ARCFACE)])
def test_templates_are_the_published_numbers(size, numbers):
    assert np.array_equal(template(size), numbers)
    assert np.array_equal(template(size, origin=1), np.array(numbers) - 1)


@pytest.mark.parametrize(("size", "origin"), [((96, 112), 0), ((112, 96), 2), ((112, 96), -1)])
def test_other_templates_are_refused(size, origin):
    with pytest.raises(ValueError, match=r"size · \(96, 112\) · one of|origin · -?\d · 0 or 1"):
        template(size, origin)


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"),
    [(0, 1, (0, 0)), (30, 1.7, (12, -5)), (-135, 0.2, (-300, 40)), (180, 3, (1, 2))],
)
def test_known_transform_is_recovered(degrees, scale, shift):
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    points = 2.5 * template()
    target = np.array([[cos * x - sin * y + shift[0], sin * x + cos * y + shift[1]] for x, y in points])
    expected = [[cos, -sin, shift[0]], [sin, cos, shift[1]]]
    assert similarity(points, target) == pytest.approx(np.array(expected), abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_inexact_points_agree_with_numpy_least_squares(seed):
    points = random_face(np.random.default_rng(seed))
    assert similarity(points, template()) == pytest.approx(lstsq_oracle(points, template()), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_mirrored_points_are_turned_not_mirrored(seed):
    points = random_face(np.random.default_rng(seed)) * MIRROR
    matrix = similarity(points, template())
    assert matrix == pytest.approx(lstsq_oracle(points, template()), abs=1e-9)
    assert np.linalg.det(matrix[:, :2]) > 0
    assert not np.allclose(points @ matrix[:, :2].T + matrix[:, 2], template(), atol=5)  # a reflection would fit


def test_origin_one_shifts_by_exactly_one_pixel():
    points = random_face(np.random.default_rng(0))
    difference = similarity(points, template()) - similarity(points, template(origin=1))
    assert difference == pytest.approx(np.array([[0, 0, 1], [0, 0, 1]]), abs=1e-9)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.full((5, 2), 17.0), r"in one place \(spread 0 pixels\)"),
        (100 + np.array(SPHEREFACE) / 100, r"in one place \(spread 0\.2\d* pixels\)"),
        (np.where(np.eye(5, 2) == 1, np.nan, SPHEREFACE), "not finite"),
        (np.where(np.eye(5, 2) == 1, np.inf, SPHEREFACE), "not finite"),
        (np.zeros((4, 2)), r"shape \(4, 2\); allowed: \(5, 2\)"),
        (np.zeros((2, 5)), r"shape \(2, 5\); allowed: \(5, 2\)"),
    ],
)
def test_points_that_determine_no_crop_say_why(points, message):
    with pytest.raises(BadLandmarks, match=message):
        similarity(points, template())


def test_points_unlike_any_face_say_so():
    z = template() @ [1, 1j]
    z -= z.mean()
    strange = np.array([1, 1j, 2, -1, 0.5j])
    strange -= strange.mean()
    strange = strange - z * np.vdot(z, strange) / np.vdot(z, z)  # nothing of the face is left in it
    with pytest.raises(BadLandmarks, match="unlike a face"):
        similarity(100 * np.stack([strange.real, strange.imag], axis=1), template())


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (300, 250, 3), dtype=np.uint8)


def test_points_on_the_template_crop_the_corner(image):
    assert np.array_equal(align(image, template()), image[:112, :96])
    assert np.array_equal(align(image, template((112, 112)), size=(112, 112)), image[:112, :112])


def test_origin_one_moves_the_face_up_and_left(image):
    assert np.array_equal(align(image, template(), origin=1), image[1:113, 1:97])


def test_shifted_and_scaled_points_crop_what_indexing_does(image):
    assert np.array_equal(align(image, template() + np.array([40, 70])), image[70:182, 40:136])
    assert np.array_equal(align(image, 2 * template() + [5, 9]), image[9:233:2, 5:197:2])


def test_quarter_turn_crops_the_turned_image(image):
    turned = np.ascontiguousarray(np.rot90(image))  # (x, y) of image is (y, 249 − x) of turned
    points = template() + np.array([40, 70])
    moved = np.stack([points[:, 1], 249 - points[:, 0]], axis=1)
    assert np.array_equal(align(turned, moved), image[70:182, 40:136])


def test_half_pixel_is_the_mean_of_neighbours(image):
    crop = align(image, template() + np.array([40.5, 70]))
    mean = (image[70:182, 40:136].astype(float) + image[70:182, 41:137]) / 2
    assert np.abs(crop - mean).max() <= 1


def test_borders_are_replicated(image):
    expected = np.pad(image, ((30, 0), (20, 0), (0, 0)), mode="edge")[:112, :96]
    assert np.array_equal(align(image, template() - [20, 30]), expected)


def test_grey_image_stays_grey(image):
    assert np.array_equal(align(image[..., 0].copy(), template()), image[:112, :96, 0])
