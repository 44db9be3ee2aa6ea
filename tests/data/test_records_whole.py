"""A .rec and its .idx are a whole, or there is an error: nothing of a set is left out in silence."""

from __future__ import annotations

import os
import struct

import pytest

from sphereface.data import recordio
from sphereface.data.record_index import find_records
from sphereface.data.sources import RecordSource
from sphereface.errors import UserError

from .recs import MAGIC, framed, image_record, insightface_records, write_rec

PEOPLE = [[b"a0", b"a1" * 9, b"a2"], [b"b0" + b"\0" * 2 + MAGIC + b"b" * 99], [b"c0", b"c1"]]
PLAIN = [(key, content) for key, content in insightface_records(PEOPLE) if 0 < key < 7]
FORMS = {
    "with a header": insightface_records(PEOPLE),
    "header first": [*insightface_records(PEOPLE)[6:], *insightface_records(PEOPLE)[:6]],
    "plain": PLAIN,
    "plain, from 0": [(key - 1, content) for key, content in PLAIN],
}


def part(kind: int, data: bytes, length: int | None = None) -> bytes:
    return MAGIC + struct.pack("<I", kind << 29 | (len(data) if length is None else length)) + data


@pytest.mark.parametrize("form", FORMS)
def test_an_index_that_lacks_any_lines_is_refused(tmp_path, form):
    rec = write_rec(tmp_path / "train.rec", FORMS[form])
    lines = rec.with_suffix(".idx").read_text().splitlines(keepends=True)
    assert len(RecordSource(rec)) == 6
    for start in range(len(lines)):
        for end in range(start + 1, len(lines) + 1):
            rec.with_suffix(".idx").write_text("".join(lines[:start] + lines[end:]))
            with pytest.raises(UserError, match=r"has no record in the bytes|not an index|header record announces"):
                RecordSource(rec)


@pytest.mark.parametrize("form", FORMS)
def test_lines_of_an_index_may_be_in_any_order(tmp_path, form):
    rec = write_rec(tmp_path / "train.rec", FORMS[form])
    lines = rec.with_suffix(".idx").read_text().splitlines(keepends=True)
    expected = RecordSource(rec)
    rec.with_suffix(".idx").write_text("".join(lines[::-1]))
    found = RecordSource(rec)
    assert [found.read(i) for i in range(6)] == [expected.read(i) for i in range(6)]


def test_a_gap_among_more_records_than_are_sampled(tmp_path):
    records = [(k, image_record(float(k // 9), k, b"p%d" % k)) for k in range(900)]
    rec = write_rec(tmp_path / "x.rec", records)
    lines = rec.with_suffix(".idx").read_text().splitlines(keepends=True)
    rec.with_suffix(".idx").write_text("".join(lines[:444] + lines[445:]))
    with pytest.raises(UserError, match=r"its index has no record in the bytes \d+ to \d+, so it is incomplete"):
        RecordSource(rec)


def test_two_keys_on_one_record_and_a_key_below_0(tmp_path):
    rec = write_rec(tmp_path / "x.rec", PLAIN)
    index = rec.with_suffix(".idx")
    text = index.read_text()
    index.write_text(text + "7\t0\n")
    with pytest.raises(UserError, match=r"x.idx: the keys 1 and 7 both point to byte 0 · allowed: one"):
        RecordSource(rec)
    index.write_text(text.replace("3\t", "-3\t"))
    with pytest.raises(UserError, match=r"x.idx: got the key -3 · allowed: 0 or more"):
        RecordSource(rec)


def test_a_record_inside_another_one(tmp_path):
    inner = framed(image_record(1.0, 2, b"inner"))
    rec = write_rec(tmp_path / "x.rec", [(1, image_record(0.0, 1, b"1234" * 2)), (3, image_record(2.0, 3, b"x"))])
    outer = part(0, image_record(0.0, 1, b"1234") + inner)
    rec.write_bytes(outer + framed(image_record(2.0, 3, b"x")))
    rec.with_suffix(".idx").write_text(f"1\t0\n2\t{len(outer) - len(inner)}\n3\t{len(outer)}\n")
    with pytest.raises(UserError, match=r"a record at byte 36, inside the record at byte 0 · copy"):
        RecordSource(rec)


@pytest.mark.parametrize("kinds", [(2, 3), (3,), (1, 1, 3), (1, 0), (0, 2), (1, 3, 3), (4, 0), (1, 7, 3)])
def test_parts_in_another_order_are_one_line(tmp_path, kinds):
    rec = tmp_path / "x.rec"
    head = image_record(0.0, 1, b"abcd")
    rec.write_bytes(framed(image_record(1.0, 5, b"1")) + b"".join(part(kind, head) for kind in kinds))
    with pytest.raises(UserError, match=r"x.rec: the part at byte \d+ is of the wrong kind \d"):
        RecordSource(rec)
    rec.with_suffix(".idx").write_text("5\t0\n1\t36\n")
    with pytest.raises(UserError, match=r"x.rec: (truncated|damaged|its index)|inside the record"):
        RecordSource(rec)


def test_parts_of_a_head_that_is_cut_are_damaged(tmp_path):
    """Opening reads such a head part by part."""
    rec = tmp_path / "x.rec"
    bad = part(1, b"1234") + part(1, b"5678")
    rec.write_bytes(bad + framed(image_record(1.0, 5, b"1")))
    rec.with_suffix(".idx").write_text(f"1\t0\n2\t{len(bad)}\n")
    with pytest.raises(UserError, match=r"x.rec: truncated or damaged: no whole record: a part of the wrong kind 1"):
        RecordSource(rec)


def test_a_header_record_that_announces_another_number(tmp_path):
    rec = tmp_path / "train.rec"
    for first, end, message in [
        (5, 8, "announces the keys 0 to 7, but the index has the key 9"),
        (60, 63, "announces 59 images, but has 10"),
        (2.0**23, 2.0**23 + 3, "announces 8,388,607 images, but has 10"),
        (2.0**61, 2.0**61, "announces 2,305,843,009,213,693,951 images, but has 10"),
        (2.0**24, 2.0**25, "announces 16,777,215 images, but has 10"),
        (5, 2.0**25, "announces 4 images, but has 6"),
    ]:
        records = insightface_records(PEOPLE)
        records[6] = (0, image_record([float(first), float(end)], 0))
        write_rec(rec, records)
        with pytest.raises(UserError, match=message):
            RecordSource(rec)


def test_records_that_are_no_images(tmp_path):
    rec = write_rec(tmp_path / "x.rec", [(0, b"some text"), (1, b"and more of it, this is no head of an image")])
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"record at byte 0 has 9 bytes · allowed: 24 or more, as image records have a head"
        ):
            RecordSource(rec)
        rec.with_suffix(".idx").unlink(missing_ok=True)


def test_a_long_record_is_not_joined_for_each_key(tmp_path, monkeypatch):
    """Opening reads the few parts that the head is in."""
    rec = tmp_path / "x.rec"
    rec.write_bytes(part(1, image_record(1.0, 0)) + part(2, b"") * 500 + part(3, b""))
    rec.with_suffix(".idx").write_text("1\t0\n")
    read = []
    real = recordio._read_part
    monkeypatch.setattr(recordio, "_read_part", lambda *place: read.append(place) or real(*place))
    recordio.read_heads(rec.read_bytes(), find_records(rec.read_bytes(), "x"), "x")
    assert 0 < len(read) <= 16


@pytest.mark.parametrize("name", ["train.rec", "train.idx"])
@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_file_is_one_line_and_never_waited_for(tmp_path, name, kind):
    write_rec(tmp_path / "train.rec", PLAIN)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name) if kind == "fifo" else (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf"{name}: (got|cannot be read)"):
        RecordSource(tmp_path / "train.rec" if kind == "fifo" or name == "train.idx" else tmp_path)


def test_a_property_or_names_that_are_no_files_are_left_alone(tmp_path):
    rec = write_rec(tmp_path / "train.rec", insightface_records(PEOPLE))
    os.mkfifo(tmp_path / "property")
    os.mkfifo(tmp_path / "train.identities.txt")
    assert len(RecordSource(rec)) == 6
