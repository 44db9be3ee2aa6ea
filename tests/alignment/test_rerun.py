"""A second run says what the first one said, and aligns replaced photographs again."""

from __future__ import annotations

import json
import os
import shutil

import cv2
import numpy as np
import pytest

from sphereface.alignment import crop
from sphereface.alignment.align import Landmarks, align_folder
from sphereface.alignment.crop import Finder
from sphereface.alignment.landmarks import LandmarkTable, read_landmarks
from sphereface.alignment.similarity import template
from sphereface.errors import UserError
from tests.alignment.faces import ByColour, encode, write_photographs

NAMES = [f"{k}.png" for k in range(6)]
FACE = template() + np.array([30, 20])
DETECTED = Landmarks(finder=Finder(ByColour()))
COUNTS = ("aligned", "kept")


def report_of(folder):
    return json.loads((folder / "align-report.json").read_text())


def crops_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.jpg")}


def replace(path, data, time):
    """Write another file under a name; ``time`` is before or after that of the first, which a copy may keep."""
    changed = path.stat().st_mtime_ns + time
    path.write_bytes(data)
    os.utime(path, ns=(changed, changed))


@pytest.mark.parametrize("other", [False, True])
def test_crops_made_as_on_failure_says_are_listed_by_every_run(tmp_path, other):
    """The points of 1.png lie like a face, but outside its image; those of 2.png do not; 3.png has none."""
    write_photographs(tmp_path / "in", NAMES)
    points = dict.fromkeys(NAMES, FACE) | {"1.png": FACE + 120, "2.png": FACE[[1, 0, 2, 4, 3]]}
    del points["3.png"]
    second = LandmarkTable(dict.fromkeys(NAMES, FACE + 1), "e")
    landmarks = Landmarks(LandmarkTable(points, "d"), centre=not other, other=second if other else None)
    align_folder(tmp_path / "in", tmp_path / "out", landmarks)
    first, crops = report_of(tmp_path / "out"), crops_of(tmp_path / "out")
    assert [failure["file"] for failure in first["fallbacks"]] == ["1.png", "2.png", "3.png"]
    for _ in range(2):
        align_folder(tmp_path / "in", tmp_path / "out", landmarks)
        again = report_of(tmp_path / "out")
        assert (again["aligned"], again["kept"]) == (0, 3)
        assert {k: again[k] for k in again if k not in COUNTS} == {k: first[k] for k in first if k not in COUNTS}
        assert crops_of(tmp_path / "out") == crops


@pytest.mark.parametrize("time", [-3_600_000_000_000, -5_000, 5_000, 3_600_000_000_000])
def test_a_replaced_photograph_gets_a_new_crop(tmp_path, time):
    landmarks = read_landmarks(write_photographs(tmp_path / "in", NAMES))
    align_folder(tmp_path / "in", tmp_path / "out", landmarks)
    replace(tmp_path / "in/1.png", (tmp_path / "in/2.png").read_bytes(), time)
    report = align_folder(tmp_path / "in", tmp_path / "out", landmarks)
    assert (report.aligned, report.kept) == (1, 5)
    crops = crops_of(tmp_path / "out")
    assert crops["1.jpg"] == crops["2.jpg"]
    assert align_folder(tmp_path / "in", tmp_path / "out", landmarks).kept == 6


def exchanged(folder):
    (folder / "1.png").rename(folder / "x")
    (folder / "2.png").rename(folder / "1.png")
    (folder / "x").rename(folder / "2.png")


def linked(folder):
    (folder / "1.png").unlink()
    os.link(folder / "2.png", folder / "1.png")


def written(folder):
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes())


def copied(folder):
    shutil.copy2(folder / "2.png", folder / "x")
    (folder / "x").rename(folder / "1.png")


@pytest.mark.skipif(os.name != "posix", reason="status change times of POSIX")
@pytest.mark.parametrize("change", [exchanged, linked, written, copied])
def test_another_photograph_of_the_same_time_gets_its_own_crop(tmp_path, change):
    landmarks = read_landmarks(write_photographs(tmp_path / "in", NAMES))
    for name in NAMES:
        os.utime(tmp_path / "in" / name, (1e9, 1e9))
    first = align_folder(tmp_path / "in", tmp_path / "out", landmarks)
    assert (first.aligned, align_folder(tmp_path / "in", tmp_path / "out", landmarks).kept) == (6, 6)
    wait_for_another_time(tmp_path / "out/1.jpg", tmp_path / "clock")
    change(tmp_path / "in")
    os.utime(tmp_path / "in/1.png", (1e9, 1e9))
    again = align_folder(tmp_path / "in", tmp_path / "out", landmarks)
    assert again.kept == (5 if change in (written, copied) else 4)  # a link's other name has changed too
    align_folder(tmp_path / "in", tmp_path / "wanted", landmarks)
    assert crops_of(tmp_path / "out") == crops_of(tmp_path / "wanted")
    assert align_folder(tmp_path / "in", tmp_path / "out", landmarks).kept == 6


@pytest.mark.parametrize("detects", [False, True])
def test_crops_follow_people_whose_folders_exchange_their_names(tmp_path, detects):
    """All files have one time and one size, as after unpacking, and a rename of a folder changes none of them."""
    source = tmp_path / "in"
    write_photographs(source, [f"{person}/{k}.bmp" for person in "ab" for k in range(3)])
    points = {f"{person}/{k}.bmp": FACE + (person == "b") for person in "ab" for k in range(3)}
    for name in points:
        os.utime(source / name, (1e9, 1e9))
    assert len({(source / name).stat().st_size for name in points}) == 1
    landmarks = DETECTED if detects else Landmarks(LandmarkTable(points, "d"))
    align_folder(source, tmp_path / "out", landmarks)
    assert align_folder(source, tmp_path / "out", landmarks).kept == 6
    wait_for_another_time(tmp_path / "out/b/2.jpg", tmp_path / "clock")
    for old, new in ("ax", "ba", "xb"):
        (source / old).rename(source / new)
    assert align_folder(source, tmp_path / "out", landmarks).kept == 0
    align_folder(source, tmp_path / "wanted", landmarks)
    for person in "ab":
        assert crops_of(tmp_path / "out" / person) == crops_of(tmp_path / "wanted" / person)


def wait_for_another_time(file, other):
    """Until the file system's clock has gone on: it has ticks of some milliseconds."""
    while not other.exists() or other.stat().st_ctime_ns <= file.stat().st_ctime_ns:
        other.write_bytes(b"")
        os.utime(other)


@pytest.mark.parametrize("when", ["decode", "_encode", "write_or_explain"])
def test_a_photograph_that_is_replaced_while_it_is_aligned_is_aligned_again(tmp_path, monkeypatch, when):
    """Another file takes its name, with the same time, before the crop has it."""
    landmarks = read_landmarks(write_photographs(tmp_path / "in", NAMES[:3]))
    landmarks = LandmarkTable({name: landmarks.points[name] for name in NAMES[:3]}, "d")
    for name in NAMES[:3]:
        os.utime(tmp_path / "in" / name, (1e9, 1e9))
    shutil.copy2(tmp_path / "in/2.png", tmp_path / "x")
    real = getattr(crop, when)

    def at_a_bad_moment(*args):
        if (tmp_path / "x").exists():
            (tmp_path / "x").rename(tmp_path / "in/0.png")  # the first to be aligned
        return real(*args)

    monkeypatch.setattr(crop, when, at_a_bad_moment)
    align_folder(tmp_path / "in", tmp_path / "out", landmarks)
    assert not (tmp_path / "x").exists()
    report = align_folder(tmp_path / "in", tmp_path / "out", landmarks)
    assert (report.aligned, report.kept) == (1, 2)
    crops = crops_of(tmp_path / "out")
    assert crops["0.jpg"] == crops["2.jpg"]
    assert align_folder(tmp_path / "in", tmp_path / "out", landmarks).kept == 3


@pytest.mark.parametrize("name", ["landmarks.txt", "align-progress.txt"])
@pytest.mark.parametrize("damage", [b"1.png\t3\n", b"\xff\xfe\n"])
def test_a_damaged_file_of_an_earlier_run_is_named_as_such(tmp_path, name, damage):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.png").write_bytes(encode(ByColour.image((140, 150), [(60, 70)]), ".png"))
    align_folder(tmp_path / "in", tmp_path / "out", DETECTED)
    (tmp_path / "out" / name).write_bytes(damage)
    advice = "an earlier align wrote this file, and it is damaged · delete it"
    if name == "landmarks.txt":  # it may hold corrections
        advice = r"correct the file, or copy \.landmarks\.txt over it, .* without the file, .* all corrections are lost"
    with pytest.raises(UserError, match=f"{name}.* · {advice}"):
        align_folder(tmp_path / "in", tmp_path / "out", DETECTED)
    (tmp_path / "out" / name).unlink()
    assert align_folder(tmp_path / "in", tmp_path / "out", DETECTED).crops == 1


def test_the_face_of_a_replaced_photograph_is_searched_anew(tmp_path):
    (tmp_path / "in").mkdir()
    for name, faces in (("1.png", [(60, 70)]), ("2.png", [(60, 70), (120, 100)]), ("3.png", [(60, 70)])):
        (tmp_path / "in" / name).write_bytes(encode(ByColour.image((140, 150), faces), ".png"))
    align_folder(tmp_path / "in", tmp_path / "out", DETECTED)
    for name, faces in (("1.png", [(90, 40), (20, 100)]), ("2.png", [(50, 60)])):
        replace(tmp_path / "in" / name, encode(ByColour.image((140, 150), faces), ".png"), 1_000_000)
    report = align_folder(tmp_path / "in", tmp_path / "out", DETECTED)
    assert (report.aligned, report.kept, report.several_faces) == (2, 1, ["1.png"])
    align_folder(tmp_path / "in", tmp_path / "wanted", DETECTED)
    assert crops_of(tmp_path / "out") == crops_of(tmp_path / "wanted")
    landmarks = (tmp_path / "out/landmarks.txt").read_bytes()
    assert landmarks == (tmp_path / "wanted/landmarks.txt").read_bytes()
    assert align_folder(tmp_path / "in", tmp_path / "out", DETECTED).several_faces == ["1.png"]


def test_a_crop_without_the_time_of_its_photograph_is_made_again(tmp_path):
    """As older versions left them, and as a copy of a folder has them."""
    landmarks = read_landmarks(write_photographs(tmp_path / "in", NAMES))
    align_folder(tmp_path / "in", tmp_path / "out", landmarks)
    wanted = crops_of(tmp_path / "out")
    (tmp_path / "out/1.jpg").write_bytes(wanted["2.jpg"])
    report = align_folder(tmp_path / "in", tmp_path / "out", landmarks)
    assert (report.aligned, report.kept) == (1, 5)
    assert crops_of(tmp_path / "out") == wanted


def test_a_crop_whose_time_cannot_be_set_is_made_again(tmp_path, monkeypatch):
    landmarks = read_landmarks(write_photographs(tmp_path / "in", NAMES))

    def refused(*args, **kwargs):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    for _ in range(2):
        assert align_folder(tmp_path / "in", tmp_path / "out", landmarks).aligned == 6


def test_crops_of_images_that_have_gone_are_counted(tmp_path):
    landmarks = read_landmarks(write_photographs(tmp_path / "in", NAMES))
    assert "no image in the source" not in align_folder(tmp_path / "in", tmp_path / "out", landmarks).table()
    for name in ("1.png", "4.png"):
        (tmp_path / "in" / name).unlink()
    report = align_folder(tmp_path / "in", tmp_path / "out", landmarks)
    assert "2 images in " in report.table()
    assert "are not crops of any source image, e.g. 1.jpg" in report.table()
    assert cv2.imread(str(tmp_path / "out/1.jpg")) is not None


def new_set(folder, people, first=0):
    for row, person in enumerate(people):
        for k in range(3):
            image = ByColour.image((140, 150), [(60, 70)], seed=first + 3 * row + k)
            (folder / person).mkdir(parents=True, exist_ok=True)
            (folder / person / f"{k}.png").write_bytes(encode(image, ".png"))
    return folder


@pytest.mark.parametrize("names", [("a", "b"), ("c",)])
def test_other_photographs_do_not_replace_crops(tmp_path, names):
    """Another batch has other images of the same names, or other people; a subfolder has other names."""
    first = new_set(tmp_path / "first", ["a", "b"])
    align_folder(first, tmp_path / "out", DETECTED)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.*"))}
    assert (tmp_path / "out/landmarks.txt").read_text().count("\n") == 6
    for other in (new_set(tmp_path / "second", names, first=50), first / "a"):
        with pytest.raises(UserError, match=r"out: holds crops of .*first, none of whose images is in ") as caught:
            align_folder(other, tmp_path / "out", DETECTED)
        assert "\n" not in str(caught.value)
        assert {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.*"))} == before
    assert align_folder(first, tmp_path / "out", DETECTED).kept == 6


def test_the_same_photographs_may_grow_shrink_move_and_be_replaced(tmp_path, monkeypatch):
    first = new_set(tmp_path / "first", ["a", "b"])
    align_folder(first, tmp_path / "out", DETECTED)
    new_set(first, ["c"], first=30)
    assert align_folder(first, tmp_path / "out", DETECTED).kept == 6
    moved = first.rename(tmp_path / "moved")
    shutil.rmtree(moved / "a")
    assert align_folder(moved, tmp_path / "out", DETECTED).kept == 6
    (tmp_path / "link").symlink_to(moved)
    monkeypatch.chdir(moved)
    new_set(moved, ["b", "c"], first=60)  # other content, but in the same place by another path
    for path in (tmp_path / "link", type(moved)()):
        align_folder(path, tmp_path / "out", DETECTED)
    shutil.copytree(moved, tmp_path / "copy")
    new_set(tmp_path / "copy", ["d"], first=90)
    report = align_folder(tmp_path / "copy", tmp_path / "out", DETECTED)
    assert (report.aligned, report.kept) == (9, 0)


def test_another_memory_card_at_the_same_path_is_a_warning_before_its_crops_replace_others(tmp_path, caplog):
    card = new_set(tmp_path / "card", [str(k) for k in range(8)])  # 24 images, of which the report keeps 12
    for _ in range(2):
        align_folder(card, tmp_path / "out", DETECTED)
    new_set(card, [str(k) for k in range(1, 8)], first=53)  # a part is replaced
    align_folder(card, tmp_path / "out", DETECTED)
    shutil.rmtree(card / "0")
    align_folder(card, tmp_path / "out", DETECTED)
    assert not caplog.records
    shutil.rmtree(card / "1")  # the other card has fewer images
    new_set(card, [str(k) for k in range(2, 8)], first=90)
    align_folder(card, tmp_path / "out", DETECTED)
    assert [record.getMessage() for record in caplog.records] == [
        f"{card}: none of 9 images has the content that {tmp_path / 'out/align-report.json'} records, so the crops of "
        "18 images are replaced, e.g. 2/0.jpg · if they are other photographs, stop this run, and give another folder "
        "for their crops"
    ]
    caplog.clear()
    align_folder(card, tmp_path / "out", DETECTED)
    assert not caplog.records
    sample = report_of(tmp_path / "out")["sample"]
    for name in sample:
        (card / name).write_bytes(encode(ByColour.image((140, 150), [(60, 70)], seed=7), ".png"))
    align_folder(card, tmp_path / "out", DETECTED)
    assert f"so the crops of {len(sample)} images are replaced" in caplog.text
    assert 2 < len(sample) < 18


def test_an_edited_image_alone_in_its_folder_is_no_other_card(tmp_path, caplog):
    for first in (0, 50):
        folder = new_set(tmp_path / "in", ["a"], first=first)
        (folder / "a/1.png").unlink()
        (folder / "a/2.png").unlink()
        align_folder(folder, tmp_path / "out", DETECTED)
    assert not caplog.records


def test_a_folder_without_a_crop_of_the_wrong_photographs_can_be_used(tmp_path):
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong/1.png").write_bytes(encode(ByColour.image((140, 150), []), ".png"))
    with pytest.raises(UserError, match="none of 1 images could be aligned"):
        align_folder(tmp_path / "wrong", tmp_path / "out", DETECTED)
    assert align_folder(new_set(tmp_path / "right", ["a"]), tmp_path / "out", DETECTED).aligned == 3


def test_a_report_of_an_earlier_version_names_no_photographs(tmp_path):
    align_folder(new_set(tmp_path / "first", ["a"]), tmp_path / "out", DETECTED)
    report = report_of(tmp_path / "out")
    del report["source"], report["sample"]
    (tmp_path / "out/align-report.json").write_text(json.dumps(report))
    assert align_folder(new_set(tmp_path / "second", ["a"], first=50), tmp_path / "out", DETECTED).aligned == 3
