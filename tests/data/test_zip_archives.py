"""Zips of strangers: each is read rightly, or refused in one line that costs little."""

from __future__ import annotations

import io
import logging
import os
import shlex
import shutil
import stat
import struct
import subprocess
import tarfile
import tracemalloc
import unicodedata
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sphereface.data.sources import TarSource, ZipSource
from sphereface.errors import UserError

TWO = {"a/0.jpg": b"x" * 100, "b/0.jpg": b"y" * 100}


def zip_of(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def central(data: bytes, number: int) -> int:
    """Where a member's entry of the directory begins."""
    at = -1
    for _ in range(number + 1):
        at = data.index(b"PK\x01\x02", at + 1)
    return at


def with_entry(path: Path, number: int, place: int, form: str, value: int) -> Path:
    """The zip with one number of a member's entry changed."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, central(data, number) + place, value)
    path.write_bytes(data)
    return path


OFFSET, PACKED, SIZE, FLAGS, METHOD = 42, 20, 24, 8, 10


@pytest.mark.parametrize(
    ("place", "form", "value", "message"),
    [
        (OFFSET, "<I", 0, r"its member 'b/0.jpg' overlaps another one · copy it again"),
        (OFFSET, "<I", 50, r"its member 'b/0.jpg' overlaps another one"),
        (OFFSET, "<I", 2**31, r"its member 'b/0.jpg' ends at byte 2147483778, after the end of all members"),
        (PACKED, "<I", 2**31, r"its member 'b/0.jpg' ends at byte \d+, after the end of all members, \d+ · copy it"),
        (METHOD, "<H", 99, r"b/0.jpg is compressed by method 99"),
        (FLAGS, "<H", 1, r"b/0.jpg is encrypted"),
    ],
)
def test_an_entry_that_lies(tmp_path, place, form, value, message):
    with pytest.raises(UserError, match=message):
        ZipSource(with_entry(zip_of(tmp_path / "f.zip", TWO), 1, place, form, value))


def test_a_directory_that_begins_later_than_it_says_puts_members_before_the_file(tmp_path):
    path = zip_of(tmp_path / "f.zip", TWO)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x05\x06") + 16, central(data, 0) + 20)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"its member 'a/0.jpg' begins before the file"):
        ZipSource(path)


@pytest.mark.parametrize(
    "before", [b"#!/bin/sh a program that unpacks itself\n", b"PK00", b"PK\x03\x04PK\x05\x06" * 99 + b"-" * 30]
)
def test_bytes_before_the_archive_are_allowed(tmp_path, caplog, before):
    path = zip_of(tmp_path / "f.zip", TWO)
    path.write_bytes(before + path.read_bytes())
    assert [ZipSource(path).read(k) for k in (0, 1)] == list(TWO.values())
    assert not caplog.text


@pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n" * 9])
@pytest.mark.parametrize("comment", [b"", b"c" * 65535])
@pytest.mark.parametrize("zip64", [False, True])
def test_two_zips_joined_by_cat_are_refused(tmp_path, monkeypatch, before, comment, zip64):
    if zip64:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("c/0.jpg", b"z")
        file.writestr("d/0.jpg", b"z")
        file.comment = comment
    one, other = (tmp_path / "a.zip").read_bytes(), zip_of(tmp_path / "b.zip", TWO).read_bytes()
    (tmp_path / "f.zip").write_bytes(before + one + other)
    assert len(zipfile.ZipFile(tmp_path / "f.zip").namelist()) == 2  # zipfile reads only the last one
    first = f"{len(before + one):,}"
    with pytest.raises(UserError, match=rf"f\.zip: its first {first} bytes are another zip, whose images would be"):
        ZipSource(tmp_path / "f.zip")


def test_a_zip_without_images_before_the_archive_is_allowed(tmp_path, caplog):
    with zipfile.ZipFile(tmp_path / "docs.zip", "w") as file:
        file.writestr("readme.txt", b"read me")
    path = zip_of(tmp_path / "f.zip", TWO)
    path.write_bytes((tmp_path / "docs.zip").read_bytes() + path.read_bytes())
    assert [ZipSource(path).read(k) for k in (0, 1)] == list(TWO.values())
    assert not caplog.text
    with zipfile.ZipFile(tmp_path / "docs.zip", "a") as file:
        file.writestr("c/0.jpg", b"z")
    path.write_bytes((tmp_path / "docs.zip").read_bytes() + zip_of(tmp_path / "b.zip", TWO).read_bytes())
    with pytest.raises(UserError, match="are another zip"):
        ZipSource(path)


def test_images_of_a_broken_zip_before_the_first_member_are_told(tmp_path, caplog):
    broken = zip_of(tmp_path / "a.zip", {"c/0.jpg": b"z" * 50, "d/0.jpg": b"z" * 50}).read_bytes()[:-30]
    path = zip_of(tmp_path / "f.zip", TWO)
    path.write_bytes(broken + path.read_bytes())
    assert len(ZipSource(path)) == 2
    assert f"leaves out images before its first member, at byte {len(broken)}, such as 'c/0.jpg'" in caplog.text


def test_zip64_numbers(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in TWO.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    (tmp_path / "f.zip").write_bytes(file.getvalue())
    assert [ZipSource(tmp_path / "f.zip").read(k) for k in (0, 1)] == list(TWO.values())
    data = bytearray(zip_of(tmp_path / "g.zip", TWO).read_bytes())
    at = central(data, 1)
    struct.pack_into("<I", data, at + OFFSET, 2**32 - 1)
    struct.pack_into("<H", data, at + 30, 12)
    name = at + 46 + len("b/0.jpg")
    data[name:name] = struct.pack("<HHQ", 1, 8, 2**63 + 5)
    struct.pack_into("<I", data, data.rindex(b"PK\x05\x06") + 12, data.rindex(b"PK\x05\x06") - central(data, 0))
    (tmp_path / "g.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"its member 'b/0.jpg' ends at byte 92233720368547759\d\d, after the end"):
        ZipSource(tmp_path / "g.zip")


@pytest.mark.parametrize("again", ["a/0.jpg", "./a/0.jpg", "a//0.jpg", "a\\0.jpg", "a/./0.jpg"])
def test_two_members_of_one_name(tmp_path, again):
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's own, of the same name twice
        for name in (*TWO, again):
            file.writestr(zipfile.ZipInfo(name), b"z" * 100)
    with pytest.raises(UserError, match=r"got two members named 'a/0.jpg' · allowed: one"):
        ZipSource(tmp_path / "f.zip")


@pytest.mark.parametrize(
    "name", ["/a/2.jpg", "../2.jpg", "a/../../2.jpg", "C:/a/2.jpg", "\\\\host\\2.jpg", "..\\2.jpg"]
)
def test_names_that_lead_out_of_the_zip(tmp_path, name):
    with pytest.raises(UserError, match=r"got a member .* allowed: names that stay inside the zip"):
        ZipSource(zip_of(tmp_path / "f.zip", {**TWO, name: b"x"}))


def test_a_name_with_a_zero_byte_is_refused_and_not_cut(tmp_path):
    path = zip_of(tmp_path / "f.zip", {**TWO, "c/0.jpg?.exe": b"x"})
    path.write_bytes(path.read_bytes().replace(b"c/0.jpg?", b"c/0.jpg\0"))
    with pytest.raises(UserError, match=r"got a member '.*0.jpg.*x00.exe' · allowed: names that stay inside"):
        ZipSource(path)


def test_a_list_that_unpacks_to_far_more_than_lines_for_its_images(tmp_path):
    text = b"a/0.jpg 0\nb/0.jpg 1\n" + b"\n" * 10_000_000
    path = zip_of(tmp_path / "f.zip", {**TWO, "list.txt": text}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"list.txt: 10,000,020 bytes, allowed: at most 65,\d\d\d"):
            ZipSource(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    many = [f"images/{k:09d}.jpg" for k in range(3000)]
    text = "".join(f"{name} {k // 2}\n" for k, name in enumerate(many))
    source = ZipSource(zip_of(tmp_path / "g.zip", {**dict.fromkeys(many, b"x"), "list.txt": text.encode()}))
    assert (len(source), len(source.class_names)) == (3000, 1500)


@pytest.mark.parametrize(("place", "value", "message"), [(FLAGS, 1, "encrypted"), (METHOD, 12, "by method 12")])
def test_a_list_that_cannot_be_read_is_not_passed_over(tmp_path, place, value, message):
    """Without it the folders would be the identities: other labels, in silence."""
    path = zip_of(tmp_path / "f.zip", {**TWO, "list.txt": b"a/0.jpg 0\nb/0.jpg 0\n"})
    with pytest.raises(UserError, match=f"list.txt is (compressed )?{message}"):
        ZipSource(with_entry(path, 2, place, "<H", value))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_list_is_an_error(tmp_path, method):
    text = b"a/0.jpg 0\nb/0.jpg 0\n"
    path = zip_of(tmp_path / "f.zip", {**TWO, "list.txt": text}, method)
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("list.txt").header_offset
    data = bytearray(path.read_bytes())
    data[start + 30 + len("list.txt") + 4] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"list.txt: damaged zip"):
        ZipSource(path)
    data[start : start + 4] = b"PK\0\0"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"list.txt: damaged zip: no member begins at the place in its directory"):
        ZipSource(path)


@pytest.mark.parametrize("kind", ["fifo", "folder", "nothing"])
def test_what_is_no_file_is_one_line_and_never_waited_for(tmp_path, kind):
    if kind != "nothing":
        os.mkfifo(tmp_path / "f.zip") if kind == "fifo" else (tmp_path / "f.zip").mkdir()
    got = {"fifo": "not a regular file", "folder": "a folder", "nothing": "nothing there"}[kind]
    with pytest.raises(UserError, match=f"f.zip: got {got} · allowed: a file"):
        ZipSource(tmp_path / "f.zip")


LISTED = "a/1.jpg 0\na/2.jpg 5\nb/1.jpg 5\n"  # the folders would give a, a, b


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", LISTED.replace("\n", "\r").encode()),
        ("list.txt", LISTED.replace("\n", "\r\n").encode("utf-8-sig")),
        ("list.txt", b"\n \t \n" * 30 + LISTED.encode()),
        ("list.txt", LISTED.replace("/", "\\").encode()),
        ("train.lst", b"1\t0.0\ta/1.jpg\n2\t5.0\ta/2.jpg\n3\t5.0\tb/1.jpg\n"),
        ("labels.csv", LISTED.replace(" ", ",").encode()),
        ("labels.TSV", LISTED.replace(" ", "\t").encode()),
        ("labels.csv", b'"a/1.jpg",0\n"a/2.jpg",5\n"b/1.jpg",5\n'),
    ],
)
def test_a_list_of_any_line_ends_and_suffix_gives_the_labels(tmp_path, name, text):
    images = dict.fromkeys(("a/1.jpg", "a/2.jpg", "b/1.jpg"), b"x")
    source = ZipSource(zip_of(tmp_path / "f.zip", {**images, name: text}))
    assert [(source.name(i)[-7:], label) for i, label in enumerate(source.labels.tolist())] == [
        ("a/1.jpg", 0), ("a/2.jpg", 1), ("b/1.jpg", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LISTED.encode("utf-16"), "f.zip/list.txt: cannot be read as UTF-8 text (it is UTF-16)"),
        (b"c/1.jpg 0\n" + LISTED.encode(), "list.txt lists 'c/1.jpg', which is not in the zip"),
        (LISTED.encode() + b"\0", "f.zip/list.txt, line 4: contains a NUL byte"),
    ],
)
def test_a_list_that_is_not_right_is_no_reason_to_take_the_folders(tmp_path, text, message):
    images = dict.fromkeys(("a/1.jpg", "a/2.jpg", "b/1.jpg"), b"x")
    with pytest.raises(UserError) as caught:
        ZipSource(zip_of(tmp_path / "f.zip", {**images, "list.txt": text}))
    assert message in str(caught.value)


def test_images_that_the_list_does_not_name_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    images = dict.fromkeys(("x/a/1.jpg", "x/a/2.jpg", "x/b/1.jpg", "y/c.png", "__MACOSX/1.jpg"), b"x")
    text = b"a/1.jpg 0\na/1.jpg 0\nb/1.jpg 1\n"
    assert len(ZipSource(zip_of(tmp_path / "f.zip", {**images, "x/list.txt": text}))) == 3
    assert "f.zip: x/list.txt does not list 2 of 4 images, such as x/a/2.jpg" in caplog.text
    caplog.clear()
    ZipSource(zip_of(tmp_path / "g.zip", {**dict.fromkeys(("a/1.jpg", "b/1.jpg"), b"x"), "l.txt": text[10:]}))
    assert not caplog.records


def test_texts_that_are_no_lists_and_a_second_list(tmp_path):
    images = dict.fromkeys(("a/1.jpg", "a/2.jpg", "b/1.jpg"), b"x")
    texts = {"pairs.txt": b"a/1.jpg a/2.jpg 1\n", "about.txt": b"Faces of 2 people, 3\n", "x.lst": b"\0\xff\xfe" * 9}
    assert ZipSource(zip_of(tmp_path / "f.zip", {**images, **texts})).class_names == ["a", "b"]
    for other in ("train.lst", "other.txt"):
        both = {"list.txt": LISTED.encode(), other: b"1\t7\ta/1.jpg\n"}
        with pytest.raises(UserError, match=f"got 2 list files .list.txt, {other}. · allowed: one"):
            ZipSource(zip_of(tmp_path / "g.zip", {**images, **both}))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", LISTED.replace(" ", ";"), "l.csv, line 1: got 'a/1.jpg;0' · allowed: 'path label'"),
        ("l.csv", f"path,label\n{LISTED.replace(' ', ',')}", "l.csv, line 1: got 'path,label'"),
        ("l.txt", '"1" "a/1.jpg" 0\n"2" "a/2.jpg" 5\n', "write the list without row names (in R: row.names = FALSE)"),
        ("l.csv", '"","path","label"\n"1","a/1.jpg",0\n"2","a/2.jpg",5\n', 'line 1: got \'"","path","label"\''),
        (
            "l.txt",
            "/home/x/set/a/1.jpg 0\n/home/x/set/a/2.jpg 5\n",
            "l.txt lists '/home/x/set/a/1.jpg', which is not in",
        ),
        (
            "l.txt",
            "C:\\set\\a\\1.jpg 0\n",
            "which is not in the zip as 'C:/set/a/1.jpg' · allowed: paths relative to the list's",
        ),
        ("l.txt", "/my faces/Anna B/1.jpg 0\n", "l.txt lists '/my faces/Anna B/1.jpg', which is not in the zip"),
        ("lists/l.txt", LISTED, "lists/l.txt lists 'a/1.jpg', which is not in the zip as 'lists/a/1.jpg' · allowed"),
    ],
)
def test_a_list_in_another_form_is_no_reason_to_take_the_folders(tmp_path, name, text, message):
    images = dict.fromkeys(("a/1.jpg", "a/2.jpg", "b/1.jpg", "Anna B/1.jpg"), b"x")
    with pytest.raises(UserError) as caught:
        ZipSource(zip_of(tmp_path / "f.zip", {**images, name: text.encode()}))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/1.png 0\na/2.png 5\n", "lists 'a/1.png', which is not in the zip, but 'a/1.jpg' is · allowed: paths"),
        ("a/1.JPG 0\n", "lists 'a/1.JPG', which is not in the zip, but 'a/1.jpg' is"),
        ("A/1.jpg 0\n", "lists 'A/1.jpg', which is not in the zip, but 'a/1.jpg' is"),
        ("a/1 0\na/2 5\n", "lists 'a/1', which is not in the zip, but 'a/1.jpg' is"),
        ("".join(f"gone/{k}.jpg 9\n" for k in range(60)) + LISTED, "lists 'gone/0.jpg', which is not in the zip"),
        ("".join(f"# remark {k}\n" for k in range(60)) + LISTED, "lists '# remark', which is not in the zip"),
    ],
)
def test_a_list_of_other_names_is_no_reason_to_take_the_folders(tmp_path, text, message):
    images = dict.fromkeys(("a/1.jpg", "a/2.jpg", "b/1.jpg"), b"x")
    with pytest.raises(UserError) as caught:
        ZipSource(zip_of(tmp_path / "f.zip", {**images, "list.txt": text.encode()}))
    assert message in str(caught.value)


def test_the_list_that_a_zip_is_read_by_is_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    caplog.set_level(logging.INFO)
    images = dict.fromkeys(("a/1.jpg", "a/2.jpg", "b/1.jpg"), b"x")
    ZipSource(zip_of(tmp_path / "f.zip", {**images, "ages.txt": b"a/1.jpg 30\na/2.jpg 31\nb/1.jpg 30\n"}))
    assert "f.zip: reads ages.txt as its list: 2 identities" in caplog.text


@pytest.mark.parametrize(
    ("name", "label", "told"),
    [
        ("age.csv", lambda person, k: 20 + k, True),
        ("gender.txt", lambda person, k: person % 2, True),
        ("list.txt", lambda person, k: person, False),
        ("list.txt", lambda person, k: 10 * person + k, False),  # folders are days, and each has other people
        ("list.txt", lambda person, k: (3 * person + k) % 13, False),  # folders are parts, each person in two
        ("list.txt", lambda person, k: 100 + person // 2, False),  # two folders of some people
    ],
)
def test_a_list_across_the_folders_is_told(tmp_path, caplog, name, label, told):
    """People's ages are no identities, although they are a list of numbers."""
    images = [(person, k) for person in range(9) for k in range(3)]
    if label(0, 0) == 100:
        images = [(person, k) for person, k in images if person not in (1, 3, 5)]
    comma = "," if name.endswith(".csv") else " "
    members = {f"p{person}/{k}.jpg": b"%d %d" % (person, k) for person, k in images}
    text = "".join(f"p{person}/{k}.jpg{comma}{label(person, k)}\n" for person, k in images)
    path = zip_of(tmp_path / "z.zip", members | {name: text.encode()})
    with caplog.at_level(logging.INFO):
        source = ZipSource(path)
    count = len(source.class_names)
    assert f"data: {path}: reads {name} as its list: {count} identities" in caplog.messages
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    sentence = f"the identities are the labels, and {count} of {count} are in several of 9 folders, such as"
    assert len(warnings) == told
    if told:
        assert warnings[0].startswith(f"data: {path}/{name}: {sentence} {label(0, 0)} in p0 and p")
        assert warnings[0].endswith(" · if the folders are the identities, take this list out of the zip")


def test_texts_about_one_image_each_are_no_lists_and_cost_little(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    names = [f"p{k % 3}/{k}" for k in range(30)]
    images = {f"{name}.jpg": b"x" for name in names}
    beside = {f"{name}.txt": f"{name}.jpg 7\n".encode() for name in names}
    monkeypatch.setattr(ZipSource, "_text", lambda *_: pytest.fail("read"))
    assert ZipSource(zip_of(tmp_path / "f.zip", {**images, **beside})).class_names == ["p0", "p1", "p2"]
    monkeypatch.undo()
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    both = {**images, **beside, "list.txt": "".join(f"{name}.jpg 4\n" for name in names).encode()}
    assert ZipSource(zip_of(tmp_path / "g.zip", both)).class_names == ["4"]
    caplog.clear()
    apart = {f"boxes/{name}.txt": f"{name}.jpg 1 2 3 4\n".encode() for name in names}
    ZipSource(zip_of(tmp_path / "h.zip", {**images, **apart}))
    assert caplog.text.count("names images") == 1
    assert "boxes/p0/0.txt names images, such as p0/0.jpg (and 29 other texts), but has no lines" in caplog.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.csv", "a/1.jpg,a/2.jpg,1\n"),
        ("quality.csv", "image;quality\na/1.jpg;0.93\n"),
        ("boxes.txt", "1.jpg 10 20 30 40\n"),
    ],
)
def test_other_facts_of_images_in_a_zip_are_told(tmp_path, caplog, monkeypatch, name, text):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    images = dict.fromkeys(("x/a/1.jpg", "x/a/2.jpg", "x/b/1.jpg"), b"x")
    assert ZipSource(zip_of(tmp_path / "f.zip", {**images, f"x/{name}": text.encode()})).class_names == ["a", "b"]
    first = text.splitlines()[-1].replace(";", ",").replace(" ", ",").split(",")[0]
    assert f"x/{name} names images, such as {first}, but has no lines 'path label': the folders are" in caplog.text


def test_files_of_this_package_in_a_zip_are_ignored_as_in_a_folder(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    points = "a/1.jpg 1 2 3 4 5 6 7 8 9 10\n"
    members = {
        "x/a/1.jpg": b"x",
        "x/b/1.jpg": b"x",
        "x/landmarks.txt": points.encode(),
        "x/names.tsv": b"a/1.jpg\tAnna\n",
    }
    assert ZipSource(zip_of(tmp_path / "f.zip", members)).class_names == ["a", "b"]
    assert not caplog.records


@pytest.mark.parametrize(("zipped", "listed"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_a_list_names_members_in_any_form_of_unicode(tmp_path, zipped, listed):
    names = ["Zo\u00eb/1.jpg", "Jos\u00e9/1.jpg"]
    images = {unicodedata.normalize(zipped, name): name.encode() for name in names}
    text = "".join(f"{unicodedata.normalize(listed, name)} {k}\n" for k, name in enumerate(names)).encode()
    source = ZipSource(zip_of(tmp_path / "f.zip", {**images, "list.txt": text}))
    assert [source.read(k).decode() for k in (0, 1)] == names
    assert source.class_names == names_of(names)


def names_of(paths: list[str]) -> list[str]:
    return [path.partition("/")[0] for path in paths]


def test_a_directory_that_hides_members_is_refused(tmp_path):
    """The comment of an entry is as long as the entries behind it, the list among them."""
    labels = "".join(f"P{k}/0.jpg {k // 2}\n" for k in range(4)).encode()
    path = zip_of(tmp_path / "f.zip", {**{f"P{k}/0.jpg": b"x" for k in range(4)}, "list.txt": labels})
    assert ZipSource(path).labels.tolist() == [0, 0, 1, 1]
    whole = path.read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    with_entry(path, 2, 32, "<H", end - central(whole, 3))
    with pytest.raises(UserError, match=r"not a whole zip \(its end counts 5 members, its directory lists 3\)"):
        ZipSource(path)


@pytest.mark.parametrize("comment", [b"", b"made by hand", b"c" * 65535])
@pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n" * 9])
def test_a_directory_of_zip64_and_comments_are_counted(tmp_path, comment, before, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)  # from here on the end record is zip64's, too
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as file:
        for name, data in TWO.items():
            file.writestr(name, data)
        file.comment = comment
    data = before + (tmp_path / "f.zip").read_bytes()
    (tmp_path / "f.zip").write_bytes(data)
    assert b"PK\x06\x06" in data
    assert len(ZipSource(tmp_path / "f.zip")) == 2
    changed = bytearray(data)
    struct.pack_into("<Q", changed, changed.rindex(b"PK\x06\x06") + 32, 3)
    (tmp_path / "f.zip").write_bytes(changed)
    with pytest.raises(UserError, match="its end counts 3 members, its directory lists 2"):
        ZipSource(tmp_path / "f.zip")


def test_a_member_behind_four_gigabytes_is_read(tmp_path):
    small = zip_of(tmp_path / "small.zip", TWO).read_bytes()
    with (tmp_path / "large.zip").open("wb") as file:
        file.truncate(2**32)  # takes no space on the disk
        file.seek(2**32)
        file.write(small)
    source = ZipSource(tmp_path / "large.zip")
    assert [source.read(row) for row in range(2)] == [*TWO.values()]


def parts_of(path: Path, end: int, *, zip64: bool) -> tuple[Path, Path]:
    """The first and the last of ``end + 1`` parts of a zip."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x05\x06")
    struct.pack_into("<HH", data, at + 4, *((0xFFFF, 0xFFFF) if zip64 else (end, end)))
    if zip64:
        struct.pack_into("<II", data, data.rindex(b"PK\x06\x06") + 16, end, end)
        struct.pack_into("<I", data, data.rindex(b"PK\x06\x07") + 16, end + 1)
    first, last = path.with_name("a.zip"), path.with_name("b 1.zip")
    first.write_bytes(b"PK\x07\x08" + data[:60])
    last.write_bytes(data[60:])
    return first, last


@pytest.mark.parametrize("zip64", [True, False])
@pytest.mark.parametrize("comment", [b"", b"c" * 65535])
def test_a_part_of_a_split_zip_is_named(tmp_path, monkeypatch, zip64, comment):
    if zip64:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as file:
        for name, data in TWO.items():
            file.writestr(name, data)
        file.comment = comment
    first, last = parts_of(tmp_path / "f.zip", 4, zip64=zip64)
    say = "{}: got part {} of a split zip · allowed: a whole zip · join the parts: zip -s 0 {} --out joined.zip"
    for path, number, named in ((first, 1, "LAST_PART.zip"), (last, 5, f"'{last}'")):
        with pytest.raises(UserError) as caught:
            ZipSource(path)
        assert str(caught.value) == say.format(path, number, named)


def test_a_whole_zip_that_begins_or_ends_like_a_part_is_read(tmp_path):
    """The mark of a zip that was to be split and is not, and zip64 without a number in the old end record."""
    path = zip_of(tmp_path / "f.zip", TWO)
    path.write_bytes(b"PK00" + path.read_bytes())
    assert len(ZipSource(path)) == 2
    path.write_bytes(b"PK\x07\x08" + path.read_bytes()[4:])
    assert len(ZipSource(path)) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        data = bytearray(zip_of(tmp_path / "g.zip", TWO).read_bytes())
    struct.pack_into("<HH", data, data.rindex(b"PK\x05\x06") + 4, 0xFFFF, 0xFFFF)
    path.write_bytes(data)
    assert len(ZipSource(path)) == 2


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs zip")
def test_a_zip_that_zip_split_is_read_after_the_remedy(tmp_path):
    random, names = np.random.default_rng(0), [f"{person}/{k}.jpg" for person in "ab" for k in range(3)]
    for name in names:  # zip 3.0 joins a member in three parts wrongly, so these are small
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / name).write_bytes(random.bytes(30_000))
    subprocess.run(["zip", "-qr", "-s", "64k", "../f.zip", "."], cwd=tmp_path / "faces", check=True)
    with pytest.raises(UserError, match=r"got part 3 of a split zip") as caught:
        ZipSource(tmp_path / "f.zip")
    command = shlex.split(str(caught.value).partition("join the parts: ")[2])
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    source = ZipSource(tmp_path / "joined.zip")
    assert [source.read(row) for row in range(6)] == [(tmp_path / "faces" / name).read_bytes() for name in names]


LINK = "../../../secret.jpg"


def with_modes(path: Path, modes: dict[str, int], system: int = 3, texts: dict[str, str] | None = None) -> Path:
    """The two images, and members of these modes of Unix."""
    with zipfile.ZipFile(path, "w") as file:
        for name, data in TWO.items():
            file.writestr(name, data)
        for name, text in (texts or {}).items():
            file.writestr(name, text)
        for name, mode in modes.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = system, mode << 16
            file.writestr(info, LINK)
    return path


SPECIAL = {
    "a/link.jpg": stat.S_IFLNK | 0o777,
    "c": stat.S_IFLNK | 0o777,  # to a folder
    "b/pipe.jpg": stat.S_IFIFO | 0o644,
    "b/socket.jpg": stat.S_IFSOCK | 0o644,
    "b/disk.jpg": stat.S_IFBLK | 0o644,
    "b/null.png": stat.S_IFCHR | 0o644,
    "b/.hidden.jpg": stat.S_IFLNK | 0o777,  # not counted, as in a folder
    "Thumbs.db": stat.S_IFLNK | 0o777,
}


@pytest.mark.parametrize("system", [3, 19])
def test_what_is_no_regular_file_in_a_zip_is_counted_as_in_a_tar(tmp_path, caplog, system):
    path = with_modes(tmp_path / "f.zip", SPECIAL, system)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    kinds = {stat.S_IFLNK: "SYMTYPE", stat.S_IFIFO: "FIFOTYPE", stat.S_IFSOCK: "FIFOTYPE", stat.S_IFBLK: "BLKTYPE"}
    with tarfile.open(tmp_path / "f.tar", "w") as file:
        for name, data in TWO.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        for name, mode in SPECIAL.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = getattr(tarfile, kinds.get(stat.S_IFMT(mode), "CHRTYPE")), LINK
            file.addfile(info)
    sources = [ZipSource(path), TarSource(tmp_path / "f.tar")]
    assert [[source.read(row) for row in range(len(source))] for source in sources] == [[*TWO.values()]] * 2
    said = [line.split(": ", 2)[2].partition(" · ")[0] for line in caplog.messages]
    assert said == ["6 files were not read: 6 that are not regular files"] * 2


@pytest.mark.parametrize(("mode", "system"), [(0o600, 3), (stat.S_IFREG | 0o644, 3), (stat.S_IFLNK | 0o777, 0)])
def test_members_without_a_mode_of_unix_are_files(tmp_path, caplog, mode, system):
    """Systems other than Unix may write anything in its place."""
    source = ZipSource(with_modes(tmp_path / "f.zip", {"c/0.jpg": mode}, system))
    assert [source.read(row) for row in range(3)] == [*TWO.values(), LINK.encode()]
    assert not caplog.messages


def test_a_list_of_links_and_a_zip_of_links_say_so(tmp_path, caplog):
    link = {"b/link.jpg": stat.S_IFLNK | 0o777, "b/2.jpg": stat.S_IFLNK}
    path = with_modes(tmp_path / "f.zip", link, texts={"list.txt": "a/0.jpg 0\nb/link.jpg 1\n"})
    with pytest.raises(UserError, match=r"list.txt lists 'b/link.jpg', which is a link or a device · allowed: images"):
        ZipSource(path)
    path = with_modes(path, link, texts={"list.txt": "a/0.jpg 0\nb/0.jpg 1\n"})
    assert len(ZipSource(path)) == 2
    path.unlink()
    with zipfile.ZipFile(path, "w") as file:
        info = zipfile.ZipInfo("a/0.jpg")
        info.create_system, info.external_attr = 3, stat.S_IFLNK << 16
        file.writestr(info, LINK)
    with pytest.raises(UserError, match=r"got no images, and 1 link or device · allowed: .* · pack it again without"):
        ZipSource(path)
