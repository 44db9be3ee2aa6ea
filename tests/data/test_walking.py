"""The one way to walk a folder of images, and that every reader of a folder uses it."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import unicodedata
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from sphereface.data.images import IMAGE_SUFFIXES
from sphereface.data.sources import FolderSource
from sphereface.data.walking import (
    Walked,
    check_readable,
    check_writable,
    kind_of_path,
    nfc,
    printable,
    walk_images,
)
from sphereface.errors import UserError
from sphereface.evaluation.people import list_people
from sphereface.export.quantise import calibration_crops

from ..images import image, write


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def closed():
    """A folder that anybody may reach; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


@contextmanager
def without_privilege():
    """As a user who may not read everything; root becomes nobody for the while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_images_at_any_depth_and_what_is_passed_over(tmp_path):
    taken = ["a/1.jpg", "a/s1/x/2.JFIF", "a-b/3.Png", "loose.webp", "names.jpg/4.pgm", "ü ß/5.bmp"]
    counted = {
        "a/phone.AVIF": ".avif", "b/q.avif": ".avif", "b/scan.tiff": ".tiff", "b/noext": "without a suffix",
        "a/.7.jpg.icloud": ".icloud", "b/._8.HEIC.icloud": ".icloud",
        "b/pairs.txt": ".txt", "b/jpg": "without a suffix", "b/x.averylongsuffixindeed": "with a long or odd suffix",
    }  # fmt: skip
    silent = [".DS_Store", "a/._1.jpg", ".cache/y.jpg", "a/Thumbs.db", "b/desktop.ini", "__MACOSX/a/1.jpg"]
    silent += [".icloud", "a/.x.icloud/1.jpg"]  # a folder is no file that iCloud has not downloaded
    silent += ["pairs.txt", "people.txt", "names.tsv", "align-report.json", "landmarks.txt", "a/@eaDir/1.jpg"]
    silent += ["a/align-report.json", "a/landmarks.txt"]  # of one align for each identity
    for name in [*taken, *counted, *silent]:
        put(tmp_path / name)
    walked = walk_images(tmp_path)
    assert walked.names == sorted(taken)
    assert walked.images == [tmp_path / name for name in sorted(taken)]
    assert walked.loose == ["loose.webp"]
    assert walked.skipped == Counter(counted.values())
    assert walked.identities() == {
        "a": ["a/1.jpg", "a/s1/x/2.JFIF"], "a-b": ["a-b/3.Png"], "names.jpg": ["names.jpg/4.pgm"],
        "ü ß": ["ü ß/5.bmp"],
    }  # fmt: skip


def test_every_suffix_that_is_read_is_taken(tmp_path):
    for suffix in IMAGE_SUFFIXES:
        put(tmp_path / f"a/x{suffix}")
        put(tmp_path / f"a/y{suffix.upper()}")
    assert ".jfif" in IMAGE_SUFFIXES
    assert len(walk_images(tmp_path).names) == 2 * len(IMAGE_SUFFIXES)


@pytest.mark.skipif(os.name != "posix", reason="FIFOs, links and sockets of POSIX")
def test_what_is_no_plain_file_is_counted_and_never_opened(tmp_path):
    put(tmp_path / "a/1.jpg")
    os.mkfifo(tmp_path / "a/fifo.jpg")
    (tmp_path / "a/zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "a/dead.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "a/self.jpg").symlink_to("self.jpg")
    (tmp_path / "a/link.jpg").symlink_to("1.jpg")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(tmp_path / "a")  # a socket's path is short
    try:
        listener.bind("s.jpg")
    finally:
        os.chdir(here)
        listener.close()
    walked = walk_images(tmp_path)
    assert walked.names == ["a/1.jpg", "a/link.jpg"]
    assert walked.skipped == {"that are not regular files": 3, "links without a target": 2}
    assert FolderSource(tmp_path).labels.tolist() == [0, 0]


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_links_to_folders_are_followed_once_and_loops_counted(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(root / "a/1.jpg")
    put(outside / "2.jpg")
    put(outside / "deep/3.jpg")
    (root / "b").symlink_to(outside)  # an identity that lies elsewhere
    (root / "a/more").symlink_to(outside)
    (root / "a/again").symlink_to(outside)  # once is enough
    (root / "a/up").symlink_to(root)
    (root / "a/top").symlink_to("/")
    (root / "a/b").symlink_to("../b")  # through a link to the same folder
    (root / "self").symlink_to(".")
    (root / "parent").symlink_to("..")
    (outside / "back").symlink_to(root)
    walked = walk_images(root)
    once = (
        {"a/more/2.jpg", "a/more/deep/3.jpg"},
        {"a/again/2.jpg", "a/again/deep/3.jpg"},
        {"a/b/2.jpg", "a/b/deep/3.jpg"},
    )
    assert set(walked.names) - {"a/1.jpg", "b/2.jpg", "b/deep/3.jpg"} in once
    assert set(walked.skipped) == {"links to folders that are read anyway"}


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_no_two_identities_are_links_to_the_same_images(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(root / "m/1.jpg")
    put(root / ".versions/2/1.jpg")
    put(outside / "1.jpg")
    for name in ("y", "c", "x", "b"):
        (root / name).symlink_to(outside)  # the first by name counts
    (root / "a").symlink_to("m")
    (root / "z").symlink_to("m")
    (root / "v").symlink_to(".versions/2")  # which is read through this link alone
    walked = walk_images(root)
    assert walked.names == ["b/1.jpg", "m/1.jpg", "v/1.jpg"]
    assert walked.skipped == {"links to folders that are read anyway": 5}


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_folders_that_link_to_each_other_end(tmp_path):
    for number in range(12):  # all ways through them would be 12!
        put(tmp_path / f"out/{number}/x.jpg")
        for other in range(12):
            (tmp_path / f"out/{number}/to{other}").symlink_to(f"../{other}")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").symlink_to("../out/0")
    assert len(walk_images(tmp_path / "root").names) == 12


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_folder_that_may_not_be_read_or_entered_is_an_error_for_everybody(closed, mode):
    write(closed / "root/a/1.png", image(1, 1))
    write(closed / "root/b/deep/1.png", image(1, 2))
    (closed / "root/b/deep").chmod(mode)
    readers = (walk_images, FolderSource, list_people, lambda root: calibration_crops(root, (112, 96)))
    with without_privilege():
        for read in readers:
            with pytest.raises(
                UserError, match=r"root/b/deep: cannot be read \(Permission denied\) · .* give yourself read permission"
            ):
                read(closed / "root")
        with pytest.raises(UserError, match=r"deep: cannot be read \(Permission denied\)"):
            check_readable(closed / "root/b/deep", "x")


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_what_lies_at_a_path(closed):
    put(closed / "f")
    os.mkfifo(closed / "p")
    (closed / "d").mkdir()
    assert [kind_of_path(closed / name) for name in ("f", "p", "d", "none", "f/below")] == [
        *("file", "something else", "folder", "nothing", "nothing"),
    ]
    with pytest.raises(UserError, match=r"^k: n+…: cannot be read \(File name too long\)$"):
        kind_of_path("n" * 300, "k")
    with pytest.raises(UserError, match=r"^a\\x00b: cannot be read \(embedded null byte\)$"):
        kind_of_path("a\0b")
    (closed / "d").chmod(0)
    with without_privilege(), pytest.raises(UserError, match=r"d/x: cannot be read \(Permission denied\)"):
        kind_of_path(closed / "d/x")


@pytest.mark.parametrize("place", ["none", "f", "n" * 300, "a\0b"])
def test_what_is_no_folder_to_walk(tmp_path, place):
    put(tmp_path / "f")
    with pytest.raises(UserError, match=r"cannot be read \(.*\) · allowed: a folder of images$") as error:
        walk_images(tmp_path / place)
    assert "\n" not in str(error.value)


def test_folders_as_deep_as_a_path_may_be(tmp_path):
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):  # 30 × 200 bytes are more than a path may have
        os.mkdir("d" * 200, dir_fd=at)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    with pytest.raises(UserError, match=r"cannot be read \(File name too long\)"):
        walk_images(tmp_path)


def test_folders_deeper_than_python_calls_itself(tmp_path):
    path = str(tmp_path)
    for _ in range(1500):
        path += "/d"
        Path(path).mkdir()
    try:
        assert walk_images(tmp_path).names == []
    finally:  # pytest would call itself as often
        for _ in range(1500):
            Path(path).rmdir()
            path = path[:-2]


def test_the_sentence_on_what_was_not_read():
    def not_read(skipped):
        return Walked(Path(), skipped=skipped).not_read()

    assert not_read(Counter()) == ""
    assert not_read(Counter({".tiff": 7, ".heic": 30})).startswith(
        "37 files were not read: 30 .heic, 7 .tiff · images are"
    )
    remedy = ".webp · to read HEIC: pip install '.[heic]' in this project's folder"
    assert not_read(Counter({".heif": 1})).endswith(remedy)
    assert not_read(Counter({".gif": 1})).endswith(" · convert .gif to JPEG or PNG first")
    assert " · convert .gif and .tiff to JPEG or PNG first" in not_read(Counter({".tiff": 7, ".gif": 1, ".txt": 1}))
    assert "convert" not in not_read(Counter({".txt": 1}))
    remedy = " · iCloud has not downloaded the .icloud files: download them first"
    assert remedy in not_read(Counter({".icloud": 2, ".heic": 1}))
    assert "iCloud" not in not_read(Counter({".heic": 1}))
    assert not_read(Counter({".gif": 1})).startswith("1 file was not read: 1 .gif · ")
    many = not_read(Counter({f".{number:04d}": 1 for number in range(5000)}))
    assert "5,000 files were not read: 1 .0000, " in many
    assert "4,992 of 4,992 other kinds" in many
    assert len(many) < 300


def test_names_on_one_line():
    assert printable("Zoë 王 x.jpg") == "Zoë 王 x.jpg"
    assert printable("می\u200cخواهم\u3000x") == "می\u200cخواهم\u3000x"  # letters of a script, not signs of control
    assert printable("a\nb\tc\x7f\u2028\udce9") == "a\\nb\\tc\\x7f\\u2028\\udce9"
    assert nfc(unicodedata.normalize("NFD", "é")) == "é"


def test_people_with_folders_of_their_own(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    for name in ("a/2.jpg", "a/s/1.jpg", "b/1.jpg", "loose.jpg", "b/x.avif", "only/y.avif"):
        put(tmp_path / name)
    (tmp_path / "none/below").mkdir(parents=True)
    with caplog.at_level("WARNING", logger="sphereface"):
        people = list_people(tmp_path)
    assert people.names == ("a", "b")
    np.testing.assert_array_equal(people.person, [0, 0, 1])
    assert people.images.names == ("a/2.jpg", "a/s/1.jpg", "b/1.jpg")
    assert "images in no identity's folder are left out: 1, such as loose.jpg" in caplog.text
    assert "2 files were not read: 2 .avif" in caplog.text
    assert "folders without an image: 2, such as none" in caplog.text


def test_what_cannot_be_written_is_refused_beforehand(tmp_path, monkeypatch):
    put(tmp_path / "file")
    for allowed in ("file", "new", "new/folder/file"):
        check_writable(tmp_path / allowed)
    for path in (tmp_path, tmp_path / "file/x", tmp_path / "file/x/y"):
        with pytest.raises(UserError, match=r"cannot be written · allowed: a file in a folder that you can write to"):
            check_writable(path)
    monkeypatch.setattr(os, "access", lambda folder, mode: not (Path(folder) == tmp_path and mode == os.W_OK))
    with pytest.raises(UserError, match="new/folder/file: cannot be written"):
        check_writable(tmp_path / "new/folder/file")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="^relative: cannot be written"):
        check_writable(Path("relative"))
