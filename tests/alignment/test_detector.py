"""One face of an image, with detectors that are told what to see."""

from __future__ import annotations

import numpy as np
import pytest

from sphereface.alignment.crop import CropSpec, centre_points
from sphereface.alignment.detector import Faces, NoFace, find_face, find_faces
from sphereface.alignment.similarity import align, template
from sphereface.errors import UserError


def test_a_detector_may_draw_on_what_it_is_shown():
    image = np.full((60, 60, 3), 7, np.uint8)

    def drawing(shown):
        shown[:] = 0
        return faces((20, 20, 40, 40))

    assert len(find_faces(image, drawing)) == 1
    assert (image == 7).all()


class Told:
    """Answers in turn what it was told, and remembers the images that it was shown."""

    name = "told"

    def __init__(self, *answers):
        self.answers, self.seen = list(answers), []

    def __call__(self, image):
        self.seen.append(image)
        return self.answers.pop(0)


def faces(*boxes, scores=None):
    boxes = np.array(boxes, float).reshape(-1, 4)
    points = np.arange(10.0).reshape(5, 2) + np.arange(len(boxes))[:, None, None] * 100
    points[:, 4] = (boxes[:, :2] + boxes[:, 2:]) / 2
    return Faces(boxes, np.array(scores or [0.95] * len(boxes)), points)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "detector: returned None · allowed: a Faces"),
        ([], r"detector: returned \[\] · allowed: a Faces"),
        (Faces(np.zeros((1, 4)), np.zeros(1), np.zeros((1, 4, 2))), r"shapes \(1, 4\), \(1,\), \(1, 4, 2\) · allowed"),
        (Faces(np.zeros((2, 4)), np.zeros(1), np.zeros((1, 5, 2))), r"shapes \(2, 4\)"),
        (Faces(np.zeros((1, 4)), np.array(0.5), np.zeros((1, 5, 2))), r"shapes \(1, 4\), \(\), "),
        (Faces([[1, 2, 3]], [0.5], np.zeros((1, 5, 2))), r"shapes \(1, 3\)"),
        (Faces([[1, 2, 3, 4]], ["x"], np.zeros((1, 5, 2))), "something else than numbers · allowed: a Faces"),
        (Faces([[1, 2, 3, 4], [5]], [0.5, 0.5], np.zeros((2, 5, 2))), "something else than numbers"),
    ],
)
def test_what_is_no_faces_is_one_line(answer, message):
    with pytest.raises(UserError, match=message):
        find_face(np.zeros((20, 20, 3), np.uint8), Told(answer))


@pytest.mark.parametrize(
    ("box", "score"),
    [
        ((60, 20, 30, 40), 0.9),  # x, y, width, height
        ((20, 60, 30, 40), 0.9),
        ((10, 20, 10, 60), 0.9),
        ((np.nan, 20, 90, 60), 0.9),
        ((60, 20, np.inf, 60), 0.9),
        ((0.6, 0.2, 0.9, 0.6), 0.9),  # parts of the image's sides
        ((20, 60, 60, 90), 0.9),  # y1, x1, y2, x2
        ((60, 20, 90, 60), np.nan),
        ((60, 20, 90, 60), np.inf),
    ],
)
def test_a_box_or_a_score_that_is_none_is_one_line(box, score):
    good, points = (60, 20, 90, 60), np.array([[65, 30], [85, 30], [75, 40], [67, 50], [83, 50]])
    image = np.zeros((100, 100, 3), np.uint8)
    assert find_face(image, Told(Faces([good], [0.9], [points]))).box == good
    with pytest.raises(UserError, match=r"detector: returned a face with box \[.* · allowed: boxes x1, y1, x2, y2"):
        find_face(image, Told(Faces([good, box], [0.9, score], [points, points])))


def test_faces_of_lists_are_those_of_arrays():
    one = faces((10, 12, 29, 31))
    image = np.zeros((40, 40, 3), np.uint8)
    of_lists = find_face(image, Told(Faces(one.boxes.tolist(), one.scores.tolist(), one.points.tolist())))
    of_arrays = find_face(image, Told(one))
    assert np.array_equal(of_lists.points, of_arrays.points)
    assert (of_lists.box, of_lists.score) == (of_arrays.box, of_arrays.score)
    with pytest.raises(NoFace):
        find_face(image, Told(Faces([], [], []), Faces([], [], [])))


LEFT, MIDDLE, BIG = (0, 40, 20, 60), (38, 42, 58, 62), (55, 10, 99, 70)


@pytest.mark.parametrize(("pick", "chosen"), [("centre", 1), ("largest", 2)])
def test_of_several_faces_one_is_chosen(pick, chosen):
    found = find_face(np.zeros((100, 100, 3), np.uint8), Told(faces(LEFT, MIDDLE, BIG)), pick)
    assert found.num_faces == 3
    assert found.points[0, 0] == 100 * chosen
    assert not found.padded


def test_of_two_as_near_the_surer_and_of_two_as_large_the_nearer():
    image = np.zeros((100, 100, 3), np.uint8)
    as_near = faces((10, 40, 29, 59), (70, 40, 89, 59), scores=[0.91, 0.97])
    assert find_face(image, Told(as_near), "centre").score == 0.97
    as_large = faces((0, 0, 20, 20), (60, 40, 80, 60), scores=[0.97, 0.91])
    assert find_face(image, Told(as_large), "largest").score == 0.91


def test_second_try_has_a_border_and_its_points_are_mapped_back():
    image = np.full((41, 30, 3), 200, np.uint8)
    # in the bordered image, whose middle is at (29.5, 40), the second face is the nearer one
    detector = Told(faces(), faces((10, 32, 19, 40), (25, 35, 34, 44)))
    found = find_face(image, detector)
    bordered = detector.seen[1]
    assert bordered.shape == (81, 60, 3)
    assert (bordered[20:61, 15:45] == 200).all()
    assert (bordered[:20] == 127).all()
    assert (bordered[:, 45:] == 127).all()
    assert found.padded
    assert found.points.tolist()[:4] == [[100 - 15 + 2 * i, 101 - 20 + 2 * i] for i in range(4)]


def test_no_face_in_either_try():
    with pytest.raises(NoFace, match=r"no face found in 30x41 pixels, with or without a border"):
        find_face(np.zeros((41, 30, 3), np.uint8), Told(faces(), faces()))


def test_huge_images_are_searched_small_and_mapped_back():
    detector = Told(faces(MIDDLE))
    found = find_face(np.zeros((4000, 8000, 3), np.uint8), detector)
    assert detector.seen[0].shape == (1000, 2000, 3)
    # the centre of the first of the small pixels lies amid four large ones: 0 → 1.5, 1 → 5.5, 2 → 9.5
    assert found.points[:2].tolist() == [[1.5, 5.5], [9.5, 13.5]]


def test_points_have_two_decimals():
    sees = Faces(np.array([[0, 0, 1, 1]]), np.ones(1), np.full((1, 5, 2), 1 / 3))
    assert (find_face(np.zeros((9, 9, 3), np.uint8), Told(sees)).points == 0.33).all()


@pytest.mark.parametrize("size", [(112, 96), (112, 112)])
@pytest.mark.parametrize("origin", [0, 1])
@pytest.mark.parametrize("scale", [1, 2])
def test_middle_of_an_image_is_its_largest_rectangle(size, origin, scale):
    height, width = scale * size[0], scale * size[1] + 40
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    crop = align(image, centre_points(height, width, CropSpec(size, origin)), size=size, origin=origin)
    expected = image[:, 20:-20].reshape(size[0], scale, size[1], scale, 3).mean(axis=(1, 3))
    assert np.abs(crop - expected).max() <= 6  # 1/100 pixel of noise


def test_shrinking_reads_every_pixel():
    checks = np.indices((112 * 8, 96 * 8)).sum(axis=0) % 2 * 255
    crop = align(np.repeat(checks[..., None], 3, 2).astype(np.uint8), template() * 8 + 3.5)
    assert np.abs(crop.astype(int) - 127).max() <= 1


def test_shrinking_moves_nothing():
    ramp = np.tile(np.arange(96 * 8) / 3, (112 * 8, 1))
    crop = align(np.repeat(np.round(ramp)[..., None], 3, 2).astype(np.uint8), template() * 8 + 3.5)
    assert abs((crop[:, 1:-1, 0] - ramp.reshape(112, 8, 96, 8).mean(axis=(1, 3))[:, 1:-1]).mean()) < 0.2
