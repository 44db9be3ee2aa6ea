"""A folder aligned by a detector: crops, landmark file, what fails, and going on after a kill."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from sphereface.alignment import found_landmarks
from sphereface.alignment.align import Landmarks, align_folder
from sphereface.alignment.crop import CropSpec, Finder
from sphereface.alignment.landmarks import LandmarkTable, read_landmarks
from sphereface.alignment.similarity import template
from sphereface.errors import UserError
from tests.alignment.faces import ByColour, DiesAfter, correct, encode, line_of, shifted

FINDER = Finder(ByColour())
FACELESS, BROKEN = "a/no face.jpg", "empty.jpg"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "photographs"
    for k, name in enumerate(["a/1.jpg", "a/2.png", "Борис/3.jpg", "王/4 四.jpg", *(f"b/{k}.jpg" for k in range(20))]):
        image = ByColour.image((140 + k, 150), [(60 + k, 70), (120, 120)][: 1 + k % 2], seed=k)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(image, name[-4:]))
    (folder / FACELESS).write_bytes(encode(ByColour.image((224, 200), []), ".jpg"))
    (folder / BROKEN).write_bytes(b"")
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def crops_and_landmarks(folder):
    return {name: data for name, data in contents(folder).items() if name != "align-report.json"}


@pytest.mark.parametrize("centre", [False, True])
def test_landmark_file_given_back_gives_the_same_crops(source, tmp_path, centre):
    spec = CropSpec((112, 112), origin=1)
    report = align_folder(source, tmp_path / "a", Landmarks(finder=FINDER, centre=centre), spec)
    again = align_folder(source, tmp_path / "b", read_landmarks(tmp_path / "a/landmarks.txt"), spec)
    assert (report.aligned, len(report.fallbacks), again.aligned) == (24, int(centre), 24 + int(centre))
    detected = crops_and_landmarks(tmp_path / "a")
    assert len(read_landmarks(tmp_path / "a/landmarks.txt").points) == again.aligned
    assert detected.pop("landmarks.txt") == detected.pop(".landmarks.txt")
    assert crops_and_landmarks(tmp_path / "b") == detected


def test_workers_give_the_same_files(source, tmp_path):
    align_folder(source, tmp_path / "a", Landmarks(finder=FINDER))
    align_folder(source, tmp_path / "b", Landmarks(finder=FINDER), workers=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    names = [line.split("\t")[0] for line in (tmp_path / "a/landmarks.txt").read_text().splitlines()]
    assert names == sorted(names)


def test_failures_are_left_out_and_told(source, tmp_path):
    report = align_folder(source, tmp_path / "out", Landmarks(finder=FINDER))
    assert {(failure.file, failure.reason) for failure in report.failures} == {
        (FACELESS, "no face found"),
        (BROKEN, "unreadable image"),
    }
    assert not (tmp_path / "out" / FACELESS).exists()
    assert FACELESS not in (tmp_path / "out/landmarks.txt").read_text()


def test_failures_get_the_middle_or_other_landmarks_and_are_counted(source, tmp_path):
    other = LandmarkTable({FACELESS: template() + 20}, "digest of the other")
    for landmarks, reason, points in [
        (Landmarks(finder=FINDER, centre=True), "middle of the image instead", None),
        (Landmarks(finder=FINDER, other=other), "landmarks of the other file instead", template() + 20),
        (Landmarks(table=LandmarkTable({"a/1.jpg": template()}, ""), other=other), "landmarks of the other", None),
    ]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        report = align_folder(source, folder, landmarks)
        (row,) = json.loads((folder / "align-report.json").read_text())["fallbacks"]
        assert row["file"] == FACELESS
        assert row["reason"].startswith(reason)
        assert row["detail"].startswith("no face found: in " if landmarks.finder else "no landmarks for this")
        assert (folder / FACELESS).exists()
        assert f"\n{row['reason']}" in report.table()
        if points is not None:
            assert np.array_equal(read_landmarks(folder / "landmarks.txt").points[FACELESS], points)


def test_useless_landmarks_fall_back_too(source, tmp_path):
    table = LandmarkTable({"a/1.jpg": np.ones((5, 2)), "a/2.png": template()}, "")
    report = align_folder(source, tmp_path / "a", Landmarks(table=table, centre=True))
    details = {row.file: row.detail for row in report.fallbacks}
    assert details["a/1.jpg"].startswith("landmarks unlike a face: the landmarks lie in one place")
    assert len(details) == 24  # all but a/2.png and the unreadable one
    both = Landmarks(table=table, other=LandmarkTable({"a/1.jpg": np.zeros((5, 2)), "a/2.png": template()}, ""))
    (failure,) = [row for row in align_folder(source, tmp_path / "b", both).failures if row.file == "a/1.jpg"]
    assert "of the other file: the landmarks lie in one place" in failure.detail


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("torn", [b"", b"b/9.jpg\t1.0\t2", b"b/9.jp\xd0"])
def test_a_run_that_went_on_gives_what_an_undisturbed_one_gives(source, tmp_path, centre, torn):
    wanted, out = tmp_path / "wanted", tmp_path / "out"
    align_folder(source, wanted, Landmarks(finder=FINDER, centre=centre))
    for count in (9, 5):  # killed twice
        with pytest.raises(Interrupted):
            align_folder(source, out, Landmarks(finder=Finder(DiesAfter(count, Interrupted)), centre=centre))
        with (out / "align-progress.txt").open("ab") as file:
            file.write(torn)
        assert not (out / "landmarks.txt").exists()
    report = align_folder(source, out, Landmarks(finder=FINDER, centre=centre))
    assert report.kept > 5
    assert crops_and_landmarks(out) == crops_and_landmarks(wanted)
    detector = DiesAfter(
        2, Interrupted
    )  # enough for what failed, in two tries: a finished run detects nothing else anew
    third = align_folder(source, out, Landmarks(finder=Finder(detector), centre=centre))
    assert (third.kept, len(third.fallbacks)) == (24, int(centre))
    assert crops_and_landmarks(out) == crops_and_landmarks(wanted)


def test_a_broken_crop_is_made_again_from_its_landmarks(source, tmp_path):
    out = tmp_path / "out"
    align_folder(source, out, Landmarks(finder=FINDER))
    wanted = crops_and_landmarks(out)
    (out / "a/1.jpg").write_bytes(wanted["a/1.jpg"][:99])
    report = align_folder(source, out, Landmarks(finder=FINDER))
    assert (report.aligned, report.kept) == (1, 23)
    assert crops_and_landmarks(out) == wanted


@pytest.mark.parametrize("killed", [False, True])
def test_a_corrected_line_makes_its_crop_anew_and_no_other(source, tmp_path, monkeypatch, killed):
    out = tmp_path / "out"
    first = align_folder(source, out, Landmarks(finder=FINDER))
    before = crops_and_landmarks(out)
    correct(out, "a/1.jpg")
    if killed:
        monkeypatch.setattr("sphereface.alignment.align.run_in_chunks", lambda *_, **__: (1 / 0 for _ in [0]))
        with pytest.raises(ZeroDivisionError):
            align_folder(source, out, Landmarks(finder=FINDER))
        monkeypatch.undo()
    report = align_folder(source, out, Landmarks(finder=Finder(DiesAfter(2, AssertionError))))  # of the two failures
    assert (report.aligned, report.kept, report.several_faces) == (1, 23, first.several_faces)
    after = crops_and_landmarks(out)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"a/1.jpg", "landmarks.txt", ".landmarks.txt"}
    align_folder(source, tmp_path / "given", read_landmarks(out / "landmarks.txt"))
    crops = {name: after[name] for name in after if not name.endswith("landmarks.txt")}
    assert crops_and_landmarks(tmp_path / "given") == crops
    assert align_folder(source, out, Landmarks(finder=FINDER)).kept == 24


@pytest.mark.parametrize("centre", [False, True])
def test_the_line_of_an_image_without_a_face_is_used(source, tmp_path, centre):
    out, landmarks = tmp_path / "out", Landmarks(finder=FINDER, centre=centre)
    align_folder(source, out, landmarks)
    points = "\t".join(f"{number:.1f}" for number in (template() + 20).ravel())
    if centre:
        correct(out, FACELESS, lambda line: f"{FACELESS}\t{points}")
    else:
        with (out / "landmarks.txt").open("a", encoding="utf-8") as file:
            file.write(f"{FACELESS}\t{points}\n")
    report = align_folder(source, out, landmarks)
    assert (report.aligned, report.fallbacks, len(report.failures)) == (1, [], 1)
    table = LandmarkTable({FACELESS: template().round(1) + 20}, "")
    align_folder(source, tmp_path / "wanted", table)
    for _ in range(2):
        assert (out / FACELESS).read_bytes() == (tmp_path / "wanted" / FACELESS).read_bytes()
        assert (align_folder(source, out, landmarks).kept, line_of(out, FACELESS)) == (25, points.split("\t"))


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("applied", [False, True])
def test_a_correction_outlives_another_stamp_but_not_another_image(source, tmp_path, moved, applied):
    out, landmarks = tmp_path / "out", Landmarks(finder=FINDER)
    align_folder(source, out, landmarks)
    correct(out, "a/1.jpg")
    wanted = shifted("x\t" + "\t".join(read_landmarks(out / ".landmarks.txt").points["a/1.jpg"].ravel().astype(str)))
    if applied:
        align_folder(source, out, landmarks)
    (source / "a/1.jpg").chmod(0o600)
    if moved:
        source, out = (shutil.copytree(folder, tmp_path / "new" / folder.name) for folder in (source, out))
    for _ in range(2):
        assert align_folder(source, out, landmarks).warnings == []
        assert [float(x) for x in line_of(out, "a/1.jpg")] == [float(x) for x in wanted.split("\t")[1:]]
    (source / "a/1.jpg").write_bytes((source / "b/0.jpg").read_bytes())
    (warning,) = align_folder(source, out, landmarks).warnings
    assert warning.startswith("the corrected landmarks of 1 image are not used, since the image has another content")
    assert line_of(out, "a/1.jpg") == line_of(out, "b/0.jpg")
    assert align_folder(source, out, landmarks).warnings == []


def test_a_line_that_is_corrected_after_a_kill_counts(source, tmp_path):
    out, landmarks = tmp_path / "out", Landmarks(finder=FINDER)
    align_folder(source, out, landmarks)
    (source / "a/9.jpg").write_bytes((source / "b/9.jpg").read_bytes())
    with pytest.raises(Interrupted):
        align_folder(source, out, Landmarks(finder=Finder(DiesAfter(0, Interrupted))))
    assert (out / "align-progress.txt").exists()
    correct(out, "a/1.jpg")
    wanted, before = line_of(out, "a/1.jpg"), (out / "a/1.jpg").read_bytes()
    align_folder(source, out, landmarks)
    assert [float(x) for x in line_of(out, "a/1.jpg")] == [float(x) for x in wanted]
    assert (out / "a/1.jpg").read_bytes() != before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda line: line.replace("\t5", "\t5000", 1), "landmarks unlike a face"),
        (lambda line: shifted(line, 500), "landmarks unlike a face"),
        (lambda line: f"x/{line}", "landmarks for a missing image"),
    ],
)
@pytest.mark.parametrize("centre", [False, True])
def test_a_corrected_line_that_cannot_be_used_is_listed_and_stays(source, tmp_path, change, reason, centre):
    out, landmarks = tmp_path / "out", Landmarks(finder=FINDER, centre=centre)
    align_folder(source, out, landmarks)
    correct(out, "b/0.jpg", change)
    name = change("b/0.jpg\t5").split("\t")[0]
    wanted = line_of(out, name)
    for _ in range(2):
        report = align_folder(source, out, landmarks)
        listed = [f"{row.reason} {row.detail}" for row in report.failures + report.fallbacks if row.file == name]
        assert len(listed) == 1
        assert reason in listed[0]
        assert [float(x) for x in line_of(out, name)] == [float(x) for x in wanted]


def test_other_forms_of_a_name_in_a_corrected_file_mean_the_image(source, tmp_path):
    out, landmarks = tmp_path / "out", Landmarks(finder=FINDER)
    align_folder(source, out, landmarks)
    correct(out, "a/1.jpg")
    wanted = [float(x) for x in line_of(out, "a/1.jpg")]
    lines = (out / "landmarks.txt").read_text(encoding="utf-8").splitlines()
    (out / "landmarks.txt").write_text("".join(f"./{line}\n" for line in lines), encoding="utf-8")
    assert align_folder(source, out, landmarks).aligned == 1
    assert [float(x) for x in line_of(out, "a/1.jpg")] == wanted


@pytest.mark.parametrize("killed", [False, True])
def test_a_line_that_is_deleted_has_its_face_found_again(source, tmp_path, killed):
    out, landmarks = tmp_path / "out", Landmarks(finder=FINDER)
    align_folder(source, out, landmarks)
    before = crops_and_landmarks(out)
    correct(out, "a/1.jpg")
    align_folder(source, out, landmarks)
    if killed:
        with pytest.raises(Interrupted):
            align_folder(source, out, Landmarks(finder=Finder(DiesAfter(0, Interrupted))))
    lines = (out / "landmarks.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (out / "landmarks.txt").write_text("".join(lines[1:]), encoding="utf-8")
    align_folder(source, out, landmarks)
    assert crops_and_landmarks(out) == before


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("killed", [False, True])
def test_a_folder_of_an_earlier_build_knows_an_edit_by_its_time(source, tmp_path, monkeypatch, edited, killed):
    """It has no copy of its landmarks."""
    out, landmarks = tmp_path / "out", Landmarks(finder=FINDER, centre=True)
    align_folder(source, out, landmarks)
    (out / ".landmarks.txt").unlink()
    if edited:
        correct(out, "a/1.jpg")
        os.utime(out / "landmarks.txt")
    wanted = line_of(out, "a/1.jpg")
    if killed:
        monkeypatch.setattr("sphereface.alignment.align.run_in_chunks", lambda *_, **__: (1 / 0 for _ in [0]))
        with pytest.raises(ZeroDivisionError):
            align_folder(source, out, landmarks)
        monkeypatch.undo()
    report = align_folder(source, out, landmarks)
    assert (report.aligned, report.kept, len(report.fallbacks)) == ((24, 0, 1) if edited else (0, 24, 1))
    assert [float(x) for x in line_of(out, "a/1.jpg")] == [float(x) for x in wanted]
    assert align_folder(source, out, landmarks).kept == 24


def test_an_image_that_left_leaves_the_landmark_file(source, tmp_path):
    align_folder(source, tmp_path / "out", Landmarks(finder=FINDER))
    (source / "a/1.jpg").unlink()
    align_folder(source, tmp_path / "out", Landmarks(finder=FINDER))
    assert "a/1.jpg" not in (tmp_path / "out/landmarks.txt").read_text()


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (Landmarks(finder=Finder(ByColour(), "largest")), r"holds crops of other settings \(pick centre, now largest"),
        (Landmarks(finder=FINDER, centre=True), r"holds crops of other settings \(on_failure none, now centre"),
        (Landmarks(table=LandmarkTable({"a/1.jpg": template()}, "d")), "landmarks_sha256 none, now d; detector by"),
    ],
)
def test_other_settings_are_not_mixed(source, tmp_path, landmarks, message):
    align_folder(source, tmp_path / "out", Landmarks(finder=FINDER))
    with pytest.raises(UserError, match=message):
        align_folder(source, tmp_path / "out", landmarks)


def test_a_landmark_file_of_unknown_origin_is_not_replaced(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/landmarks.txt").write_text("somebody's")
    with pytest.raises(UserError, match=r"landmarks\.txt: exists, but without an align-report\.json"):
        align_folder(source, tmp_path / "out", Landmarks(finder=FINDER))
    assert (tmp_path / "out/landmarks.txt").read_text() == "somebody's"


@pytest.mark.parametrize("name", ["tab\t.jpg", "line\nend.jpg", " space.jpg", os.fsdecode(b"\xff.jpg")])
def test_names_that_a_landmark_file_cannot_hold_are_told(source, tmp_path, name):
    try:
        (source / name).write_bytes((source / "a/1.jpg").read_bytes())
    except OSError:
        pytest.skip("this file system refuses the name")
    report = align_folder(source, tmp_path / "out", Landmarks(finder=FINDER))
    assert (name, "name that a landmark file cannot hold") in {(row.file, row.reason) for row in report.failures}
    assert len(read_landmarks(tmp_path / "out/landmarks.txt").points) == 24
    report.table()


def test_a_full_disk_ends_the_run_in_one_line_and_it_can_go_on(source, tmp_path, monkeypatch):
    out = tmp_path / "out"
    full = [0]

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            full[0] += 1
            if full[0] > 5:
                self.file.write(data[:7])
                self.file.flush()
                raise OSError(28, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    init = found_landmarks.FoundLandmarks.__init__
    with monkeypatch.context() as patch:

        def short(self, *arguments):
            init(self, *arguments)
            self._file = Full(self._file)

        patch.setattr(found_landmarks.FoundLandmarks, "__init__", short)
        with pytest.raises(UserError, match=r"align-progress\.txt: cannot be written \(No space left on device\)"):
            align_folder(source, out, Landmarks(finder=FINDER))
    align_folder(source, out, Landmarks(finder=FINDER))
    align_folder(source, tmp_path / "wanted", Landmarks(finder=FINDER))
    assert crops_and_landmarks(out) == crops_and_landmarks(tmp_path / "wanted")


def test_nothing_found_is_an_error(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jpg").write_bytes(encode(ByColour.image((50, 50), []), ".jpg"))
    for _ in range(2):
        with pytest.raises(UserError, match=r"none of 1 images could be aligned \(no face found: 1\)"):
            align_folder(tmp_path / "in", tmp_path / "out", Landmarks(finder=FINDER))
