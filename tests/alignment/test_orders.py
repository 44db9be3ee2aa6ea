"""Landmark files of another order or of other images are refused before anything is written."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sphereface.alignment.align import Landmarks, align_folder
from sphereface.alignment.crop import Finder
from sphereface.alignment.detector import Faces
from sphereface.alignment.exif_turns import warn_of_exif
from sphereface.alignment.fit import fit
from sphereface.alignment.landmarks import LandmarkTable, landmark_line, read_landmarks
from sphereface.alignment.orders import likely_order, refuse_wrong_landmarks
from sphereface.alignment.similarity import template
from sphereface.errors import UserError
from tests.alignment.faces import write_photographs

FACE = template() + np.array([30, 20])
LFW_LANDMARKS = (Path(__file__).parents[2] / "../shared/faces/lfw/landmarks.txt").resolve()
NAMES = [f"{k}.png" for k in range(6)]
L_EYE, R_EYE, NOSE, L_MOUTH, R_MOUTH = FACE
X, Y = FACE.T
# likely order as told → numbers as such a file has them
ORDERS = {
    "right eye, left eye, nose tip, right mouth corner, left mouth corner": [R_EYE, L_EYE, NOSE, R_MOUTH, L_MOUTH],
    "right eye, left eye, nose tip, left mouth corner, right mouth corner": [R_EYE, L_EYE, NOSE, L_MOUTH, R_MOUTH],
    "left eye, right eye, nose tip, right mouth corner, left mouth corner": [L_EYE, R_EYE, NOSE, R_MOUTH, L_MOUTH],
    "left mouth corner, right mouth corner, nose tip, left eye, right eye": [L_MOUTH, R_MOUTH, NOSE, L_EYE, R_EYE],
    "nose tip, left eye, right eye, left mouth corner, right mouth corner": [NOSE, L_EYE, R_EYE, L_MOUTH, R_MOUTH],
    "x1 … x5 y1 … y5": [*X, *Y],
    "y1 … y5 x1 … x5": [*Y, *X],
    "y1 x1 … y5 x5": FACE[:, ::-1],
    "y1 x1 … y5 x5 of right eye, left eye, nose tip, right mouth corner, left mouth corner": (
        FACE[[1, 0, 2, 4, 3], ::-1]
    ),
    "y counted from the bottom": FACE * [1, -1] + [0, 160],
    "x1 … x5 y1 … y5 of right eye, left eye, nose tip, right mouth corner, left mouth corner": (
        FACE[[1, 0, 2, 4, 3]].T
    ),
}
OTHER = {
    "multiply them": FACE / 160,
    "they are zeros": FACE * 0,
    "they are not finite": FACE * np.nan,
    "points of a face are the same": FACE[[0, 0, 2, 3, 3]],
    "no order of five points fits them": [(10, 10), (30, 10), (50, 10), (70, 10), (90, 11)],
    "dlib's five points": [(97, 50), (80, 52), (40, 50), (56, 52), (68.2, 82)],
}


def table(numbers, count=6, source="my.txt"):
    rng = np.random.default_rng(0)
    points = np.array(numbers, dtype=float).reshape(5, 2)
    moved = {name: points + points.any() * rng.normal(0, 0.001, (5, 2)) for name in NAMES[:count]}
    if len(np.unique(points, axis=0)) < 5:
        moved = dict.fromkeys(NAMES[:count], points)
    return LandmarkTable(moved, "digest", source)


@pytest.mark.parametrize(("told", "numbers"), [*ORDERS.items(), *OTHER.items()])
def test_a_wrong_order_is_refused_and_named_and_nothing_is_written(tmp_path, told, numbers):
    write_photographs(tmp_path / "in", NAMES)
    with pytest.raises(UserError, match=r"my\.txt: the landmarks of 6 of 6 images are unlike a face") as raised:
        align_folder(tmp_path / "in", tmp_path / "out", table(numbers))
    assert "\n" not in str(raised.value)
    assert f"they look like {told}: rewrite" in str(raised.value) if told in ORDERS else told in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_the_other_file_is_judged_too(tmp_path):
    write_photographs(tmp_path / "in", NAMES)
    both = Landmarks(table(FACE, 3), other=table(FACE[[1, 0, 2, 4, 3]], source="other.txt"))
    with pytest.raises(UserError, match=r"other\.txt: the landmarks of 6 of 6"):
        align_folder(tmp_path / "in", tmp_path / "out", both)


def test_a_file_on_disk_is_named(tmp_path):
    write_photographs(tmp_path / "in", NAMES)
    (tmp_path / "bad.txt").write_text("".join(landmark_line(name, FACE[[1, 0, 2, 4, 3]]) for name in NAMES))
    with pytest.raises(UserError, match=r"bad\.txt: the landmarks of"):
        align_folder(tmp_path / "in", tmp_path / "out", read_landmarks(tmp_path / "bad.txt"))


def test_where_most_are_right_the_wrong_ones_are_listed_and_not_aligned(tmp_path):
    write_photographs(tmp_path / "in", NAMES)
    points = dict(table(FACE).points)
    points |= {"1.png": FACE[[1, 0, 2, 4, 3]], "3.png": FACE + 100, "4.png": FACE[[4, 3, 2, 1, 0]]}
    report = align_folder(tmp_path / "in", tmp_path / "out", LandmarkTable(points, ""))
    reasons = {failure.file: (failure.reason, failure.detail) for failure in report.failures}
    assert {reason for reason, _ in reasons.values()} == {"landmarks unlike a face"}
    assert "crop pixels from the template" in reasons["1.png"][1]
    assert "outside the image of 160x160" in reasons["3.png"][1]
    assert "turned by" in reasons["4.png"][1]
    assert report.aligned == 3
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == ["0.jpg", "2.jpg", "5.jpg"]
    assert "median misfit of the landmarks: 0.0 crop pixels" in report.table()


def face_with(order, layout=lambda five: five, noise=1.5):
    faces = FACE + np.random.default_rng(0).normal(0, noise, (40, 5, 2))
    return {f"{k}.png": layout(five[list(order)]) for k, five in enumerate(faces)}


@pytest.mark.parametrize(
    ("points", "misfit", "named"),
    [  # two mistakes at once, each of which alone is refused
        (face_with([0, 3, 2, 1, 4], lambda five: five[:, ::-1]), 5.9, "y1 x1 … y5 x5 of left eye, left mouth corner"),
        (
            face_with([3, 4, 2, 0, 1], lambda five: five * [1, -1] + [0, 300]),
            3.4,
            "y counted from the bottom of left mo",
        ),
        (face_with([0, 1, 2, 3, 4]), 1.5, ""),
        (face_with([0, 1, 2, 3, 4], noise=1e-6), 0.0, ""),
        (face_with([0, 1, 2, 3, 4], noise=6.5), 5.7, ""),
    ],
)
def test_landmarks_that_fit_badly_or_better_in_another_order_are_a_warning(tmp_path, points, misfit, named):
    told = refuse_wrong_landmarks(points, tmp_path, "my.txt")
    if misfit > 5 or named:
        found = re.match(
            r"my\.txt: the landmarks fit badly: median misfit ([\d.]+) crop pixels \(usual: 2 to 3\)", told
        )
        assert float(found[1]) == pytest.approx(misfit, abs=0.4)
        assert ("they look like " + named in told) if named else "they look like" not in told
    else:
        assert not told


def test_right_landmarks_of_a_broad_face_are_no_warning(tmp_path):
    broad = FACE.copy()
    broad[:, 0] = FACE[:, 0].mean() + 1.25 * (FACE[:, 0] - FACE[:, 0].mean())
    broad[3:, 0] = broad[2, 0] + 1.15 * (broad[3:, 0] - broad[2, 0])  # a smile
    faces = broad + np.random.default_rng(0).normal(0, 0.5, (20, 5, 2))
    for count in (1, 4, 20):
        points = {f"{k}.png": five for k, five in enumerate(faces[:count])}
        assert refuse_wrong_landmarks(points, tmp_path, "my.txt") == ""


def test_few_faces_that_fit_badly_are_no_warning(tmp_path):
    skew = np.array([(0, 0), (0, 4), (0, -5), (0, 5), (0, -4)])
    faces = FACE + 1.5 * skew + np.random.default_rng(0).normal(0, 0.1, (16, 5, 2))
    misfit = float(np.median(fit(faces)[0]))
    assert 5 < misfit < 7
    for count, warns in ((1, False), (4, False), (15, False), (16, True)):
        points = {f"{k}.png": five for k, five in enumerate(faces[:count])}
        assert ("fit badly" in refuse_wrong_landmarks(points, tmp_path, "my.txt")) == warns
    worse = {f"{k}.png": FACE + 2 * skew + k / 10 for k in range(4)}
    assert 7 < np.median(fit(np.stack(list(worse.values())))[0]) < 9
    assert "fit badly" in refuse_wrong_landmarks(worse, tmp_path, "my.txt")


@pytest.mark.parametrize("first", [7, 0.99, 1234])
def test_a_label_or_a_score_before_the_points_is_named(tmp_path, first):
    rng = np.random.default_rng(0)
    lines = []
    for name in NAMES:
        numbers = [first, *(FACE + rng.normal(0, 1, (5, 2))).ravel()]
        lines.append("\t".join([name, *map(str, numbers)]))
    (tmp_path / "l.txt").write_text("\n".join(lines) + "\n")
    write_photographs(tmp_path / "in", NAMES)
    with pytest.raises(UserError, match="the first number of each line seems to be a label or a score: delete it, or"):
        align_folder(tmp_path / "in", tmp_path / "out", read_landmarks(tmp_path / "l.txt"))
    exchanged = ["\t".join([name, "7", *map(str, FACE[[0, 1, 2, 4, 3]].ravel())]) for name in NAMES]
    (tmp_path / "l.txt").write_text("\n".join(exchanged) + "\n")
    with pytest.raises(UserError, match="no order of five points fits them"):
        align_folder(tmp_path / "in", tmp_path / "out", read_landmarks(tmp_path / "l.txt"))
    score = [landmark_line(name, FACE[[1, 0, 2, 4, 3]], 0.9) for name in NAMES]  # another order, a score behind it
    (tmp_path / "l.txt").write_text("".join(score))
    with pytest.raises(UserError, match="they look like right eye, left eye"):
        align_folder(tmp_path / "in", tmp_path / "out", read_landmarks(tmp_path / "l.txt"))


def test_right_landmarks_of_one_person_are_no_warning(tmp_path):
    if not LFW_LANDMARKS.is_file():
        pytest.skip(f"the landmarks of LFW are not in {LFW_LANDMARKS.parent}")
    people: dict[str, dict[str, np.ndarray]] = {}
    for name, *numbers in map(str.split, LFW_LANDMARKS.read_text().splitlines()):
        people.setdefault(name.split("/")[-2], {})[name] = np.array(numbers, dtype=float).reshape(5, 2)
    single = [points for points in people.values() if len(points) >= 4]
    assert len(single) == 610
    chosen = [*single[::4], people["Ashanti"], people["Ernie_Els"], people["Kalpana_Chawla"]]
    assert not any(refuse_wrong_landmarks(points, tmp_path, "my.txt") for points in chosen)


def test_a_crop_of_an_older_version_is_not_kept_for_landmarks_unlike_a_face(tmp_path):
    write_photographs(tmp_path / "in", NAMES)
    right = table(FACE)
    align_folder(tmp_path / "in", tmp_path / "out", right)
    wrong = LandmarkTable({**right.points, "1.png": FACE[[1, 0, 2, 4, 3]]}, right.digest)
    report = align_folder(tmp_path / "in", tmp_path / "out", wrong)
    assert (report.kept, [failure.file for failure in report.failures]) == (5, ["1.png"])


def test_other_landmarks_that_are_unlike_a_face_are_not_used(tmp_path):
    write_photographs(tmp_path / "in", NAMES)
    other = LandmarkTable({**table(FACE).points, "5.png": FACE[[1, 0, 2, 4, 3]]}, "")
    report = align_folder(tmp_path / "in", tmp_path / "out", Landmarks(table(FACE, 3), other=other))
    ((name, detail),) = ((failure.file, failure.detail) for failure in report.failures)
    assert name == "5.png"
    assert "landmarks of the other file: the landmarks are unlike a face" in detail
    assert not (tmp_path / "out/5.jpg").exists()


def test_points_outside_most_images_are_refused(tmp_path):
    write_photographs(tmp_path / "in", NAMES)
    with pytest.raises(
        UserError,
        match=r"the landmarks of 6 of 6 checked images .* outside the image, .* by \d+(\.\d+)? pixels .* scale",
    ):
        align_folder(tmp_path / "in", tmp_path / "out", table(FACE * 2))
    assert not (tmp_path / "out").exists()


def test_align_accepts_its_own_landmarks_of_faces_that_the_edge_cuts(tmp_path):
    """A face three times as large as its crop: its eyes are 30 pixels of the photograph outside, 10 of the crop."""
    side = 480
    write_photographs(tmp_path / "in", NAMES, side)
    large = template() * 3
    points = {name: large - [large[:, 0].min() + 30, 0] + [0, k] for k, name in enumerate(NAMES)}
    first = align_folder(tmp_path / "in", tmp_path / "out", Landmarks(finder=Finder(Known(points))))
    assert first.aligned == 6
    again = align_folder(tmp_path / "in", tmp_path / "again", read_landmarks(tmp_path / "out/landmarks.txt"))
    assert again.aligned == 6
    for name in NAMES:
        crop = name.replace("png", "jpg")
        assert (tmp_path / "out" / crop).read_bytes() == (tmp_path / "again" / crop).read_bytes()
    assert "the landmarks of 6 of 6 checked images lie outside the image" in again.table()
    assert "unless edges cut the faces" in again.table()
    further = {name: five - [33, 0] for name, five in points.items()}  # 21 of the crop
    with pytest.raises(UserError, match=r"of 480x480 by 63 pixels · allowed: pixels of these images · scale"):
        refuse_wrong_landmarks(further, tmp_path / "in", "my.txt")


class Known:
    """A detector that finds the faces of the photographs in their order."""

    name = "known"

    def __init__(self, points):
        self.left = list(points.values())

    def __call__(self, image):
        points = self.left.pop(0)
        return Faces(np.hstack([points.min(axis=0), points.max(axis=0)])[None], np.ones(1), points[None])


@pytest.mark.parametrize("share", [30, 40, 60])
def test_landmarks_of_far_smaller_images_lie_in_one_place(tmp_path, share):
    write_photographs(tmp_path / "in", NAMES)
    message = r"are unlike a face .* they are only a pixel or two apart: scale them to pixels"
    with pytest.raises(UserError, match=message):
        align_folder(tmp_path / "in", tmp_path / "out", table(FACE / share + 3))


def test_points_of_smaller_images_are_a_warning(tmp_path):
    write_photographs(tmp_path / "in", NAMES)
    report = align_folder(tmp_path / "in", tmp_path / "out", table(FACE / 2))
    assert "my.txt: all landmarks of 6 checked images lie in the upper left quarter" in report.table()
    assert not align_folder(tmp_path / "in", tmp_path / "b", table(FACE)).warnings


def test_the_same_points_for_all_images_are_a_warning(tmp_path):
    write_photographs(tmp_path / "in", NAMES)
    same = dict.fromkeys(NAMES, FACE)
    told = refuse_wrong_landmarks(same, tmp_path / "in", "my.txt")
    assert told == "my.txt: all 6 images have the same landmarks: look at some crops"
    assert refuse_wrong_landmarks(dict.fromkeys(NAMES[:3], FACE), tmp_path / "in", "my.txt") == ""
    with pytest.raises(UserError, match="outside the image"):
        refuse_wrong_landmarks(dict.fromkeys(NAMES, FACE * 2), tmp_path / "in", "my.txt")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1e300, -1.7e308, np.inf, np.nan, 1e8])
@pytest.mark.parametrize("count", [1, 4, 6])
def test_huge_numbers_are_refused_without_a_warning_of_numpy(tmp_path, value, count):
    write_photographs(tmp_path / "in", NAMES)
    points = dict(table(FACE).points)
    for name in NAMES[:count]:
        points[name] = FACE.copy()
        points[name][1, 0] = value
    if count == 1:
        report = align_folder(tmp_path / "in", tmp_path / "out", LandmarkTable(points, ""))
        assert [failure.file for failure in report.failures] == NAMES[:1]
    else:
        with pytest.raises(UserError, match="they are not finite, or over 10,000,000"):
            align_folder(tmp_path / "in", tmp_path / "out", LandmarkTable(points, ""))


@pytest.mark.parametrize("degrees", [100, -110])
def test_faces_that_lie_are_refused_as_a_file_but_not_as_an_image(tmp_path, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    lying = (FACE - [80, 80]) @ np.array([[c, s], [-s, c]]) + [80, 80]
    write_photographs(tmp_path / "in", NAMES)
    with pytest.raises(UserError, match="or turn the images upright"):
        refuse_wrong_landmarks(table(lying).points, tmp_path / "in", "x")
    one = {**table(FACE).points, "0.png": lying}
    assert align_folder(tmp_path / "in", tmp_path / "out", LandmarkTable(one, "")).aligned == 6


def test_images_that_cannot_be_opened_are_not_judged_by_their_size(tmp_path):
    assert refuse_wrong_landmarks({"none.jpg": FACE * 2}, tmp_path, "x") == ""
    assert refuse_wrong_landmarks({}, tmp_path, "x") == ""


def test_noise_of_a_detector_does_not_change_the_name():
    rng = np.random.default_rng(1)
    noisy = FACE + rng.normal(0, 3, (50, 5, 2))
    for name, order in (
        ("right eye, left eye, nose tip, right mouth", [1, 0, 2, 4, 3]),
        ("nose tip, left eye", [2, 0, 1, 3, 4]),
    ):
        assert name in likely_order(noisy[:, order])


def write_sideways(folder, names, orientation):
    """Write images that EXIF turns, and return the points of FACE in the pixels before it does."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = np.random.default_rng(0).integers(0, 256, (18, 20, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    stored = np.rot90(shown, {3: 2, 6: 1, 8: -1}[orientation])
    for name in names:
        Image.fromarray(stored).save(folder / name, exif=exif, quality=95, subsampling=0)
        decoded = cv2.imread(str(folder / name))[..., ::-1]
        assert np.abs(decoded.astype(int) - shown).mean() < 9
    x, y = FACE.T
    return np.stack({3: [199 - x, 179 - y], 6: [y, 199 - x], 8: [179 - y, x]}[orientation], axis=1)


@pytest.mark.parametrize("orientation", [6, 8])
def test_landmarks_of_a_program_that_ignores_exif_are_a_warning(tmp_path, orientation):
    names = [f"{k}.jpg" for k in range(9)]
    write_photographs(tmp_path / "in", names)
    before = write_sideways(tmp_path / "in", names[5:8], orientation)
    table = LandmarkTable(dict.fromkeys(names, FACE) | dict.fromkeys(names[5:8], before), "d", source="my.txt")
    report = align_folder(tmp_path / "in", tmp_path / "out", table)
    assert report.aligned == 9
    told = [warning for warning in report.warnings if "EXIF" in warning]
    assert told == [
        "my.txt: the landmarks of 3 images look as if found before EXIF data turned the image, so the face lies on its "
        "side, e.g. 5.jpg · look at the crops, and give landmarks of the turned image"
    ]


@pytest.mark.parametrize(
    ("orientations", "suffix"),
    [([6] * 9, "jpg"), ([8] * 5 + [1] * 4, "jpg"), ([6, 8, 3] * 3, "jpg"), ([3] * 9, "jpg"), ([6] * 9, "png")],
)
def test_most_landmarks_of_a_program_that_ignores_exif_are_refused_by_that_name(tmp_path, orientations, suffix):
    """An order fits them too: without the mouth's and the eyes' own places, no face would be in its crop."""
    points = {}
    for number, orientation in enumerate(orientations):
        name = f"{number}.{suffix}"
        write_photographs(tmp_path, [name])
        points[name] = FACE if orientation == 1 else write_sideways(tmp_path, [name], orientation)
    count = sum(orientation != 1 for orientation in orientations)
    with pytest.raises(UserError) as error:
        refuse_wrong_landmarks(points, tmp_path, "my.txt")
    assert str(error.value).startswith(f"my.txt: the landmarks of {count} of 9 images are unlike a face (median ")
    said = (
        f"they look as if found before EXIF data turned the image, e.g. 0.{suffix}: give landmarks of the turned image"
    )
    assert str(error.value).endswith(f" · {said}")


def test_an_order_is_named_although_exif_turns_the_images(tmp_path):
    """With EXIF 6 in all images, one of these orders is a turned face as well."""
    names = [f"{k}.jpg" for k in range(9)]
    write_sideways(tmp_path, names, 8)
    for told, numbers in ORDERS.items():
        with pytest.raises(UserError, match=re.escape(told)):
            refuse_wrong_landmarks(dict.fromkeys(names, np.reshape(numbers, (5, 2))), tmp_path, "my.txt")
    before = write_sideways(tmp_path, names, 6)
    write_photographs(tmp_path, names[:5])
    with pytest.raises(UserError, match="rewrite them"):  # five are turned without EXIF data
        refuse_wrong_landmarks(dict.fromkeys(names, before), tmp_path, "my.txt")


def test_people_who_lie_are_no_warning_about_exif(tmp_path):
    """EXIF data turn 5.jpg to 8.jpg; in landmarks of the turned images, some people lie."""
    names = [f"{k}.jpg" for k in range(9)]
    write_photographs(tmp_path, names)
    one_side = write_sideways(tmp_path, names[5:], 6)
    other_side = 180 - one_side

    def told(*lying, side=one_side):
        return warn_of_exif(dict.fromkeys(names, FACE) | dict.fromkeys(lying, side), tmp_path, "my.txt") != ""

    assert not told()
    assert not told("1.jpg", "2.jpg")
    assert not told("5.jpg", "6.jpg")  # 7.jpg and 8.jpg are upright
    assert not told(*names[5:], side=other_side)
    turned = (one_side[:, 0] + 1j * one_side[:, 1] - (90 + 90j)) * np.exp(-1j * np.radians(60))
    assert not told(*names[5:], side=np.stack([turned.real, turned.imag], axis=1))  # 150 degrees: refused one by one
    assert told("5.jpg", "6.jpg", "7.jpg")
    assert warn_of_exif({}, tmp_path, "my.txt") == ""


def test_damaged_exif_data_turn_nothing(tmp_path):
    before = write_sideways(tmp_path, ["0.jpg"], 6)
    data = (tmp_path / "0.jpg").read_bytes()
    start = data.index(b"Exif") + 6
    assert warn_of_exif({"0.jpg": before}, tmp_path, "my.txt")
    for end in range(start, start + 19):  # before the value of the orientation
        for rest in (b"", b"\0" * 40, b"\xff" * 40):
            (tmp_path / "0.jpg").write_bytes(data[:end] + rest)
            assert warn_of_exif({"0.jpg": before}, tmp_path, "my.txt") == ""
    (tmp_path / "0.jpg").unlink()
    assert warn_of_exif({"0.jpg": before}, tmp_path, "my.txt") == ""
