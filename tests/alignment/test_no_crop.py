"""After a run that made no crop, other settings may use the folder; crops are never mixed."""

from __future__ import annotations

import json

import pytest

from sphereface.alignment.align import DEFAULT_SPEC, Landmarks, align_folder
from sphereface.alignment.crop import CropSpec, Finder
from sphereface.alignment.landmarks import LandmarkTable
from sphereface.alignment.similarity import template
from sphereface.errors import UserError
from tests.alignment.faces import ByColour, DiesAfter, encode

FACE = template() + 20
NAMES = [f"a/{number}.png" for number in range(3)]
MISNAMED = LandmarkTable({name.removeprefix("a/"): FACE for name in NAMES}, "first")
RIGHT = LandmarkTable(dict.fromkeys(NAMES, FACE), "second")
NO_FACE = Landmarks(finder=Finder(ByColour()))
CENTRE = Landmarks(finder=Finder(ByColour()), centre=True)
REFUSED = r"out: holds crops of other settings \(.+\) · give another folder"


@pytest.fixture
def source(tmp_path):
    """Photographs without a face."""
    for seed, name in enumerate(NAMES):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(ByColour.image((140, 150), [], seed=seed), ".png"))
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def crops_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jpg")}


def fails(source, out, landmarks, spec=DEFAULT_SPEC):
    with pytest.raises(UserError, match="none of 3 images could be aligned"):
        align_folder(source, out, landmarks, spec)
    assert crops_of(out) == {}


@pytest.mark.parametrize(
    ("first", "second", "spec"),
    [
        (MISNAMED, RIGHT, CropSpec()),
        (MISNAMED, RIGHT, CropSpec(size=(112, 112))),
        (NO_FACE, CENTRE, CropSpec()),
        (NO_FACE, RIGHT, CropSpec()),
        (MISNAMED, CENTRE, CropSpec(quality=90)),
    ],
    ids=["another table", "another size", "a substitute", "a table instead", "a detector instead"],
)
def test_the_corrected_command_runs_as_in_an_empty_folder(source, out, tmp_path, first, second, spec):
    fails(source, out, first)
    report = align_folder(source, out, second, spec)
    align_folder(source, tmp_path / "empty", second, spec)
    assert crops_of(out) == crops_of(tmp_path / "empty")
    assert sorted(crops_of(out)) == ["a/0.jpg", "a/1.jpg", "a/2.jpg"]
    assert (report.crops, report.earlier_crops, report.warnings) == (3, {}, [])
    settings = [json.loads((each / "align-report.json").read_text())["settings"] for each in (out, tmp_path / "empty")]
    assert settings[0] == settings[1]
    with pytest.raises(UserError, match=REFUSED):
        align_folder(source, out, first)


def test_no_crop_counts_as_missing_if_the_folder_of_photographs_was_wrong_too(source, out):
    """The second table names images that the first run knew neither as images nor as failures."""
    fails(source / "a", out, LandmarkTable({"x.png": FACE}, "first"))
    assert align_folder(source, out, RIGHT).earlier_crops == {}


def test_several_corrections_may_follow_each_other(source, out):
    fails(source, out, MISNAMED)
    fails(source, out, NO_FACE)
    fails(source, out, NO_FACE, CropSpec(origin=1))
    assert align_folder(source, out, CENTRE).crops == 3


@pytest.mark.parametrize("second", [RIGHT, CENTRE], ids=["table", "centre"])
def test_a_run_that_was_stopped_keeps_its_settings(source, out, second):
    with pytest.raises(KeyboardInterrupt):
        align_folder(source, out, Landmarks(finder=Finder(DiesAfter(1))))
    assert not crops_of(out)
    with pytest.raises(UserError, match=REFUSED):
        align_folder(source, out, second)
    fails(source, out, NO_FACE)
    assert align_folder(source, out, second).crops == 3


@pytest.mark.parametrize("first", [LandmarkTable(RIGHT.points, "first"), CENTRE], ids=["table", "centre"])
@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_crops_that_were_made_and_taken_away_keep_their_settings(source, out, tmp_path, first, how):
    align_folder(source, out, first)
    for crop in (out / "a").iterdir():
        crop.unlink() if how == "deleted" else crop.rename(tmp_path / crop.name)
    with pytest.raises(UserError, match=REFUSED):
        align_folder(source, out, RIGHT)


def test_crops_that_no_longer_have_a_readable_image_keep_their_settings(source, out):
    """The last run made and kept none, but the crops of the first one are there."""
    align_folder(source, out, CENTRE)
    crops = crops_of(out)
    for name in NAMES:
        (source / name).write_bytes(b"")
    with pytest.raises(UserError, match="none of 3 images could be aligned"):
        align_folder(source, out, CENTRE)
    assert crops_of(out) == crops
    with pytest.raises(UserError, match=REFUSED):
        align_folder(source, out, NO_FACE)


def test_a_crop_by_hand_or_a_landmark_file_keeps_the_folder(source, out):
    for name in ("a/1.jpg", "landmarks.txt"):
        fails(source, out, MISNAMED)
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"by hand")
        with pytest.raises(UserError, match=REFUSED):
            align_folder(source, out, CENTRE)
        assert (out / name).read_bytes() == b"by hand"
        (out / name).unlink()
    assert align_folder(source, out, CENTRE).crops == 3


@pytest.mark.parametrize("count", ["aligned", "kept", "fallback"])
@pytest.mark.parametrize("value", [1, None, "0", []])
def test_a_report_that_does_not_say_so_keeps_the_folder(source, out, count, value):
    fails(source, out, MISNAMED)
    path = out / "align-report.json"
    report = json.loads(path.read_text())
    assert [report[key] for key in ("aligned", "kept", "fallback")] == [0, 0, 0]
    path.write_text(json.dumps(report | {count: value}))
    with pytest.raises(UserError, match=REFUSED):
        align_folder(source, out, RIGHT)
