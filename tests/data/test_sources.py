"""Folders, lists, zips, several as one, and what is left out of them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import os
import pickle
import re
import struct
import tempfile
import time
import tracemalloc
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sphereface.data.clean_list import _listed
from sphereface.data.packing import pack
from sphereface.data.sources import (
    FolderSource,
    JoinedSource,
    ListSource,
    RecordSource,
    ZipSource,
    cached,
    open_path,
    open_source,
    shared_names,
)
from sphereface.data.sources.base import TextTable, read_file
from sphereface.data.sources.folder import first_folders
from sphereface.data.sources.listing import parse_list
from sphereface.data.sources.name_lists import names_text, read_names
from sphereface.data.sources.selection import SelectedSource
from sphereface.errors import UserError

from ..images import image, make_training_set, write
from .recs import insightface_records, write_rec


@pytest.fixture(autouse=True)
def heard_log(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    caplog.set_level(logging.INFO, logger="sphereface")


def put(path: Path, data: bytes = b"image") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def put_people(root: Path, counts: dict[str, int]) -> Path:
    """Images that hold their own path, for tests that decode nothing."""
    for name, count in counts.items():
        for k in range(count):
            put(root / name / f"{k}.jpg", f"{name}/{k}".encode())
    return root


def contents(source) -> list[tuple[str, str]]:
    return [(source.class_names[source.labels[i]], source.read(i).decode()) for i in range(len(source))]


def zip_of(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


# -------------------------------------------------------------------- folder


def test_classes_are_folders_sorted_by_name(tmp_path):
    for name in ("b", "a", "10", "9"):
        write(tmp_path / name / "1.png", image(1, 1))
    write(tmp_path / "a" / "0.jpg", image(1, 2))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "pairs.txt").write_text("no folder")
    (tmp_path / "empty").mkdir()
    source = FolderSource(tmp_path)
    assert source.class_names == ["10", "9", "a", "b"]
    assert source.labels.tolist() == [0, 1, 2, 2, 3]
    assert [source.name(i).removeprefix(str(tmp_path)) for i in (2, 3)] == ["/a/0.jpg", "/a/1.png"]
    assert source.read(2) == (tmp_path / "a" / "0.jpg").read_bytes()


def test_names_in_any_script_and_in_either_form_of_unicode(tmp_path, caplog):
    for name in ("王小明", "Łukasz Żółć", "أحمد", "Zoë"):
        put(tmp_path / unicodedata.normalize("NFD", name) / "фото 1.png")
    source = FolderSource(tmp_path)
    assert source.class_names == sorted(["王小明", "Łukasz Żółć", "أحمد", "Zoë"])  # composed, as most programs write
    assert [source.read(i) for i in range(4)] == [b"image"] * 4
    assert "form" not in caplog.text
    put(tmp_path / unicodedata.normalize("NFC", "Zoë") / "2.png", b"second")
    source = FolderSource(tmp_path)
    assert source.class_names.count("Zoë") == 1
    assert contents(source)[:2] == [("Zoë", "second"), ("Zoë", "image")]
    assert "differ only in Unicode's form" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="names of bytes are POSIX's")
def test_a_name_that_is_no_utf8_is_read_and_can_be_printed(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102
    with open(folder + b"/1.jpg", "wb") as file:  # noqa: PTH123
        file.write(b"image")
    source = FolderSource(tmp_path)
    assert source.read(0) == b"image"
    assert source.name(0).encode("utf-8").endswith(b"caf\\udce9/1.jpg")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, r"data.train: got .*nothing there.* allowed: a folder of identities"),
        (lambda root: put(root), r"data.train: got .*\(a file\) · allowed: a folder of identities.*, a \.rec, a list"),
        (lambda root: root.mkdir(), r"crops: got 0 identities with 1 or more images, of 0 in all"),
        (lambda root: make_training_set(root, 1), r"got 1 identity with 1 .*, of 1 in all · allowed: two or more"),
        (lambda root: put(root / "a.jpg"), r"got 0 identities .* root/<identity>/<image>"),
    ],
)
def test_what_is_no_training_set(tmp_path, prepare, message):
    prepare(tmp_path / "crops")
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "crops")


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path):
    put_people(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "b").chmod(0)
    with pytest.raises(UserError, match=r"b: cannot be read \(Permission denied\)"):
        FolderSource(tmp_path)


@pytest.mark.parametrize("flat", [True, False])
def test_everything_below_the_first_folder_is_the_identitys_in_a_folder_and_in_a_zip(tmp_path, caplog, flat):
    below = {"q0": ["1.jpg", "s2/0.jpg", "s2/x/y.jpg"], "q1": ["1.jpg"], "q4": ["video/1.jpg", "video/2.jpg"]}
    if not flat:  # nobody has an image in the first folder itself
        below = {identity: [f"session/{name}" for name in names] for identity, names in below.items()}
    folder = tmp_path / "set"
    for identity, names in below.items():
        for name in names:
            put(folder / identity / name, f"{identity}/{name}".encode())
    put(folder / "loose.jpg")
    put(folder / "q1/a.avif")
    members = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    texts = []
    for place, above in ((folder, ""), (tmp_path / "s.zip", ""), (tmp_path / "t.zip", "some/where/")):
        if above or place.suffix:
            zip_of(place, {above + name: data for name, data in members.items()})
        caplog.clear()
        source = open_path(place)
        assert contents(source) == [(who, f"{who}/{name}") for who in below for name in below[who]]
        assert source.class_names == list(below)
        texts.append([record.getMessage().partition(f"{place}: ")[2].replace(above, "") for record in caplog.records])
    assert texts[0] == texts[1] == texts[2]
    assert texts[0][:2] == [
        "images in no identity's folder are left out: 1, such as loose.jpg",
        f"{4 if flat else 6} images are in subfolders of an identity's folder: the first folder is their identity",
    ]
    assert texts[0][2].startswith("1 file was not read: 1 .avif")


@given(
    st.lists(
        st.text("aeé\u0301 .-_", min_size=1, max_size=6).map(str.strip).filter(lambda n: n and n[0] != "."),
        min_size=2,
        max_size=12,
    )
)
@settings(max_examples=30, deadline=None)
def test_the_order_of_flat_folders_is_what_it_was(names):
    """Labels and images of checkpoints rest on it: folders by composed name, then images likewise."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for number, name in enumerate(names):
            put(root / name / f"{names[-number]}{number}.jpg", f"{name}/{number}".encode())
        composed = {unicodedata.normalize("NFC", folder.name) for folder in root.iterdir()}
        files = [path.relative_to(root).as_posix() for path in root.glob("*/*")]
        source = FolderSource(root)
        assert source.class_names == sorted(composed)
        expected = sorted(files, key=lambda name: [unicodedata.normalize("NFC", part) for part in name.split("/")])
        found = [source.name(i).removeprefix(f"{root}/") for i in range(len(source))]
        plain = [unicodedata.normalize("NFC", name) for name in found]
        assert plain == [unicodedata.normalize("NFC", name) for name in expected]
        assert [source.read(i) for i in range(len(source))] == [(root / name).read_bytes() for name in found]


# -------------------------------------------------------------------- list


def test_a_list_as_the_original_has_it(tmp_path, caplog):
    put_people(tmp_path / "CASIA", {"0000045": 2, "0000099": 1, "a b": 2})
    lines = ["CASIA/0000099/0.jpg 1", "CASIA/a b/1.jpg 3", "", "CASIA/0000045/1.jpg 0", "CASIA/a b/0.jpg\t3"]
    text = "\r\n".join([*lines, "CASIA/0000045/0.jpg 0"])
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    source = ListSource(tmp_path / "list.txt")
    assert source.labels.tolist() == [0, 0, 1, 2, 2]  # the label 2 is not there: the gap is closed
    assert contents(source) == contents(FolderSource(tmp_path / "CASIA"))
    assert source.named
    assert source.name(3) == str(tmp_path / "CASIA/a b/0.jpg")
    assert "list.txt: labels from 0 to 3 have gaps: its 3 identities are renumbered" in caplog.text


def test_a_list_relative_to_a_given_root_or_absolute(tmp_path):
    put_people(tmp_path / "data", {"a": 1, "b": 1})
    put(tmp_path / "lists" / "l.txt", f"a/0.jpg 0\n{tmp_path}/data/b/0.jpg 1\n".encode())
    source = open_source(tmp_path / "lists" / "l.txt", root=tmp_path / "data")
    assert contents(source) == [("a", "a/0"), ("b", "b/0")]


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["x/0.jpg 4", "x/1.jpg 9"], ["4", "9"]),  # one folder for two people
        (["x/0.jpg 4", "y/0.jpg 4", "z/0.jpg 5"], ["4", "5"]),  # two folders for one
        (["x/0.jpg 10", "y/0.jpg 9"], ["y", "x"]),  # by number, not by text
        (["0.jpg 0", "1.jpg 1"], ["0", "1"]),
    ],
)
def test_names_of_a_lists_identities(tmp_path, lines, names):
    for line in lines:
        put(tmp_path / line.split()[0])
    source = ListSource(put(tmp_path / "l.txt", "\n".join(lines).encode()))
    assert source.class_names == names
    assert source.named == (names == ["y", "x"])


def test_lists_joined_by_cat_are_told(tmp_path, caplog):
    """Each begins at label 0, so an identity would be two people; sections of one list have the same folders."""
    put_people(
        tmp_path, {f"{one}/{name}": 2 for one in ("ca", "cb") for name in ("Anna", "Bob", "Xu", "Yves", "0", "1")}
    )
    put_people(tmp_path, {f"{part}/{name}": 2 for part in ("train", "val") for name in range(3)})

    def opened(*parts: str) -> list[str]:
        lines = [
            f"{folder}/{k}.jpg {label}" for part in parts for label, folder in enumerate(part.split()) for k in (0, 1)
        ]
        caplog.clear()
        ListSource(put(tmp_path / "l.txt", "\n".join(lines).encode()))
        return [message.partition("l.txt: ")[2].partition(": ")[0] for message in caplog.messages]

    sentence = "labels have other folders in another part of the set, such as"
    assert opened("ca/Anna ca/Bob", "cb/Xu cb/Yves") == [f"2 of 2 {sentence} 0 in ca/Anna and in cb/Xu"]
    assert opened("ca/Anna ca/Bob ca/Xu", "cb/Anna cb/Yves") == [f"1 of 3 {sentence} 1 in ca/Bob and in cb/Yves"]
    assert opened("ca/0 ca/1", "cb/0 cb/1") == [f"2 of 2 {sentence} 0 in ca/0 and in cb/0"]  # numbers are no names
    assert opened("ca/Anna ca/Bob", "cb/Anna cb/Bob") == []  # one set's train and test
    assert opened("train/0 train/1 train/2", "val/0 val/1 val/2") == []  # the same with numbers
    assert opened("ca/Anna ca/Bob", "ca/Anna ca/Bob")[:1] == [
        "4 lines repeat the image of another line, such as ca/Anna/0.jpg"
    ]


def test_a_few_people_with_two_folders_are_not_two_lists(tmp_path, caplog):
    """A list that follows its folders, in which cleaning merged the last one with the third."""
    people = [f"m.{n:03d}" for n in range(30)]
    put_people(tmp_path, dict.fromkeys(people, 2))
    labels = [*range(28), 5, 2]
    lines = [f"{name}/{k}.jpg {label}" for name, label in zip(people, labels, strict=True) for k in range(2)]
    with caplog.at_level(logging.WARNING):
        source = ListSource(put(tmp_path / "l.txt", "\n".join(lines).encode()))
    assert len(source.class_names) == 28
    assert caplog.messages == []


def test_a_list_of_labels_across_the_folders_is_told(tmp_path, caplog):
    """Also labels that one row shifts; two folders of a person are no reason."""
    put_people(tmp_path, {f"p{n}": 3 for n in range(9)})
    images = [f"p{n}/{k}.jpg" for n in range(9) for k in range(3)]

    def opened(labels: list[int], head: str = "") -> str:
        lines = head + "".join(f"{path} {label}\n" for path, label in zip(images, labels, strict=True))
        caplog.clear()
        ListSource(put(tmp_path / "l.txt", lines.encode()))
        return caplog.text

    sentence = "such as 20 in p0 and p1 · if the folders are the identities, give their folder instead of the list"
    ages = [20 + n % 2 for n in range(27)]
    assert f"the identities are the labels, and 2 of 2 are in several of 9 folders, {sentence}" in opened(ages)
    assert "several of" not in opened(ages, "# identities: labels\n")
    assert "9 of 9 are in several of 9 folders" in opened([n * 7 % 27 // 3 for n in range(27)])
    assert "the labels slipped by 1 line against the images from p1/0.jpg on" in opened(
        [(n - 1) % 27 // 3 for n in range(27)]
    )
    assert "WARNING" not in opened([max(1, n // 3) for n in range(27)])  # p0 and p1 are one person
    assert "WARNING" not in opened(list(range(27)))


def test_train_and_val_of_two_people_are_no_ages(tmp_path, caplog):
    paths = [f"{part}/{person}_{k}.jpg" for part in ("train", "val") for k in range(2) for person in range(2)]
    for path in paths:
        put(tmp_path / path, b"")
    ListSource(put(tmp_path / "l.txt", "".join(f"{path} {path.split('/')[1][0]}\n" for path in paths).encode()))
    assert "WARNING" not in caplog.text


@pytest.mark.parametrize(
    ("head", "foot", "message"),
    [
        (
            "9 3\n",
            "",
            "l.txt, first line: got '9 3', which may be a count · allowed: a line 'path label' for each image",
        ),
        ("# images 9\n", "", "l.txt, first line: got '# images 9', which may be a count"),
        ("", "total 9\n", "l.txt, last line: got 'total 9', which may be a count"),
    ],
)
def test_a_count_is_no_image(tmp_path, head, foot, message):
    put_people(tmp_path, {"a": 2, "b": 1})
    with pytest.raises(UserError, match=message):
        ListSource(put(tmp_path / "l.txt", f"{head}a/0.jpg 0\na/1.jpg 0\nb/0.jpg 1\n{foot}".encode()))
    put(tmp_path / "9")
    assert len(ListSource(put(tmp_path / "l.txt", b"9 3\n9 4\n"))) == 2


def test_lines_that_name_one_image_twice_are_told(tmp_path, caplog):
    put_people(tmp_path, {"a": 2, "b": 1})
    lines = ["a/0.jpg 0", "./a/0.jpg 0", "a/1.jpg 0", "b/../a/0.jpg 1", "b/0.jpg 1", f"{tmp_path}/a/0.jpg 1"]
    assert len(ListSource(put(tmp_path / "l.txt", "\n".join(lines).encode()))) == 6
    sentence = "l.txt: 3 lines repeat the image of another line, such as a/0.jpg: each line counts"
    assert sentence in caplog.text
    assert "l.txt: 1 image has two labels or more, such as a/0.jpg · delete the" in caplog.text
    caplog.clear()
    ListSource(put(tmp_path / "l.txt", "\n".join(lines[:3] + lines[4:5]).encode()))
    assert sentence.replace("3 lines repeat", "1 line repeats") in caplog.text
    assert "two labels" not in caplog.text
    caplog.clear()
    ListSource(put(tmp_path / "l.txt", "\n".join(lines[2:3] + lines[4:5]).encode()))
    assert not caplog.records


def test_two_files_whose_names_differ_in_the_form_of_a_letter_are_two_images(tmp_path, caplog):
    composed, decomposed = "Jos\u00e9", "Jose\u0301"
    put_people(tmp_path, {composed: 1, "b": 1})
    lines = f"{composed}/0.jpg 0\n{decomposed}/0.jpg 0\nb/0.jpg 1\n"
    same_file = (tmp_path / decomposed).exists()  # as on macOS
    ListSource(put(tmp_path / "l.txt", lines.encode()))
    assert ("1 line repeats the image of another line" in caplog.text) == same_file
    caplog.clear()
    if not same_file:
        put_people(tmp_path, {decomposed: 1})
        ListSource(put(tmp_path / "l.txt", lines.encode()))
        assert "repeat" not in caplog.text
        ListSource(put(tmp_path / "l.txt", (lines + f"{decomposed}/0.jpg 0\n").encode()))
        assert "1 line repeats the image of another line" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"l.txt: got no lines"),
        ("\n \n", r"l.txt: got no lines"),
        ("a/0.jpg 0\na/1.jpg\n", r"l.txt, line 2: got 'a/1.jpg' · allowed: 'path label'"),
        ("a/0.jpg 0\n\nb/0.jpg -1\n", r"line 3: got the label -1 in 'b/0.jpg -1' .* with a whole number from 0 "),
        ("a/0.jpg 1.5\n", r"line 1: got the label 1.5 in 'a/0.jpg 1.5'"),
        ("a/0.jpg ٣\n", r"line 1"),
        ("a/0.jpg 2147483648\n", r"line 1"),
        ("7\n", r"line 1: got '7'"),
        ("nowhere/0.jpg 0\nnowhere/1.jpg 1\n", r"none of 2 sampled images exists, the first: .*0.jpg · .*--root"),
    ],
)
def test_lists_that_are_none(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        ListSource(put(tmp_path / "l.txt", text.encode()))


def test_paths_of_windows_in_a_list_are_named_where_their_files_exist(tmp_path):
    put_people(tmp_path, {"a": 2, "b": 1})
    put(tmp_path / "l.txt", b"a\\0.jpg 0\r\na\\1.jpg 0\r\nb\\0.jpg 1\r\n")
    problem = r"none of 3 sampled images exists, the first: .*a\\0.jpg · .* · replace each \\ in its paths by /: files"
    with pytest.raises(UserError, match=problem):
        ListSource(tmp_path / "l.txt")
    (tmp_path / "a/0.jpg").rename(tmp_path / "a\\0.jpg")  # which Linux allows
    put(tmp_path / "one.txt", b"a\\0.jpg 0\n")
    assert len(ListSource(tmp_path / "one.txt")) == 1
    put(tmp_path / "l.txt", b"c\\0.jpg 0\r\nd\\1.jpg 0\r\n")  # their files exist in no form
    with pytest.raises(UserError, match=r"none of 2 sampled images exists.* · move the list there, or set another"):
        ListSource(tmp_path / "l.txt")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, 1, 2], ""),
        ([1, 2, 3], "labels from 1 to 3 begin at 1, not at 0: its 3 identities are renumbered from 0"),
        ([5, 5, 5], "labels from 5 to 5 begin at 5, not at 0: its 1 identities are renumbered from 0"),
        ([0, 1, 3], "labels from 0 to 3 have gaps: its 3 identities are renumbered from 0"),
        ([1, 2, 4], "labels from 1 to 4 have gaps: its 3 identities are renumbered from 0"),
    ],
)
def test_labels_with_gaps_and_labels_from_another_number_are_told(tmp_path, caplog, labels, told):
    put_people(tmp_path, {"a": 3})
    text = "".join(f"a/{row}.jpg {label}\n" for row, label in enumerate(labels))
    with caplog.at_level("INFO", "sphereface"):
        ListSource(put(tmp_path / "l.txt", text.encode()))
    lines = [line.partition("l.txt: ")[2] for line in caplog.messages if "renumbered" in line]
    assert lines == ([told] if told else [])


@pytest.mark.parametrize("start", ["", "\n# identities: labels\n"])
def test_a_table_of_images_in_base64_is_refused_by_its_first_line(tmp_path, start):
    """As MS-Celeb-1M comes, in one file of 100 GB: it must not be read whole."""
    row = "m.0107_f\tQueryName\t1\thttp://x/y.jpg\tPageURL\tFaceId-0\t" + "/9j/4AAQ" * 3000 + "\n"
    (tmp_path / "celebs.tsv").write_text(start + row * 400, encoding="utf-8")
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"celebs.tsv, line {1 + start.count(chr(10))}: got 'm.0107_f.* · allowed: "):
        ListSource(tmp_path / "celebs.tsv")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "celebs.tsv").stat().st_size > 9_000_000
    assert peak < 6_000_000


@pytest.mark.parametrize("suffix", [".txt", ".lst"])
def test_lists_of_insightface_and_of_im2rec_are_told_by_their_columns(tmp_path, suffix):
    put_people(tmp_path, {"a": 2, "b c": 1})
    rows = [("a/0.jpg", 3), ("a/1.jpg", 3), ("b c/0.jpg", 7)]
    forms = {
        "plain": [f"{path} {label}" for path, label in rows],
        "insightface": [f"1\t{path}\t{label}" for path, label in rows],
        "with a box": [f"1\t{path}\t{label}\t1\t2\t3\t4" for path, label in rows],
        "im2rec": [f"{k}\t{label}.000000\t{path}" for k, (path, label) in enumerate(rows)],
        "im2rec, whole": [f"{k + 1}\t{label}\t{path}" for k, (path, label) in enumerate(rows)],
    }
    for name, lines in forms.items():
        for end in ("\n", "\r\n", "\r"):
            source = open_path(put(tmp_path / f"{name}{suffix}", end.join(lines).encode()))
            assert contents(source) == [("a", "a/0"), ("a", "a/1"), ("b c", "b c/0")], (name, end)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1\ta/0.jpg\t0\n0\ta/0.jpg\t1\n", r"line 2: got .* allowed: '1<tab>path<tab>label' .* aligned"),
        (b"1\ta/0.jpg\t0\na/0.jpg 1\n", r"line 2: .* '1<tab>path<tab>label'"),
        (b"0\t1.0\ta/0.jpg\n1\t1.5\ta/0.jpg\n", r"line 2: .* 'number<tab>label<tab>path' of im2rec"),
        (b"0\t1.0\t2.0\ta/0.jpg\n", r"line 1: .* one label, with a whole number from 0"),
        (b"0\t-1.0\ta/0.jpg\n", r"line 1"),
        (b"0\tnan\ta/0.jpg\n", r"line 1"),
        (b"0\t1e3\ta/0.jpg\n", r"line 1"),
        (b"a/0.jpg " + b"9" * 5000 + b"\n", r"line 1: .* with a whole number from 0 to 2147483647 as the label$"),
        (b"0\t" + b"9" * 5000 + b"\ta/0.jpg\n", r"line 1"),
        ("a/0.jpg ²\n".encode(), r"line 1: got 'a/0.jpg ²'"),
        (b"a/0.jpg 0\na/\0.jpg 1\n", r"l.txt, line 2: contains a NUL byte"),
        (b"a/0.jpg 0\na/\x1b[31m.jpg 1\n", r"line 2: got"),
        (b"a\tb/0.jpg\t0\n", r"line 1: got 'a\\tb/0.jpg\\t0'"),
        ("a/0.jpg 0\n".encode("utf-16"), r"cannot be read as UTF-8 text \(it is UTF-16\)"),
        (b"n" * 300 + b".jpg 0\n", r"none of 1 sampled images exists, the first: .*nnn"),
    ],
)
def test_lines_of_a_list_that_are_wrong_end_in_one_line(tmp_path, text, message):
    put(tmp_path / "a/0.jpg")
    with pytest.raises(UserError, match=message) as error:
        ListSource(put(tmp_path / "l.txt", text))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


QUOTED_LISTS = {
    "R.txt": '"a/0.jpg" 3\n"a/1.jpg" 3\n"b ""c""/0.jpg" 7\n',
    "labels.txt": '"a/0.jpg" "3"\n"a/1.jpg" "3"\n"b ""c""/0.jpg" "7"\n',
    "tabs.tsv": '"a/0.jpg"\t3\n"a/1.jpg"\t3\n"b ""c""/0.jpg"\t7\n',
    "plain.csv": 'a/0.jpg,3\na/1.jpg,3\nb "c"/0.jpg,7\n',
    "quotes.csv": '"a/0.jpg",3\n"a/1.jpg", 3\n"b ""c""/0.jpg","7"\n',
    "floats.txt": 'a/0.jpg 3.0\na/1.jpg 3.0\nb "c"/0.jpg 7.0\n',
    "insightface.lst": '1\t"a/0.jpg"\t3\n1\t"a/1.jpg"\t3\n"1"\t"b ""c""/0.jpg"\t"7"\n',
    "im2rec.lst": '0\t3.0\t"a/0.jpg"\n1\t3.0\t"a/1.jpg"\n"2"\t"7.0"\t"b ""c""/0.jpg"\n',
}


@pytest.mark.parametrize("name", QUOTED_LISTS)
def test_lists_of_tables_may_have_quotes(tmp_path, name):
    put_people(tmp_path, {"a": 2, 'b "c"': 1})
    source = open_path(put(tmp_path / name, QUOTED_LISTS[name].encode()))
    assert contents(source) == [("a", "a/0"), ("a", "a/1"), ('b "c"', 'b "c"/0')]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"1" "a/0.jpg" 0\n', r"line 1: got '\"1\" \"a/0.jpg\" 0' .* · write the list without row names \(in R: row"),
        ('"path" "label"\n"a/0.jpg" 0\n', r"line 1: got '\"path\" \"label\"' .* · delete the line of column names$"),
        ("path,label\na/0.jpg,0\n", r"line 1: .* · delete the line of column names$"),
        ("a/0.jpg,0\na/0.jpg,1.5\n", r"line 2: got the label 1.5 in 'a/0.jpg,1.5' · allowed: 'path,label', with a wh"),
        ("1\t0.5\ta/0.jpg\n", r"line 1: got the label 0.5 in '1\\t0.5\\ta/0.jpg' · allowed: 'number<tab>label<tab>p"),
        ("a/0.jpg 0.5\n", r"line 1: got the label 0.5 in 'a/0.jpg 0.5' · allowed: 'path label'"),
    ],
)
def test_lists_of_tables_that_cannot_be_used_name_the_remedy(tmp_path, text, message):
    put(tmp_path / "a/0.jpg")
    with pytest.raises(UserError, match=message):
        open_path(put(tmp_path / "l.csv", text.encode()))


def test_a_list_of_clean_images_protects_a_quote_at_the_start(tmp_path):
    names = ['"a"/0.jpg', "b/0.jpg"]
    assert parse_list("".join(f"{_listed(name)} {row}\n" for row, name in enumerate(names)).encode(), "")[0] == [
        './"a"/0.jpg',
        "b/0.jpg",
    ]


@pytest.mark.skipif(os.name != "posix", reason="FIFOs of POSIX")
@pytest.mark.parametrize("name", ["l.txt", "l.lst", "l.zip", "l.rec", "train.rec"])
def test_what_waits_for_a_writer_is_not_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=r"got .* \(something else\) · allowed: a folder"):
        open_path(tmp_path / name)


def test_a_list_names_the_first_folder_as_a_folder_does(tmp_path):
    folder = tmp_path / "set"
    names = ["q0/1.jpg", "q0/s2/0.jpg", "q1/1.jpg", "q4/v/1.jpg"]
    for name in names:
        put(folder / name, name.encode())
    lines = [f"set/{name} {label}" for name, label in zip(names, (0, 0, 1, 2), strict=True)]
    listed = ListSource(put(tmp_path / "l.txt", "\n".join(lines).encode()))
    assert listed.named
    assert contents(listed) == contents(FolderSource(folder))


def test_folders_beside_a_rec_that_are_not_read_are_said(tmp_path, caplog):
    faces = make_training_set(tmp_path / "faces", 2, 2)
    pack(FolderSource(faces), faces / "train.rec")
    (faces / ".git").mkdir()
    assert isinstance(open_path(faces), RecordSource)
    assert "faces: reads train.rec and ignores 2 folders beside it, such as id00" in caplog.text
    caplog.clear()
    open_path(faces / "train.rec")
    assert not caplog.text


# -------------------------------------------------------------------- zip


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("above", ["", "CASIA/", "some/where/"])
def test_a_zip_of_folders_is_as_the_folder(tmp_path, method, above):
    folder = put_people(tmp_path / "faces", {"b": 3, "a": 2, "王 é": 1})
    members = {f"{above}{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*.jpg")}
    members |= {f"{above}a/.hidden.jpg": b"", "__MACOSX/a/._0.jpg": b"", f"{above}readme.txt": b"Crops of 2014 3\n"}
    source = ZipSource(zip_of(tmp_path / "f.zip", members, method))
    whole = FolderSource(folder)
    assert contents(source) == contents(whole)
    assert source.class_names == whole.class_names
    assert source.named
    assert source.name(0) == f"{tmp_path}/f.zip/{above}a/0.jpg"


def test_loose_images_and_deeper_folders_in_a_zip(tmp_path, caplog):
    members = {"top.jpg": b"", "x/sheet.jpg": b"", "x/train/a/0.jpg": b"1", "x/val/a/0.jpg": b"2", "x/b/0.jpg": b"3"}
    source = ZipSource(zip_of(tmp_path / "f.zip", members))
    assert contents(source) == [("b", "3"), ("train", "1"), ("val", "2")]
    assert "f.zip: images in no identity's folder are left out: 2, such as top.jpg" in caplog.text
    assert "f.zip: 2 images are in subfolders of an identity's folder: the first folder is" in caplog.text


def test_a_zip_with_a_list_in_it(tmp_path):
    members = {"d/p/1.jpg": b"1", "d/p/0 0.jpg": b"0", "d/q/2.jpg": b"2", "d/r/not listed.jpg": b"3"}
    members |= {"d/list.txt": b"./p/1.jpg 8\nq/../q/2.jpg 5\np/0 0.jpg 8\n"}
    source = ZipSource(zip_of(tmp_path / "f.zip", members, zipfile.ZIP_DEFLATED))
    assert contents(source) == [("q", "2"), ("p", "0"), ("p", "1")]


def test_a_text_in_a_zip_that_is_no_list(tmp_path):
    folders = {"a/0.jpg": b"0", "b/0.jpg": b"1"}
    texts = {
        "pairs.txt": b"10\t300\na\t1\t2\n",
        "big.txt": bytes(100 * 2**20),
        "readme.TXT": b"",
        "x.txt": b"see c/0.jpg",
    }
    path = zip_of(tmp_path / "f.zip", {**folders, **texts}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    assert contents(ZipSource(path)) == [("a", "0"), ("b", "1")]
    assert tracemalloc.get_traced_memory()[1] < 2**21  # no 100 MiB of zeros
    tracemalloc.stop()


def test_names_in_a_zip_whose_writer_forgot_to_say_utf8(tmp_path):
    path = zip_of(tmp_path / "f.zip", {"Zoë/0.jpg": b"0", "b/0.jpg": b"1"})
    data = path.read_bytes()
    for mark in (b"PK\3\4", b"PK\1\2"):  # the flag for UTF-8, as macOS's Archive Utility leaves it out
        at = data.index(mark) + (6 if mark == b"PK\3\4" else 8)
        data = data[:at] + struct.pack("<H", 0) + data[at + 2 :]
    path.write_bytes(data)
    assert ZipSource(path).class_names == ["Zoë", "b"]


@pytest.mark.parametrize("name", ["../a/0.jpg", "a/../../0.jpg", "/etc/0.jpg", "..\\a\\0.jpg", "C:/a/0.jpg", "c:x.jpg"])
def test_a_zip_whose_names_lead_out_of_it(tmp_path, name):
    with pytest.raises(UserError, match=r"f.zip: got a member .* allowed: names that stay inside the zip"):
        ZipSource(zip_of(tmp_path / "f.zip", {"a/1.jpg": b"", "b/1.jpg": b"", name: b""}))


def patched(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data
    return put(path, data.replace(old, new))


def test_a_zip_that_may_not_be_read(tmp_path, monkeypatch):
    """It is said to be closed, not damaged."""
    path = zip_of(tmp_path / "f.zip", {"a/0.jpg": b"x" * 100})

    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("sphereface.data.sources.zipped.zipfile.ZipFile", closed)
    with pytest.raises(
        UserError, match=r"f\.zip: cannot be read \(Permission denied\) · give yourself read permission$"
    ):
        ZipSource(path)


def test_zips_that_cannot_be_used(tmp_path):
    path = tmp_path / "f.zip"
    two = {"a/0.jpg": b"x" * 100, "b/0.jpg": b"y" * 100}
    put(path, zip_of(path, two).read_bytes()[:-30])
    with pytest.raises(UserError, match=r"not a whole zip \(File is not a zip file\) · copy it again"):
        ZipSource(path)
    put(path, b"no zip at all")
    with pytest.raises(UserError, match=r"not a whole zip"):
        ZipSource(path)
    with pytest.raises(UserError, match=r"f.zip: got no images"):
        ZipSource(zip_of(path, {"a/readme.md": b"x"}))
    with pytest.raises(UserError, match=r"a/0.jpg is compressed by method 12 · allowed: 0 \(stored\) and 8"):
        ZipSource(zip_of(path, two, zipfile.ZIP_BZIP2))
    with pytest.raises(UserError, match=r"got 2 list files \(1.txt, 2.txt\) · allowed: one"):
        ZipSource(zip_of(path, {**two, "1.txt": b"a/0.jpg 0", "2.txt": b"a/0.jpg 0"}))
    with pytest.raises(UserError, match=r"1.txt lists '../b/0.jpg', which is not in the zip"):
        ZipSource(zip_of(path, {**two, "1.txt": b"a/0.jpg 0\n../b/0.jpg 1"}))
    zip_of(path, two)
    central = path.read_bytes().index(b"PK\1\2")
    data = bytearray(path.read_bytes())
    data[central + 8] |= 1
    put(path, bytes(data))
    with pytest.raises(UserError, match=r"a/0.jpg is encrypted · allowed: a zip without password"):
        ZipSource(path)


def test_a_damaged_member_is_one_bad_image(tmp_path):
    path = zip_of(tmp_path / "f.zip", {"a/0.jpg": b"x" * 100, "b/0.jpg": b"y" * 100})
    source = ZipSource(patched(path, b"x" * 100, b"x" * 99 + b"z"))
    with pytest.raises(OSError, match="damaged zip: the member's length or CRC"):
        source.read(0)
    assert source.read(1) == b"y" * 100
    path = zip_of(tmp_path / "g.zip", {"a/0.jpg": b"x" * 100, "b/0.jpg": b"y" * 100})
    source = ZipSource(patched(path, b"PK\3\4", b"PK\0\0"))
    with pytest.raises(OSError, match="no member begins at"):
        source.read(0)


def test_a_bomb_in_a_zip_is_not_unpacked(tmp_path):
    members = {"a/0.jpg": bytes(70 * 2**20), "b/0.jpg": bytes(1000)}
    path = zip_of(tmp_path / "f.zip", members, zipfile.ZIP_DEFLATED)
    with pytest.raises(OSError, match=r"73,400,320 bytes, allowed: at most 67,108,864"):
        ZipSource(path).read(0)
    lying = patched(path, struct.pack("<I", 70 * 2**20), struct.pack("<I", 10))
    source = ZipSource(lying)
    tracemalloc.start()
    with pytest.raises(OSError, match="damaged zip: the member's length"):
        source.read(0)  # says 10 bytes, is cut after 11
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()
    assert ZipSource(lying).read(1) == bytes(1000)


# -------------------------------------------------------------------- all alike


def all_forms(tmp_path: Path, counts: dict[str, int]) -> dict[str, object]:
    """The same images as a folder, a list, a zip, a zip with a list, and a .rec, by the test's own writers."""
    folder = put_people(tmp_path / "folder", counts)
    names = sorted(counts)
    lines = [f"{name}/{k}.jpg {names.index(name)}" for name in reversed(names) for k in range(counts[name])]
    listed = put(tmp_path / "list.txt", "\n".join(lines).encode())
    members = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.jpg"), reverse=True)}
    people = [[f"{name}/{k}".encode() for k in range(counts[name])] for name in names]
    return {
        "folder": open_path(folder),
        "list": open_path(listed, root=folder),
        "zip": open_path(zip_of(tmp_path / "a.zip", members)),
        "zip with list": open_path(zip_of(tmp_path / "b.zip", {**members, "list.txt": listed.read_bytes()})),
        "rec": open_path(write_rec(tmp_path / "rec" / "train.rec", insightface_records(people)).parent),
    }


def test_every_form_gives_the_same_images_in_the_same_order(tmp_path, caplog):
    forms = all_forms(tmp_path, {"c": 3, "a": 2, "b": 9})
    kinds = [FolderSource, ListSource, ZipSource, ZipSource, RecordSource]
    assert [type(form) for form in forms.values()] == kinds
    for name, form in forms.items():
        assert form.labels.tolist() == [0] * 2 + [1] * 9 + [2] * 3, name
        assert form.labels.dtype == np.int32
        assert [form.read(i).decode() for i in range(14)] == [
            f"{who}/{k}" for who, count in (("a", 2), ("b", 9), ("c", 3)) for k in range(count)
        ]
        assert form.class_names == (["0", "1", "2"] if name == "rec" else ["a", "b", "c"])
    assert "gaps" not in caplog.text


def read_all(source) -> list[bytes]:
    return [source.read(i) for i in range(len(source))]


def read_many(arguments) -> tuple[list[bytes], int]:
    source, seed = arguments
    order = np.random.default_rng(seed).permutation(len(source))
    found = dict.fromkeys(order.tolist(), b"")
    for i in order.tolist():
        found[i] = source.read(i)
    return [found[i] for i in range(len(source))], os.getpid()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_many_processes_read_at_once_and_share_no_open_file(tmp_path, method):
    forms = all_forms(tmp_path, dict.fromkeys("abcde", 20))
    joined = JoinedSource(list(forms.values()), list(forms), merge=False)
    keep = np.array([True, False] * 12 + [True])
    source = SelectedSource(joined, keep)
    expected = read_all(source)  # the parent has opened everything by now
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        results = pool.map(read_many, [(source, seed) for seed in range(6)], chunksize=1)
    assert all(found == expected for found, _ in results)


_INHERITED: list = []


def child_reopens(queue) -> None:
    (source,) = _INHERITED
    before = source._file._map
    source.read(0)
    queue.put((before is not None, source._file._map is not before))


@pytest.mark.parametrize("form", ["zip", "rec"])
def test_a_forked_child_opens_the_file_for_itself(tmp_path, form):
    source = all_forms(tmp_path, {"a": 2, "b": 2})[form]
    source.read(0)
    _INHERITED[:] = [source]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=child_reopens, args=(queue,))
    child.start()
    assert queue.get(timeout=600) == (True, True)
    child.join(30)


@pytest.mark.parametrize("form", ["folder", "list", "zip", "zip with list", "rec"])
def test_a_pickle_holds_nothing_open(tmp_path, form):
    source = all_forms(tmp_path, {"a": 2, "b": 3})[form]
    expected = read_all(source)
    again = pickle.loads(pickle.dumps(source))
    assert not hasattr(again, "_file") or again._file._map is None
    assert read_all(again) == expected
    assert again.labels.tolist() == source.labels.tolist()


@pytest.mark.parametrize("form", ["zip", "rec"])
def test_a_file_that_changed_is_noticed_when_it_is_opened_again(tmp_path, form):
    source = all_forms(tmp_path, {"a": 2, "b": 3})[form]
    with source._file.path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(OSError, match="has changed since it was opened"):
        pickle.loads(pickle.dumps(source)).read(0)


@pytest.mark.parametrize("end", [b"\xff\xd9", b"..", b""])
@pytest.mark.parametrize("size", [0, 1, 5000, 2**14 - 2, 2**14 - 1, 2**14, 3 * 2**14 - 2, 100_000])
def test_a_file_is_read_whole_whatever_its_length_and_end(tmp_path, size, end):
    data = (end or b"--") * (size // 2) + b"x" * (size % 2) + end  # the mark of the end inside the file, too
    (tmp_path / "file").write_bytes(data)
    assert read_file(str(tmp_path / "file")) == data


def test_a_file_that_comes_in_pieces_is_read_to_its_end(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(data := bytes(range(256)) * 40)
    whole = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: whole(descriptor, min(size, 1000)))  # as a network may
    assert read_file(str(tmp_path / "file")) == data


def test_a_table_of_texts_is_small():
    texts = [f"{i // 100:07d}/{i % 100:03d}.jpg" for i in range(100_000)] + ["", "é", "\udce9"]
    table = TextTable(texts)
    assert len(table) == len(texts)
    assert [table[i] for i in (0, 12345, 99_999, 100_000, 100_001, 100_002)] == [
        *(texts[i] for i in (0, 12345, 99_999)),
        "",
        "é",
        "\udce9",
    ]
    assert len(pickle.dumps(table)) < (15 + 4.1) * 100_000


def test_a_record_source_holds_sixteen_bytes_an_image(tmp_path):
    people = [[b"p"] * 500 for _ in range(20)]
    source = RecordSource(write_rec(tmp_path / "train.rec", insightface_records(people)))
    assert len(pickle.dumps(source)) < 16 * 10_000 + 3000


# -------------------------------------------------------------------- several as one


def two_sets(tmp_path: Path) -> list[Path]:
    return [
        put_people(tmp_path / "one" / "faces", {"b": 2, "c": 1}),
        put_people(tmp_path / "two" / "faces", {"a": 1, "b": 1}),
    ]


def test_identities_of_two_sets_are_kept_apart(tmp_path):
    source = open_source(two_sets(tmp_path))
    assert source.class_names == ["faces#1/b", "faces#1/c", "faces#2/a", "faces#2/b"]
    assert source.labels.tolist() == [0, 0, 1, 2, 3]
    assert [source.read(i).decode() for i in range(5)] == ["b/0", "b/1", "c/0", "a/0", "b/0"]
    assert source.name(3) == str(tmp_path / "two/faces/a/0.jpg")


def test_identities_of_one_name_are_merged_on_request(tmp_path):
    source = open_source(two_sets(tmp_path), merge=True)
    assert source.class_names == ["a", "b", "c"]
    assert source.labels.tolist() == [0, 1, 1, 1, 2]
    assert [source.name(i).removeprefix(str(tmp_path)) for i in range(5)] == [
        *("/two/faces/a/0.jpg", "/one/faces/b/0.jpg", "/one/faces/b/1.jpg", "/two/faces/b/0.jpg"),
        "/one/faces/c/0.jpg",
    ]
    assert [source.read(i).decode() for i in range(5)] == ["a/0", "b/0", "b/1", "b/0", "c/0"]


def test_sets_of_several_kinds_and_three_of_them(tmp_path):
    rec = write_rec(tmp_path / "web" / "train.rec", insightface_records([[b"0"], [b"1"]]))
    zipped = zip_of(tmp_path / "more.zip", {"x/0.jpg": b"2"})
    source = open_source([rec.parent, zipped, tmp_path / "one" / "faces", rec][:2] + two_sets(tmp_path)[:1])
    assert source.class_names == ["web/0", "web/1", "more/x", "faces/b", "faces/c"]
    assert source.labels.tolist() == [0, 1, 2, 3, 3, 4]
    assert [source.read(i).decode() for i in range(6)] == ["0", "1", "2", "b/0", "b/1", "c/0"]


def test_numbered_names_of_sets_are_no_other_sets_name(tmp_path):
    sets = [tmp_path / "one" / "f", tmp_path / "two" / "f", tmp_path / "f#1", tmp_path / "f##2"]
    for number, place in enumerate(sets):
        put_people(place, {f"p{number}": 1})
    assert open_source(sets[:2]).class_names == ["f#1/p0", "f#2/p1"]
    assert open_source(sets[1:]).class_names == ["f/p1", "f#1/p2", "f##2/p3"]
    assert open_source(sets).class_names == ["f###1/p0", "f###2/p1", "f#1/p2", "f##2/p3"]


def test_merging_one_source_is_told(tmp_path, caplog):
    open_source(put_people(tmp_path, {"a": 1, "b": 1}), merge=True)
    assert [record.getMessage() for record in caplog.records] == [
        "data.merge: changes nothing, since data.train has one source"
    ]


@pytest.mark.parametrize("merge", [False, True])
def test_one_place_given_twice_is_refused(tmp_path, monkeypatch, merge):
    monkeypatch.chdir(tmp_path)
    put_people(Path("set"), {"a": 1, "b": 2})
    put_people(Path("set/b"), {"c": 1, "d": 1})
    Path("link").symlink_to("set")
    zip_of(Path("z.zip"), {"e/0.jpg": b"e0", "f/0.jpg": b"f0"})
    Path("y.zip").symlink_to("z.zip")
    rec = write_rec(Path("web/train.rec"), insightface_records([[b"0"], [b"1"]]))
    put(Path("web/train.identities.txt"), b"g\nh\n")
    for one, other, how in [
        ("set", "set", "the same place"),
        ("set", "./set/", "the same place"),
        ("set", str(tmp_path / "set"), "the same place"),
        ("set", "link", "the same place"),
        ("set", "set/b", "of which set/b is inside the other"),
        ("link", "set/b", "of which set/b is inside the other"),
        ("z.zip", "y.zip", "the same place"),
        (str(rec), "web", "the same place"),
    ]:
        for paths in ([one, "more", other], [other, "more", one]):
            put_people(Path("more"), {"x": 1})
            message = f"got {Path(paths[0])} and {Path(paths[2])}, {how} · allowed: sets without common images"
            with pytest.raises(UserError, match=re.escape(message)):
                open_source(paths, merge=merge)


def test_a_copy_of_a_set_in_any_form_is_told(tmp_path, caplog):
    forms = [tmp_path / name for name in ("folder", "list.txt", "a.zip", "b.zip", "rec")]
    all_forms(tmp_path, dict.fromkeys("abcdefghijklmnopqrst", 2))
    put(forms[1], b"".join(b"folder/" + line for line in forms[1].read_bytes().splitlines(keepends=True)))
    for one, other in itertools.permutations(forms, 2):
        caplog.clear()
        if {one, other} == set(forms[:2]):
            continue  # the same files: refused, see below
        open_source([one, other])
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        (warning,) = [text for text in warnings if " in more than one of" not in text]
        assert warning == (
            f"data.train: {one} and {other} contain the same images: an image of 7 of 7 compared identities is in both "
            "· leave one of them out"
        )
    for name in "adg":
        caplog.clear()
        for k in range(2):
            put(tmp_path / f"folder/{name}/{k}.jpg", b"another image")
        open_source([tmp_path / "folder", tmp_path / "a.zip"])
    assert "an image of 4 of 7 compared identities is in both" in caplog.text
    caplog.clear()
    for k in range(2):
        put(tmp_path / f"folder/j/{k}.jpg", b"another image")
    open_source([tmp_path / "folder", tmp_path / "a.zip"])
    open_source([tmp_path / "folder", put_people(tmp_path / "others", {"x": 1, "y": 1})])
    assert "contain the same" not in caplog.text


@pytest.mark.parametrize("merge", [False, True])
def test_lists_and_folders_with_common_images_are_refused(tmp_path, monkeypatch, merge):
    monkeypatch.chdir(tmp_path)
    put_people(Path("set"), {"a": 3, "b": 3, "c": 3})
    Path("link").symlink_to("set")
    put(Path("lists/clean.txt"), b"../link/./a/1.jpg 0\n../set/b/0.jpg 1\n../set/b/2.jpg 1\n")
    put(Path("over.txt"), b"set/b/0.jpg 0\nset/c/0.jpg 1\n")
    put(Path("apart.txt"), b"set/b/1.jpg 0\nset/c/0.jpg 1\n")
    for one, other, number, such in [
        ("set", "lists/clean.txt", "3 images", "set/a/1.jpg"),
        ("over.txt", "lists/clean.txt", "1 image", "set/b/0.jpg"),
    ]:
        for both in ([one, other], [other, one]):
            message = (
                f"got {both[0]} and {both[1]}, which have {number} in common, such as '{Path.cwd() / such}' · allowed"
            )
            with pytest.raises(UserError, match=re.escape(message)):
                open_source(both, merge=merge)
    assert len(open_source(["apart.txt", "lists/clean.txt"], merge=merge)) == 5


def test_a_root_without_a_list_is_refused(tmp_path):
    folder = put_people(tmp_path / "set", {"a": 1, "b": 1})
    zipped = zip_of(tmp_path / "z.zip", {"c/0.jpg": b"c", "d/0.jpg": b"d"})
    listed = put(tmp_path / "l.txt", b"0.jpg 0\n")
    for train in (folder, zipped, [folder, zipped]):
        message = "data.root: got 'x' without a list · allowed: only with a list"
        with pytest.raises(UserError, match=message):
            open_source(train, root="x")
    with pytest.raises(UserError, match="--root: got 'x' without a list"):
        open_path(folder, root="x", key="SRC")
    assert len(open_source([zipped, listed], root=folder / "a")) == 3
    absolute = put(tmp_path / "abs.txt", f"{folder}/a/0.jpg 0\n{folder}/b/0.jpg 1\n".encode())
    for root in (tmp_path / "new", tmp_path / "se"):
        message = f"data.root: got '{root}' with a list of absolute paths elsewhere · allowed: only with a list"
        with pytest.raises(UserError, match=message):
            open_source([absolute, zipped], root=root)
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for root in (folder, f"{folder}/../set", tmp_path / "link", os.path.relpath(folder)):
        assert len(open_source(absolute, root=root)) == 2
    again = put(tmp_path / "new/0.jpg", b"0").parent
    assert len(open_source([absolute, listed], root=again)) == 3


def test_numbers_are_no_names_to_merge_by(tmp_path):
    rec = write_rec(tmp_path / "web" / "train.rec", insightface_records([[b"0"], [b"1"]]))
    with pytest.raises(UserError, match=r"data.merge: train has only numbers of identities"):
        open_source([two_sets(tmp_path)[0], rec], merge=True)
    put(tmp_path / "web" / "train.identities.txt", b"z\nb\n")
    source = open_source([two_sets(tmp_path)[0], rec], merge=True)
    assert source.class_names == ["b", "c", "z"]
    assert [source.read(i).decode() for i in range(5)] == ["b/0", "b/1", "1", "c/0", "0"]


@pytest.mark.parametrize("line", ["," * 299, "," * 298 + "1x", "x" + " " * 298 + "y"])
def test_lines_of_separators_in_a_list_of_names_cost_little(tmp_path, line):
    """Backtracking took 1 to 2 ms a line."""
    put_people(tmp_path / "set", {"a": 1, "b": 1, "c": 1})
    names = put(tmp_path / "names.txt", b"a\n" + b"".join(b"x%d%s\n" % (k, line[8:].encode()) for k in range(4000)))
    start = time.process_time()
    with contextlib.suppress(UserError):
        open_source(tmp_path / "set", exclude_file=names)
    assert time.process_time() - start < 2


def put_other_people(place, **people):
    """As ``put_people``, with images that no other place has."""
    for name, count in people.items():
        for k in range(count):
            put(place / name / f"{k}.jpg", f"{place}/{name}/{k}".encode())
    return place


def test_people_of_one_name_in_two_sets_are_said_unless_they_are_merged(tmp_path, caplog):
    photos = [
        put_other_people(tmp_path / "2019", **{"Ann": 1, "Bo": 1, "0": 1, "Eva": 1}),
        put_other_people(tmp_path / "2020", **{"Bo": 2, "Ann": 2, "0": 1, "eva": 1}),
    ]
    assert open_source(photos).class_names[:2] == ["2019/0", "2019/Ann"]
    assert [record.getMessage() for record in caplog.records] == [
        "data.train: 3 names are in more than one of 2019 and 2020, such as 'Ann': they are separate identities · if "
        "they are the same people, give each one spelling and set data.merge to true"
    ]
    caplog.clear()
    open_source(photos, exclude=["Eva", "eva"])
    assert "such as 'Ann': they are separate identities · if they are the same people, set data.merge" in caplog.text
    caplog.clear()
    open_source(photos, merge=True)
    assert [record.getMessage() for record in caplog.records] == [
        "data.train: 1 name is in more than one of 2019 and 2020, such as 'Eva' and 'eva': they are separate "
        "identities · if they are the same people, give each one spelling"
    ]
    caplog.clear()
    open_source(photos, exclude=["Ann", "Bo", "Eva", "eva"])
    open_source(photos, exclude=["Eva", "eva"], merge=True)
    assert "more than one of" not in caplog.text
    rec = write_rec(tmp_path / "web" / "train.rec", insightface_records([[b"0"], [b"1"]]))
    more = write_rec(tmp_path / "more" / "train.rec", insightface_records([[b"2"], [b"3"]]))
    caplog.clear()
    open_source([rec, more, put_other_people(tmp_path / "numbers", **{"0": 1, "1": 1})])
    assert not caplog.records


def test_folders_of_numbers_that_are_merged_are_said(tmp_path, caplog):
    """They may be the same ids, or two sets that each count from 0."""
    one = put_other_people(tmp_path / "ms1m", **{"0": 1, "1": 1, "2": 1})
    other = put_other_people(tmp_path / "glint", **{"1": 1, "2": 1, "3": 1})
    apart = put_other_people(tmp_path / "apart", **{"7": 1, "8": 1})
    named = put_other_people(tmp_path / "named", **{"5": 1, "Ann": 1})
    photos = put_other_people(tmp_path / "photos", **{"5": 1, "Ann": 1, "Bo": 1})
    assert open_source([one, other], merge=True).class_names == ["0", "1", "2", "3"]
    assert [record.getMessage() for record in caplog.records] == [
        "data.merge: makes one identity of each of 2 numbers, such as '1', in ms1m and glint: a number may be another "
        "person in another set · if they are not the same people, set data.merge to false"
    ]
    caplog.clear()
    open_source([one, apart], merge=True)
    open_source([photos, named], merge=True)  # half of the common names are numbers
    open_source([one, other])
    assert not caplog.records
    for more in ("unknown", "0 - Copy"):
        put_other_people(other, **{more: 1})
        caplog.clear()
        open_source([apart, one, photos, other], merge=True)
        (line,) = [record.getMessage() for record in caplog.records]
        assert "makes one identity of each of 2 numbers, such as '1', in ms1m and glint: a number" in line


# -------------------------------------------------------------------- left out


def test_exclude_and_min_images_close_the_gaps_and_are_told(tmp_path, caplog):
    put_people(tmp_path, {"id00": 3, "id01": 3, "id02": 2, "id03": 3})
    source = open_source(tmp_path, exclude=("id00", "nobody"), min_images=3)
    assert source.class_names == ["id01", "id03"]
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [source.read(i).decode() for i in range(6)] == [f"id0{p}/{k}" for p in (1, 3) for k in range(3)]
    assert source.name(3) == str(tmp_path / "id03/0.jpg")
    assert [record.message for record in caplog.records] == [
        "data.exclude: 1 of 2 names are not in data.train: 'nobody'",
        "data: exclude: 1 identity with 3 images left out; data.train has 1 of 2 listed names",
        "data: min_images 3: 1 identity with 2 images left out",
    ]


def test_a_list_of_nobody_who_is_there_is_told_too(tmp_path, caplog):
    put_people(tmp_path, {"a": 1, "b": 1})
    assert type(open_source(tmp_path, exclude=("0166921", "1056413", "1193098"))) is FolderSource
    assert "0 identities with 0 images left out; data.train has 0 of 3 listed names" in caplog.text
    caplog.clear()
    open_source(tmp_path, min_images=1)
    assert not caplog.records


def test_a_file_that_names_nobody_of_the_training_set_is_an_error(tmp_path, caplog):
    put_people(tmp_path / "set", {"Anna": 1, "Bert": 1, "Carl": 1})
    names = put(tmp_path / "names.txt", b"Somebody_Else\nAnother\n")
    with pytest.raises(UserError, match=r"names.txt: got 2 names, such as 'Another' · .*contains none of these"):
        open_source(tmp_path / "set", exclude_file=names)
    with pytest.raises(UserError, match=r"contains none of these"):  # whatever data.exclude names
        open_source(tmp_path / "set", exclude_file=names, exclude=["Anna"])
    put(names, b"Somebody_Else\nAnna\nAnother\n")
    assert open_source(tmp_path / "set", exclude_file=names).class_names == ["Bert", "Carl"]
    (warning, told) = caplog.records
    assert warning.levelname == "WARNING"
    assert warning.getMessage() == (
        f"data.exclude_file: {names}: 2 of 3 names are not in data.train: 'Another', 'Somebody_Else'"
    )
    assert told.getMessage() == "data: exclude: 1 identity with 1 image left out; data.train has 1 of 3 listed names"
    rec = write_rec(tmp_path / "web" / "train.rec", insightface_records([[b"0"], [b"1"], [b"2"]]))
    with pytest.raises(UserError, match=r"data.train, which has only numbers of identities"):
        open_source(rec, exclude_file=names)


NAMES_IN_TABLES = {
    "counts of LFW's people.txt with blanks": "2\n3\nAnna 12\nCarl D 1\n2\nZoë 3\n",
    "name,count": "name,count\nAnna,12\nCarl D,1\nZoë,3\n",
    "number,name": "1,Anna\n2,Carl D\n3,Zoë\n",
    "number,name with a heading": "id,name\n1,Anna\n2,Carl D\n3,Zoë\n",
    "R": '"1" "Anna"\n"2" "Carl D"\n"3" "Zoë"\n',
    "quotes in quotes": 'name,n\n"Anna",12\n"Carl ""D""",1\n"Zoë",3\n',
    "R, no rows": '"x"\n"Anna"\n"Carl D"\n"Zoë"\n',
    "semicolons": "Anna;12\nCarl D;1\nZoë;3\n",
}


@pytest.mark.parametrize("text", NAMES_IN_TABLES.values(), ids=list(NAMES_IN_TABLES))
def test_numbers_beside_the_names_of_a_file_are_ignored(tmp_path, caplog, text):
    caplog.set_level(logging.INFO)
    put_people(tmp_path / "set", {"Anna": 1, "Bert": 1, "Carl D": 1, "Eva": 1})
    if '""' in text:
        (tmp_path / "set" / "Carl D").rename(tmp_path / "set" / 'Carl "D"')
    names = put(tmp_path / "names.txt", text.encode())
    assert open_source(tmp_path / "set", exclude_file=names).class_names == ["Bert", "Eva"]
    assert f"data.exclude_file: {names}: numbers and quotes beside the names are ignored" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        '"1" "17"\n"2" "20"\n',
        "0,17\n1,20\n",
        "17 1\n20 2\n",
        "17,1\n20,2\n",
        "0\t17\n1\t20\n",
        '"","id"\n"1",17\n"2",20\n',
        "\tid\n1\t17\n2\t20\n",
        "\tid\n2\t17\n1\t20\n",  # by pandas, of rows in another order
        "\tid\tages\n17\t0\t0\n",
        "\tid\n20\t17.0\n17\t\n",
        '"id"\n"2"\t17\n"1"\t20\n',  # by R
        '""\t"id"\n"2"\t"17"\n"1"\t"20"\n',
        "row\tid\n2\t17\n1\t20\n",
        "2\t17\n1\t20\n",
        '"name"\t"id"\n"2"\t"Anna"\t17\n"1"\t"Bert"\t20\n',  # by R
        "Nr\tName\tID\n1\tAnna\t17\n2\tBert\t20\n",
        "0\t17.0\n1\t20.0\n",
        "row\tid\n0\t17.0\n2\t20.0\n",
    ],
)
def test_two_numbers_in_a_line_are_refused(tmp_path, text):
    """Which of them is a row, and which an identity?"""
    put_people(tmp_path / "set", {str(number): 1 for number in (0, 1, 2, 17, 20)})
    names = put(tmp_path / "names.txt", text.encode())
    with pytest.raises(UserError, match=r"data.exclude_file"):
        open_source(tmp_path / "set", exclude_file=names)
    forms = "17\t35\n20\t2\n", "3\n17\t0\n20\t1\n99\t1\n", "17\t2\n20\t2\n", "17\ta\n20\tb\n", "17\t3\n20\t4\n"
    for text in (
        *forms,
        "# people\n17\t35\n20\t2\n",
        "id\tname\tage\n17\tAnna\t35\n20\tBert\t2\n",
    ):  # LFW's form, and comments
        counted = put(tmp_path / "counted.txt", text.encode())
        assert open_source(tmp_path / "set", exclude_file=counted).class_names == ["0", "1", "2"]
    quoted = put(tmp_path / "quoted.txt", b'"17"\n"20"\n')
    assert open_source(tmp_path / "set", exclude_file=quoted).class_names == ["0", "1", "2"]


def test_names_that_end_in_numbers_stay_as_they_are(tmp_path):
    put_people(tmp_path / "set", {"s": 1, "s 1": 1, "s 2": 1, "s 3": 1, "2": 1})
    names = put(tmp_path / "names.txt", b"s 1\ns 2\n")
    assert open_source(tmp_path / "set", exclude_file=names).class_names == ["2", "s", "s 3"]


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("Anna 12", "Anna"),
        ("1,Anna", "Anna"),
        ('"Anna"', "Anna"),
        ("Anna ", "Anna"),
        ("Anna", "Anna "),
        ("anna", "Anna"),
        (" Anna", "Anna"),
        ("Anna_B", "Anna_b"),
        ("Anna_B", "Anna B"),
        ("Anna B", "Anna_B"),
        ("anna_B ", "Anna  B"),
        ("Ａnna", "Anna"),
        ("Anna/", "Anna"),
        ("anna/000.jpg", "Anna"),
        ("Anna # left", "Anna"),
        ("Anna,Dora", "Anna"),
    ],
)
def test_a_name_that_differs_in_blanks_or_upper_case_alone_is_an_error(tmp_path, listed, there):
    put_people(tmp_path / "set", {there: 1, "Bert": 1, "Carl": 1})
    names = put(tmp_path / "names.txt", f"Bert\n{listed}\n".encode())
    message = rf"got '{listed}', but data.train has '{there}' · allowed: names exactly as in data.train"
    with pytest.raises(UserError, match=rf"data.exclude_file: .*names.txt: {message}"):
        open_source(tmp_path / "set", exclude_file=names)
    with pytest.raises(UserError, match=rf"data.exclude: {message}"):
        open_source(tmp_path / "set", exclude=[listed])
    assert open_source(tmp_path / "set", exclude=[there]).class_names == ["Bert", "Carl"]


@pytest.mark.parametrize("other", ["anna_B", "Anna B ", "Anna B", "ANNA  b"])
def test_another_spelling_of_a_listed_identity_is_an_error_too(tmp_path, other):
    put_people(tmp_path / "set", {"Anna_B": 1, other: 1, "Bert": 1, "Carl": 1})
    names = put(tmp_path / "names.txt", b"Anna_B\n")
    message = re.escape(
        f"got 'Anna_B', but data.train also has {other!r} · allowed: a person's name in every spelling · list {other!r}"
    )
    for train in (tmp_path / "set", [tmp_path / "set", put_people(tmp_path / "more", {"Dan": 1})]):
        with pytest.raises(UserError, match=rf"data.exclude_file: .*names.txt: {message} too, or give that"):
            open_source(train, exclude_file=names)
        with pytest.raises(UserError, match=rf"data.exclude: {message} too, or give that"):
            open_source(train, exclude=["Anna_B"])
    for both in ({"exclude": ["Anna_B", other]}, {"exclude_file": names, "exclude": [other]}):
        assert open_source(tmp_path / "set", **both).class_names == ["Bert", "Carl"]
    (tmp_path / "set" / other / "0.jpg").unlink()
    (tmp_path / "set" / other).rmdir()  # a list for several sets may have spellings that one set has not
    assert open_source(tmp_path / "set", exclude=["Anna_B", other]).class_names == ["Bert", "Carl"]


def test_names_of_sources_have_one_spelling(tmp_path):
    sources = [
        put_people(tmp_path / name, {"Ann": 1, "Bert": 1, person: 1}) for name, person in (("web", "C"), ("Web", "D"))
    ]
    left = ["Web/Ann", "Web/Bert", "Web/D", "web/Bert", "web/C"]
    assert sorted(open_source(sources, exclude=["web/Ann"]).class_names) == left
    with pytest.raises(UserError, match="got 'web/ann', but data.train has 'web/Ann'"):
        open_source(sources, exclude=["web/ann"])


def test_names_of_other_people_are_no_spellings(tmp_path, caplog):
    put_people(tmp_path, {"Li Na": 1, "Lina": 1, "m.0_1b": 1, "m.01b": 1, "m.01b_": 1})
    assert open_source(tmp_path, exclude=["Li Na", "m.0_1b"]).class_names == ["Lina", "m.01b", "m.01b_"]
    assert open_source(tmp_path, exclude=["m.01b", "m.0__1b"]).class_names == ["Li Na", "Lina", "m.01b_", "m.0_1b"]


@pytest.mark.parametrize(
    "text",
    [
        "2\t1\nAnn\t1\t2\nAnn\t1\tDora\t1\nBob\t1\t2\nBob\t1\tEmil\t1\n",
        "Ann\t1\tDora\t1\r\nAnn\t1\t2\r\n",
        "1\t1\n7\t1\t2\n7\t1\t8\t1\n",
    ],
)
def test_pairs_are_no_list_of_names(tmp_path, text):
    """People who occur only as the second of a pair would stay."""
    put_people(tmp_path / "set", {"Ann": 2, "Bob": 2, "Dora": 1, "Emil": 1, "7": 2, "8": 1})
    pairs = put(tmp_path / "pairs.txt", text.encode())
    message = r"data.exclude_file: .*pairs.txt: got pairs, with two people in some lines · allowed: a name a line"
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "set", exclude_file=pairs)


@pytest.mark.parametrize("text", ["Ann\t12\t30\nBob\t1\t4\n", "Ann\t12\tFrance\t30\nBob\t1\tItaly\t4\n"])
def test_tables_with_more_columns_are_lists_of_names(tmp_path, text):
    put_people(tmp_path / "set", {"Ann": 2, "Bob": 2, "Dora": 1, "Emil": 1})
    names = put(tmp_path / "names.txt", text.encode())
    assert open_source(tmp_path / "set", exclude_file=names).class_names == ["Dora", "Emil"]


NAMES = st.text(st.characters(codec="utf-8") | st.sampled_from("\ufeff \t\r\n\u2028\x85\x1c"), min_size=1, max_size=8)


@given(st.lists(NAMES, min_size=1, max_size=5))
@settings(deadline=None)
def test_a_list_of_names_is_read_as_it_was_written_or_refused(names):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "names.txt"
        try:
            path.write_bytes(names_text(names, path))
        except UserError as refusal:
            text = str(refusal)
            refused = [name for name in names if not name.strip() or set(name) & set("\t\r\n\0") or name[0] == "\ufeff"]
            assert refused
            assert "\n" not in text
        else:
            assert read_names(path)[0] == [unicodedata.normalize("NFC", name) for name in names]


def test_names_that_training_and_evaluation_share(tmp_path):
    images = [
        "Ann/Ann_0001.jpg",
        "data/Asian/Bo/Bo_0001.jpg",
        "c/v/1.jpg",
        "loose.jpg",
        unicodedata.normalize("NFD", "é/1.jpg"),
    ]
    source = FolderSource(put_people(tmp_path / "set", {"Ann": 1, "Bo": 1, "c": 1, "é": 1, "Asian": 1, "loose.jpg": 1}))
    assert shared_names(source, images) == ["Ann", "Bo", "c", "é"]
    joined = open_source([tmp_path / "set", put_people(tmp_path / "more", {"Dan": 1})])
    assert shared_names(joined, [*images, "Dan/1.jpg"]) == ["Ann", "Bo", "Dan", "c", "é"]
    rec = RecordSource(write_rec(tmp_path / "web" / "train.rec", insightface_records([[b"0"], [b"1"]])))
    assert shared_names(rec, ["0/1.jpg"]) == []  # numbers of two sets have nothing to do with each other


@pytest.mark.parametrize(
    ("there", "images"),
    [
        ("Carl Gustav", ["CARL_GUSTAV/1.jpg", "x/2.jpg"]),
        ("carl_gustav", ["a/b/Carl Gustav /1.jpg", "2.jpg"]),
        ("Carl Gustav", ["Carl_Gustav_0001.jpg", "Dan_0001.jpg"]),
        ("J.R._Smith", ["crops/J.R._Smith_12", "crops/Dan_3"]),
    ],
)
def test_people_of_an_evaluation_set_are_found_in_another_spelling_and_in_flat_lists(tmp_path, there, images):
    single = FolderSource(put_people(tmp_path / "set", {there: 1, "Eva": 1, "CarlGustav": 1}))
    joined = open_source([tmp_path / "set", put_people(tmp_path / "more", {"Finn": 1})])
    for source in (single, joined):
        assert shared_names(source, images) == [there]


def test_what_is_no_name_of_a_person_in_a_flat_list(tmp_path):
    source = FolderSource(put_people(tmp_path, {"17": 1, "Ann": 1, "face": 1, "Ann_0002.jpg": 1}))
    assert shared_names(source, ["17_1.jpg", "17_2.jpg"]) == []  # a number of another set
    assert shared_names(source, ["Bo/face_1.jpg", "Cy/face_1.jpg"]) == []  # the folders name the people
    assert shared_names(source, ["Ann.jpg", "Annette_1.jpg", "Ann_B_1.jpg", "1_Ann_5_f.jpg", "Ann_1b.jpg"]) == []


def test_names_that_one_part_of_a_joined_set_shares(tmp_path):
    rec = write_rec(tmp_path / "web" / "train.rec", insightface_records([[b"0"], [b"1"], [b"2", b"3"]])).parent
    named = put_people(tmp_path / "set", {"Ann": 2, "Bo": 1, "0": 2})
    images = ["Ann/1.jpg", "0/1.jpg", "1/1.jpg", "2/1.jpg"]
    for paths in ([rec, named], [named, rec]):
        joined = open_source(paths)
        selected = open_source(paths, min_images=2)
        assert isinstance(selected, SelectedSource)
        for source in (joined, selected, cached(joined, 1000), cached(selected, 1000)):
            assert shared_names(source, images) == ["0", "Ann"]
    assert shared_names(open_source([rec, named], exclude=["Ann"]), images) == ["0"]
    again = write_rec(tmp_path / "more" / "x.rec", insightface_records([[b"0"], [b"1"]]))
    assert shared_names(open_source([rec, again]), images) == []


def test_leaving_out_of_a_joined_set(tmp_path):
    source = open_source(two_sets(tmp_path), exclude=("c",))
    assert source.class_names == ["faces#1/b", "faces#2/a", "faces#2/b"]
    source = open_source([*two_sets(tmp_path)], merge=True, min_images=1, exclude=("a",))
    assert source.class_names == ["b", "c"]
    put_people(tmp_path / "two" / "faces", {"c": 2})
    assert open_source(two_sets(tmp_path), merge=True, min_images=3).class_names == ["b", "c"]  # 2 + 1 images each
    with pytest.raises(UserError, match=r"got 0 identities with 4 or more images, of 3 in all"):
        open_source(two_sets(tmp_path), merge=True, min_images=4)


def two_numbered_sets(place):
    """Two sets with only numbers, and one with names."""
    one = write_rec(place / "mine.rec", insightface_records([[b"a"], [b"b"], [b"c"]]))
    other = write_rec(place / "web.rec", insightface_records([[b"d"], [b"e"], [b"f"], [b"g"]]))
    return one, other, put_people(place / "own", {"Ann": 1, "Bo": 1, "1": 1})


def test_a_number_to_leave_out_that_two_sets_have_needs_its_set(tmp_path):
    one, other, named = two_numbered_sets(tmp_path)
    people = put(tmp_path / "people.txt", b"0\n2\n")
    message = re.escape(
        "got '0', which mine and web have, and numbers of two sets are unrelated · allowed: numbers of one set, with "
        "its name · write 'mine/0' or 'web/0'"
    )
    with pytest.raises(UserError, match=rf"data.exclude_file: .*people.txt: {message}"):
        open_source([one, other], exclude_file=people)
    with pytest.raises(UserError, match=r"data.exclude: got '1', which own and web have, .* write 'own/1' or 'web/1'"):
        open_source([named, other], exclude=["1"])
    left = open_source([one, other, named], exclude=["mine/0", "mine/2", "own/Ann", "3", "Bo"])
    assert left.class_names == ["mine/1", "web/0", "web/1", "web/2", "own/1"]
    put(people, b"mine/0\nmine/2\n")
    left = open_source([one, other], exclude_file=people)
    assert left.class_names == ["mine/1", "web/0", "web/1", "web/2", "web/3"]
    with pytest.raises(UserError, match=r"got 'own/ann', but data.train has 'own/Ann'"):
        open_source([one, named], exclude=["own/ann"])


def test_a_set_with_only_numbers_beside_a_list_of_names_is_said(tmp_path, caplog):
    _, other, named = two_numbered_sets(tmp_path)
    names = put(tmp_path / "names.txt", b"Ann\nZoe\n")
    sentence = f"data.exclude_file: {names}: its names cannot be found in web, which has only numbers of identities"
    open_source([named, other], exclude_file=names)
    assert [text.partition(" · ")[0] for text in caplog.messages if "cannot be found" in text] == [sentence]
    caplog.clear()
    open_source([named, other], exclude=["Ann"])
    open_source([named, put_people(tmp_path / "more", {"Cy": 1})], exclude_file=names)
    open_source([named, other], exclude_file=put(tmp_path / "numbers.txt", b"own/1\nweb/3\n2\n"))
    open_source(other, exclude_file=put(tmp_path / "table.txt", b"id\n2\n"))
    assert "cannot be found" not in caplog.text


def test_names_are_compared_in_composed_form(tmp_path):
    put_people(tmp_path, {unicodedata.normalize("NFD", "Zoë"): 1, "a": 1, "b": 1})
    put(tmp_path / "names.txt", unicodedata.normalize("NFD", "Zoë\n").encode())
    assert open_source(tmp_path, exclude=[unicodedata.normalize("NFC", "Zoë")]).class_names == ["a", "b"]
    assert open_source(tmp_path, exclude_file=tmp_path / "names.txt").class_names == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("2\n2\nAnn_A\t1\nBo\t12\n1\nCy\t3\n", ["Ann_A", "Bo", "Cy"]),  # LFW's people.txt
        ("Ann A\n \n\n0166921\r\nBo \n Cy\r D", ["Ann A", "0166921", "Bo ", " Cy", " D"]),  # blanks are of the name
        ("\ufeffAnn\n", ["Ann"]),
        ("0001\t\n0002\t4\n", ["0001", "0002"]),  # a tab behind it: a name
    ],
)
def test_files_of_names(tmp_path, text, names):
    assert read_names(put(tmp_path / "names.txt", text.encode()))[0] == names


@pytest.mark.skipif(not Path("../shared/faces/lfw/people.txt").exists(), reason="LFW's list is not on this machine")
def test_lfws_own_list_of_people():
    names, counts = read_names("../shared/faces/lfw/people.txt")
    assert counts[0] == "10"
    assert len(names) == len(set(names)) == 5749
    assert "Aaron_Eckhart" in names
    assert not any(name.isdigit() for name in names)


@pytest.mark.parametrize("text", ["0001\t4\n0002\n0003\n", "0001\t\n0002\n", "7\n0001\t1\n 0003 \n"])
def test_a_number_that_may_be_a_count_or_an_identity_is_refused(tmp_path, text):
    put_people(tmp_path / "set", {"0001": 1, "0002": 1, "0003": 1, "0004": 1, "0005": 1})
    names = put(tmp_path / "names.txt", text.encode())
    with pytest.raises(
        UserError, match=r"names.txt: got a line ' ?000[23] ?' without a tab .* has an identity of that"
    ):
        open_source(tmp_path / "set", exclude_file=names)
    put(names, text.removeprefix("7\n").replace("0002", "9").replace(" 0003 ", "9").replace("0003", "9").encode())
    assert open_source(tmp_path / "set", exclude_file=names).class_names == ["0002", "0003", "0004", "0005"]
    put(names, text.replace("\t4", "").replace("\t1", "").replace("\t", "").replace(" ", "").encode())
    assert "0001" not in open_source(tmp_path / "set", exclude_file=names).class_names


@pytest.mark.skipif(not Path("../shared/faces/lfw/people.txt").exists(), reason="LFW's list is not on this machine")
def test_lfws_list_of_people_that_is_cut_off_is_refused(tmp_path):
    """It has ten lists, each below its count; so has the list for view 1, without the number of lists."""
    lines = Path("../shared/faces/lfw/people.txt").read_text().splitlines(keepends=True)
    starts = [row for row, line in enumerate(lines) if "\t" not in line]
    assert len(starts) == 11
    for end, told in ((3, "got 1 of 10 lists"), (2000, "of 10 lists"), (starts[-1], "got 9 of 10 lists")):
        with pytest.raises(UserError, match=rf"{told} of names · .* copy the file again"):
            read_names(put(tmp_path / "p.txt", "".join(lines[:end]).encode()))
    for end in (starts[-1] + 1, starts[-1] + 2, len(lines) - 1):
        with pytest.raises(UserError, match=rf"got {end - starts[-1] - 1} of [0-9]+ names · "):
            read_names(put(tmp_path / "p.txt", "".join(lines[:end]).encode()))
    one = lines[starts[2] : starts[3]]
    assert len(read_names(put(tmp_path / "p.txt", "".join(one).encode()))[0]) == len(one) - 1
    with pytest.raises(UserError, match=rf"got {len(one) - 2} of {len(one) - 1} names · "):
        read_names(put(tmp_path / "p.txt", "".join(one[:-1]).encode()))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2\nA\t1\nB\t1\n", ""),
        ("1\nA\t1\nB\t1\n", ""),
        ("3\nA\t1\nB\t1\n", "got 2 of 3 names"),
        ("2\n1\nA\t1\n2\nB\t1\nC\t1\n", ""),
        ("2\n1\nA\t1\n", "got 1 of 2 lists of names"),
        ("2\n2\nA\t1\n2\nB\t1\nC\t1\n", "got 1 of 2 names"),
        ("A\t1\n7\n", ""),
        ("1\nA\t1\n2\n1\nB\t1\n1\nC\t1\n", ""),  # two files joined by cat
        ("2\n1\nA\t1\n1\nD\t2\n2\n1\nB\t1\n1\nC\t1\n", ""),
        ("2\n1\nA\t1\n2\n1\nB\t1\n1\nC\t1\n", "got 1 of 2 lists of names"),
        ("1\n1\n2\n3\n3\nA\t1\nB\t1\n", ""),  # sorted lines
        ("2\nA\t1\nB", "its last line, 'B', has no tab"),
        ("A\t1\nB\nC\t1\nD", ""),
        ("7\nA\n", ""),  # without tabs a number may be a name
    ],
)
def test_a_list_of_names_has_as_many_as_it_announces(tmp_path, text, told):
    path = put(tmp_path / "p.txt", text.encode())
    if told:
        with pytest.raises(
            UserError, match=f"^data.exclude_file: {path}: {told} · allowed: as many names as the counts"
        ):
            read_names(path)
    else:
        assert "A" in read_names(path)[0]


def test_no_source_is_refused():
    with pytest.raises(UserError, match=r"data.train: got no source · allowed: a folder"):
        open_source([])


def test_files_of_names_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"data.exclude_file: .*x.txt: no such file"):
        read_names(tmp_path / "x.txt")
    with pytest.raises(UserError, match=r"data.exclude_file: .*x.txt: got no name"):
        read_names(put(tmp_path / "x.txt", b"\n \n"))


# -------------------------------------------------------------------- told from the path


def test_paths_that_are_half_a_recordio(tmp_path):
    rec = write_rec(tmp_path / "d" / "train.rec", insightface_records([[b"0"], [b"1"]]))
    with pytest.raises(UserError, match=r"train.idx' \(a file\) .* · give the .rec beside it"):
        open_path(rec.with_suffix(".idx"))
    rec.unlink()
    with pytest.raises(UserError, match=r"data.train: .*train.rec: only its .idx exists · allowed: the .rec"):
        open_path(rec)
    with pytest.raises(UserError, match=r"train.rec: got nothing there"):
        open_path(rec.parent)


@pytest.mark.parametrize("suffix", [".rec", ".zip", ".txt"])
def test_empty_files(tmp_path, suffix):
    with pytest.raises(UserError, match=r"x\..*: got (0 bytes|no line)"):
        open_path(put(tmp_path / f"x{suffix}", b""))


@pytest.mark.parametrize("text", ["2\na\t4\nb\n1\nc\t3\n", "a\t\nb\nc\n", "a\nb\tx\ty\nc\n"])
def test_a_tab_in_one_line_hides_no_name_of_another(tmp_path, text):
    path = tmp_path / "people.txt"
    path.write_text(text, encoding="utf-8")
    assert read_names(path)[0] == ["a", "b", "c"]


def test_the_first_folder_of_random_trees_and_of_a_very_deep_one():
    rng = np.random.default_rng(0)
    for _ in range(300):
        names = {"/".join([*(f"d{n}" for n in rng.integers(0, 3, rng.integers(0, 4))), f"{i}.jpg"]) for i in range(8)}
        folders = {name.rpartition("/")[0] for name in names} - {""}
        leaves = [f for f in folders if not any(other.startswith(f"{f}/") for other in folders)]
        depth = len(os.path.commonpath([f"/{f.rpartition(chr(47))[0]}" for f in leaves] or ["/"]).strip("/").split("/"))
        shared = os.path.commonpath([f"/{f.rpartition(chr(47))[0]}" for f in leaves] or ["/"]).strip("/")
        skip = depth if shared else 0
        for name, identity in zip(sorted(names), first_folders(sorted(names))[0], strict=True):
            parts = name.split("/")
            inside = parts[:skip] == (shared.split("/") if shared else [])
            assert identity == (parts[skip] if inside and len(parts) > skip + 1 else "")
    assert first_folders(["p1/1.jpg", "p2/" + "a/" * 100_000 + "1.jpg"]) == (["p1", "p2"], 1)
