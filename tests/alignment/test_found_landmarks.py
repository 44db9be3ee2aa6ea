"""Corrections of landmarks outlive renamed and absent images, a run that ends early, and a late edit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from sphereface.alignment import found_landmarks, report
from sphereface.alignment.align import Landmarks, align_folder
from sphereface.alignment.crop import Finder
from sphereface.alignment.landmarks import LandmarkTable, read_landmarks
from sphereface.errors import UserError
from tests.alignment.faces import ByColour, DiesAfter, correct, encode, line_of, shifted

FINDER = Landmarks(finder=Finder(ByColour()))
ANN = "ann/1.jpg"
MISSING = "the corrected landmarks of 1 image are kept, but there is no image of that name now, e.g. ann/1.jpg · "
MOVED = "the corrected landmarks of 1 image are used under a new name: the content of {} is that of ann/1.jpg, "


@pytest.fixture
def source(tmp_path):
    """Make photographs of two people; the first of each person has two faces."""
    for seed, name in enumerate([ANN, "ann/2.jpg", "ben/1.jpg", "ben/2.jpg"]):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        faces = [(60, 70), (120, 120)][: 1 + (seed % 2 == 0)]
        path.write_bytes(encode(ByColour.image((140, 150), faces, seed=seed), ".jpg"))
    return tmp_path / "in"


@pytest.fixture
def out(source, tmp_path):
    """Make crops with an applied correction."""
    align_folder(source, tmp_path / "out", FINDER)
    correct(tmp_path / "out", ANN)
    align_folder(source, tmp_path / "out", FINDER)
    return tmp_path / "out"


def numbers(folder, name):
    line = line_of(folder, name)
    return line and [float(number) for number in line]


def told(report):
    return [text for text in report.warnings if text.startswith("the corrected landmarks")]


def found_by_the_detector(source, name, tmp_path):
    align_folder(source, tmp_path / "found", FINDER)
    return numbers(tmp_path / "found", name)


@pytest.mark.parametrize("new", ["anna/1.jpg", "ann/2003/1.jpg", "ann/1.JPG", "z.jpg"])
def test_a_correction_follows_a_renamed_image(source, out, tmp_path, new):
    wanted = numbers(out, ANN)
    (source / new).parent.mkdir(exist_ok=True)
    (source / ANN).rename(source / new)
    (source / "0.jpg").write_bytes(encode(ByColour.image((140, 150), [(60, 70)], seed=9), ".jpg"))
    with pytest.raises(KeyboardInterrupt):  # a kill at another new image changes nothing
        align_folder(source, out, Landmarks(finder=Finder(DiesAfter(0))))
    (warning,) = told(align_folder(source, out, FINDER))
    assert warning.startswith(MOVED.format(new))
    for _ in range(2):
        assert (numbers(out, new), line_of(out, ANN)) == (wanted, None)
        again = align_folder(source, out, FINDER)
        assert (told(again), again.kept) == ([], 5)
    align_folder(source, tmp_path / "given", LandmarkTable({new: np.reshape(wanted, (5, 2))}, ""))
    crop = new.replace(".JPG", ".jpg")
    assert (out / crop).read_bytes() == (tmp_path / "given" / crop).read_bytes()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_correction_waits_for_an_absent_image(source, out, tmp_path, replaced):
    wanted, crop = numbers(out, ANN), (out / ANN).read_bytes()
    (source / "ann").rename(tmp_path / "away")
    for _ in range(2):
        report = align_folder(source, out, FINDER)
        assert [text[: len(MISSING)] for text in told(report)] == [MISSING]
        assert [(row.file, row.reason) for row in report.failures] == [(ANN, "landmarks for a missing image")]
        assert numbers(out, ANN) == wanted
    (tmp_path / "away").rename(source / "ann")
    if replaced:
        shutil.copy(source / "ben/2.jpg", source / ANN)
    for first in (True, False):
        report = align_folder(source, out, FINDER)
        assert report.failures == []
        warnings = told(report)
        assert ["another content" in text for text in warnings] == [True] * (replaced and first)
        assert (numbers(out, ANN), (out / ANN).read_bytes() == crop) == (
            (numbers(out, "ben/2.jpg"), False) if replaced else (wanted, True)
        )


def test_a_correction_waits_for_a_damaged_image(source, out):
    wanted, image = numbers(out, ANN), (source / ANN).read_bytes()
    (source / ANN).write_bytes(image[:200])  # as amid a copy
    for _ in range(2):
        report = align_folder(source, out, FINDER)
        assert ["another content" in text for text in told(report)] == [True]
        assert [(row.file, row.reason) for row in report.failures] == [(ANN, "unreadable image")]
    (source / ANN).write_bytes(image)
    report = align_folder(source, out, FINDER)
    assert (told(report), report.failures, numbers(out, ANN)) == ([], [], wanted)


def test_the_line_of_an_image_that_is_gone_can_be_deleted(source, out):
    (source / ANN).unlink()
    align_folder(source, out, FINDER)
    lines = (out / "landmarks.txt").read_text().splitlines(keepends=True)
    (out / "landmarks.txt").write_text("".join(line for line in lines if not line.startswith(ANN)))
    for _ in range(2):
        report = align_folder(source, out, FINDER)
        assert (told(report), report.failures) == ([], [])
    assert json.loads((out / "align-report.json").read_text())["corrected"] == {}


@pytest.mark.parametrize("case", ["two new", "two old", "unwritable", "its copy stays"])
def test_a_correction_does_not_follow_where_it_is_unclear(source, out, tmp_path, case):
    """The same group photograph may lie in the folders of two people, with different faces chosen."""
    wanted = numbers(out, ANN)
    if case == "two old":
        shutil.copy(source / ANN, source / "ben/9.jpg")
        align_folder(source, out, FINDER)
        correct(out, "ben/9.jpg", lambda line: shifted(line, 3))
        align_folder(source, out, FINDER)
        (source / "ben/9.jpg").unlink()
    elif case == "two new":
        shutil.copy(source / ANN, source / "ben/9.jpg")
    elif case == "its copy stays":
        shutil.copy(source / ANN, source / "ben/0.jpg")
    new = "ann/tab\t.jpg" if case == "unwritable" else "ben/0.jpg"
    if case != "its copy stays":
        (source / ANN).rename(source / new)
    warnings = told(align_folder(source, out, FINDER))
    assert numbers(out, ANN) == wanted
    assert ["there is no image of that name" in text for text in warnings] == [True] * (case != "its copy stays")
    if case != "unwritable":
        assert numbers(out, "ben/0.jpg") == found_by_the_detector(source, "ben/0.jpg", tmp_path)
    assert len(read_landmarks(out / "landmarks.txt").points) >= 4


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_a_correction_outlives_a_run_that_ends_at_any_of_its_last_writes(source, out, monkeypatch, write, renamed):
    """In this run, a second line is corrected, and a new image with two faces gets its first line."""
    before = align_folder(source, out, FINDER).several_faces
    correct(out, "ben/2.jpg")
    new = "ann/7.jpg" if renamed else ANN
    wanted = {new: numbers(out, ANN), "ben/2.jpg": numbers(out, "ben/2.jpg")}
    (source / ANN).rename(source / new)
    (source / "new.jpg").write_bytes(encode(ByColour.image((140, 150), [(60, 70), (120, 120)], seed=7), ".jpg"))
    files, real = [], found_landmarks.write_or_explain

    def dies(path, data):
        files.append(path.name)
        if path.name != "align-progress.txt" and len(files) == 2 + write:
            raise KeyboardInterrupt
        real(path, data)

    with monkeypatch.context() as patch:
        for module in (found_landmarks, report):
            patch.setattr(module, "write_or_explain", dies)
        with pytest.raises(KeyboardInterrupt):
            align_folder(source, out, FINDER)
    last = ["align-report.json", "landmarks.txt", ".landmarks.txt", "align-report.json"]
    assert files == ["align-progress.txt", "align-report.json", *last[:write]]
    for _ in range(2):
        again = align_folder(source, out, FINDER)
        assert {name: numbers(out, name) for name in wanted} == wanted
        assert set(again.corrected) == set(wanted)
        assert again.several_faces == sorted([*before, "new.jpg"])


class Edits(ByColour):
    """A detector during whose first call somebody edits the landmark file."""

    def __init__(self, edit):
        self.edit = edit

    def __call__(self, image):
        self.edit()
        self.edit = lambda: None
        return super().__call__(image)


def run_with_edit(source, out, edit):
    (source / "new.jpg").write_bytes(encode(ByColour.image((140, 150), [(60, 70)], seed=7), ".jpg"))
    return align_folder(source, out, Landmarks(finder=Finder(Edits(edit))))


@pytest.mark.parametrize("name", [ANN, "ben/2.jpg"])
def test_an_edit_during_a_run_counts_in_the_next(source, out, name):
    """One line has an earlier correction."""
    crop = (out / name).read_bytes()
    edited = run_with_edit(source, out, lambda: correct(out, name, lambda line: shifted(line, 3)))
    assert f"1 line of landmarks.txt changed during this run, e.g. of {name} · run the same" in edited.warnings[-1]
    wanted = numbers(out, name)
    assert (out / name).read_bytes() == crop
    assert line_of(out, "new.jpg")
    again = align_folder(source, out, FINDER)
    assert (again.aligned, again.warnings, numbers(out, name)) == (1, [], wanted)
    assert (out / name).read_bytes() != crop
    assert numbers(out, name) == wanted
    assert align_folder(source, out, FINDER).warnings == []


def test_a_line_deleted_during_a_run_has_its_face_found_in_the_next(source, out, tmp_path):
    def delete():
        lines = (out / "landmarks.txt").read_text().splitlines(keepends=True)
        (out / "landmarks.txt").write_text("".join(line for line in lines if not line.startswith(ANN)))

    assert (
        f"1 line of landmarks.txt changed during this run, e.g. of {ANN}"
        in run_with_edit(source, out, delete).warnings[-1]
    )
    align_folder(source, out, FINDER)
    assert numbers(out, ANN) == found_by_the_detector(source, ANN, tmp_path)


def test_another_form_of_the_same_lines_is_no_edit(source, out):
    path = out / "landmarks.txt"
    wanted = path.read_text()
    assert (
        run_with_edit(source, out, lambda: path.write_text(wanted.replace("\t", ",").replace("\n", "\r\n"))).warnings
        == []
    )
    assert path.read_text().startswith(wanted[: wanted.rindex("ben/2.jpg")])


def test_a_file_that_is_damaged_during_a_run_is_not_replaced(source, out):
    path = out / "landmarks.txt"
    line = "\t".join([ANN, *line_of(out, ANN)]) + "\n"
    whole = path.read_text()
    damaged = whole + line
    with pytest.raises(UserError, match=r"landmarks\.txt, line 5: a second line for ann/1\.jpg .* · correct the file"):
        run_with_edit(source, out, lambda: path.write_text(damaged))
    assert path.read_text() == damaged
    path.write_text(whole)
    again = align_folder(source, out, FINDER)
    assert (again.aligned, again.kept, again.warnings) == (0, 5, [])


def test_the_face_of_a_corrected_image_was_not_chosen_by_the_detector(source, tmp_path):
    out = tmp_path / "out"
    assert align_folder(source, out, FINDER).several_faces == [ANN, "ben/1.jpg"]
    before = (out / "landmarks.txt").read_text()
    correct(out, ANN)
    for _ in range(3):
        assert align_folder(source, out, FINDER).several_faces == ["ben/1.jpg"]
        content = json.loads((out / "align-report.json").read_text())
        content["several_faces"] = [ANN, "ben/1.jpg"]  # as earlier builds wrote it
        (out / "align-report.json").write_text(json.dumps(content))
    (out / "landmarks.txt").write_text("".join(line for line in before.splitlines(True) if ANN not in line))
    assert align_folder(source, out, FINDER).several_faces == [ANN, "ben/1.jpg"]


@pytest.mark.parametrize("damage", ["", "half", "twice"])
def test_the_advice_for_a_damaged_file_keeps_the_corrections(source, out, damage):
    path = out / "landmarks.txt"
    wanted, text = numbers(out, ANN), path.read_text()
    path.write_text({"": "", "half": text[:-30], "twice": text + text[: text.index("\n")] + "\n"}[damage])
    advice = r"correct the file, or copy \.landmarks\.txt over it, as the last run wrote it, and run the same command "
    with pytest.raises(UserError, match=advice):
        align_folder(source, out, FINDER)
    shutil.copy(out / ".landmarks.txt", path)
    assert align_folder(source, out, FINDER).kept == 4
    assert numbers(out, ANN) == wanted
