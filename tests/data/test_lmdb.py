"""LMDB as face trainers write it: read without the library, or refused in one line. Writers are lmdb and msgpack."""

from __future__ import annotations

import logging
import os
import pickle
import re
import struct

import lmdb
import msgpack
import numpy as np
import pytest

from sphereface.data.lmdb_entries import lmdb_entries
from sphereface.data.mapped import MappedFile
from sphereface.data.sources import LmdbSource, open_path, open_source
from sphereface.data.sources.lmdb import image_and_label, int_at
from sphereface.errors import UserError

from .shards import face_lmdb, write_lmdb


def images_of(count: int) -> list[tuple[bytes, int]]:
    rng = np.random.default_rng(count)
    return [(rng.bytes(int(rng.integers(1, 5000))), k * 3 // count) for k in range(count)]


@pytest.mark.parametrize("count", [3, 40, 3000])
@pytest.mark.parametrize("folder", [False, True])
def test_every_image_is_read_as_lmdb_reads_it(tmp_path, count, folder):
    images = images_of(count)
    path = face_lmdb(tmp_path / "f.lmdb", images, folder=folder)
    source = pickle.loads(pickle.dumps(open_source(path)))
    assert isinstance(source, LmdbSource)
    assert [(source.read(row), int(label)) for row, label in enumerate(source.labels)] == images
    assert source.class_names == ["0", "1", "2"]
    assert not source.named
    assert source.mapped
    file = path / "data.mdb" if folder else path
    assert source.name(2) == f"{file}/2"
    buffer = MappedFile(file).view()
    with lmdb.open(str(path), subdir=folder, readonly=True, lock=False).begin() as transaction:
        expected = list(transaction.cursor())
    assert [(e.key, buffer[e.start : e.start + e.size]) for e in lmdb_entries(buffer, file)] == expected


def test_the_newer_of_two_transactions_counts(tmp_path):
    path = tmp_path / "f.lmdb"
    for count in (4, 9, 6):  # more pages, then freed ones
        environment = lmdb.open(str(path), subdir=False, map_size=2**26)
        with environment.begin(write=True) as transaction:
            for key in [bytes(key) for key, _ in transaction.cursor()]:
                transaction.delete(key)
            for key, image in enumerate(images_of(count)):
                transaction.put(b"%d" % key, msgpack.dumps(image))
        environment.close()
        source = open_path(path)
        assert [source.read(row) for row in range(len(source))] == [data for data, _ in images_of(count)]


@pytest.mark.parametrize("label", [0, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, -1, -32, -33, -200, -40_000, 2**40])
def test_labels_of_every_width(label):
    for data in (b"", b"x", b"x" * 31, b"x" * 32, b"x" * 255, b"x" * 256, b"x" * 70_000):
        for use_bin in (True, False):
            for more in ((), (b"mask",), (1.5,)):
                record = b"??" + msgpack.dumps((data, label, *more), use_bin_type=use_bin)
                found = image_and_label(record, 2, len(record) - 2)
                if -32 <= label < 0:
                    assert found is None or found[2] == label  # as no label is
                else:
                    assert found is not None
                    assert (record[found[0] : found[0] + found[1]], found[2]) == (data, label)


def test_a_record_with_an_embedding_before_its_label(tmp_path):
    record = msgpack.dumps((b"image", b"\0" * 2048, 7))
    assert image_and_label(record, 0, len(record)) == (3, 5, 7)
    for end in range(len(record)):
        assert image_and_label(record, 0, end) is None
    assert int_at(msgpack.dumps(300), 0, 2) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {b"0": pickle.dumps((b"image", 1))},
            r"key b'0': got a pickle, which can run any code · allowed: Mess",
        ),
        ({b"0": b"\x08\x03\x10\x70"}, r"key b'0': got a record that begins b'\\x08\\x03\\x10p' · allowed"),
        ({b"0": b""}, r"key b'0': got a record that begins b''"),
        ({b"0": msgpack.dumps((b"x", -40_000))}, r"key b'0': got -40000 · allowed: an identity's number"),
        ({b"0": msgpack.dumps((b"x", 2**33))}, r"key b'0': got 8589934592"),
        ({b"0": msgpack.dumps((b"x", 1)), b"__len__": msgpack.dumps(2)}, r"got 1 image, but its __len__ is 2"),
        ({b"__len__": msgpack.dumps(2)}, r"got no images · allowed: all images of the set"),
    ],
)
def test_other_layouts_are_refused(tmp_path, values, message):
    with pytest.raises(UserError, match=message) as caught:
        open_path(write_lmdb(tmp_path / "f.lmdb", values.items()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (range(40), "its 40 images may be a part of a set: it has no __len__, which its writer puts last · make sure"),
        ([*range(10), *range(25, 40)], "its 25 images .* last, and 15 of the keys from 0 to 39 are missing · make"),
        (["a", "b"], "its 2 images may be .* puts last · make sure"),
        (["9" * 5000, "1"], "its 2 images may be .* last, and 1 of the keys from 0 to 1 are missing · make"),
    ],
)
def test_a_file_of_a_writer_that_was_killed_is_told(tmp_path, caplog, keys, told):
    """It commits some images at a time, and the number of all at its end."""
    images = {f"{key}"[:500].encode(): msgpack.dumps((b"image", row % 3)) for row, key in enumerate(keys)}
    source = open_path(write_lmdb(tmp_path / "killed.lmdb", images.items()))
    assert len(source) == len(images)
    (line,) = [line for line in caplog.messages if "__len__" in line]
    assert re.search(rf"^data: {tmp_path}/killed\.lmdb: {told}", line)
    caplog.clear()
    images[b"__len__"] = msgpack.dumps(len(images))
    open_path(write_lmdb(tmp_path / "whole.lmdb", images.items()))
    assert not any("__len__" in line for line in caplog.messages)


def test_several_databases_are_refused(tmp_path):
    with lmdb.open(str(tmp_path), max_dbs=2, map_size=2**24) as environment:
        inner = environment.open_db(b"inner")
        with environment.begin(write=True) as transaction:
            transaction.put(b"0", b"x", db=inner)
    with pytest.raises(UserError, match=r"data\.mdb: holds several databases, or several values of a key"):
        open_path(tmp_path)


def test_a_file_that_is_cut_anywhere_is_an_error(tmp_path):
    whole = face_lmdb(tmp_path / "f.lmdb", images_of(40)).read_bytes()
    path = tmp_path / "cut.lmdb"
    for cut in [1, 100, 4096, 5000, 8192, *range(9000, len(whole), 4099), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"(not an LMDB file|truncated: \d+ of \d+ bytes|damaged)"):
            open_path(path)
    path.write_bytes(whole + bytes(2**20))  # as after a writer that made room
    assert len(open_path(path)) == 40


def test_what_is_no_lmdb_or_another_version(tmp_path):
    whole = face_lmdb(tmp_path / "f.lmdb", images_of(4)).read_bytes()
    (tmp_path / "x.lmdb").write_bytes(b"\xff\xd8" * 5000)
    with pytest.raises(UserError, match=r"x\.lmdb: not an LMDB file · allowed: data\.mdb, or a file that lmdb wrote"):
        open_path(tmp_path / "x.lmdb")
    (tmp_path / "v.lmdb").write_bytes(whole[:20] + struct.pack("<I", 2) + whole[24:])
    with pytest.raises(UserError, match=r"got version 2 of LMDB's format · allowed: 1, that of LMDB 0\.9"):
        open_path(tmp_path / "v.lmdb")


def test_a_tree_that_leads_in_a_circle(tmp_path):
    path = face_lmdb(tmp_path / "f.lmdb", images_of(3000))
    data = bytearray(path.read_bytes())
    newest = max((0, 4096), key=lambda at: struct.unpack_from("<Q", data, at + 16 + 24 + 96 + 8))
    root = struct.unpack_from("<Q", data, newest + 16 + 24 + 48 + 40)[0]
    (first,) = struct.unpack_from("<H", data, root * 4096 + 16)
    struct.pack_into("<HHH", data, root * 4096 + first, root, 0, 0)  # its first child is itself
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged: page \d+ does not fit its tree · copy it again"):
        open_path(path)


def test_the_number_of_entries_is_checked(tmp_path):
    path = face_lmdb(tmp_path / "f.lmdb", images_of(4))
    data = bytearray(path.read_bytes())
    for meta in (0, 4096):
        struct.pack_into("<Q", data, meta + 16 + 24 + 48 + 32, 99)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"holds 7 entries, but its header claims 99 · copy it again"):
        open_path(path)


def test_keys_that_are_no_numbers_and_folders_in_them(tmp_path, caplog):
    people = [("Ann/1.jpg", 4), ("Ann/2.jpg", 4), ("Bo/1.jpg", 9)]
    values = [(key.encode(), msgpack.dumps((os.urandom(9), label))) for key, label in people]
    with caplog.at_level(logging.INFO):
        source = open_path(write_lmdb(tmp_path / "f.lmdb", values))
    assert source.class_names == ["Ann", "Bo"]
    assert "labels from 4 to 9 have gaps" in caplog.text


def test_folders_beside_data_mdb_are_told(tmp_path, caplog):
    face_lmdb(tmp_path / "a", [(b"image", 0), (b"other", 1)], folder=True)
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_path(tmp_path / "a"), LmdbSource)
    assert not caplog.text
    for name in ("Bo", "Ann"):
        (tmp_path / "a" / name).mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(open_path(tmp_path / "a")) == 2
    assert "reads data.mdb and ignores 2 folders beside it, such as Ann" in caplog.text
