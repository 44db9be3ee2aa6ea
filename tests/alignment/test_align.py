from __future__ import annotations

import json
import os
import time
import unicodedata

import cv2
import numpy as np
import pytest

from sphereface.alignment.align import Landmarks, align_folder
from sphereface.alignment.crop import CropSpec
from sphereface.alignment.landmarks import LandmarkTable, named_as, read_landmarks
from sphereface.alignment.similarity import template
from sphereface.errors import UserError
from tests.alignment.faces import SHIFT, write_photographs

NAMES = ["ann/ann_0001.jpg", "ann/ann_0002.JPEG", "bob b/1.png", "top.bmp"]
CROPS = ["ann/ann_0001.jpg", "ann/ann_0002.jpg", "bob b/1.jpg", "top.jpg"]


@pytest.fixture
def source(tmp_path):
    write_photographs(tmp_path / "photographs", NAMES)
    return tmp_path / "photographs"


@pytest.fixture
def landmarks(source):
    return read_landmarks(source.with_name("landmarks.txt"))


@pytest.fixture
def crops(tmp_path):
    return tmp_path / "crops"


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def failures(report):
    return {failure.file: (failure.reason, failure.detail) for failure in report.failures}


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_becomes_a_crop(source, landmarks, crops, workers):
    report = align_folder(source, crops, landmarks, workers=workers)
    assert (report.aligned, report.kept, report.failures) == (4, 0, [])
    assert files(crops) == sorted([*CROPS, "align-report.json"])
    for name, crop_name in zip(NAMES, CROPS, strict=True):
        crop, image = cv2.imread(str(crops / crop_name)), cv2.imread(str(source / name))
        x, y = SHIFT
        assert crop.shape == (112, 96, 3)
        assert np.abs(crop.astype(int) - image[y : y + 112, x : x + 96]).mean() < 4  # JPEG's loss


def test_other_forms_of_a_name_mean_the_image(source, landmarks, crops, tmp_path):
    decomposed = unicodedata.normalize("NFD", "josé.png")
    (source / "top.bmp").rename(source / "josé.png")
    wanted = [NAMES[0], NAMES[1], NAMES[2], "josé.png"]
    forms = ["./ann/ann_0001.jpg", "ann\\ann_0002.JPEG", ".\\bob b//1.png", decomposed]
    points = dict(zip(forms, landmarks.points.values(), strict=True))
    report = align_folder(source, crops, LandmarkTable(points, "0" * 64))
    assert (report.aligned, report.failures) == (4, [])
    other = align_folder(source, tmp_path / "by-centre", Landmarks(other=LandmarkTable(points, "0" * 64), centre=True))
    assert not other.failures
    named = named_as(LandmarkTable(points, "", scores=dict.fromkeys(forms, 0.5)), wanted, source)
    assert (list(named.points), list(named.scores)) == (wanted, wanted)
    same = LandmarkTable(dict.fromkeys(wanted, points[forms[0]]), "")
    assert named_as(same, wanted, source) is same
    points[NAMES[0]] = points[forms[0]]
    with pytest.raises(
        UserError, match=r"landmarks: got lines for \./ann/ann_0001.jpg and ann/ann_0001.jpg, which are"
    ):
        align_folder(source, tmp_path / "double", LandmarkTable(points, "0" * 64))
    assert not (tmp_path / "double").exists()


def test_absolute_paths_mean_images_inside_the_folder(source, landmarks, crops, tmp_path):
    (tmp_path / "link").symlink_to(source)
    folders = [source, tmp_path / "link", source / "ann" / "..", source]
    points = {f"{folder}/{name}": landmarks.points[name] for folder, name in zip(folders, NAMES, strict=True)}
    report = align_folder(source, crops, LandmarkTable(points, "0" * 64))
    assert (report.aligned, report.failures) == (4, [])
    points[f"{source}-other/1.jpg"] = points["/etc/2.jpg"] = template()
    with pytest.raises(
        UserError,
        match=r"^landmarks: 2 of 6 lines have an absolute path outside .*photographs, such "
        r"as '.*photographs-other/1.jpg' · allowed: names relative to that folder, or abs.*inside it$",
    ):
        align_folder(source, tmp_path / "outside", LandmarkTable(points, "0" * 64))
    assert not (tmp_path / "outside").exists()


def test_a_name_of_no_image_comes_with_the_likely_image(source, landmarks, crops, tmp_path):
    points = landmarks.points
    names = {"ann/ann_0001.png": NAMES[0], "x/top.bmp": NAMES[3], "ANN_0002.jpg": NAMES[1], "gone/1.png": None}
    changed = {name: points[image or NAMES[2]] for name, image in names.items()} | {NAMES[2]: points[NAMES[2]]}
    report = align_folder(source, crops, LandmarkTable(changed, "0" * 64))
    told = {file: detail for file, (reason, detail) in failures(report).items() if "missing image" in reason}
    assert told == {name: f"did you mean {image}?" if image else "" for name, image in names.items()}
    only = {"ann/ann_0001.png": points[NAMES[0]]}
    with pytest.raises(
        UserError, match=r"none of 4 .* · the landmarks name ann/ann_0001.png: did you mean ann/ann_0001.jpg\? · see "
    ):
        align_folder(source, tmp_path / "none", LandmarkTable(only, ""))
    (source / "ann" / "ann_0001.bmp").write_bytes((source / "top.bmp").read_bytes())
    report = align_folder(source, tmp_path / "two", LandmarkTable(changed, "0" * 64))
    assert failures(report)["ann/ann_0001.png"] == ("landmarks for a missing image", "")


def test_size_origin_and_quality_are_used(source, landmarks, tmp_path):
    align_folder(source, tmp_path / "a", landmarks, CropSpec(size=(112, 112), quality=95))
    align_folder(source, tmp_path / "b", landmarks, CropSpec(size=(112, 112), origin=1, quality=95))
    align_folder(source, tmp_path / "c", landmarks, CropSpec(size=(112, 112), quality=30))
    a, b = (cv2.imread(str(tmp_path / run / "top.jpg")).astype(int) for run in "ab")
    assert a.shape == (112, 112, 3)
    assert np.abs(a[1:, 1:] - b[:-1, :-1]).mean() < 2 < np.abs(a - b).mean()
    assert (tmp_path / "c/top.jpg").stat().st_size < (tmp_path / "a/top.jpg").stat().st_size


def test_what_cannot_be_aligned_is_reported_with_its_reason(source, landmarks, crops):
    whole = (source / "top.bmp").read_bytes()
    jpeg = (source / NAMES[0]).read_bytes()
    points = dict(landmarks.points)
    for name, content in {
        "empty.jpg": b"",
        "half.jpg": jpeg[: len(jpeg) // 2],
        "text.png": b"not an image",
        "same.jpg": jpeg,
        "nan.jpg": jpeg,
        "top.png": whole,
        "unknown.jpg": jpeg,
        "notes.txt": b"not even called an image",
    }.items():
        (source / name).write_bytes(content)
        points[name] = template()
    points |= {"same.jpg": np.ones((5, 2)), "nan.jpg": np.full((5, 2), np.nan), "gone/1.jpg": template()}
    del points["unknown.jpg"], points["notes.txt"]

    report = align_folder(source, crops, LandmarkTable(points, "digest"))
    assert report.aligned == 4
    expected = {
        "empty.jpg": ("unreadable image", "the file is empty (0 bytes)"),
        "half.jpg": ("unreadable image", f"truncated JPEG ({len(jpeg) // 2} bytes, no end marker)"),
        "text.png": ("unreadable image", "not an image, or damaged · allowed: JPEG, PNG, BMP, WebP, PGM, PPM, HEIC"),
        "same.jpg": ("landmarks unlike a face", "the landmarks lie in one place (spread 0 pixels)"),
        "nan.jpg": ("landmarks unlike a face", "the landmarks are not finite numbers"),
        "top.png": ("crop name taken", "another image became top.jpg"),
        "unknown.jpg": ("no landmarks for this image", ""),
        "gone/1.jpg": ("landmarks for a missing image", ""),
    }
    assert failures(report) == expected
    assert files(crops) == sorted([*CROPS, "align-report.json"])

    saved = json.loads((crops / "align-report.json").read_text())
    assert saved["finished"] is True
    assert (saved["aligned"], saved["kept"], saved["failed"]) == (4, 0, 8)
    assert saved["failed_by_reason"]["unreadable image"] == 3
    assert {row["file"]: (row["reason"], row["detail"]) for row in saved["failures"]} == expected
    assert [row["file"] for row in saved["failures"]] == sorted(expected)
    table = report.table().splitlines()
    assert table[0].split() == ["aligned", "4"]
    assert "  unreadable image" in table[3]
    assert table[3].split()[-1] == "bytes)"


def test_an_image_too_small_for_a_crop_of_its_middle_is_listed(source, landmarks, crops):
    for name, (height, width) in {"one.png": (1, 1), "thin.png": (1, 900)}.items():
        (source / name).write_bytes(cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes())
    report = align_folder(source, crops, Landmarks(table=landmarks, centre=True))
    reason = "no landmarks for this image"
    assert failures(report) == {
        "one.png": (reason, "too small for a crop: 1×1 pixels"),
        "thin.png": (reason, "too small for a crop: 1×900 pixels"),
    }
    assert files(crops) == sorted([*CROPS, "align-report.json"])


def test_what_is_not_read_is_told(source, landmarks, crops):
    (source / "top.bmp").unlink()
    (source / "top.bmp").symlink_to("nowhere")
    (source / "ann/phone.AVIF").write_bytes(b"")
    (source / "scan.tiff").write_bytes(b"")
    report = align_folder(source, crops, landmarks)
    assert failures(report) == {"top.bmp": ("landmarks for a missing image", "")}
    told = "3 files were not read: 1 .avif, 1 .tiff, 1 links without a target"
    assert told in report.table()
    assert json.loads((crops / "align-report.json").read_text())["not_read"].startswith(told)


def test_folders_without_an_image_are_told(source, landmarks, crops):
    """A copy that stopped, or a disk that is not mounted."""
    told = "folders without an image: 2, such as carl"
    assert told not in align_folder(source, crops, landmarks).table()
    for name in ("dora", "carl/raw"):
        (source / name).mkdir(parents=True)
    assert told in align_folder(source, crops, landmarks).table()
    assert told in json.loads((crops / "align-report.json").read_text())["warnings"]


def test_second_run_keeps_whole_crops_and_makes_the_rest(source, landmarks, crops):
    align_folder(source, crops, landmarks)
    wanted = {name: (crops / name).read_bytes() for name in CROPS}
    before = (crops / CROPS[0]).stat().st_mtime_ns
    (crops / CROPS[1]).write_bytes(wanted[CROPS[1]][:900])  # half a JPEG, as a full disk or a power cut leaves it
    (crops / CROPS[2]).write_bytes(wanted[CROPS[2]][:0])
    (crops / CROPS[3]).unlink()
    (crops / ".top.jpg.part").write_bytes(b"half")  # what a kill left two hours ago
    os.utime(crops / ".top.jpg.part", (time.time() - 7200,) * 2)

    report = align_folder(source, crops, landmarks)
    assert (report.aligned, report.kept) == (3, 1)
    assert {name: (crops / name).read_bytes() for name in CROPS} == wanted
    assert files(crops) == sorted([*CROPS, "align-report.json"])
    assert (crops / CROPS[0]).stat().st_mtime_ns == before
    third = align_folder(source, crops, landmarks)
    assert (third.aligned, third.kept) == (0, 4)


def test_crops_of_other_settings_are_not_mixed(source, landmarks, crops):
    align_folder(source, crops, landmarks)
    for spec, table, message in [
        (
            CropSpec(origin=1),
            landmarks,
            r"holds crops of other settings \(template_origin 0, now 1\) · give another folder",
        ),
        (CropSpec(size=(112, 112)), landmarks, "size 112x96, now 112x112"),
        (CropSpec(quality=90), landmarks, "quality 95, now 90"),
        (CropSpec(), LandmarkTable(landmarks.points, "other"), "landmarks_sha256 [0-9a-f]{64}, now other"),
    ]:
        with pytest.raises(UserError, match=message):
            align_folder(source, crops, table, spec)


def test_settings_are_known_even_after_a_kill(source, landmarks, crops, monkeypatch):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sphereface.alignment.align.run_in_chunks", killed)
        with pytest.raises(KeyboardInterrupt):
            align_folder(source, crops, landmarks)
    assert json.loads((crops / "align-report.json").read_text())["finished"] is False
    with pytest.raises(UserError, match="quality 95, now 90"):
        align_folder(source, crops, landmarks, CropSpec(quality=90))
    assert align_folder(source, crops, landmarks).aligned == 4


def test_crops_of_unknown_settings_are_not_taken_over(source, landmarks, crops):
    (crops / "ann").mkdir(parents=True)
    (crops / CROPS[0]).write_bytes(b"somebody's")
    with pytest.raises(UserError, match=r"ann_0001\.jpg: exists, but without an align-report\.json"):
        align_folder(source, crops, landmarks)
    assert (crops / CROPS[0]).read_bytes() == b"somebody's"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"settings": 3}'])
def test_strange_report_is_an_error(source, landmarks, crops, content):
    crops.mkdir()
    (crops / "align-report.json").write_text(content)
    with pytest.raises(UserError, match=r"align-report\.json: not a report of this program"):
        align_folder(source, crops, landmarks)


def test_bad_folders(source, landmarks, crops, tmp_path):
    (tmp_path / "empty").mkdir()
    for first, second, message in [
        (tmp_path / "none", crops, "none: not a folder"),
        (tmp_path / "empty", crops, r"empty: contains no images · allowed: .*\.jpg"),
        (source, source.with_name("landmarks.txt"), r"landmarks\.txt: a file · allowed: a folder"),
        (source, source, ": inside .* · give a folder elsewhere"),
        (source, source / "crops", ": inside .* · give a folder elsewhere"),
    ]:
        with pytest.raises(UserError, match=message):
            align_folder(first, second, landmarks)


def test_nothing_aligned_is_an_error_but_leaves_the_report(source, crops):
    with pytest.raises(
        UserError,
        match=r"none of 4 images could be aligned \(no landmarks for this image: 4.*align-report",
    ):
        align_folder(source, crops, LandmarkTable({"other.jpg": template()}, ""))
    assert json.loads((crops / "align-report.json").read_text())["failed"] == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_a_place_that_cannot_be_written_ends_the_run(source, landmarks, crops, workers):
    crops.mkdir()
    (crops / "ann").write_text("a file where a folder is needed")
    with pytest.raises(UserError, match=r"ann_000\d\.jpg: cannot be written \(.+\) · .* run the same command"):
        align_folder(source, crops, landmarks, workers=workers)
