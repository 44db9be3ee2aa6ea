"""Tar files: each is read rightly, or refused in one line. Writers are tarfile, webdataset and tar."""

from __future__ import annotations

import itertools
import json
import logging
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import pytest
import webdataset

from sphereface.data.mapped import MappedFile
from sphereface.data.sources import TarSource, open_path, open_source
from sphereface.data.sources.spans import _MOST_OPEN
from sphereface.data.tar_members import tar_members
from sphereface.errors import UserError

from .shards import write_tar

FOUR = [("a/0.jpg", b"A0"), ("a/1.jpg", b"A1" * 400), ("b/0.jpg", b"B0"), ("b/1.jpg", b"B1")]


def content(source) -> list[tuple[str, bytes]]:
    return [(source.class_names[label], source.read(row)) for row, label in enumerate(source.labels.tolist())]


EXPECTED = [(name[0], data) for name, data in FOUR]


# ---------------------------------------------------------------- members


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_tarfile_finds(tmp_path, form):
    long = "d" * 90 + "/" + "e" * 90 + ".jpg"
    names = ["plain.jpg", long, "./dot.jpg", "sub/fo lder/ü.jpg"]
    names += ["x" * 300 + "/1.jpg"] if form != tarfile.USTAR_FORMAT else []
    path = write_tar(tmp_path / "t.tar", [(name, os.urandom(k * 300)) for k, name in enumerate(names)], form)
    with tarfile.open(path) as file:
        expected = [(member.name, member.offset_data, member.size) for member in file]
    found = [(m.name, m.start, m.size) for m in tar_members(MappedFile(path).view(), path)]
    assert found == expected
    assert len(found) == len(names)


def test_what_tar_itself_writes(tmp_path):
    for name, data in FOUR:
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / name).write_bytes(data)
    for number, options in enumerate((["--format=gnu"], ["--format=pax"], ["--format=v7"], ["-b", "1"])):
        path = tmp_path / f"{number}.tar"
        subprocess.run(["tar", *options, "-cf", path, "-C", tmp_path, "faces"], check=True)
        assert content(open_path(path)) == EXPECTED


def test_links_devices_and_folders_are_never_followed(tmp_path, caplog):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    with tarfile.open(tmp_path / "t.tar", "w") as file:
        for name, kind in (("a/l.jpg", tarfile.SYMTYPE), ("a/h.jpg", tarfile.LNKTYPE), ("a/f.jpg", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "secret.jpg")
            info.size = 700 if kind == tarfile.LNKTYPE else 0  # as old programs have it, without any data
            file.addfile(info)
        info = tarfile.TarInfo("a/d.jpg")
        info.type = tarfile.DIRTYPE
        file.addfile(info)
    joined = (tmp_path / "t.tar").read_bytes().rstrip(b"\0")
    rest = write_tar(tmp_path / "u.tar", FOUR).read_bytes()
    (tmp_path / "t.tar").write_bytes(joined + bytes(-len(joined) % 512) + rest)
    with caplog.at_level(logging.WARNING):
        assert content(open_path(tmp_path / "t.tar")) == EXPECTED
    assert "3 files were not read: 3 that are not regular" in caplog.text or "4 files were not read" in caplog.text


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "a/../../b.jpg", "C:/a.jpg", "..\\a.jpg", "a/..", "/a/l"])
def test_a_name_that_leads_out_is_refused(tmp_path, name):
    write_tar(tmp_path / "t.tar", [*FOUR, (name, b"x")])
    with pytest.raises(UserError, match=r"t\.tar: got a member .* · allowed: names that stay inside the tar"):
        open_path(tmp_path / "t.tar")


# ---------------------------------------------------------------- half a copy


def test_a_tar_that_is_cut_anywhere_is_an_error(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", FOUR).read_bytes()
    end = len(whole.rstrip(b"\0"))
    end += -end % 512 + 1024  # two blocks of zeros
    path = tmp_path / "cut.tar"
    for cut in [*range(1, end, 127), *range(512, end, 512), end - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"^\S*cut\.tar: (truncated|not a tar file)[^\n]* · copy it again$"):
            open_path(path)
    path.write_bytes(whole[:end])
    assert content(open_path(path)) == EXPECTED


@pytest.mark.parametrize(
    ("total", "allowed", "told"),
    [
        (2560 + 1024, 10_240, False),
        (2560 + 10_240 + 1024, 10_240, False),
        (2**20, 2**20, False),  # tar -b 2048
        (2**21, 2**20, True),
        (2_447_360, 10_240, True),  # 239 records
        (10_240 * 17, 43_520, True),
        (2560 + 2**16 + 512, 34_304, True),
    ],
)
def test_a_tail_of_zeros_is_an_unfinished_download(tmp_path, total, allowed, told):
    """A program wrote zeros up to the full size first, or a power cut left them: two of four images are missing."""
    whole = write_tar(tmp_path / "whole.tar", FOUR).read_bytes()
    path = tmp_path / "cut.tar"
    path.write_bytes(whole[:2560].ljust(total, b"\0"))
    if not told:
        assert content(open_path(path)) == EXPECTED[:2]
        return
    got = f"got {total - 2560:,} bytes of zeros after its last member, at byte 2560"
    line = (
        rf"cut\.tar: {got} · allowed: up to {allowed:,}, which programs add · an unfinished download leaves such an end"
    )
    with pytest.raises(UserError, match=rf"{line}: copy it again · or, if it is whole, write it again with tar -b 20$"):
        open_path(path)


def test_the_longest_tail_of_zeros_that_is_accepted(tmp_path):
    """The end mark and a record but one block; the sizes of 262 and 263 blocks are no records of another size."""
    path = write_tar(tmp_path / "t.tar", [("a/0.jpg", b"x" * 512 * 239)])
    image = path.read_bytes()[: 512 * 240]
    for size in (512 * 262, 512 * 250 + 100):  # also no whole blocks
        path.write_bytes(image.ljust(size, b"\0"))
        assert len(open_path(path)) == 1
    path.write_bytes(image.ljust(512 * 263, b"\0"))
    with pytest.raises(UserError, match=r"got 11,776 bytes of zeros .* · allowed: up to 10,240, which programs add · "):
        open_path(path)


def test_the_longest_records_of_tar_are_no_cut(tmp_path):
    (tmp_path / "faces" / "a").mkdir(parents=True)
    (tmp_path / "faces" / "a" / "0.jpg").write_bytes(b"A0")
    subprocess.run(["tar", "-b", "2048", "-cf", tmp_path / "t.tar", "-C", tmp_path, "faces"], check=True)
    assert (tmp_path / "t.tar").stat().st_size == 2**20
    assert content(open_path(tmp_path / "t.tar")) == [("a", b"A0")]


def test_python_passes_over_half_a_header_and_this_does_not(tmp_path):
    path = write_tar(tmp_path / "t.tar", FOUR)
    with tarfile.open(path) as file:
        last = file.getmembers()[-1].offset
    path.write_bytes(path.read_bytes()[: last + 200])
    with tarfile.open(path) as file:
        assert len(file.getmembers()) == 3  # in silence
    with pytest.raises(UserError, match=r"truncated: it ends at byte \d+, inside a header"):
        open_path(path)


def test_what_is_no_tar_is_named(tmp_path):
    import gzip

    whole = write_tar(tmp_path / "t.tar", FOUR).read_bytes()
    (tmp_path / "z.tar").write_bytes(gzip.compress(whole))
    with pytest.raises(UserError, match=r"z\.tar: is compressed by gzip · allowed: a plain tar file · unpack it"):
        open_path(tmp_path / "z.tar")
    (tmp_path / "z.tar").rename(tmp_path / "z.tar.gz")
    with pytest.raises(UserError, match=r"allowed: .* · unpack it first"):
        open_path(tmp_path / "z.tar.gz")
    (tmp_path / "j.tar").write_bytes(b"\xff\xd8" * 600)
    with pytest.raises(UserError, match=r"j\.tar: not a tar file · copy it again"):
        open_path(tmp_path / "j.tar")
    (tmp_path / "two.tar").write_bytes(whole + whole)
    with pytest.raises(UserError, match=r"two\.tar: continues after its end mark, at byte \d+ · .*joined by cat"):
        open_path(tmp_path / "two.tar")
    damaged = bytearray(whole)
    damaged[1024 + 3] ^= 1  # in the second header
    (tmp_path / "d.tar").write_bytes(damaged)
    with pytest.raises(UserError, match=r"d\.tar: damaged: no header begins at byte 1024 · copy it again"):
        open_path(tmp_path / "d.tar")


@pytest.mark.parametrize("size", [2049, 2**40])
def test_a_member_that_claims_more_than_the_file_holds(tmp_path, size):
    info = tarfile.TarInfo("a/0.jpg")
    info.size = size
    (tmp_path / "t.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(UserError, match=r"truncated: it ends at byte 2560, inside 'a/0\.jpg'"):
        open_path(tmp_path / "t.tar")


def test_a_sparse_member_is_refused(tmp_path):
    with (tmp_path / "0.jpg").open("wb") as file:
        file.truncate(1 << 20)
    for form in ("gnu", "pax"):
        subprocess.run(
            ["tar", f"--format={form}", "-S", "-cf", tmp_path / "s.tar", "-C", tmp_path, "0.jpg"], check=True
        )
        with pytest.raises(UserError, match=r"is a sparse file · allowed: files without holes"):
            open_path(tmp_path / "s.tar")


# ---------------------------------------------------------------- identities


def labelled(kind: str, values: list[bytes]) -> list[tuple[str, bytes]]:
    rows = [(f"{number:03d}", data, value) for number, ((_, data), value) in enumerate(zip(FOUR, values, strict=True))]
    return [member for key, data, value in rows for member in ((f"{key}.jpg", data), (f"{key}.{kind}", value))]


@pytest.mark.parametrize(
    ("kind", "values", "names"),
    [
        ("cls", [b"3", b"3", b"7", b"7"], ["3", "7"]),
        ("txt", [b"3\n", b"3\n", b"7\n", b"7"], ["3", "7"]),
        ("json", [b'{"label": 3}'] * 2 + [b'{"label": 7, "cls": 3, "identity": null}'] * 2, ["3", "7"]),
        ("json", [b'{"identity": "Ann", "label": 9}'] * 2 + [b'{"identity": "Bo", "label": 1}'] * 2, ["Ann", "Bo"]),
    ],
)
def test_where_the_identity_comes_from(tmp_path, kind, values, names):
    members = labelled(kind, values)
    expected = [(name, data) for name, (_, data) in zip([names[0]] * 2 + [names[1]] * 2, FOUR, strict=True)]
    for order in (members, members[::-1], sorted(members, key=lambda m: m[0][-3:]), sorted(members)):
        source = TarSource(write_tar(tmp_path / "t.tar", order))
        assert content(source) == expected
        assert source.named == (names == ["Ann", "Bo"])


def test_a_set_of_webdatasets_own_writer(tmp_path):
    with webdataset.ShardWriter(str(tmp_path / "f-%04d.tar"), maxcount=3, verbose=0) as writer:
        for number, (name, data) in enumerate(FOUR):
            writer.write({"__key__": f"{number:05d}", "jpg": data, "cls": "ab".index(name[0])})
    expected = [("01"["ab".index(name)], data) for name, data in EXPECTED]
    for path in (tmp_path, tmp_path / "f-{0000..0001}.tar"):
        assert content(open_source(path)) == expected


def test_folders_in_both_forms_of_unicode_are_one_with_a_word(tmp_path, caplog):
    members = [("Zo\xeb/0.jpg", b"0"), ("Ann/0.jpg", b"2"), ("Zoe\u0308/1.jpg", b"1")]
    assert content(open_path(write_tar(tmp_path / "t.tar", members)))[1:] == [("Zo\xeb", b"0"), ("Zo\xeb", b"1")]
    assert "1 identity has names that differ only in Unicode's form, such as Zo\xeb" in caplog.text


def test_a_key_may_come_again_once_the_image_before_has_its_label(tmp_path, caplog):
    """Trainers name the key after the file, and every identity has a 000.jpg."""
    with webdataset.TarWriter(str(tmp_path / "t.tar")) as writer:
        for name, data in FOUR:
            writer.write({"__key__": Path(name).stem, "jpg": data, "cls": "ab".index(name[0])})
    assert content(open_path(tmp_path / "t.tar")) == [("01"["ab".index(name)], data) for name, data in EXPECTED]
    assert "2 images repeat the name of an earlier one in the same tar file, such as 0.jpg: each counts" in caplog.text
    write_tar(tmp_path / "twice.tar", [*FOUR, (FOUR[0][0][:-3] + "png", b"x"), FOUR[0]])
    with pytest.raises(UserError, match=r"got two members named 'a/0\.jpg' · allowed: one · pack it again"):
        open_path(tmp_path / "twice.tar")


def test_names_with_dots_stay_two_images(tmp_path):
    """webdataset ends a key at the first dot, and makes these one sample, or an error."""
    members = [
        ("J.Smith_0001.jpg", b"1"),
        ("J.Smith_0001.cls", b"0"),
        ("J.Smith_0002.jpg", b"2"),
        ("J.Smith_0002.cls", b"0"),
    ]
    members += [("K.Lee.jpg", b"3"), ("K.Lee.cls", b"1")]
    for order in (members, sorted(members, key=lambda member: member[0][-3:], reverse=True)):  # all images first
        source = open_path(write_tar(tmp_path / "t.tar", order))
        assert content(source) == [("0", b"1"), ("0", b"2"), ("1", b"3")]


def test_captions_are_no_labels(tmp_path, caplog):
    members = [*FOUR, *((name.replace("jpg", "txt"), b"a man with a hat") for name, _ in FOUR)]
    with caplog.at_level(logging.WARNING):
        assert content(open_path(write_tar(tmp_path / "t.tar", members))) == EXPECTED
    assert "4 files were not read: 4 .txt without an identity" in caplog.text


def test_names_come_from_folders_where_each_label_has_one(tmp_path):
    members = [m for name, data in FOUR for m in ((name, data), (f"{name[:3]}.cls", b"10"[name[0] == "b" :][:1]))]
    source = open_path(write_tar(tmp_path / "t.tar", members))
    assert source.class_names == ["b", "a"]  # in the order of the labels
    assert source.named


def test_names_come_from_the_last_folders_where_labels_share_the_first(tmp_path):
    names = ["t/x/a/1.jpg", "t/x/b/1.jpg", "t/y/c/1.jpg"]
    members = [m for row, name in enumerate(names) for m in ((name, b"x"), (f"{name[:-4]}.cls", b"%d" % (2 - row)))]
    assert open_path(write_tar(tmp_path / "t.tar", members)).class_names == ["t/y/c", "t/x/b", "t/x/a"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.txt").write_text("".join(f"{name} {2 - row}\n" for row, name in enumerate(names)))
    assert open_path(tmp_path / "list.txt").class_names == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (labelled("cls", [b"3", b"3", b"x", b"7"]), r"t\.tar/002\.cls: got b'x' · allowed: the number of an identity"),
        (labelled("cls", [b"3", b"3", b"-1", b"7"]), r"002\.cls: got b'-1'"),
        (labelled("cls", [b"3", b"3", b"9" * 30, b"7"]), r"002\.cls: got b'9{30}'"),
        (
            labelled("cls", [b"1"] * 4)[:-1],
            r"1 of 4 images have no label, such as 003\.jpg · allowed: a member \.cls for",
        ),
        (
            [("0.jpg", b"A"), ("0.png", b"B"), ("0.cls", b"1"), ("1.jpg", b"C"), ("1.cls", b"2")],
            r"1 image has the key of another image, such as 0\.png that of 0\.jpg, and one \.cls · allowed: one",
        ),
        (
            [("0.cls", b"1"), ("0.jpg", b"A"), ("0.png", b"B"), ("1.cls", b"2"), ("1.jpg", b"C")],
            r"1 image has the key of another image, such as 0\.png that of 0\.jpg, and one \.cls",
        ),
        (labelled("json", [b"{}", b'{"label": 1}'] * 2), r"2 of 4 images have no label, such as 000\.jpg"),
        (
            labelled("json", [b'{"identity": null, "label": 0}', *[b'{"identity": 57, "label": 1}'] * 3]),
            r"1 of 4 images have no label, such as 000\.jpg · allowed: a member \.json with identity for each image",
        ),
        (
            labelled("json", [*[b'{"label": 0, "cls": 3}'] * 2, *[b'{"cls": 4}'] * 2]),
            r"2 of 4 images have no label, such as 002\.jpg · allowed: a member \.json with label for each image",
        ),
        (
            labelled("json", [b'{"label": 1', b'{"label": 1}'] * 2),
            r"000\.json: not JSON · allowed: an object with",
        ),
        (
            labelled("json", [b'{"label": "x"}', b'{"label": 1}'] * 2),
            r"numbers for some .* names for others, 1 and 'x'",
        ),
        (labelled("json", [b'{"label": true}'] * 4), r"000\.json, label: got True · allowed: an identity's number"),
        (labelled("json", [b'{"label": [1]}'] * 4), r"000\.json, label: got \[1\]"),
        (labelled("json", [b'{"identity": "a\\nb"}'] * 4), r"000\.json, identity: got 'a\\nb'"),
        (labelled("json", [b'{"identity": "a\\ud800"}'] * 4), r"000\.json, identity: got 'a\\ud800'"),
        (labelled("json", [b"[" * 5000] * 4), r"000\.json: not JSON"),
        ([("a.jpg", b"x"), ("b.jpg", b"y")], r"t\.tar: got 2 images, all without an identity · allowed: <identity>/"),
        ([("a/x.avif", b"x")], r"got no images · allowed: <identity>/<image>, or images with \.cls, \.json or \.txt"),
    ],
)
def test_wrong_labels_end_in_one_line(tmp_path, members, message):
    with pytest.raises(UserError, match=message) as caught:
        open_path(write_tar(tmp_path / "t.tar", members))
    assert "\n" not in str(caught.value)


def test_only_the_first_kind_of_label_counts(tmp_path):
    members = [*labelled("cls", [b"3", b"3", b"7", b"7"]), *labelled("json", [b'{"label": 1}'] * 4)[1::2]]
    assert open_path(write_tar(tmp_path / "t.tar", members)).class_names == ["3", "7"]


# ---------------------------------------------------------------- shards


def test_one_key_of_json_holds_the_identities_of_all_shards(tmp_path):
    write_tar(tmp_path / "x-0.tar", labelled("json", [b'{"label": 1}'] * 4))
    write_tar(tmp_path / "x-1.tar", labelled("json", [b'{"identity": 57, "label": 1}'] * 4))
    with pytest.raises(
        UserError, match=r"4 of 8 images have no label, .* a member \.json with identity for each image"
    ):
        open_path(tmp_path)


def test_a_folder_a_pattern_and_one_file_are_the_same_set(tmp_path):
    write_tar(tmp_path / "s" / "x-000009.tar", FOUR[:3])
    write_tar(tmp_path / "s" / "x-000010.tar", FOUR[3:])
    write_tar(tmp_path / "one.tar", FOUR)
    for path in (tmp_path / "s", tmp_path / "s" / "x-{000009..000010}.tar", tmp_path / "one.tar"):
        source = pickle.loads(pickle.dumps(open_path(path)))
        assert content(source) == EXPECTED
    assert source.mapped
    assert open_path(tmp_path / "s").name(3) == f"{tmp_path}/s/x-000010.tar/b/1.jpg"


def test_shards_that_are_missing(tmp_path, caplog):
    write_tar(tmp_path / "x-0.tar", FOUR)
    with pytest.raises(UserError, match=r"2 of 3 files are missing, the first: x-1\.tar · allowed: all files of"):
        open_path(tmp_path / "x-{0..2}.tar")
    with pytest.raises(UserError, match=r"got \{2\.\.0\} · allowed: an ascending range"):
        open_path(tmp_path / "x-{2..0}.tar")
    with pytest.raises(UserError, match=r"got \{0\.\.999999999\} · allowed: .* of at most 100,000 numbers"):
        open_path(tmp_path / "x-{0..999999999}.tar")
    write_tar(tmp_path / "x-3.tar", [("c/0.jpg", b"C")])
    with caplog.at_level(logging.WARNING):
        open_path(tmp_path)
    assert "between the first and the last file 2 numbers are missing" in caplog.text
    assert "first file" not in caplog.text
    write_tar(tmp_path / "of" / "x-00000-of-00002.tar", FOUR)
    with pytest.raises(UserError, match=r"got 1 of the 00002 files 'x' · allowed: all files of the set"):
        open_path(tmp_path / "of")


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (("f-000005", "f-000006"), "000005"),
        (("f-2", "f-3"), "2"),
        (("f-002000", "f-002001"), "002000"),
        (("f-0", "f-1"), ""),
        (("f-001", "f-002"), ""),
        (("f-2019", "f-2020"), ""),  # years
        (("f-20190101", "f-20190102"), ""),
        (("f-7",), ""),
    ],
)
def test_shards_whose_first_numbers_are_missing(tmp_path, caplog, names, first):
    for name, member in zip(names, ("a/1.jpg", "b/1.jpg"), strict=False):
        write_tar(tmp_path / f"{name}.tar", [(member, member.encode())])
    open_path(tmp_path)
    told = "its first file has the number"
    assert (f"{told} {first} · if the set begins at 0 or 1, copy the files before it" in caplog.text) == bool(first)
    assert (told in caplog.text) == bool(first)


def test_a_folder_of_identities_with_a_tar_beside_stays_one(tmp_path, caplog):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.jpg").write_bytes(b"x")
    write_tar(tmp_path / "original.tar", FOUR)
    with caplog.at_level(logging.WARNING):
        assert open_path(tmp_path).class_names == ["a"]
    assert "1 file was not read: 1 .tar" in caplog.text
    (tmp_path / "two").mkdir()
    write_tar(tmp_path / "two" / "a.tar", FOUR)
    (tmp_path / "two" / "a.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match=r"got files \.tar and \.parquet · allowed: files of one form"):
        open_path(tmp_path / "two")


def test_more_shards_than_a_process_may_hold_open(tmp_path):
    import resource

    count = _MOST_OPEN + 40
    for number in range(count):
        write_tar(tmp_path / f"{number:04d}.tar", [(f"{number % 2}/{number}.jpg", b"%d" % number)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_OPEN + 30, hard))
    try:
        source = open_path(tmp_path)
        for _ in range(2):
            assert {int(source.read(row)) for row in range(count)} == set(range(count))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_image_that_is_gone_or_too_large_is_an_oserror(tmp_path):
    path = write_tar(tmp_path / "t.tar", FOUR)
    source = pickle.loads(pickle.dumps(open_path(path)))
    path.write_bytes(path.read_bytes() + bytes(512))
    with pytest.raises(OSError, match="has changed since it was opened"):
        source.read(0)


def test_the_label_of_another_kind_in_json_of_img2dataset(tmp_path):
    text = json.dumps({"url": "http://x", "key": "000", "status": "success", "identity": "Ann", "label": 4}).encode()
    members = [("000.jpg", b"1"), ("000.json", text), ("000.txt", b"a caption")]
    assert open_path(write_tar(tmp_path / "t.tar", members)).class_names == ["Ann"]


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\) · allowed: a folder of images"):
        open_path(tmp_path)


def test_a_file_that_an_earlier_run_left_is_told(tmp_path, caplog):
    """Of 32 images in files of 8 at first, then of 11: the fourth file of the first run stays."""
    members = [[(f"{n:09d}.png", b"%d" % n * 90), (f"{n:09d}.cls", b"%d" % (n // 8))] for n in range(32)]
    for each in (8, 11):
        for number, start in enumerate(range(0, 32, each)):
            write_tar(tmp_path / f"f-{number:06d}.tar", itertools.chain(*members[start : start + each]))
    assert len(open_source(tmp_path)) == 40
    assert "8 images are also in another file of the set, such as f-000003.tar/0000000" in caplog.text
    (tmp_path / "f-000003.tar").unlink()
    caplog.clear()
    assert len(open_source(tmp_path)) == 32
    assert not caplog.records


def people_with_labels(names: str, *, per: int = 2, size: int = 4) -> list[tuple[str, bytes]]:
    """A folder and a number from 0 for each person, the images numbered on, as ``sphereface pack`` writes them."""
    rows = [(label, name) for label, name in enumerate(names.split()) for _ in range(per)]
    keys = [(f"{name}/{row:09d}", label, f"{names}{row}".encode() * size) for row, (label, name) in enumerate(rows)]
    return [m for key, label, data in keys for m in ((f"{key}.jpg", data), (f"{key}.cls", b"%d" % label))]


@pytest.mark.parametrize("pattern", ["", "batch-{1..2}.tar"])
@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (
            "Anna Bob Carl",
            "Xaver Yves",
            "2 of 3 labels have other folders in another part of the set, such as 0 in Anna",
        ),
        (
            "000 001 002",
            "000 001",
            "4 images are unlike one of the same name in another file of the set, such as batch-",
        ),
        ("Anna Bob Carl", "- - - Dora Emil", ""),
    ],
)
def test_two_sets_in_one_folder_are_told(tmp_path, caplog, pattern, one, other, told):
    """Their labels begin at 0 in both, so an identity would be two people."""
    write_tar(tmp_path / "batch-1.tar", people_with_labels(one))
    rest = [member for member in people_with_labels(other, size=5) if not member[0].startswith("-")]
    write_tar(tmp_path / "batch-2.tar", rest)
    with caplog.at_level(logging.WARNING):
        source = open_source(tmp_path / pattern if pattern else tmp_path)
    assert len(source) == 6 + len(rest) // 2
    assert len(caplog.messages) == bool(told)
    assert told in caplog.text
    assert ("if two sets were joined, give each as its own path in data.train" in caplog.text) == bool(told)


def test_two_sets_with_shuffled_labels_are_told_by_their_files(tmp_path, caplog):
    for number, names in enumerate((("Anna", "Bob"), ("Xaver", "Yves"))):
        rows = [(f"{names[k % 2]}/{k}", k % 2) for k in range(8)]
        members = [(f"{key}.jpg", b"%d" % number) for key, _ in rows] + [(f"{key}.cls", b"%d" % n) for key, n in rows]
        write_tar(tmp_path / f"b-{number}.tar", members)
    open_source(tmp_path)
    assert "2 of 2 labels have other folders in another part of the set, such as 0 in Anna and in Xaver" in caplog.text


@pytest.mark.parametrize("folder", ["images/", ""])
def test_shards_that_count_their_images_from_0_are_silent(tmp_path, caplog, folder):
    for number in range(3):
        names = [(f"{folder}{k:05d}", number * 4 + k // 5) for k in range(20)]
        images = [(f"{name}.jpg", b"%d %d" % (number, k)) for k, (name, _) in enumerate(names)]
        write_tar(tmp_path / f"train-{number}.tar", images + [(f"{name}.cls", b"%d" % n) for name, n in names])
    with caplog.at_level(logging.WARNING):
        assert len(open_source(tmp_path).class_names) == 12
    assert caplog.messages == []


@pytest.mark.parametrize("kind", [".cls", ".json", ".txt"])
def test_labels_across_the_folders_are_told(tmp_path, caplog, kind):
    """Such as ages beside the folders of people; tracks of people in the folders of a sorted tar are labels too."""
    members = people_with_labels(" ".join(f"p{n}" for n in range(9)), per=3)
    images = [(name, data) for name, data in members if name.endswith(".jpg")]
    ages = [
        (f"{name[:-4]}{kind}", b'{"label": "%d years"}' % (k % 3) if kind == ".json" else b"%d" % (20 + k % 3))
        for k, (name, _) in enumerate(images)
    ]
    write_tar(tmp_path / "ages.tar", images + ages)
    with caplog.at_level(logging.WARNING):
        open_source(tmp_path / "ages.tar")
    assert "the identities are the labels, and 3 of 3 are in several of 9 folders, such as " in caplog.text
    assert f" in p0 and p1 · if the folders are the identities, pack it again without members {kind}" in caplog.text


def test_a_part_of_a_set_is_told(tmp_path, caplog):
    """Given by a pattern, or left in a download, packed, or empty."""
    for number in range(3):
        write_tar(
            tmp_path / "of" / f"f-0000{number}-of-00003.tar", [(f"p{number}/{k}.jpg", b"%d" % k) for k in range(2)]
        )
    with caplog.at_level(logging.WARNING):
        assert len(open_path(tmp_path / "of" / "f-{00000..00001}-of-00003.tar")) == 4
    sentence = "names 2 of the 3 files of its set · to read all of them, give their folder or a pattern"
    assert [message.partition(".tar: ")[2] for message in caplog.messages] == [sentence]
    caplog.clear()
    open_path(tmp_path / "of" / "f-{00000..00002}-of-00003.tar")
    for name in ("README.md", "0_stats.json", "LICENSE", "align-report.json", "f-0.tar.idx", ".hidden.part"):
        (tmp_path / "of" / name).write_bytes(b"x")
    open_path(tmp_path / "of")
    assert not caplog.messages
    caplog.clear()
    for name in ("f-00003.tar.gz", "f-00004.tar.part", "f-00005.tar.part"):
        (tmp_path / "of" / name).write_bytes(b"x")
    write_tar(tmp_path / "of" / "empty.tar", [])
    open_path(tmp_path / "of")
    assert "3 files are not read: 2 .part, 1 .gz, such as f-00003.tar.gz · allowed: .tar · complete or" in caplog.text
    assert "1 file has no image, such as empty.tar · copy or pack them again" in caplog.text


def test_names_that_begin_again_in_each_file_are_no_copies(tmp_path, caplog):
    """Even of equal sizes, as raw images have, and if one image is the same."""
    for shard in range(3):
        images = [(f"{n:06d}.bmp", b"same" if n == 0 else b"%02d%02d" % (shard, n)) for n in range(40)]
        members = [member for name, data in images for member in ((name, data), (f"{name[:6]}.cls", b"%d" % shard))]
        write_tar(tmp_path / f"x-{shard}.tar", members)
    assert len(open_source(tmp_path)) == 120
    assert not caplog.records


@pytest.mark.parametrize(
    "pair", [("x-{0..1}.tar", "x-{1..2}.tar"), (".", "x-2.tar"), ("x-0.tar", "l-{0..0}.tar"), ("x-{0..2}.tar", ".")]
)
def test_two_sets_that_have_a_file_in_common_are_refused(tmp_path, pair):
    """Each image would be there twice, under two identities."""
    for number in range(3):
        members = [(f"{number}{name}", data) for name, data in FOUR]
        write_tar(tmp_path / f"x-{number}.tar", members)
    if pair[1].startswith("l-"):
        (tmp_path / "l-0.tar").symlink_to("x-0.tar")
    with pytest.raises(UserError, match=r"data\.train: got .* and .*, which have files in common, such as '.*x-"):
        open_source([tmp_path / name for name in pair])
    assert len(open_source([tmp_path / "x-{0..1}.tar", tmp_path / "x-2.tar"])) == 12


def test_a_folder_with_several_sets_is_read_with_a_warning(tmp_path, caplog):
    """Hugging Face puts the files of train and test into one folder."""
    write_tar(tmp_path / "train-00000-of-00002.tar", FOUR[:2])
    write_tar(tmp_path / "train-00001-of-00002.tar", FOUR[2:])
    with caplog.at_level(logging.WARNING):
        open_path(tmp_path)
    assert "several sets" not in caplog.text
    write_tar(tmp_path / "test-00000-of-00001.tar", [("c/0.jpg", b"C")])
    with caplog.at_level(logging.WARNING):
        assert len(open_path(tmp_path)) == 5
    assert "contains several sets, and all are read as one: test, train · to read only one" in caplog.text


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["train.tar", "val.tar"], "train.tar, val.tar"),
        (["all.tar", "faces-00000-of-00001.tar"], "all.tar, faces"),
        (["faces-000.tar", "faces-000 (1).tar", "faces-001.tar"], "faces-000 (1).tar, faces-000.tar"),
        (["faces-000.tar", "faces-1001.tar", "faces-2.tar"], ""),
        (["n000002.tar", "n000003.tar"], ""),
        (["v2-part-1-a.tar", "v2-part-12-a.tar"], ""),
    ],
)
def test_files_whose_names_differ_in_more_than_numbers_are_several_sets(tmp_path, caplog, names, told):
    for name in names:
        write_tar(tmp_path / name, [(f"a/{name}.jpg", b"A"), ("b/0.jpg", b"B")])
    with caplog.at_level(logging.WARNING):
        open_path(tmp_path)
    assert (f"contains several sets, and all are read as one: {told} · " in caplog.text) == bool(told)
    assert ("several sets" in caplog.text) == bool(told)


def test_one_set_in_two_numbers_of_files_is_refused(tmp_path):
    """As a pack that was repeated with smaller files leaves it; each image would be there twice."""
    for name in ("x-00000-of-00001", "x-00000-of-00002", "x-00001-of-00002"):
        write_tar(tmp_path / f"{name}.tar", FOUR)
    message = r"got files 'x' of two sets, of 00001 and of 00002 files · .* such as x-\{00000\.\.00000\}-of-00001$"
    with pytest.raises(UserError, match=message):
        open_path(tmp_path)


def test_the_size_of_an_extended_header_is_decimal_however_many_digits_it_has(tmp_path):
    info = tarfile.TarInfo("a/0.jpg")
    info.size, info.pax_headers = 512, {"size": f"{512:012d}"}
    path = tmp_path / "t.tar"
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + b"x" * 512 + bytes(1024))
    assert [member.size for member in tar_members(path.read_bytes(), path)] == [512]
