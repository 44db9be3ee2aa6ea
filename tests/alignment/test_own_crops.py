"""A later run deletes only crops that align made, and says what it replaces, deletes and keeps."""

from __future__ import annotations

import json
import shutil

import pytest

from sphereface.alignment.align import Landmarks, align_folder
from sphereface.alignment.crop import Finder
from sphereface.alignment.landmarks import LandmarkTable
from sphereface.alignment.report import Earlier
from sphereface.alignment.similarity import template
from tests.alignment.faces import ByColour, DiesAfter, correct, encode, line_of, shifted

FACE = template() + 20
DETECTED = Landmarks(finder=Finder(ByColour()))
BY_HAND = encode(ByColour.image((112, 96), [(48, 60)], seed=9), ".jpg")
KEPT = "crops that were kept, since no earlier run of align is known to have made them: 1, e.g. that of a/2.png"
DELETED = "crops that were deleted, since their images give none now: 1, e.g. that of a/1.png"
REPLACED = (
    "earlier crops that were replaced by different ones: 1, e.g. that of a/1.png · if you changed one by hand: correct "
    "the landmarks of its image instead"
)
UNREADABLE = "crops that were kept, since their images cannot be read now: 1, e.g. that of a/1.png"
MISSING = (
    "crops of an earlier run that were missing and are made again: 1, e.g. that of a/1.png · to leave out an image, "
    "delete or move the image itself, not its crop"
)
ALL = (KEPT, DELETED, REPLACED, UNREADABLE, MISSING)


def photograph(*faces, seed=0, suffix=".png"):
    return encode(ByColour.image((140, 150), list(faces), seed=seed), suffix)


ONE, OTHER, NONE, TWO = photograph((60, 70)), photograph((80, 60)), photograph(), photograph((60, 70), (120, 100))


@pytest.fixture
def source(tmp_path):
    """a/1.png has a face, a/2.png has none, a/3.png has one."""
    folder = tmp_path / "in/a"
    folder.mkdir(parents=True)
    for name, data in (("1.png", ONE), ("2.png", NONE), ("3.png", photograph((60, 70), seed=3))):
        (folder / name).write_bytes(data)
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def told(report):
    return [each for each in ALL if each in report.table()]


def kept(out, name, report):
    """Return whether the crop by hand is still there, and exactly this is said of that image alone."""
    assert report.earlier_crops == {Earlier.NOT_KNOWN: [name]}
    assert KEPT.replace("a/2.png", name) in report.table()
    return (out / name).with_suffix(".jpg").read_bytes() == BY_HAND


def report_of(folder):
    return json.loads((folder / "align-report.json").read_text())


UNLIKE_A_FACE = {"a/1.png": FACE, "a/2.png": FACE[[1, 0, 2, 4, 3]], "a/3.png": FACE}
KINDS = {
    "no face": (DETECTED, NONE),
    "several faces": (Landmarks(finder=Finder(ByColour(), skip_several=True)), TWO),
    "landmarks": (Landmarks(LandmarkTable(UNLIKE_A_FACE, "d")), NONE),
}


@pytest.mark.parametrize("version", ["this", "earlier"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_by_hand_for_an_image_without_one_is_kept_by_every_run(source, out, kind, version):
    landmarks, second = KINDS[kind]
    (source / "a/2.png").write_bytes(second)
    assert told(align_folder(source, out, landmarks)) == []
    if version == "earlier":  # its reports had neither list
        content = report_of(out)
        del content["without_crop"], content["earlier_crops"]
        (out / "align-report.json").write_text(json.dumps(content))
    (out / "a/2.jpg").write_bytes(BY_HAND)
    for name in ("4.png", "5.png"):
        shutil.copy2(source / "a/3.png", source / "a" / name)
        report = align_folder(source, out, landmarks)
        assert told(report) == [KEPT]
        assert (out / "a/2.jpg").read_bytes() == BY_HAND
        assert "a/2.png" in {failure.file for failure in report.failures}
        assert report_of(out)["earlier_crops"] == {"kept, not known to be made by align": ["a/2.png"]}
    (out / "a/2.jpg").unlink()
    assert told(align_folder(source, out, landmarks)) == []


def test_it_is_kept_after_a_run_that_was_killed_and_one_without_its_image(source, out):
    align_folder(source, out, DETECTED)
    with pytest.raises(KeyboardInterrupt):
        align_folder(source, out, Landmarks(finder=Finder(DiesAfter(0))))
    assert report_of(out)["finished"] is False
    (source / "a/2.png").rename(source.parent / "away.png")
    align_folder(source, out, DETECTED)
    (source.parent / "away.png").rename(source / "a/2.png")
    (out / "a/2.jpg").write_bytes(BY_HAND)
    assert told(align_folder(source, out, DETECTED)) == [KEPT]
    assert (out / "a/2.jpg").read_bytes() == BY_HAND


def test_a_crop_that_align_made_goes_with_its_face_and_that_is_said(source, out):
    align_folder(source, out, DETECTED)
    (source / "a/1.png").write_bytes(NONE)
    assert told(align_folder(source, out, DETECTED)) == [DELETED]
    assert not (out / "a/1.jpg").exists()
    assert report_of(out)["earlier_crops"] == {"deleted": ["a/1.png"]}
    assert told(align_folder(source, out, DETECTED)) == []


def test_a_crop_that_align_made_since_counts_as_its_own(source, out):
    """a/2.png is replaced by an image with a face, and later by one without."""
    align_folder(source, out, DETECTED)
    for data, exists in ((OTHER, True), (NONE, False)):
        (source / "a/2.png").write_bytes(data)
        align_folder(source, out, DETECTED)
        assert (out / "a/2.jpg").exists() == exists


@pytest.mark.parametrize("data", [ONE[: len(ONE) // 2], b"no image", b""])
def test_the_crop_of_an_image_that_is_damaged_now_is_kept_until_it_can_be_read(source, out, data):
    align_folder(source, out, DETECTED)
    before = (out / "a/1.jpg").read_bytes()
    (source / "a/1.png").write_bytes(data)
    for _ in range(2):
        report = align_folder(source, out, DETECTED)
        assert told(report) == [UNREADABLE]
        assert report.failed_by_reason()["unreadable image"] == 1
        assert (out / "a/1.jpg").read_bytes() == before
    (source / "a/1.png").write_bytes(ONE)
    assert told(align_folder(source, out, DETECTED)) == []
    assert (out / "a/1.jpg").read_bytes() == before
    (source / "a/1.png").write_bytes(data)
    align_folder(source, out, DETECTED)
    (source / "a/1.png").write_bytes(NONE)  # now it is known to have no face
    assert told(align_folder(source, out, DETECTED)) == [DELETED]


@pytest.mark.parametrize("change", ["crop", "image", "line"])
def test_a_crop_that_is_replaced_by_a_different_one_is_said(source, out, change):
    align_folder(source, out, DETECTED)
    before = (out / "a/1.jpg").read_bytes()
    if change == "line":
        correct(out, "a/1.png", lambda line: shifted(line, 2))
    else:
        path, data = {"crop": (out / "a/1.jpg", BY_HAND), "image": (source / "a/1.png", OTHER)}[change]
        path.write_bytes(data)
    assert told(align_folder(source, out, DETECTED)) == [REPLACED]
    assert ((out / "a/1.jpg").read_bytes() == before) == (change == "crop")
    assert told(align_folder(source, out, DETECTED)) == []


@pytest.mark.parametrize("centre", [False, True])
def test_a_copy_of_the_folders_gives_the_same_crops_and_says_nothing(source, out, tmp_path, centre):
    landmarks = Landmarks(finder=Finder(ByColour()), centre=centre)
    align_folder(source, out, landmarks)
    for folder in (source, out):
        shutil.copytree(folder, tmp_path / "copy" / folder.name, copy_function=shutil.copyfile)
    report = align_folder(tmp_path / "copy/in", tmp_path / "copy/out", landmarks)
    assert (report.aligned, told(report)) == (2, [])


def test_a_centred_crop_that_was_changed_by_hand_is_replaced_and_that_is_said(source, out):
    landmarks = Landmarks(finder=Finder(ByColour()), centre=True)
    align_folder(source, out, landmarks)
    (out / "a/2.jpg").write_bytes(BY_HAND)
    assert report_of(out)["earlier_crops"] == {}
    assert REPLACED.replace("a/1", "a/2") in align_folder(source, out, landmarks).table()
    assert report_of(out)["without_crop"] == []


def test_a_crop_by_hand_that_comes_together_with_its_image_is_kept(source, out):
    align_folder(source, out, DETECTED)
    (source / "a/9.png").write_bytes(NONE)
    (out / "a/9.jpg").write_bytes(BY_HAND)
    for _ in range(2):
        assert kept(out, "a/9.png", align_folder(source, out, DETECTED))


@pytest.mark.parametrize(("old", "new"), [("a", "b"), ("Jose\u0301", "Jos\u00e9")])
def test_a_crop_by_hand_is_kept_when_its_folders_are_renamed(source, out, old, new):
    (source / "a").rename(source / old)
    align_folder(source, out, DETECTED)
    (out / old / "2.jpg").write_bytes(BY_HAND)
    for folder in (source, out):
        (folder / old).rename(folder / new)
    for _ in range(2):
        assert kept(out, f"{new}/2.png", align_folder(source, out, DETECTED))


def test_a_crop_by_hand_is_kept_when_its_image_gets_another_suffix(source, out):
    align_folder(source, out, DETECTED)
    (out / "a/2.jpg").write_bytes(BY_HAND)
    align_folder(source, out, DETECTED)
    (source / "a/2.png").unlink()
    (source / "a/2.bmp").write_bytes(photograph(suffix=".bmp"))
    assert kept(out, "a/2.bmp", align_folder(source, out, DETECTED))


@pytest.mark.parametrize("states", [["damaged", "by hand", "damaged"], ["whole", "damaged", "by hand"]])
def test_a_crop_by_hand_is_kept_when_its_damaged_image_is_repaired(source, out, states):
    for state in states:
        if state == "by hand":
            (out / "a/2.jpg").write_bytes(BY_HAND)
        else:
            (source / "a/2.png").write_bytes(NONE if state == "whole" else b"no image")
            report = align_folder(source, out, DETECTED)
            assert told(report) == ([KEPT] if (out / "a/2.jpg").exists() else [])
    (source / "a/2.png").write_bytes(NONE)
    assert kept(out, "a/2.png", align_folder(source, out, DETECTED))


def test_a_crop_by_hand_is_kept_after_a_first_run_that_was_killed(source, out):
    with pytest.raises(KeyboardInterrupt):
        align_folder(source, out, Landmarks(finder=Finder(DiesAfter(2))))
    (out / "a/2.jpg").write_bytes(BY_HAND)
    assert kept(out, "a/2.png", align_folder(source, out, DETECTED))


def test_a_crop_by_hand_is_kept_beside_a_line_that_somebody_corrected_or_added(source, out):
    """The corrected line of an image that was replaced stays; a line that fits no face gives no crop."""
    align_folder(source, out, DETECTED)
    correct(out, "a/1.png", lambda line: shifted(line, 2))
    align_folder(source, out, DETECTED)
    (source / "a/1.png").write_bytes(NONE)
    assert told(align_folder(source, out, DETECTED)) == [DELETED]
    assert line_of(out, "a/1.png")
    (out / "a/1.jpg").write_bytes(BY_HAND)
    with pytest.raises(KeyboardInterrupt):
        align_folder(source, out, Landmarks(finder=Finder(DiesAfter(0))))
    assert kept(out, "a/1.png", align_folder(source, out, DETECTED))
    (out / "a/1.jpg").unlink()
    with (out / "landmarks.txt").open("a", encoding="utf-8") as file:
        file.write("\t".join(["a/2.png", *map(str, UNLIKE_A_FACE["a/2.png"].ravel())]) + "\n")
    (out / "a/2.jpg").write_bytes(BY_HAND)
    for _ in range(2):
        assert kept(out, "a/2.png", align_folder(source, out, DETECTED))


@pytest.mark.parametrize("lost", [["landmarks.txt"], ["landmarks.txt", ".landmarks.txt"]])
def test_a_crop_of_align_is_kept_if_nothing_says_any_more_who_made_it(source, out, lost):
    align_folder(source, out, DETECTED)
    for name in lost:
        (out / name).unlink()
    (source / "a/1.png").write_bytes(NONE)
    report = align_folder(source, out, DETECTED)
    if len(lost) == 1:  # the copy says it
        assert told(report) == [DELETED]
    else:
        assert report.earlier_crops == {Earlier.NOT_KNOWN: ["a/1.png"]}
        assert (out / "a/1.jpg").exists()


def test_a_crop_of_a_killed_run_goes_with_its_face(source, out):
    align_folder(source, out, DETECTED)
    (source / "a/2.png").write_bytes(OTHER)
    for name in ("4.png", "5.png", "6.png"):  # the crop is in one chunk, and the end in another
        shutil.copy2(source / "a/3.png", source / "a" / name)
    with pytest.raises(KeyboardInterrupt):
        align_folder(source, out, Landmarks(finder=Finder(DiesAfter(2))))
    assert (out / "a/2.jpg").exists()
    (source / "a/2.png").write_bytes(NONE)
    assert DELETED.replace("a/1", "a/2") in align_folder(source, out, DETECTED).table()
    assert not (out / "a/2.jpg").exists()


TABLE = {"a/1.png": FACE, "a/2.bmp": FACE[[1, 0, 2, 4, 3]], "a/2.png": FACE, "a/3.png": FACE}


@pytest.mark.parametrize("landmarks", [DETECTED, Landmarks(LandmarkTable(TABLE, "d"))], ids=["detector", "table"])
def test_a_crop_of_align_goes_when_the_image_of_another_suffix_returns(source, out, landmarks):
    for suffix, faces in ((".bmp", []), (".png", [(80, 60)]), (".bmp", [])):
        for old in (source / "a").glob("2.*"):
            old.unlink()
        (source / f"a/2{suffix}").write_bytes(photograph(*faces, suffix=suffix))
        report = align_folder(source, out, landmarks)
        assert (out / "a/2.jpg").exists() == bool(faces)
    assert report.earlier_crops == {Earlier.DELETED: ["a/2.bmp"]}


def test_an_image_without_landmarks_leaves_the_crop_to_that_of_another_suffix(source, out):
    """a/2.bmp has no landmarks and is not tried; a/2.png gives the crop, and then has no room for its face."""
    (source / "a/2.bmp").write_bytes(photograph(suffix=".bmp"))
    landmarks = Landmarks(LandmarkTable(dict.fromkeys(("a/1.png", "a/2.png", "a/3.png"), FACE), "d"))
    align_folder(source, out, landmarks)
    assert (out / "a/2.jpg").exists()
    (source / "a/2.png").write_bytes(encode(ByColour.image((30, 30), []), ".png"))
    assert align_folder(source, out, landmarks).earlier_crops == {Earlier.DELETED: ["a/2.png"]}
    assert not (out / "a/2.jpg").exists()


BY_TABLE = Landmarks(LandmarkTable({name: FACE for name in TABLE if name != "a/2.bmp"}, "d"))
MODES = pytest.mark.parametrize("landmarks", [DETECTED, BY_TABLE], ids=["detector", "table"])


@MODES
@pytest.mark.parametrize("how", ["deleted", "moved", "with its folder", "all but the report"])
def test_a_missing_crop_that_an_earlier_run_made_is_made_again_and_that_is_said(source, out, landmarks, how):
    (source / "a/2.png").write_bytes(OTHER)
    (source / "b").mkdir()
    shutil.copy2(source / "a/3.png", source / "b/1.png")
    landmarks = Landmarks(landmarks.table, landmarks.finder, centre=True)
    align_folder(source, out, landmarks)
    names = {
        "deleted": ["1"],
        "moved": ["1"],
        "with its folder": ["1", "2", "3"],
        "all but the report": ["1", "2", "3"],
    }
    gone = [f"a/{name}.png" for name in names[how]] + ["b/1.png"] * (how == "all but the report")
    for name in gone:
        crop = (out / name).with_suffix(".jpg")
        crop.rename(out / "b/9.jpg") if how == "moved" else crop.unlink()
    if how not in ("deleted", "moved"):
        (out / "a").rmdir()
    shutil.copy2(source / "a/3.png", source / "b/2.png")  # a new image is none of them
    report = align_folder(source, out, landmarks)
    assert MISSING.replace(": 1, e.g.", f": {len(gone)}, e.g.") in report.table()
    assert report.earlier_crops == {Earlier.MISSING: gone}
    assert report_of(out)["earlier_crops"] == {"missing, made again": gone}
    assert all((out / name).with_suffix(".jpg").exists() for name in gone)
    assert align_folder(source, out, landmarks).earlier_crops == {}


@MODES
def test_a_crop_that_no_run_made_is_not_missing(source, out, landmarks):
    """The run of a/1.png is killed; a/2.png is damaged, then has no crop, then one; a/4.png is new."""
    (source / "a/2.png").write_bytes(b"no image")
    assert align_folder(source, out, landmarks).earlier_crops == {}
    for path in (out / "a/1.jpg", out / "landmarks.txt", out / ".landmarks.txt"):
        path.unlink(missing_ok=True)
    (out / "align-report.json").write_text(json.dumps(report_of(out) | {"finished": False}))  # as after a first run
    assert align_folder(source, out, landmarks).earlier_crops == {}
    small = encode(ByColour.image((30, 30), []), ".png")  # no room for the face
    for data in (small, OTHER):
        (source / "a/2.png").write_bytes(data)
        shutil.copy2(source / "a/3.png", source / "a/4.png")
        assert align_folder(source, out, landmarks).earlier_crops == {}
    assert (out / "a/2.jpg").exists()


def test_a_substitute_crop_of_an_image_without_landmarks_can_be_missing(source, out):
    table = LandmarkTable({"a/1.png": FACE, "a/3.png": FACE}, "d")
    align_folder(source, out, Landmarks(table, centre=True))
    (out / "a/2.jpg").unlink()
    shutil.copy2(source / "a/2.png", source / "a/5.png")  # nothing says that an image without landmarks is new
    assert align_folder(source, out, Landmarks(table, centre=True)).earlier_crops == {Earlier.MISSING: ["a/2.png"]}


def test_the_line_of_an_image_that_comes_later_has_no_missing_crop(source, out):
    table = LandmarkTable({**BY_TABLE.table.points, "a/8.png": FACE}, "d")
    align_folder(source, out, Landmarks(table))
    shutil.copy2(source / "a/3.png", source / "a/8.png")
    assert align_folder(source, out, Landmarks(table)).earlier_crops == {}


@pytest.mark.parametrize("name", ["", ".", "/", "..", "a/"])
def test_a_report_of_a_stranger_may_hold_names_that_are_no_files(source, out, name):
    align_folder(source, out, DETECTED)
    content = report_of(out)
    content |= {"without_crop": [name], "earlier_crops": {"kept, image unreadable": [name]}}
    (out / "align-report.json").write_text(json.dumps(content))
    assert told(align_folder(source, out, DETECTED)) == []
