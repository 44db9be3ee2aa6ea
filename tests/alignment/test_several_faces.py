"""Images with several faces: one taken and said, or left out; also after a kill and in a second run."""

from __future__ import annotations

import json

import pytest

from sphereface.alignment import align
from sphereface.alignment.align import Landmarks, align_folder
from sphereface.alignment.crop import Finder
from sphereface.alignment.detector import find_face, find_faces
from sphereface.alignment.landmarks import read_landmarks
from sphereface.cli import run_command
from sphereface.commands import align as command
from sphereface.errors import UserError
from tests.alignment.faces import ByColour, DiesAfter, encode

FINDER = Landmarks(finder=Finder(ByColour()))
SKIPPING = Landmarks(finder=Finder(ByColour(), skip_several=True), centre=True)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    for k in range(4):
        faces = [(60, 70), (120, 100), (20, 20)][: 1 + k % 3]
        (tmp_path / f"in/{k}.png").write_bytes(encode(ByColour.image((140, 150), faces, seed=k), ".png"))
    return tmp_path / "in"


def report_of(folder):
    return json.loads((folder / "align-report.json").read_text())


def test_taken_ones_are_counted_now_after_a_kill_and_again(source, tmp_path, monkeypatch):
    report = align_folder(source, tmp_path / "out", FINDER)
    assert report.several_faces == ["1.png", "2.png"]
    monkeypatch.setattr(align, "DETECTION_CHUNK", 2)
    with pytest.raises(KeyboardInterrupt):
        align_folder(source, tmp_path / "killed", Landmarks(finder=Finder(DiesAfter(3))))
    for folder, kept in (("killed", 2), ("killed", 4), ("out", 4)):  # resumed, then repeated
        again = align_folder(source, tmp_path / folder, FINDER)
        assert again.kept == kept
        assert again.several_faces == ["1.png", "2.png"]
        assert report_of(tmp_path / folder)["several_faces"] == ["1.png", "2.png"]
    assert all(not read_landmarks(tmp_path / name / "landmarks.txt").scores for name in ("out", "killed"))


def test_skipped_ones_are_listed_and_get_no_crop_not_even_of_the_middle(source, tmp_path):
    report = align_folder(source, tmp_path / "out", SKIPPING)
    assert {(failure.file, failure.reason, failure.detail) for failure in report.failures} == {
        ("1.png", "several faces", "2 faces"),
        ("2.png", "several faces", "3 faces"),
    }
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == ["0.jpg", "3.jpg"]
    assert report_of(tmp_path / "out")["settings"]["on_several"] == "skip"
    with pytest.raises(UserError, match="on_several skip, now none"):
        align_folder(source, tmp_path / "out", Landmarks(finder=Finder(ByColour()), centre=True))


def test_all_faces_from_left_to_right():
    image = ByColour.image((140, 150), [(60, 70), (120, 100), (20, 20)])
    faces = find_faces(image, ByColour())
    assert [face.points.mean(axis=0).round().tolist() for face in faces] == [[20, 20], [60, 70], [120, 100]]
    assert {face.num_faces for face in faces} == {3}
    assert (find_face(image, ByColour()).points == faces[1].points).all()


@pytest.mark.parametrize(
    ("option", "several"), [([], ["1.png", "2.png"]), (["--on-several", "take"], ["1.png", "2.png"])]
)
def test_the_command_says_how_many(source, tmp_path, monkeypatch, capsys, option, several):
    monkeypatch.setattr(command, "Mtcnn", ByColour)
    given = ["--detector", "mtcnn", "--workers", "0", str(source), str(tmp_path / "out"), *option]
    assert run_command("align", given) == 0
    assert "several faces in 2 images: the one nearest the centre was chosen" in capsys.readouterr().out
    assert report_of(tmp_path / "out")["several_faces"] == several
    assert (
        run_command("align", [*given[: -len(option) or None][:-1], str(tmp_path / "large"), "--pick", "largest"]) == 0
    )
    assert "several faces in 2 images: the largest was chosen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector", "mtcnn", "--on-several", "all"], "--on-several: got all · allowed: take, skip · .*embed"),
        (["--detector", "mtcnn", "--on-several", "some"], "--on-several: got some · allowed: take, skip"),
        (["--landmarks", "x", "--on-several", "skip"], "--on-several: got skip with --landmarks"),
        (["--detector", "mtcnn", "--on-several", "skip", "--pick", "largest"], "--pick: got largest with --on-several"),
    ],
)
def test_what_makes_no_sense_is_refused(source, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        run_command("align", [*arguments, str(source), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_command_skips(source, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "Mtcnn", ByColour)
    given = ["--detector", "mtcnn", "--on-several", "skip", "--workers", "0", str(source), str(tmp_path / "out")]
    assert run_command("align", given) == 0
    assert report_of(tmp_path / "out")["failed_by_reason"] == {"several faces": 2}
