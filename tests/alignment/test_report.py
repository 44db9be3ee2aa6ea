"""The report beside the crops: written, read again, and refused where a stranger wrote it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from sphereface.alignment.align import Landmarks, align_folder
from sphereface.alignment.crop import CropSpec, Finder
from sphereface.alignment.earlier_report import earlier_run
from sphereface.alignment.fit import fit
from sphereface.alignment.landmarks import landmark_line, read_landmarks
from sphereface.alignment.report import AlignReport, Outcome, Status
from sphereface.alignment.similarity import template
from sphereface.errors import UserError
from tests.alignment.faces import ByColour, encode, write_photographs

SETTINGS = {"size": "112x96", "template_origin": 0, "quality": 95}


def write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "align-report.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_what_is_saved_is_read_again(tmp_path):
    report = AlignReport(SETTINGS)
    points = template()
    report.add(Outcome("b.jpg", Status.ALIGNED, "", points, 3))
    report.add(Outcome("c.jpg", Status.KEPT, "", points * np.array([1, 1.2]), 1))
    report.add(Outcome("a.jpg", Status.KEPT, "", points, 2))
    report.add(Outcome("d.jpg", Status.CENTRED, "no face found", points))
    report.add(Outcome("e.jpg", Status.SEVERAL_FACES, "2 faces"))
    report.save(tmp_path, finished=True)
    earlier = earlier_run(tmp_path)
    assert earlier.settings == SETTINGS
    assert earlier.fallbacks == {"d.jpg"}
    assert earlier.several_faces == {"a.jpg", "b.jpg"}
    assert json.loads((tmp_path / "align-report.json").read_text())["median_residual"] == 0
    assert "several faces in 2 images: the one nearest the centre was chosen   e.g. a.jpg" in report.table()
    assert "  several faces" in report.table()
    assert earlier_run(tmp_path / "none") is None


def test_names_that_a_terminal_would_obey_are_escaped():
    report = AlignReport({}, warnings=["w\x1b[2J"], not_read="r\x9b")
    report.add(Outcome("a\x1b]0;x\x07\n\udcff.png", Status.NO_FACE, "d\x1b"))
    report.add(Outcome("ü\r.png", Status.ALIGNED, points=template(), num_faces=2))
    assert all(
        part in report.table() for part in (r"a\x1b]0;x\x07\n\udcff.png: d\x1b", r"e.g. ü\r.png", r"w\x1b[2J", r"r\x9b")
    )
    assert all(line.isprintable() for line in report.table().split("\n"))


@pytest.mark.parametrize(("off", "told"), [(0, False), (4, False), (6, True)])
def test_a_large_median_misfit_is_said(off, told):
    """The two eyes and two corners are moved along a square whose fit leaves all of it: by hand, off · sqrt(4/5)."""
    moved = template() - template().mean(axis=0)
    moved[[0, 1, 3, 4], 1] += np.array([1, -1, -1, 1]) * off
    report = AlignReport({})
    report.add(Outcome("a.png", Status.ALIGNED, points=moved + 50))
    assert ("that is large: look at some crops" in report.table()) == told
    assert report.median_residual() == pytest.approx(off * 0.8**0.5, rel=0.15)


def test_the_median_residual_is_that_of_the_middle_crop():
    report = AlignReport(SETTINGS)
    moved = [template() + np.outer([0, 0, 1, 0, 0], [0, far]) for far in (0, 2, 5, 8, 11)]
    for points in moved:
        report.add(Outcome("x", Status.ALIGNED, "", points))
    report.add(Outcome("y", Status.CENTRED, "", moved[0]))
    assert report.median_residual() == pytest.approx(float(fit(moved[2][None])[0][0]), abs=0.006)
    assert AlignReport(SETTINGS).median_residual() is None


@pytest.mark.parametrize(
    "content",
    [
        {"settings": {**SETTINGS, "quality": float("nan")}},
        {"settings": {**SETTINGS, "quality": 1e300}},
        {"settings": {**SETTINGS, "quality": None}},
        {"settings": {**SETTINGS, "quality": True}},
        {"settings": {**SETTINGS, "quality": [[[]]]}},
        {"settings": {**SETTINGS, "size": "x" * 5000}},
        {"settings": {**SETTINGS, "size": "two\nlines"}},
        {"settings": {f"k{k}": 1 for k in range(99)}},
        {"settings": [["size", 3]]},
        {"settings": SETTINGS, "fallbacks": 5},
        {"settings": SETTINGS, "fallbacks": {"file": "x"}},
        {"settings": SETTINGS, "fallbacks": [{"file": 3}]},
        {"settings": SETTINGS, "fallbacks": [{}]},
        {"settings": SETTINGS, "fallbacks": ["file"]},
        {"settings": SETTINGS, "several_faces": [1]},
        {"settings": SETTINGS, "without_crop": [1]},
        {"settings": SETTINGS, "earlier_crops": []},
        {"settings": SETTINGS, "earlier_crops": {"kept, image unreadable": [1]}},
        {"settings": SETTINGS, "failures": 5},
        {"settings": SETTINGS, "failures": [{"reason": "no face found"}]},
        {"settings": SETTINGS, "failures": [{"reason": [], "file": "x"}]},
        '{"settings": {"quality": ' + "9" * 5000 + "}}",
        "[" * 100_000,
        "\udcff",
    ],
    ids=lambda content: str(content)[:60].replace("\udcff", "bytes"),
)
def test_a_stranger_s_report_is_one_line(tmp_path, content):
    write(tmp_path, content if content != "\udcff" else "")
    if content == "\udcff":
        (tmp_path / "align-report.json").write_bytes(b"\xff")
    with pytest.raises(
        UserError, match=r"align-report\.json: not a report of this program \(.+\) · delete it"
    ) as raised:
        earlier_run(tmp_path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (["x"], "got list, allowed: a mapping"),
        (None, "got NoneType, allowed: a mapping"),
        ({"settings": SETTINGS, "fallbacks": [5]}, "got int, allowed: a mapping for each image"),
        ({"settings": SETTINGS, "fallbacks": ["file"]}, "got str, allowed: a mapping for each image"),
        ({"settings": SETTINGS, "fallbacks": [{}]}, "no 'file'"),
        ({}, "no 'settings'"),
    ],
)
def test_the_reason_says_what_is_allowed(tmp_path, content, reason):
    write(tmp_path, content)
    with pytest.raises(UserError, match=rf"not a report of this program \({reason}\)"):
        earlier_run(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_report_that_is_no_file_is_refused_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "align-report.json"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(UserError, match="not a report of this program"):
        earlier_run(tmp_path)


def test_crops_are_not_written_through_a_link(tmp_path):
    landmarks = read_landmarks(write_photographs(tmp_path / "in", ["a/1.png", "b/1.png"]))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"out/a: a link to another folder"):
        align_folder(tmp_path / "in", tmp_path / "out", landmarks)
    assert not list((tmp_path / "elsewhere").iterdir())
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")  # the destination itself may be a link
    assert align_folder(tmp_path / "in", tmp_path / "linked", landmarks).aligned == 2


def test_landmarks_of_a_stranger_cannot_leave_the_folder_nor_be_believed(tmp_path):
    """Names come from the images alone; points are judged like a detector's, and a digest opens no other file."""
    (tmp_path / "in").mkdir()
    for k in range(3):
        (tmp_path / f"in/{k}.png").write_bytes(encode(ByColour.image((140, 150), [(60, 70)], seed=k), ".png"))
    finder = Landmarks(finder=Finder(ByColour()))
    align_folder(tmp_path / "in", tmp_path / "out", finder, CropSpec())
    face = template() + 20
    lines = [("../../x.png", face), ("../x.png", face), ("0.png", face[[1, 0, 2, 4, 3]]), ("1.png", face * np.nan)]
    (tmp_path / "out/landmarks.txt").write_text("".join(landmark_line(*line) for line in lines))
    (tmp_path / "out/.landmarks.txt").write_text(landmark_line(*lines[1]))
    os.mkfifo(tmp_path / "x.png")  # to read it would wait for ever
    content = json.loads((tmp_path / "out/align-report.json").read_text()) | {"corrected": {"../x.png": "d"}}
    write(tmp_path / "out", content)
    before = sorted(path.name for path in tmp_path.iterdir())
    report = align_folder(tmp_path / "in", tmp_path / "out", finder, CropSpec())
    assert {failure.file: failure.reason for failure in report.failures} == {
        "../../x.png": "landmarks for a missing image",
        "../x.png": "landmarks for a missing image",
        "0.png": "landmarks unlike a face",
        "1.png": "landmarks unlike a face",
    }
    assert [path.name for path in (tmp_path / "out").glob("*.jpg")] == ["2.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    (tmp_path / "out/landmarks.txt").write_text(landmark_line("/etc/x.png", face))
    with pytest.raises(UserError, match=r"1 of 1 lines have an absolute path outside"):
        align_folder(tmp_path / "in", tmp_path / "out", finder, CropSpec())


@pytest.mark.parametrize("score", ["inf", "nan", "-1", "1e300", "2.5"])
def test_any_score_in_the_progress_of_a_stranger(tmp_path, score):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/0.png").write_bytes(encode(ByColour.image((140, 150), [(60, 70)]), ".png"))
    finder = Landmarks(finder=Finder(ByColour()))
    align_folder(tmp_path / "in", tmp_path / "out", finder)
    line = (tmp_path / "out/landmarks.txt").read_text().strip()
    (tmp_path / "out/align-progress.txt").write_text(f"{line}\t{score}\n")
    assert align_folder(tmp_path / "in", tmp_path / "out", finder).kept == 1
