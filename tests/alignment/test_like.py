"""Crops aligned like others whose making is not known: ``--like``."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from sphereface.alignment import like
from sphereface.alignment.align import align_folder
from sphereface.alignment.crop import CropSpec, Finder, centre_points
from sphereface.alignment.landmarks import read_landmarks
from sphereface.alignment.like import measure_template
from sphereface.alignment.similarity import align, template
from sphereface.cli import run_command
from sphereface.commands import align as command
from sphereface.errors import UserError
from tests.alignment.faces import SHIFT, ByColour, encode, smooth, write_photographs

FINDER = Finder(ByColour())


def write_crops(folder, middles, size=(112, 96)):
    folder.mkdir(parents=True, exist_ok=True)
    for k, middle in enumerate(middles):
        (folder / f"{k:03d}.png").write_bytes(encode(ByColour.image(size, [middle], seed=k), ".png"))
    return folder


def test_the_template_is_the_median_of_what_is_found(tmp_path):
    middles = [(45, 60)] * 11 + [(47, 66)] * 10 + [(20, 20)] * 2  # by hand: x 20 20 45×11 47×10, y 20 20 60×11 66×10
    measured = measure_template(write_crops(tmp_path / "crops", middles), FINDER)
    expected = [45, 60] + (template() - template().mean(axis=0)) / 4
    np.testing.assert_allclose(measured.points, expected, atol=0.011)  # hundredths, twice
    assert (measured.size, measured.found, measured.searched) == ((112, 96), 23, 23)


def test_crops_without_a_face_or_unreadable_are_passed_over(tmp_path):
    crops = write_crops(tmp_path / "crops", [(45, 60)] * 20)
    (crops / "none.png").write_bytes(encode(ByColour.image((112, 96), []), ".png"))
    (crops / "empty.png").write_bytes(b"")
    measured = measure_template(crops, FINDER)
    assert (measured.found, measured.searched) == (20, 22)


def test_those_looked_at_are_spread_over_the_folder(tmp_path):
    crops = write_crops(tmp_path / "crops", [(30 + k // 2, 50) for k in range(60)])
    looked_at = measure_template(crops, FINDER, count=20)
    assert looked_at.searched == 20
    everything = measure_template(crops, FINDER)
    assert abs(looked_at.points[0][0] - everything.points[0][0]) < 1  # the first 20 would be 10 pixels further left


@pytest.mark.parametrize(
    ("shift", "text"),
    [
        ((-2.2, -2.3), "2.2 pixels left of the template, 2.3 above, 1.000"),
        ((3, 1.5), "3.0 pixels right of the template, 1.5 be"),
    ],
)
def test_what_is_told(shift, text):
    points = tuple((float(x), float(y)) for x, y in template() + shift)
    assert text in like.MeasuredTemplate((112, 96), points, 20, 20).describe()


def test_scale_is_told_and_an_unknown_size_has_nothing_to_be_held_against():
    points = tuple((float(x), float(y)) for x, y in template() * 1.25)
    assert "1.250 times as large" in like.MeasuredTemplate((112, 96), points, 20, 20).describe()
    assert like.MeasuredTemplate((128, 128), points, 20, 21).describe().endswith("(20 of 21 crops)")


def test_landmarks_are_brought_to_the_target():
    image = smooth(np.random.default_rng(3), 224)
    moved = align(image, template() + np.array([40, 70]), target=template() - [2, 3])
    assert np.array_equal(moved, image[73:185, 42:138])
    wide = align(image, template() + np.array([40, 70]), size=(100, 90), target=template())  # a size without a template
    assert np.array_equal(wide, image[70:170, 40:130])
    with pytest.raises(ValueError, match="size"):
        align(image, template(), size=(100, 90))


def test_a_folder_becomes_like_displaced_crops(tmp_path):
    landmarks = write_photographs(tmp_path / "photographs", [f"{k}.png" for k in range(3)])
    displaced = template() - [2, 3]
    spec = CropSpec(quality=100, target=tuple(map(tuple, displaced.tolist())))
    align_folder(tmp_path / "photographs", tmp_path / "crops", read_landmarks(landmarks), spec)
    x, y = SHIFT[0] + 2, SHIFT[1] + 3
    for k in range(3):
        image = cv2.imread(str(tmp_path / f"photographs/{k}.png")).astype(int)
        crop = cv2.imread(str(tmp_path / f"crops/{k}.jpg")).astype(int)
        assert np.abs(crop - image[y : y + 112, x : x + 96]).mean() < 1  # JPEG's share
    settings = json.loads((tmp_path / "crops/align-report.json").read_text())["settings"]
    assert settings["template"].startswith("28.2946,48.6963 ")
    with pytest.raises(UserError, match="holds crops of other settings \\(template 28.*now none"):
        align_folder(tmp_path / "photographs", tmp_path / "crops", read_landmarks(landmarks), CropSpec(quality=100))


def test_the_middle_of_an_image_stays_its_middle():
    spec = CropSpec(target=tuple(map(tuple, (template() - [2, 3]).tolist())))
    image = smooth(np.random.default_rng(4), 224)
    crop = align(image, centre_points(224, 192, spec), target=spec.landmarks)
    expected = align(image, centre_points(224, 192, CropSpec()))
    assert np.abs(crop.astype(int) - expected).max() <= 1


def test_the_command_measures_then_aligns(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "Mtcnn", ByColour)
    crops = write_crops(tmp_path / "crops", [(45, 60)] * 20)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for k in range(3):
        image = ByColour.image((200, 200), [(90 + k, 100)], seed=k)
        (photographs / f"{k}.png").write_bytes(encode(image, ".png"))
    arguments = ["--detector", "mtcnn", "--like", str(crops), "--workers", "0", str(photographs)]
    assert run_command("align", [*arguments, str(tmp_path / "out")]) == 0
    assert "crops of 112×96, landmarks at 40.6,55.0 " in capsys.readouterr().out
    again = [ByColour()(cv2.imread(str(tmp_path / f"out/{k}.jpg"))).points for k in range(3)]
    for points in again:
        np.testing.assert_allclose(points[0].mean(axis=0), [45, 60], atol=0.6)
    # The folder has grown: its median is elsewhere, by a whole pixel as these squares are.
    write_crops(crops, [(45, 60)] * 20 + [(46, 60)] * 22)
    monkeypatch.setattr(like, "_SAME", 1.1)
    assert run_command("align", [*arguments, str(tmp_path / "out")]) == 0  # and nothing is refused
    with pytest.raises(UserError, match="missing: not a folder"):  # before any crop is searched
        run_command("align", [*arguments[:-1], str(tmp_path / "missing"), str(tmp_path / "other")])
    for option in (["--size", "112x96"], ["--template-origin", "0"]):
        with pytest.raises(UserError, match=f"{option[0]}: got {option[1]} with --like"):
            run_command("align", [*arguments, *option, str(tmp_path / "other")])


@pytest.mark.parametrize(
    ("middles", "more", "message"),
    [
        ([(45, 60)] * 19, [], "a face was found in 19 of 19 images · allowed: 20 or more · give a folder of more"),
        (
            [(15 + 3 * k % 70, 20 + 4 * k % 75) for k in range(30)],
            [],
            "landmarks lie .* give a folder of aligned crops",
        ),
        ([(45, 60)] * 30, [(200, 180)], r"several sizes \(000.png 112×96, x0.png 200×180\)"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, middles, more, message):
    crops = write_crops(tmp_path / "crops", middles)
    for k, size in enumerate(more):
        (crops / f"x{k}.png").write_bytes(encode(ByColour.image(size, [(45, 60)]), ".png"))
    with pytest.raises(UserError, match=message):
        measure_template(crops, FINDER)


def test_unreadable_crops_are_told(tmp_path):
    crops = write_crops(tmp_path / "crops", [(45, 60)] * 19)
    for name in ("a.png", "b.png"):
        (crops / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"found in 19 of 21 images \(2 unreadable, the first a.png: "):
        measure_template(crops, FINDER)


def test_an_aligned_folder_goes_on_with_its_template():
    points = tuple((float(x), float(y)) for x, y in template())
    measured = like.MeasuredTemplate((112, 96), points, 20, 20)
    assert like.template_for_resume(measured, None) is measured
    assert like.template_for_resume(measured, {"size": "112x96"}) is measured
    near = [(x + 0.4, y - 0.4) for x, y in points]
    far = [(x + 0.6, y) for x, y in points]
    for other, same in ((near, True), (far, False)):
        earlier = {"size": "112x96", "template": " ".join(f"{x:.2f},{y:.2f}" for x, y in other)}
        went_on = like.template_for_resume(measured, earlier)
        np.testing.assert_allclose(went_on.points, other if same else points, atol=0.0051)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        measure_template(tmp_path / "none", FINDER)
