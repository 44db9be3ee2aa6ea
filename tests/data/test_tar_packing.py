"""Packing into tar shards: the same images, identities and bytes each time; whole or not at all."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from scripts import check_faces, make_pairs, pack_faces
from sphereface.data import tar_packing
from sphereface.data.sources import open_path
from sphereface.data.tar_packing import pack_tar
from sphereface.errors import UserError

from ..images import make_training_set, write
from .recs import insightface_records, write_rec
from .shards import face_lmdb, write_tar


@pytest.fixture
def faces(tmp_path) -> Path:
    return make_training_set(tmp_path / "faces", 4, 5, size=(32, 32))


def content(source) -> tuple[list[bytes], list[int], list[str], bool]:
    return [source.read(row) for row in range(len(source))], source.labels.tolist(), source.class_names, source.named


def test_a_tar_holds_the_same_set_and_the_same_bytes_each_time(faces, tmp_path, capsys):
    (faces / "align-report.json").write_text("{}")
    for name in ("one", "two"):
        assert pack_faces.main([str(faces), str(tmp_path / name / "f.tar")]) == 0
    one, two = tmp_path / "one" / "f.tar", tmp_path / "two" / "f.tar"
    assert one.read_bytes() == two.read_bytes()
    assert content(open_path(one)) == content(open_path(faces))
    assert f"train on it: --set data.train={one}" in capsys.readouterr().out
    assert sorted(path.name for path in one.parent.iterdir()) == ["align-report.json", "f.tar"]
    assert pack_faces.main([str(one), str(tmp_path / "three" / "f.tar")]) == 0
    assert (tmp_path / "three" / "f.tar").read_bytes() == one.read_bytes()
    subprocess.run(["tar", "-tf", one], check=True, capture_output=True)


def test_webdataset_reads_images_and_labels(faces, tmp_path):
    pack_tar(open_path(faces), tmp_path / "t" / "f.tar", most_bytes=20_000)
    shards = sorted(map(str, (tmp_path / "t").glob("*.tar")))
    assert len(shards) > 2
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    source = open_path(faces)
    assert [sample["cls"] for sample in samples] == source.labels.tolist()
    assert len({sample["__key__"] for sample in samples}) == len(source)


def test_shards_are_of_at_most_the_size_and_numbered(faces, tmp_path):
    source = open_path(faces)
    files = pack_tar(source, tmp_path / "t" / "f.tar", most_bytes=20_000)
    count = len(files)
    assert [path.name for path in files] == [f"f-{n:05d}-of-{count:05d}.tar" for n in range(count)]
    sizes = [path.stat().st_size for path in files]
    assert max(sizes) <= 20_000
    assert min(sizes[:-1]) > 13_000
    assert content(open_path(tmp_path / "t")) == content(source)
    pattern = tmp_path / "t" / f"f-{{00000..{count - 1:05d}}}-of-{count:05d}.tar"
    assert content(open_path(pattern)) == content(source)
    files[1].unlink()
    with pytest.raises(UserError, match=rf"got {count - 1} of the {count:05d} files 'f'"):
        open_path(tmp_path / "t")
    assert len(pack_tar(source, tmp_path / "u" / "f.tar", most_bytes=1)) == len(source)  # one image each


def test_the_pattern_that_is_printed_can_be_pasted(tmp_path, capsys):
    faces, random = tmp_path / "faces", np.random.default_rng(0)
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        write(faces / name, random.integers(0, 256, (500, 400, 3), dtype=np.uint8))
    assert pack_faces.main([str(faces), str(tmp_path / "t" / "f.tar"), "--shard-mb", "1"]) == 0
    line = capsys.readouterr().out.strip().rpartition("train on it: ")[2]
    printed = subprocess.run(["bash", "-c", f"printf '%s\n' {line}"], check=True, capture_output=True, text=True)
    pattern = tmp_path / "t" / f"f-{{00000..{len(list((tmp_path / 't').glob('*.tar'))) - 1:05d}}}-of-"
    option, value = printed.stdout.splitlines()
    assert (option, value.startswith(f"data.train={pattern}")) == ("--set", True)
    assert len(open_path(Path(value.partition("=")[2]))) == 4


@pytest.mark.parametrize("kind", ["labels", "words"])
def test_identities_without_names_keep_their_labels(faces, tmp_path, kind):
    images = [path.read_bytes() for path in sorted(faces.rglob("*.png"))]
    if kind == "labels":
        source = open_path(
            face_lmdb(tmp_path / "a.lmdb", [(image, 7 + row // 5 * 3) for row, image in enumerate(images)])
        )
    else:
        source = open_path(write_rec(tmp_path / "r.rec", insightface_records([images[:9], images[9:]])))
    pack_tar(source, tmp_path / "f.tar")
    assert content(open_path(tmp_path / "f.tar")) == content(source)
    assert open_path(tmp_path / "f.tar").class_names == (["7", "10", "13", "16"] if kind == "labels" else ["0", "1"])


def test_names_in_any_script_and_long_ones(tmp_path):
    names = ["Zoë", "O'Neil, J.", "姚明", "n" * 200, "a b"]
    root = make_training_set(tmp_path / "faces", len(names), 2, size=(32, 32))
    for number, name in enumerate(names):
        (root / f"id{number:02d}").rename(root / name)
    pack_tar(open_path(root), tmp_path / "f.tar")
    assert content(open_path(tmp_path / "f.tar")) == content(open_path(root))


@pytest.mark.parametrize("name", ["..", "a\nb", " a", ".a", "a/../b", "C:x", "@eaDir"])
def test_a_name_that_is_no_folders_is_refused_before_anything_is_written(faces, tmp_path, name):
    source = open_path(faces)
    source.class_names[1] = name
    with pytest.raises(
        UserError, match=r"f\.tar: the identity .* cannot be a folder's name .* a colon after the first letter"
    ):
        pack_tar(source, tmp_path / "t" / "f.tar")
    assert not (tmp_path / "t").exists()


def test_nothing_is_left_of_a_pack_that_fails(faces, tmp_path, monkeypatch):
    (faces / "id03" / "004.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"004\.png: the file is empty \(0 bytes\) · nothing was packed"):
        pack_tar(open_path(faces), tmp_path / "t" / "f.tar", most_bytes=20_000, more={"align-report.json": b"{}"})
    assert not (tmp_path / "t").exists()
    (faces / "id03" / "004.png").unlink()
    calls: list[Path] = []
    original = Path.replace

    def fail(path, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return original(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UserError, match=r"cannot be written: the disk is full · make room"):
        pack_tar(open_path(faces), tmp_path / "t" / "f.tar", most_bytes=20_000, more={"align-report.json": b"{}"})
    assert len(calls) == 3
    assert not (tmp_path / "t").exists()


def test_a_pack_that_was_killed_while_renaming_is_no_set_and_is_done_again(faces, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    original, count = Path.replace, [0]

    def kill(path, target):
        count[0] += 1
        if count[0] == 3:
            raise Killed
        return original(path, target)

    monkeypatch.setattr(Path, "replace", kill)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # a kill leaves all as it is
    with pytest.raises(Killed):
        pack_tar(open_path(faces), tmp_path / "t" / "f.tar", most_bytes=20_000)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"got 2 of the \d+ files 'f'"):
        open_path(tmp_path / "t")
    (tmp_path / "t" / ".pack.lock").unlink(missing_ok=True)
    pack_tar(open_path(faces), tmp_path / "t" / "f.tar", most_bytes=20_000)
    assert content(open_path(tmp_path / "t")) == content(open_path(faces))
    assert not list((tmp_path / "t").glob(".*"))


def test_no_file_is_replaced(faces, tmp_path, capsys):
    arguments = [str(faces), str(tmp_path / "t" / "f.tar")]
    assert pack_faces.main(arguments) == 0
    before = (tmp_path / "t" / "f.tar").read_bytes()
    assert pack_faces.main(arguments) == 2
    assert pack_faces.main([*arguments, "--shard-mb", "1"]) == 2
    assert capsys.readouterr().err.count("f.tar: exists already · move it away") == 2
    assert pack_faces.main([str(faces), str(tmp_path / "u" / "f.tar"), "--shard-mb", "1"]) == 0
    assert pack_faces.main([str(faces), str(tmp_path / "u" / "f.tar"), "--shard-mb", "1"]) == 2
    assert "f-00000-of-00001.tar: exists already" in capsys.readouterr().err
    assert (tmp_path / "t" / "f.tar").read_bytes() == before
    (tmp_path / "u" / "g-h-00000-of-00001.tar").write_bytes(b"another set")
    assert pack_faces.main([str(faces), str(tmp_path / "u" / "g.tar"), "--shard-mb", "1"]) == 0
    for bad in ("0", "-1", "9999999"):
        assert pack_faces.main([str(faces), str(tmp_path / "v" / "f.tar"), "--shard-mb", bad]) == 2
    assert pack_faces.main([str(faces), str(tmp_path / "v" / "f.rec"), "--shard-mb", "1"]) == 2
    assert "--shard-mb: got it with f.rec · allowed: a destination that ends in .tar" in capsys.readouterr().err


def test_encoding_anew(faces, tmp_path):
    assert pack_faces.main([str(faces), str(tmp_path / "f.tar"), "--size", "16x16"]) == 0
    with tarfile.open(tmp_path / "f.tar") as file:
        names = file.getnames()
    assert names[:2] == ["id00/000000000.jpg", "id00/000000000.cls"]
    assert len(names) == len(set(names)) == 40


def test_an_image_of_no_known_kind_keeps_its_bytes(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("a/0.jpg", b"???"), ("b/0.webp", b"RIFF1234WEBP")])
    pack_tar(open_path(path), tmp_path / "f.tar")
    with tarfile.open(tmp_path / "f.tar") as file:
        assert file.getnames()[::2] == ["a/000000000.jpg", "b/000000001.webp"]
    assert content(open_path(tmp_path / "f.tar"))[0] == [b"???", b"RIFF1234WEBP"]


def test_other_commands_take_a_tar(faces, tmp_path, capsys):
    pack_tar(open_path(faces), tmp_path / "t" / "f.tar", most_bytes=20_000)
    assert check_faces.main([str(tmp_path / "t"), "--output", str(tmp_path / "report")]) in (0, 1)
    assert "20" in capsys.readouterr().out
    big = make_training_set(tmp_path / "big", 6, 4, size=(32, 32))
    pack_tar(open_path(big), tmp_path / "big.tar")
    pairs = ["--people", "4", "--folds", "2"]
    for name, place in (("a", big), ("b", tmp_path / "big.tar")):
        assert make_pairs.main([str(place), str(tmp_path / name), *pairs]) == 0
    assert (tmp_path / "a" / "pairs.txt").read_bytes() == (tmp_path / "b" / "pairs.txt").read_bytes()


def test_the_end_mark_is_written(faces, tmp_path):
    pack_tar(open_path(faces), tmp_path / "f.tar")
    data = np.frombuffer((tmp_path / "f.tar").read_bytes(), np.uint8)
    assert len(data) % 512 == 0
    assert not data[-1024:].any()
    assert bytes(1024) == tar_packing._END
