from __future__ import annotations

import json
import os
import signal
import sys
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import sphereface.data.check
from scripts.check_faces import main
from sphereface.cli import run_command
from sphereface.commands import check
from sphereface.data.check import Limits, inspect, inspect_image, judge
from sphereface.data.check_report import CheckResult, contact_sheet, histogram, table, to_dict
from sphereface.data.clean_list import check_listable, clean_list
from sphereface.data.sources import FolderSource, ListSource, open_source
from sphereface.errors import UserError
from sphereface.files import write_whole

from ..images import files_of_at_most, image, make_training_set, write

SIZE = (16, 12)
LIMITS = Limits(min_images=3, max_images=5)


@pytest.fixture
def faces(tmp_path):
    """Seven people of four images each, with one thing wrong with each of the first six."""
    root = make_training_set(tmp_path / "faces", identities=7, each=4, size=SIZE)
    jpeg = cv2.imencode(".jpg", image(0, 9, SIZE))[1].tobytes()
    (root / "id00/cut.jpg").write_bytes(jpeg[:-40])
    (root / "id00/empty.jpg").write_bytes(b"")
    (root / "id01/text.png").write_bytes(b"no image")
    write(root / "id02/large.png", image(2, 9, (20, 12)))
    write(root / "id03/zz-again.bmp", image(3, 1, SIZE))  # the pixels of 001.png in another format
    write(root / "id04/999.png", image(5, 2, SIZE))  # 002.png of the next
    write(root / "id04/grey.png", cv2.cvtColor(image(4, 9, SIZE), cv2.COLOR_BGR2GRAY))
    write(root / "id07/000.png", image(7, 0, SIZE))
    for number in range(4, 6):
        write(root / f"id06/{number:03d}.png", image(6, number, SIZE))
    return root


def found(source, indices):
    return [source.name(index).removeprefix(f"{source.root}/") for index in indices]


@pytest.mark.parametrize("workers", [0, 2])
def test_everything_is_found(faces, workers):
    source = FolderSource(faces)
    findings = judge(source, inspect(source, workers=workers), LIMITS)
    assert findings.size == SIZE
    assert found(source, findings.truncated) == ["id00/cut.jpg"]
    assert found(source, findings.unreadable) == ["id00/empty.jpg", "id01/text.png"]
    assert found(source, findings.wrong_size) == ["id02/large.png"]
    assert [found(source, group) for group in findings.repeated] == [["id03/001.png", "id03/zz-again.bmp"]]
    assert [found(source, group) for group in findings.shared] == [["id04/999.png", "id05/002.png"]]
    assert found(source, findings.grey) == ["id04/grey.png"]
    assert findings.counts.tolist() == [4, 4, 4, 4, 5, 3, 6, 1]
    assert (findings.too_few, findings.too_many, findings.gaps) == ([7], [6], [])
    left = {"id00/cut.jpg", "id00/empty.jpg", "id01/text.png", "id02/large.png", "id03/zz-again.bmp"}
    left |= {"id04/999.png", "id05/002.png", "id07/000.png"}
    every = set(found(source, range(len(source))))
    assert set(found(source, np.flatnonzero(findings.keep))) == every - left
    assert not findings.clean


def test_a_clean_set_is_clean(tmp_path):
    source = FolderSource(make_training_set(tmp_path, identities=3, each=2, size=SIZE))
    findings = judge(source, inspect(source, workers=0), Limits())
    assert findings.clean
    assert findings.keep.all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: (root / "id00/x.png").write_bytes(b""),
        lambda root: (root / "id00/x.jpg").write_bytes(b"\xff\xd8\xff\xda"),
        lambda root: write(root / "id00/x.png", image(0, 9, (9, 9))),
        lambda root: write(root / "id00/x.png", image(0, 1, SIZE)),
        lambda root: write(root / "id00/x.png", image(1, 1, SIZE)),
        lambda root: write(root / "id09/x.png", image(9, 1, SIZE)),
        lambda root: [write(root / f"id00/x{k}.png", image(0, 9 + k, SIZE)) for k in range(9)],
    ],
)
def test_each_wrong_thing_alone_is_enough(tmp_path, damage):
    damage(make_training_set(tmp_path, identities=3, each=3, size=SIZE))
    source = FolderSource(tmp_path)
    assert not judge(source, inspect(source, workers=0), Limits(max_images=9)).clean


def test_grey_is_no_fault_and_gaps_are_none(tmp_path):
    root = make_training_set(tmp_path, identities=3, each=2, size=SIZE)
    write(root / "id00/grey.png", cv2.cvtColor(image(0, 5, SIZE), cv2.COLOR_BGR2GRAY))
    rows = [f"id00/grey.png {7}\n", *(f"id0{i}/00{k}.png {j}\n" for i, j in ((0, 2), (1, 7), (2, 4)) for k in range(2))]
    (root / "list.txt").write_text("".join(rows), encoding="utf-8")
    source = ListSource(root / "list.txt")
    findings = judge(source, inspect(source, workers=0), Limits())
    assert source.class_names == ["2", "4", "7"]
    assert findings.gaps == [3, 5, 6]
    assert len(findings.grey) == 1
    assert findings.clean


def test_gaps_are_bounded_by_the_number_of_labels(tmp_path):
    root = make_training_set(tmp_path, identities=2, each=2, size=SIZE)
    rows = [f"id0{i}/00{k}.png {(i + k) % 2 * 2_000_000_000}\n" for i in range(2) for k in range(2)]
    (root / "list.txt").write_text("".join(rows), encoding="utf-8")
    source = ListSource(root / "list.txt")
    assert len(judge(source, inspect(source, workers=0), Limits(min_images=1)).gaps) < 5


def test_a_file_that_goes_away_is_unreadable(tmp_path):
    source = FolderSource(make_training_set(tmp_path, identities=2, each=3, size=SIZE))
    (tmp_path / "id01/001.png").unlink()
    seen = inspect(source, workers=0)
    assert found(source, judge(source, seen, Limits()).unreadable) == ["id01/001.png"]
    assert seen.reasons[4] == "cannot be read (No such file or directory)"


def test_pixels_are_compared_and_their_shape():
    flat = np.zeros((4, 6, 3), np.uint8)
    one, other, turned = (
        inspect_image(cv2.imencode(suffix, image)[1].tobytes())
        for suffix, image in ((".png", flat), (".bmp", flat), (".png", flat.reshape(6, 4, 3)))
    )
    assert one == other
    assert one.digest != turned.digest
    assert one.grey
    assert not inspect_image(cv2.imencode(".png", flat + np.uint8([0, 0, 1]))[1].tobytes()).grey
    assert not inspect_image(cv2.imencode(".png", flat + np.uint8([1, 0, 0]))[1].tobytes()).grey


def test_nothing_that_can_be_decoded(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"x")
    source = FolderSource(tmp_path)
    with pytest.raises(UserError, match=r"none of 2 images can be decoded, the first: .*a/1\.jpg: not an image"):
        judge(source, inspect(source, workers=0), Limits())


def test_table_json_and_images(faces):
    source = FolderSource(faces)
    seen = inspect(source, workers=0)
    findings = judge(source, seen, LIMITS)
    result = CheckResult(source, seen, findings, LIMITS)
    text = table(result)
    assert "38 images of 8 identities, 16×12 (height × width)" in text
    assert "           2  unreadable\n           1  truncated\n           1  of another size\n" in text
    assert "          30  clean images, of 7 identities" in text
    assert f"  - {faces}/id02/large.png: 20×12" in text
    assert f"  - {faces}/id04/999.png = {faces}/id05/002.png" in text
    assert "  - id07: 1" in text
    values = json.loads(json.dumps(to_dict(result)))
    assert values["unreadable"][f"{faces}/id00/empty.jpg"] == "the file is empty (0 bytes)"
    assert values["wrong_size_hw"] == {f"{faces}/id02/large.png": [20, 12]}
    assert values["under_several_identities"] == [[f"{faces}/id04/999.png", f"{faces}/id05/002.png"]]
    assert (values["too_few_images"], values["too_many_images"]) == ({"id07": 1}, {"id06": 6})
    assert (values["num_clean_images"], values["num_clean_identities"], values["clean"]) == (30, 7, False)
    bars = histogram(findings, LIMITS).axes[0].patches
    assert [bar.get_height() for bar in bars] == [0, 1, 1, 6]  # of 0, 1, 2–3, 4–7 images
    titles = [axes.get_title(loc="left") for axes in contact_sheet(result).axes]
    assert any("of another size: 1" in title for title in titles)
    assert sum("sample: " in title for title in titles) == 6
    strip = next(a for a in contact_sheet(result).axes if "several" in a.get_title(loc="left"))
    np.testing.assert_array_equal(strip.images[0].get_array()[:, :12], image(5, 2, SIZE)[..., ::-1])


def test_the_program_writes_a_list_that_trains(faces, tmp_path, capsys):
    arguments = [
        str(faces),
        "--output",
        str(tmp_path / "out"),
        "--workers",
        "0",
        "--min-images",
        "3",
        "--size",
        "16x12",
    ]
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"a photograph")
    assert main([*arguments, "--write-list", str(photo)]) == 2
    assert "photo.jpg · allowed: a name that ends in .txt" in capsys.readouterr().err
    assert (photo.read_bytes(), (tmp_path / "out").exists()) == (b"a photograph", False)
    assert main([*arguments, "--write-list", str(tmp_path / "lists" / "clean.txt")]) == 1
    assert "clean images, of 7 identities" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.json",
        "histogram.png",
        "contact-sheet.jpg",
    }
    assert (tmp_path / "lists" / "clean.txt").read_text(encoding="utf-8").startswith("../faces/id00/000.png 0\n")
    clean = open_source(tmp_path / "lists" / "clean.txt")
    assert clean.class_names == [f"id{i:02d}" for i in range(7)]
    assert len(clean) == 30
    again = [str(tmp_path / "lists/clean.txt"), "--output", str(tmp_path / "again"), "--workers", "0"]
    assert main(again) == 0
    assert main([*again, "--max-images", "5"]) == 1  # one has six


def test_a_report_of_another_set_is_named_when_it_is_replaced(tmp_path, capsys, monkeypatch):
    """Both are named faces, and --output has its default."""
    monkeypatch.chdir(tmp_path)
    for place in ("a", "b"):
        make_training_set(tmp_path / place / "faces", identities=2, each=3, size=SIZE)
    (tmp_path / "link").symlink_to("a")
    for place in ("a", "link", str(tmp_path / "a")):
        assert main([f"{place}/faces", "--workers", "0"]) == 0
        assert "replaced" not in capsys.readouterr().out
    assert json.loads((tmp_path / "runs/check/faces/report.json").read_text())["source"] == f"{tmp_path}/a/faces"
    assert main(["b/faces", "--workers", "0"]) == 0
    assert capsys.readouterr().out.endswith(
        f"replaced: the report of {tmp_path}/a/faces · to keep each report, give a folder with --output\n"
    )
    (tmp_path / "runs/check/faces/report.json").write_text('{"num_identities": 2}')  # of an earlier version
    assert main(["a/faces", "--workers", "0"]) == 0
    assert "replaced" not in capsys.readouterr().out


def test_a_long_search_for_near_duplicates_says_how_long_it_takes(tmp_path, capsys, monkeypatch):
    """Thousands of images of one face take minutes."""
    make_training_set(tmp_path / "faces", identities=2, each=3, size=SIZE)
    assert check.EVERY < 30
    check._says_how_long("searching")()
    assert capsys.readouterr().err == "searching: 0 s so far\n"
    monkeypatch.setattr(check, "EVERY", 0.001)
    printed = threading.Event()
    monkeypatch.setattr(check, "_says_how_long", lambda what: lambda: (print(what), printed.set()))
    monkeypatch.setattr(check, "near_duplicates", lambda *_: printed.wait(60) and [])
    assert main([str(tmp_path / "faces"), "--output", str(tmp_path / "out"), "--workers", "0"]) == 0
    assert "searching near-duplicates of 6 images" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")
def test_a_killed_worker_is_not_an_error_in_the_set(faces, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sphereface.data.check, "inspect_image", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    assert main([str(faces), "--output", str(tmp_path / "out"), "--workers", "1"]) == 2
    err = capsys.readouterr().err.rpartition("\r")[2]
    assert err.lstrip().startswith("error: a worker process was killed")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="links and names of POSIX")
def test_a_list_of_any_names_reads_back(tmp_path):
    for number, name in enumerate((" a b", "c  d", "\ufeffe", "f-1", "g/s1", "g/s2", "Zoë\u2028"[:3])):
        write(tmp_path / "pool" / name / " 1 2.png", image(number, 1, SIZE))
    write(tmp_path / "elsewhere/3.png", image(40, 1, SIZE))
    (tmp_path / "pool" / "linked").symlink_to("../elsewhere", target_is_directory=True)
    (tmp_path / "lists").mkdir()
    (tmp_path / "there").symlink_to("lists", target_is_directory=True)
    source = FolderSource(tmp_path / "pool")
    check_listable(source)
    limits = Limits(SIZE, 1, 9)
    findings = judge(source, inspect(source, workers=0), limits)
    assert "linked" in source.class_names
    for place in (tmp_path / "pool", tmp_path / "there", tmp_path / "new" / "folder"):
        write_whole(place / "clean.txt", clean_list(source, findings, place))
        clean = open_source(place / "clean.txt")
        assert clean.class_names == source.class_names
        assert [clean.read(row) for row in range(len(clean))] == [source.read(row) for row in range(len(source))]


def test_a_clean_list_keeps_the_numbers_of_people_who_have_no_names(tmp_path):
    """So that data.exclude and people.txt name the same people before and after."""
    for person, label in enumerate((3, 10, 12, 13)):
        for number in range(1 if label == 3 else 2):  # 3 has too few images
            write(tmp_path / f"im/{label}_{number}.png", image(person, number, SIZE))
    lines = [f"im/{path.name} {path.stem.partition('_')[0]}\n" for path in sorted((tmp_path / "im").iterdir())]
    (tmp_path / "all.txt").write_text("".join(lines))
    clean = tmp_path / "clean.txt"
    assert main([str(tmp_path / "all.txt"), "--output", str(tmp_path / "out"), "--write-list", str(clean)]) == 1
    assert sorted(clean.read_text().splitlines(keepends=True)) == sorted(line for line in lines if "im/3_" not in line)
    left = open_source(clean, exclude=["12"])
    assert [left.name(row)[-8:] for row in range(len(left))] == ["10_0.png", "10_1.png", "13_0.png", "13_1.png"]


def test_a_clean_list_keeps_labels_as_names_where_only_a_wrong_line_kept_them(tmp_path):
    """Folders 0, 1, 10, 2 in the order of ImageFolder: folder 2 is label 3. One image has two labels."""
    for number, folder in enumerate((0, 1, 10, 2)):
        for k in range(2):
            write(tmp_path / f"img/{folder}/{k}.png", image(number, k, SIZE))
    lines = [f"img/{folder}/{k}.png {label}\n" for label, folder in enumerate((0, 1, 10, 2)) for k in range(2)]
    (tmp_path / "all.txt").write_text("".join([*lines, "img/0/0.png 1\n"]))
    clean, packed = tmp_path / "clean.txt", tmp_path / "packed/train.rec"
    options = ["--output", str(tmp_path / "out"), "--min-images", "1"]
    for before, after in ((tmp_path / "all.txt", clean), (clean, tmp_path / "again.txt")):
        main([str(before), *options, "--write-list", str(after)])
        assert after.read_text() == "".join(["# identities: labels\n", *lines[1:]])
    assert run_command("pack", [str(clean), str(packed)]) == 0
    for place in (tmp_path / "all.txt", clean, packed):
        left = open_source(place, exclude=["2"])
        assert left.class_names == ["0", "1", "3"]
        assert (tmp_path / "img/2/1.png").read_bytes() in map(left.read, range(len(left)))
        assert (tmp_path / "img/10/1.png").read_bytes() not in map(left.read, range(len(left)))


def test_a_clean_list_with_other_names_than_its_source_is_told(tmp_path, caplog):
    for number, folder in enumerate(("web/A", "web/B", "own/C")):
        for k in range(1 if folder == "web/B" else 2):  # B has too few images
            write(tmp_path / f"{folder}/{k}.png", image(number, k, SIZE))
    lines = [f"web/A/{k}.png 0\nown/C/{k}.png 2\n" for k in range(2)]
    (tmp_path / "all.txt").write_text("".join([*lines, "web/B/0.png 1\n"]))
    assert open_source(tmp_path / "all.txt").class_names == ["A", "B", "C"]
    options = ["--output", str(tmp_path / "out"), "--write-list", str(tmp_path / "clean.txt")]
    main([str(tmp_path / "all.txt"), *options])
    assert "--write-list: 2 identities have another name in the list, such as 'web' for 'A' · use it" in caplog.text
    assert open_source(tmp_path / "clean.txt").class_names == ["web", "own"]
    caplog.clear()
    main([str(tmp_path / "all.txt"), *options, "--min-images", "1"])
    assert "another name" not in caplog.text


@pytest.mark.parametrize("source", ["crops", "crops/train", "list.txt", "lists/up.txt"])
def test_crops_of_images_with_several_faces_are_left_out(tmp_path, source):
    for person in range(3):
        for number in range(3):
            write(tmp_path / f"crops/train/p{person}/{number}.png", image(person, number, SIZE))
    report = {"settings": {}, "several_faces": ["train/p0/1.jpg", "train/p2/0.JPG", "p1/0.png"]}
    (tmp_path / "crops/align-report.json").write_text(json.dumps(report))
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.glob("crops/*/*/*.png"))]
    (tmp_path / "list.txt").write_text("".join(f"{name} {name[13]}\n" for name in names))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/up.txt").write_text("".join(f"../{name} {name[13]}\n" for name in names))
    clean = tmp_path / "clean.txt"
    options = ["--output", str(tmp_path / "out"), "--min-images", "1", "--max-images", "9", "--write-list", str(clean)]
    assert main([str(tmp_path / source), *options, "--leave-out", "several-faces"]) == 0
    out = {"crops/train/p0/1.png", "crops/train/p2/0.png"}
    assert [line.rpartition(" ")[0] for line in clean.read_text().splitlines()] == [n for n in names if n not in out]


def test_several_faces_without_a_report_are_refused(faces, tmp_path, capsys):
    options = ["--output", str(tmp_path / "out"), "--write-list", str(tmp_path / "clean.txt")]
    assert main([str(faces), *options, "--leave-out", "several-faces"]) == 2
    assert f"--leave-out: got several-faces, but {faces} has no align-report.json · allowed" in capsys.readouterr().err


def test_a_sheet_that_a_full_disk_cuts_off_is_an_error(faces, tmp_path):
    source = FolderSource(faces)
    seen = inspect(source, workers=0)
    sheet = contact_sheet(CheckResult(source, seen, judge(source, seen, LIMITS), LIMITS))
    with files_of_at_most(20_000), pytest.raises(OSError, match="File too large"):
        check._save(sheet, tmp_path / "sheet.jpg")
    assert not (tmp_path / "sheet.jpg").exists()


def test_a_list_that_cannot_be_written_is_named(faces, tmp_path, capsys, monkeypatch):
    real, place = check.write_whole, tmp_path / "clean.txt"

    def full(path, *args, **kwargs):
        if path == place:
            raise OSError(28, "No space left on device")
        real(path, *args, **kwargs)

    monkeypatch.setattr(check, "write_whole", full)
    assert main([str(faces), "--output", str(tmp_path / "out"), "--write-list", str(place)]) == 2
    assert f"error: {place}: cannot be written (No space left" in capsys.readouterr().err


def test_the_clean_list_does_not_replace_the_list_that_was_checked(faces, tmp_path, capsys, monkeypatch):
    listed = tmp_path / "l.txt"
    listed.write_text("".join(f"{path} {path.parent.name[-1]}\n" for path in sorted(faces.glob("*/*.png"))))
    before = listed.read_bytes()
    monkeypatch.setattr("sphereface.commands.check.inspect", lambda *_, **__: pytest.fail("read"))
    (tmp_path / "same.txt").symlink_to(listed)
    for name in ("l.txt", "same.txt"):
        assert main([str(listed), "--output", str(tmp_path / "out"), "--write-list", str(tmp_path / name)]) == 2
        assert f"{name}, which is SRC · allowed: another file" in capsys.readouterr().err
    assert listed.read_bytes() == before


@pytest.mark.parametrize("name", ["original.txt", "people.txt", "link.txt"])
def test_the_clean_list_replaces_no_file(faces, tmp_path, capsys, monkeypatch, name):
    """It may be the list of another set, or a clean list that was corrected by hand."""
    (tmp_path / "link.txt").symlink_to("gone.txt")
    if name != "link.txt":
        (tmp_path / name).write_text("by hand\n")
    monkeypatch.setattr("sphereface.commands.check.open_path", lambda *_, **__: pytest.fail("read"))
    options = ["--output", str(tmp_path / "out"), "--workers", "0", "--write-list", str(tmp_path / name)]
    assert main([str(faces), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: --write-list: {tmp_path / name}: exists already · allowed: a new file · give another name, or delete "
        "it first if it is an earlier clean list"
    )
    assert name == "link.txt" or (tmp_path / name).read_text() == "by hand\n"
    assert not (tmp_path / "gone.txt").exists()


def test_a_list_that_appears_during_the_check_is_kept(faces, tmp_path, capsys, monkeypatch):
    clean, real = tmp_path / "clean.txt", check.inspect
    arguments = [str(faces), "--output", str(tmp_path / "out"), "--workers", "0", "--write-list", str(clean)]
    main(arguments)
    own = clean.read_text()
    for text, code in (("other\n", 2), (own, 1)):  # the same list is no other one
        clean.unlink()
        monkeypatch.setattr(
            check, "inspect", lambda *args, text=text, **kw: (clean.write_text(text), real(*args, **kw))[1]
        )
        assert main(arguments) == code
        assert (f"--write-list: {clean}: exists already" in capsys.readouterr().err) == (code == 2)
        assert clean.read_text() == text


def test_names_in_two_spellings_are_listed_and_are_no_fault(tmp_path, capsys):
    faces = make_training_set(tmp_path / "faces", identities=6, each=2, size=SIZE)
    names = ["Tom Cruise", "Tom_Cruise", "Bo", "Anna\u00a0", "anna", "Anna"]
    for number, name in enumerate(names):
        (faces / f"id{number:02d}").rename(faces / name)
    assert main([str(faces), "--output", str(tmp_path / "out"), "--workers", "0"]) == 0
    out, err = capsys.readouterr()
    assert "           2  names in more than one spelling (one person? give each one spelling)\n" in out
    assert "  - 'Anna' = 'Anna\\xa0' = 'anna'\n  - 'Tom Cruise' = 'Tom_Cruise'\n" in out
    assert "spelling" not in err
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    groups = report["names_in_several_spellings"]
    assert (groups, report["clean"]) == ([["Anna", "Anna\u00a0", "anna"], ["Tom Cruise", "Tom_Cruise"]], True)


@pytest.mark.parametrize("output", [None, "faces", "faces/id00/out", "link/out"])
def test_a_report_inside_the_images_is_refused(faces, tmp_path, capsys, monkeypatch, output):
    monkeypatch.setattr("sphereface.commands.check.inspect", lambda *_, **__: pytest.fail("read"))
    (tmp_path / "link").symlink_to("faces")
    monkeypatch.chdir(tmp_path if output else faces)
    assert main(["faces" if output else ".", *(["--output", output] if output else [])]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    given = output or "runs/check/faces (the default)"
    assert line.startswith(f"error: --output: got {given}, inside {'faces' if output else '.'} · allowed: a folder")
    assert line.endswith("give --output DIR")
    assert not list(faces.rglob("report.json"))


def test_what_no_list_can_name_or_nothing_clean_writes_no_list(tmp_path, capsys, monkeypatch):
    write(tmp_path / "pool/a/1.png", image(0, 1, SIZE))
    with zipfile.ZipFile(tmp_path / "pool.zip", "w") as file:
        file.write(tmp_path / "pool/a/1.png", "a/1.png")
    more = ["--output", str(tmp_path / "out"), "--workers", "0", "--write-list", str(tmp_path / "l.txt")]
    assert main([str(tmp_path / "pool"), *more]) == 2  # one image is too few for an identity
    assert "--write-list: no image is clean" in capsys.readouterr().err
    monkeypatch.setattr("sphereface.commands.check.inspect", lambda *_, **__: pytest.fail("read"))
    assert main([str(tmp_path / "pool.zip"), *more]) == 2
    assert "pool.zip/a/1.png is not a separate file, so no list can name it" in capsys.readouterr().err
    assert not (tmp_path / "l.txt").exists()


@pytest.mark.skipif(os.name != "posix", reason="names of POSIX")
@pytest.mark.parametrize("name", [b"a\nb", b"a\tb", b"caf\xe9", b"a\x1b[1mb"])
def test_a_name_that_no_list_can_hold_is_told_before_any_image_is_read(tmp_path, capsys, monkeypatch, name):
    write(tmp_path / "pool/a/1.png", image(0, 1, SIZE))
    write(tmp_path / "pool" / os.fsdecode(name) / "1.png", image(1, 1, SIZE))
    arguments = [str(tmp_path / "pool"), "--output", str(tmp_path / "out"), "--workers", "0", "--min-images", "1"]
    assert main(arguments) == 0  # report, table and sheet can show it
    capsys.readouterr()
    monkeypatch.setattr("sphereface.commands.check.inspect", lambda *_, **__: pytest.fail("read"))
    assert main([*arguments, "--write-list", str(tmp_path / "l.txt")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no line of a list can contain this name" in line
    assert not (tmp_path / "l.txt").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--size", "112"], "--size: got '112' · allowed: height x width"),
        (["--output", __file__], "--output: "),
        (["--write-list", f"{__file__}/l.txt"], "--write-list: "),
        (["--write-list", str(Path(__file__).parent)], f"{Path(__file__).parent}: cannot be written · allowed: a file"),
        (["--workers", "-1"], "--workers: got -1 · allowed: 0 (this process alone) or more"),
        (["--min-images", "9", "--max-images", "5"], "--min-images, --max-images: got 9 and 5"),
    ],
)
def test_errors_are_one_line(faces, capsys, more, message):
    assert main([str(faces), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


def test_no_source(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert "nothing there" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "got no images" in capsys.readouterr().err
