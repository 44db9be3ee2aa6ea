"""``pack_faces.py``: the files of mxnet, and nothing that only looks like them."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from scripts import pack_faces
from sphereface.alignment.crop_template import training_template
from sphereface.data import packing
from sphereface.data.images import decode
from sphereface.data.recordio import RecordWriter
from sphereface.data.sources import FolderSource, JoinedSource, RecordSource, open_path, open_source
from sphereface.errors import UserError
from tests.data.recs import insightface_records, write_rec
from tests.images import image, make_training_set, write

ROOT = Path(__file__).parents[2]
GOLDEN = (ROOT / "../shared/golden/insightface").resolve()
NAMES = ("train.identities.check.json", "train.identities.txt")


def run(*arguments) -> int:
    return pack_faces.main([str(argument) for argument in arguments])


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def parts_of(rec: Path) -> list[Path]:
    return list(rec.parent.glob(f".{rec.name}.*.part"))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the files that mxnet wrote are not on this machine")
@pytest.mark.parametrize("name", ["train", "plain"])
def test_packing_a_file_of_mxnet_gives_that_file(tmp_path, name):
    assert run(GOLDEN / f"{name}.rec", tmp_path / f"{name}.rec") == 0
    for suffix in (".rec", ".idx"):
        assert (tmp_path / f"{name}{suffix}").read_bytes() == (GOLDEN / f"{name}{suffix}").read_bytes()
    expected = json.loads((GOLDEN / "expected.json").read_text())[f"{name}.rec"]["num_identities"]
    assert (tmp_path / "property").read_text() == f"{expected},112,112"
    if name == "train":
        assert (tmp_path / "property").read_bytes() == (GOLDEN / "property").read_bytes()


def test_a_folder_gives_the_files_that_a_writer_by_hand_gives(tmp_path, capsys):
    folder = make_training_set(tmp_path / "faces", 3, 4)
    assert run(folder, tmp_path / "new" / "train.rec") == 0
    people = [[path.read_bytes() for path in sorted(p.iterdir())] for p in sorted(folder.iterdir())]
    by_hand = write_rec(tmp_path / "hand" / "train.rec", insightface_records(people))
    for suffix in (".rec", ".idx"):
        assert (tmp_path / "new" / f"train{suffix}").read_bytes() == by_hand.with_suffix(suffix).read_bytes()
    assert (tmp_path / "new" / "property").read_text() == "3,112,96"
    assert (tmp_path / "new" / "train.identities.txt").read_text() == "id00\nid01\nid02\n"
    assert written(tmp_path / "new") == ["property", *NAMES, "train.idx", "train.rec"]
    printed = capsys.readouterr()
    assert "12 images of 3 identities" in printed.out
    assert "16/16" in printed.err  # the bar

    again, source = RecordSource(tmp_path / "new"), FolderSource(folder)
    assert again.class_names == source.class_names
    assert again.labels.tolist() == source.labels.tolist()
    assert [again.read(i) for i in range(12)] == [source.read(i) for i in range(12)]


def test_a_rec_without_index_gets_one(tmp_path):
    records = insightface_records([[cv2.imencode(".jpg", image(p, 0))[1].tobytes()] for p in range(3)])
    rec = write_rec(tmp_path / "old" / "train.rec", records)
    index = rec.with_suffix(".idx").read_bytes()
    rec.with_suffix(".idx").unlink()
    assert run(tmp_path / "old", tmp_path / "new" / "train.rec") == 0
    assert (tmp_path / "new" / "train.rec").read_bytes() == rec.read_bytes()
    assert (tmp_path / "new" / "train.idx").read_bytes() == index
    assert written(tmp_path / "new") == ["property", "train.idx", "train.rec"]  # numbers are no names to write


def test_more_than_float32_counts_goes_without_header(tmp_path, monkeypatch):
    folder = make_training_set(tmp_path / "faces", 3, 4)
    monkeypatch.setattr(packing, "EXACT_IN_FLOAT", 16)
    packing.pack(open_path(folder), tmp_path / "a" / "x.rec")  # 12 + 3 + 1
    assert (tmp_path / "a" / "x.idx").read_text().count("\n") == 16
    monkeypatch.setattr(packing, "EXACT_IN_FLOAT", 15)
    packing.pack(open_path(folder), tmp_path / "b" / "x.rec")
    assert [line.split("\t")[0] for line in (tmp_path / "b" / "x.idx").read_text().splitlines()] == [
        str(key) for key in range(12)
    ]
    for name in "ab":
        source = RecordSource(tmp_path / name / "x.rec")
        assert source.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert source.read(11) == (folder / "id02" / "003.png").read_bytes()
    monkeypatch.setattr(packing, "EXACT_IN_FLOAT", 2)
    with pytest.raises(UserError, match="3 identities · allowed in a .rec"):
        packing.pack(open_path(folder), tmp_path / "c" / "x.rec")


@pytest.mark.parametrize("encoding", [None, packing.Encoding(90)])
def test_people_without_names_keep_their_numbers(tmp_path, encoding):
    """So that data.exclude names the same people before and after."""
    (tmp_path / "im").mkdir()
    for person, label in enumerate((3, 10, 12)):
        for number in range(2):
            cv2.imwrite(str(tmp_path / f"im/{label}_{number}.png"), image(person, number))
    lines = [f"im/{path.name} {path.stem.partition('_')[0]}\n" for path in (tmp_path / "im").iterdir()]
    (tmp_path / "l.txt").write_text("".join(lines))
    packing.pack(open_path(tmp_path / "l.txt"), tmp_path / "a" / "train.rec", encoding)
    packing.pack(open_path(tmp_path / "a"), tmp_path / "b" / "train.rec", packing.Encoding(80))
    for name in "ab":
        source = open_path(tmp_path / name)
        assert (list(source.class_names), source.named) == (["3", "10", "12"], False)
        assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert len(open_source(tmp_path / name, exclude=["12"]).class_names) == 2
    (tmp_path / "l.txt").write_text("im/3_0.png 0\nim/10_0.png 16777217\n")
    with pytest.raises(
        UserError, match=r"an identity with the number 16777217 · allowed in a .rec, .*: up to 16777216"
    ):
        packing.pack(open_path(tmp_path / "l.txt"), tmp_path / "c" / "train.rec", encoding)


def test_encodes_anew_only_where_asked(tmp_path):
    folder = make_training_set(tmp_path / "faces", 2, 1, size=(56, 48))
    assert run(folder, tmp_path / "a" / "x.rec", "--quality", 30) == 0
    assert run(folder, tmp_path / "b" / "x.rec", "--size", "112x96") == 0
    assert run(folder, tmp_path / "c" / "x.rec", "--size", "28x24", "--quality", "100") == 0
    a, b, c = (RecordSource(tmp_path / name / "x.rec").read(1) for name in "abc")
    original = image(1, 0, (56, 48))
    assert a == cv2.imencode(".jpg", original, [cv2.IMWRITE_JPEG_QUALITY, 30])[1].tobytes()
    assert [decode(data).shape for data in (a, b, c)] == [(56, 48, 3), (112, 96, 3), (28, 24, 3)]
    mean = original.reshape(28, 2, 24, 2, 3).mean(axis=(1, 3))
    grey = np.array([0.114, 0.587, 0.299])  # JPEG halves the colours' resolution, not the brightness's
    assert np.abs((decode(c) - mean) @ grey).mean() < 2
    assert [(tmp_path / name / "property").read_text() for name in "abc"] == ["2,56,48", "2,112,96", "2,28,24"]
    assert b != cv2.imencode(".jpg", decode(b), [cv2.IMWRITE_JPEG_QUALITY, 30])[1].tobytes()


def test_joined_sources_are_packed_too(tmp_path):
    parts = [FolderSource(make_training_set(tmp_path / name, 2, 2)) for name in "ab"]
    packing.pack(JoinedSource(parts, ["a", "b"], merge=False), tmp_path / "x.rec")
    source = RecordSource(tmp_path / "x.rec")
    assert source.class_names == ["a/id00", "a/id01", "b/id00", "b/id01"]
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "x.rec"], r"error: SRC: got 'nowhere' \(nothing there\) .*\n"),
        (["faces", "x.zip"], r"error: x.zip: got the ending '.zip' · allowed: .rec, .tar\n"),
        (["faces", "there.rec"], r"error: there.rec: exists already · move it away, or give another name\n"),
        (["faces", "one/x.rec"], r"error: one/x.rec: the property beside it belongs to other.rec · .*\n"),
        (["faces", "x.rec", "--quality", "0"], r"error: --quality: got 0 · allowed: 1 to 100\n"),
        (["faces", "x.rec", "--size", "112"], r"error: --size: got '112' · allowed: height x width .*\n"),
        (["faces", "x.rec", "--size", "0x5"], r"error: --size: got '0x5' .*\n"),
        (["faces", "faces/x.tar"], r"error: DST: got faces/x.tar, inside faces · allowed: a path outside SRC.*\n"),
        (["faces", "faces/id00/x.rec"], r"error: DST: got faces/id00/x.rec, inside faces .*\n"),
        (["faces", "file/x.rec"], r"error: file/x.rec: cannot be written: .* · make room, or give another folder\n"),
    ],
)
def test_bad_arguments_end_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    make_training_set(tmp_path / "faces", 2, 1)
    (tmp_path / "one").mkdir()
    for name in ("there.rec", "file", "one/other.rec", "one/property"):
        (tmp_path / name).write_bytes(b"mine")
    before = written(tmp_path)
    assert run(*arguments) == 2
    assert re.fullmatch(message, capsys.readouterr().err)
    assert written(tmp_path) == before
    assert (tmp_path / "one" / "property").read_bytes() == (tmp_path / "there.rec").read_bytes() == b"mine"


@pytest.mark.parametrize(("row", "encode"), [(0, []), (3, []), (3, ["--quality", "90"])])
def test_an_image_that_cannot_be_read_ends_it_by_name(tmp_path, capsys, row, encode):
    folder = make_training_set(tmp_path / "faces", 2, 2)
    (folder / f"id0{row // 2}" / f"00{row % 2}.png").write_bytes(b"")
    assert run(folder, tmp_path / "new" / "x.rec", *encode) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(rf"error: .*id0{row // 2}/00{row % 2}.png: the file is empty .* --write-list.*", line)
    assert not (tmp_path / "new").exists()


def test_what_vanishes_meanwhile_is_no_full_disk(tmp_path):
    source = open_path(make_training_set(tmp_path / "faces", 2, 2))
    (tmp_path / "faces/id01/001.png").unlink()
    with pytest.raises(UserError, match=r"001.png: No such file or directory · nothing was packed"):
        packing.pack(source, tmp_path / "new" / "x.rec")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch, capsys):
    folder = make_training_set(tmp_path / "faces", 2, 3)
    write_record, seen = RecordWriter.write, []

    def full_after_three(self, key, content):
        if len(seen) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        seen.append(key)
        write_record(self, key, content)

    monkeypatch.setattr(RecordWriter, "write", full_after_three)
    assert run(folder, tmp_path / "new" / "x.rec") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        f"error: {tmp_path}/new/x.rec: cannot be written: the disk is full · make room, or give another folder"
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_disk_that_is_full_at_the_last_write(tmp_path, monkeypatch):
    """Small files are written when they are closed: that is where the error comes."""
    source = open_path(make_training_set(tmp_path / "faces", 2, 1))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".x.rec.part").symlink_to("/dev/full")
    monkeypatch.setattr(packing, "temporary_name", lambda path: path.with_name(f".{path.name}.part"))
    with pytest.raises(UserError, match="the disk is full"):
        packing.pack(source, tmp_path / "new" / "x.rec")
    assert written(tmp_path / "new") == []


@pytest.mark.parametrize("place", range(6))
def test_interrupted_between_any_two_renames_it_never_looks_whole(tmp_path, monkeypatch, place):
    source = open_path(make_training_set(tmp_path / "faces", 2, 2))
    rec = tmp_path / "new" / "train.rec"
    replace, done = Path.replace, []

    def dying(self, target):
        if len(done) == place:
            raise KeyboardInterrupt
        done.append(target.name)
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        if place < 5:
            with pytest.raises(KeyboardInterrupt):
                packing.pack(source, rec)
        else:
            packing.pack(source, rec)
    assert rec.exists() == (place == 5)
    if place < 5:
        with pytest.raises(UserError, match="train.rec"):
            open_path(rec)
        packing.pack(source, rec)
    assert written(rec.parent) == ["property", *NAMES, "train.idx", "train.rec"]
    assert [RecordSource(rec).read(i) for i in range(4)] == [source.read(i) for i in range(4)]


@pytest.mark.parametrize("form", ["folder", "folders", "files"])
def test_nothing_to_pack_is_one_line_and_makes_nothing(tmp_path, capsys, form):
    (tmp_path / "empty" / ("a" if form != "folder" else "")).mkdir(parents=True)
    if form == "files":
        (tmp_path / "empty" / "a" / "notes.md").write_text("x")
    assert run(tmp_path / "empty", tmp_path / "deep" / "new" / "x.rec") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {tmp_path}/deep/new/x.rec: got no images to pack · allowed: ")
    assert written(tmp_path) == ["empty"]


HOLD = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"


def test_the_second_of_two_packs_to_one_folder_ends_in_one_line(tmp_path, capsys):
    folder = make_training_set(tmp_path / "faces", 2, 1)
    new = tmp_path / "new"
    new.mkdir()
    holder = [sys.executable, "-c", HOLD, str(new / ".pack.lock")]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "1\n"
        assert run(folder, new / "x.rec") == 2
        assert "x.rec: another process is packing to this folder · wait for it" in capsys.readouterr().err
        assert written(new) == [".pack.lock"]  # of the other one, which still needs it
        other.communicate("\n")
    assert run(folder, new / "x.rec") == 0
    assert written(new) == ["property", "x.identities.check.json", "x.identities.txt", "x.idx", "x.rec"]


def test_names_of_an_earlier_try_do_not_stay(tmp_path):
    for name in ("x.identities.txt", "x.identities.check.json", "x.idx", "property", ".x.rec.0123456789ab.part"):
        (tmp_path / name).write_text("Somebody\nElse\n")
    rec = write_rec(tmp_path / "old" / "train.rec", insightface_records([[jpeg(0)], [jpeg(1)]]))
    packing.pack(open_path(rec), tmp_path / "x.rec")
    assert RecordSource(tmp_path / "x.rec").class_names == ["0", "1"]
    assert written(tmp_path) == ["old", "property", "x.idx", "x.rec"]


@pytest.mark.parametrize(
    "name", ["x.identities.txt", "x.identities.check.json", "x.idx", "property", "align-report.json", "x.rec"]
)
@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_a_stranger_has_there_is_never_replaced(tmp_path, capsys, name, kind):
    faces, new = make_training_set(tmp_path / "faces", 2, 1), tmp_path / "new"
    (faces / "align-report.json").write_text('{"settings": {}}')
    new.mkdir()
    place = new / name
    if kind == "folder":
        place.mkdir()
    elif kind == "link":
        place.symlink_to(tmp_path / "nothing")
    else:
        place.write_text("mine")
    assert run(faces, new / "x.rec") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(rf"error: {place}: exists already.* · move it away, or give another .*", line)
    assert written(new) == [name]
    assert kind != "file" or place.read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


def test_a_list_is_not_replaced_by_the_names_of_its_own_pack(tmp_path):
    faces = make_training_set(tmp_path / "faces", 2, 1)
    text = "".join(f"faces/{path.parent.name}/{path.name} {path.parent.name[-1]}\n" for path in faces.rglob("*.png"))
    (tmp_path / "x.identities.txt").write_text(text)
    assert run(tmp_path / "x.identities.txt", tmp_path / "x.rec") == 2
    assert (tmp_path / "x.identities.txt").read_text() == text
    assert written(tmp_path) == ["faces", "x.identities.txt"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_report_that_lies_there_stays_when_a_pack_fails(tmp_path, monkeypatch, killed):
    faces = make_training_set(tmp_path / "faces", 2, 1)
    (faces / "align-report.json").write_text('{"settings": {}}')
    if killed:
        (faces / ".train.rec.0123456789ab.part").write_bytes(b"")
    before, source = written(faces), open_path(faces)
    more = {"align-report.json": (faces / "align-report.json").read_bytes()}

    replace = Path.replace

    def dying(self, target):
        if target.name == "train.rec":  # the last
            raise KeyboardInterrupt
        replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            packing.pack(source, faces / "train.rec", more=more)
    assert written(faces) == [name for name in before if not name.startswith(".")]
    packing.pack(source, faces / "train.rec", more=more)
    assert (faces / "align-report.json").read_text() == '{"settings": {}}'


def test_names_of_labels_with_gaps_stay_with_their_labels(tmp_path):
    records = insightface_records([[jpeg(0)], [], [jpeg(1)]])
    rec = write_rec(tmp_path / "old" / "x.rec", [record for record in records if 0 < record[0] < 3])
    rec.with_suffix(".identities.txt").write_text("Ann\nBo\nCy\n")
    packing.pack(open_path(rec), tmp_path / "a" / "x.rec")
    packing.pack(open_path(rec), tmp_path / "b" / "x.rec", packing.Encoding())
    for name in "ab":
        assert RecordSource(tmp_path / name / "x.rec").class_names == ["Ann", "Cy"]


def test_a_blank_name_is_refused_before_anything_is_written(tmp_path):
    for name in ("a", " "):
        write(tmp_path / "faces" / name / "0.png", image(0, 0))
    with pytest.raises(UserError, match="an identity's name is blank · rename it"):
        packing.pack(open_path(tmp_path / "faces"), tmp_path / "new" / "x.rec")
    assert not (tmp_path / "new").exists()


def test_odd_names_survive_and_line_breaks_are_refused(tmp_path):
    names = ["a\u2028b", "a\x0cb", "Zoë", "王"]
    for name in names:
        write(tmp_path / "faces" / name / "0.png", image(0, 0))
    packing.pack(open_path(tmp_path / "faces"), tmp_path / "x.rec")
    assert RecordSource(tmp_path / "x.rec").class_names == sorted(names)
    write(tmp_path / "faces" / "a\rb" / "0.png", image(0, 0))
    with pytest.raises(UserError, match="contains a line break · rename it"):
        packing.pack(open_path(tmp_path / "faces"), tmp_path / "other" / "y.rec")


def jpeg(identity: int) -> bytes:
    return cv2.imencode(".jpg", image(identity, 0))[1].tobytes()


def test_a_killed_pack_leaves_no_rec_and_can_be_done_again(tmp_path):
    first = write(tmp_path / "faces" / "a" / "0.jpg", image(0, 0))
    for name in ("a", "b"):
        (tmp_path / "faces" / name).mkdir(exist_ok=True)
        for k in range(1, 4_000):
            (tmp_path / "faces" / name / f"{k}.jpg").hardlink_to(first)
    rec = tmp_path / "new" / "train.rec"
    command = [sys.executable, str(ROOT / "scripts/pack_faces.py"), str(tmp_path / "faces"), str(rec)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    while not any(part.stat().st_size > 2**20 for part in parts_of(rec)) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not rec.exists()
    assert parts_of(rec)
    assert all(name.startswith(".") for name in written(rec.parent))
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert written(rec.parent) == ["property", *NAMES, "train.idx", "train.rec"]
    source = RecordSource(rec)
    assert np.bincount(source.labels).tolist() == [4_000, 3_999]
    assert source.read(7_998) == first.read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="the quotes of a shell of Unix")
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("a.rec", "data.train=a.rec"),
        ("my a.rec", "'data.train=my a.rec'"),
        ("[a] #b.rec", "'data.train=\"[a] #b.rec\"'"),
    ],
)
def test_the_printed_option_can_be_copied(tmp_path, monkeypatch, capsys, name, option):
    monkeypatch.chdir(tmp_path)
    assert run(make_training_set(tmp_path / "faces", 2, 1), name) == 0
    assert capsys.readouterr().out.rstrip("\n").endswith(f" · train on it: --set {option}")


def test_a_report_counts_for_no_other_set_of_its_folder(tmp_path, capsys, caplog):
    own, other = make_training_set(tmp_path / "own", 2, 2), make_training_set(tmp_path / "other", 3, 1)
    (own / "align-report.json").write_text('{"settings": {"size": "112x96", "template_origin": 1}}')

    def refused(source, name, words, *more):
        before = written(tmp_path / name.split("/")[0])
        assert run(source, tmp_path / name, *more) == 2
        assert words in capsys.readouterr().err
        assert written(tmp_path / name.split("/")[0]) == before

    assert run(own, tmp_path / "a/full.tar") == 0
    would_count = f"near {tmp_path}/a/align-report.json, which is of other crops, or of these in another size, and "
    refused(own, "a/small.tar", would_count, "--size", "56x48")
    refused(other, "a/other.tar", would_count)
    refused(other, "a/deeper/other.rec", would_count)
    assert run(own, tmp_path / "a/train.rec") == 0  # the same crops
    assert run(other, tmp_path / "b/other.tar") == 0
    assert run(other, tmp_path / "b/again.rec") == 0
    assert run(own, tmp_path / "c/full.tar", "--shard-mb", "1") == 0
    assert "beside it" not in caplog.text
    assert run(own, tmp_path / "b/othe.tar") == 0
    told = "othe.tar: if you train on again.rec beside it, the align-report.json of these crops counts for that set"
    assert told in caplog.text
    assert run(own, tmp_path / "c/full.tar", "--shard-mb", "1") == 2  # they exist, which is told
    assert "full-00000-of-00001.tar" in capsys.readouterr().err


def test_the_report_of_align_is_copied_but_not_for_another_size(tmp_path, capsys, caplog):
    faces = make_training_set(tmp_path / "faces", 2, 2)
    report = b'{"settings": {"size": "112x96", "template_origin": 1}}'
    (faces / "align-report.json").write_bytes(report)
    listed = "".join(f"faces/{path.parent.name}/{path.name} {path.parent.name[-1]}\n" for path in faces.rglob("*.png"))
    (tmp_path / "list.txt").write_text(listed)
    for number, source in enumerate((faces, tmp_path / "list.txt", tmp_path / "0/train.rec")):
        assert run(source, tmp_path / str(number) / "train.rec", *(["--quality", "90"] if number else [])) == 0
        assert (tmp_path / str(number) / "align-report.json").read_bytes() == report
        assert training_template(str(tmp_path / str(number) / "train.rec"), None, (112, 96)).origin == 1
    assert run(faces, tmp_path / "small" / "train.rec", "--size", "56x48") == 0
    assert not (tmp_path / "small" / "align-report.json").exists()

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/align-report.json").write_text("{}")
    assert run(faces, tmp_path / "taken/train.rec") == 2
    assert "align-report.json: exists already and belongs to other images" in capsys.readouterr().err
    assert written(tmp_path / "taken") == ["align-report.json"]

    (tmp_path / "list.txt").write_text(f"{listed}other/x/1.png 2\n")
    assert run(tmp_path / "list.txt", tmp_path / "mixed/train.rec") == 2  # of the missing image
    make_training_set(tmp_path / "other", 1, 1)
    (tmp_path / "list.txt").write_text(f"{listed}{next((tmp_path / 'other').rglob('*.png')).relative_to(tmp_path)} 2\n")
    assert run(tmp_path / "list.txt", tmp_path / "mixed/train.rec") == 0
    assert "list.txt: the crops come from several runs of sphereface align" in caplog.text
    assert not (tmp_path / "mixed/align-report.json").exists()
