"""RecordIO: against files that mxnet wrote, and against bytes put down by hand."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from sphereface.data import record_index, record_labels
from sphereface.data.record_index import find_records, read_index
from sphereface.data.recordio import RecordWriter, read_content, read_heads, read_image, record_content
from sphereface.data.sources import RecordSource
from sphereface.errors import UserError

from .recs import MAGIC, framed, image_record, insightface_records, write_rec

GOLDEN = (Path(__file__).parents[2] / "../shared/golden/insightface").resolve()
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the files that mxnet wrote are not on this machine")

IMAGES = {
    "plain": b"\xff\xd8 an image of 31 bytes \xff\xd9 .",
    "one mark": b"abcd" + MAGIC + b"rest",
    "two in a row": b"abcd" + MAGIC + MAGIC + b"x",
    "two": MAGIC + b"1234" + MAGIC + b"567",
    "at the end": b"12345678" + MAGIC,
    "unaligned": b"ab" + MAGIC + b"cdef" + MAGIC,
    "unaligned, then aligned": b"a" + MAGIC + b"bcd" + MAGIC,
    "empty": b"",
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@needs_golden
@pytest.mark.parametrize("name", ["train.rec", "plain.rec"])
def test_reads_every_record_of_mxnet(name):
    expected = json.loads((GOLDEN / "expected.json").read_text())[name]
    data = (GOLDEN / name).read_bytes()
    keys, offsets = read_index((GOLDEN / name).with_suffix(".idx"))
    assert keys.tolist() == expected["keys"]
    assert offsets.tolist() == find_records(data, name).tolist() == [r["offset"] for r in expected["records"]]
    heads = read_heads(data, offsets, name)
    for row, record in enumerate(expected["records"]):
        content, payload = read_content(data, record["offset"]), read_image(data, record["offset"])
        assert (len(content), sha256(content)) == (record["record_bytes"], record["record_sha256"])
        assert (len(payload), sha256(payload)) == (record["payload_bytes"], record["payload_sha256"])
        labels = record["label"] if record["flag"] else [record["label"]]
        assert (heads.flag[row], heads.id[row], heads.label[row]) == (record["flag"], record["id"], labels[0])
        assert heads.empty[row] == (record["payload_bytes"] == 0)
        if len(labels) > 1:
            assert heads.second[row] == labels[1]


@needs_golden
@pytest.mark.parametrize("name", ["train.rec", "plain.rec"])
def test_the_source_has_the_images_and_classes_of_mxnet(name):
    expected = json.loads((GOLDEN / "expected.json").read_text())[name]
    source = RecordSource(GOLDEN / name)
    by_key = {record["key"]: record["payload_sha256"] for record in expected["records"]}
    wanted = sorted(zip(expected["image_labels"], expected["image_keys"], strict=True))
    assert [(source.class_names[label]) for label in source.labels] == [str(label) for label, _ in wanted]
    assert [sha256(source.read(i)) for i in range(len(source))] == [by_key[key] for _, key in wanted]
    assert len(source.class_names) == expected["num_identities"]


@needs_golden
@pytest.mark.parametrize("name", ["train.rec", "plain.rec"])
def test_writing_the_records_of_mxnet_gives_its_files(name):
    expected = json.loads((GOLDEN / "expected.json").read_text())[name]
    data = (GOLDEN / name).read_bytes()
    records, index = io.BytesIO(), io.BytesIO()
    writer = RecordWriter(records, index)
    for record in expected["records"]:
        payload = read_image(data, record["offset"])
        writer.write(record["key"], record_content(record["label"], record["id"], payload))
    assert records.getvalue() == data
    assert index.getvalue() == (GOLDEN / name).with_suffix(".idx").read_bytes()


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize("label", [3.0, [3.0, 0.0]])
def test_writes_and_reads_what_a_writer_by_hand_gives(case, label):
    image = IMAGES[case]
    content = image_record(label, 7, image)
    assert record_content(label, 7, image) == content
    records, index = io.BytesIO(), io.BytesIO()
    writer = RecordWriter(records, index)
    writer.write(5, b"before.")
    writer.write(7, content)
    data = records.getvalue()
    assert data == framed(b"before.") + framed(content)
    assert index.getvalue() == b"5\t0\n7\t16\n"
    assert read_content(data, 16) == content
    assert read_image(data, 16) == image
    heads = read_heads(data, np.array([16]), "x")
    assert (heads.label[0], heads.id[0], heads.empty[0]) == (3, 7, case == "empty")


def test_a_record_that_is_cut_inside_its_head():
    number = int.from_bytes(MAGIC, "little")  # the id itself is the mark
    data = framed(image_record([2.0, 5.0], number, b"image."))
    assert data[4:8] == struct.pack("<I", (1 << 29) + 8)  # 8 bytes, then the cut
    heads = read_heads(data, np.array([0]), "x")
    assert (heads.label[0], heads.second[0], heads.id[0], heads.flag[0]) == (2, 5, number, 2)
    assert not heads.empty[0]
    assert read_image(data, 0) == b"image."


def test_every_length_of_padding():
    for length in range(9):
        records = io.BytesIO()
        RecordWriter(records, io.BytesIO()).write(0, b"x" * length)
        assert records.getvalue() == framed(b"x" * length)
        assert len(records.getvalue()) % 4 == 0


@pytest.mark.parametrize("cut", range(1, 56))
def test_a_cut_record_is_an_oserror_and_never_half_an_image(cut):
    data = framed(image_record(0.0, 0, b"abcd" + MAGIC + b"0123456789ab"))
    assert len(data) == 56
    with pytest.raises(OSError, match="cut off|no whole record|too short"):
        read_image(data[:-cut], 0)
    with pytest.raises(UserError, match=r"f\.rec: truncated"):
        find_records(data[:-cut], "f.rec")


def test_a_whole_looking_record_behind_which_the_file_ends():
    data = framed(image_record([1.0, 0.0], 0, b"0123456789ab"))
    assert (len(data), read_image(data, 0)) == (52, b"0123456789ab")
    for cut in range(1, 52):
        with pytest.raises(OSError, match="cut off"):
            read_image(data[:-cut], 0)


def test_no_record_where_none_begins():
    data = framed(b"x" * 40) + framed(b"y" * 40)
    with pytest.raises(OSError, match=r"no record at byte 4: got 0x00000028 instead of the mark 0xced7230a"):
        read_image(data, 4)
    with pytest.raises(OSError, match="cut off"):
        read_image(data, len(data))
    with pytest.raises(OSError, match="cut off"):
        read_image(data, -8)
    middle = struct.pack("<II", 0xCED7230A, (2 << 29) + 4) + b"part"
    with pytest.raises(OSError, match="a part of the wrong kind 2"):
        read_content(middle, 0)
    with pytest.raises(OSError, match="too short"):
        read_image(framed(b"short"), 0)
    with pytest.raises(OSError, match="too short"):
        read_image(framed(struct.pack("<IfQQ", 1000, 0, 0, 0)), 0)  # says a thousand labels
    with pytest.raises(UserError, match=r"r: its index has a record at byte 44, but none begins"):
        read_heads(data, np.array([0, 44, 48]), "r")
    with pytest.raises(UserError, match=r"byte 50"):
        read_heads(data, np.array([50]), "r")
    with pytest.raises(UserError, match=r"no record begins at byte 0"):
        find_records(b"PK\3\4 this is a zip", "r")


def test_a_record_too_long_for_the_format():
    class Long(bytes):
        def __len__(self):
            return 2**29

    with pytest.raises(ValueError, match="536870912 bytes"):
        RecordWriter(io.BytesIO(), io.BytesIO()).write(0, Long())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an index"),
        ("1\t0\n2\tx\n", "not an index"),
        ("1\t0\n2\n", "not an index"),
        ("1 0 2 24\n", "not an index"),
        ("1\t0.5\n", "not an index"),
        ("1\t0\n1\t24\n", "the key 1 occurs twice"),
    ],
)
def test_an_index_that_is_none(tmp_path, text, message):
    (tmp_path / "a.idx").write_text(text)
    with pytest.raises(UserError, match=message):
        read_index(tmp_path / "a.idx")


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n", b"\n\n \n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n"])
def test_index_as_others_write_it(tmp_path, start, end):
    (tmp_path / "a.idx").write_bytes(start + b"3\t0\r\n1\t99999999999" + end)  # beyond 32 bits
    keys, offsets = read_index(tmp_path / "a.idx")
    assert (keys.tolist(), offsets.tolist()) == ([3, 1], [0, 99999999999])


PEOPLE = [[b"a0", b"a1", b"a2"], [b"b0" + b"\0" * 2 + MAGIC], [b"c0", b"c1"]]


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("place", ["behind", "first"])
def test_a_file_of_insightface(tmp_path, arrays, index, place):
    records = insightface_records(PEOPLE, arrays=arrays)
    if place == "first":  # as other writers have it: header and identity records before the images
        records = records[6:] + records[:6]
    source = RecordSource(write_rec(tmp_path / "train.rec", records, index=index))
    assert source.labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert source.labels.dtype == np.int32
    assert source.class_names == ["0", "1", "2"]
    assert not source.named
    assert [source.read(i) for i in range(6)] == [image for person in PEOPLE for image in person]
    assert source.name(3) == f"{tmp_path / 'train.rec'}, record 4"


@pytest.mark.parametrize("label", [-7.0, 1.0, 0.5, float("nan"), float("inf"), [1.0, 0.0], [float("nan"), 0.0]])
@pytest.mark.parametrize("image", [b"a", b"abc" + MAGIC + b"d" * 9, b"abcd" + MAGIC + b"d" * 9])
def test_with_whole_ranges_a_wrong_label_inside_one_is_found_when_its_image_is_read(tmp_path, label, image):
    """Opening does not read each of 5.8 million records."""
    records = insightface_records([[b"a"] * 5, [b"b"] * 4])
    records[2] = (3, image_record(label, 3, image))
    source = RecordSource(write_rec(tmp_path / "train.rec", records))
    assert source.labels.tolist() == [0] * 5 + [1] * 4
    with pytest.raises(
        OSError, match=r"its record has the label (-7|1|0.5|nan|inf), but its identity has 0: .rec and .idx"
    ):
        source.read(2)
    assert [source.read(i) for i in (0, 1, 3, 4, 5, 6, 7, 8)] == [b"a"] * 4 + [b"b"] * 4


def test_offsets_that_two_identities_exchanged_in_the_index(tmp_path):
    rec = write_rec(tmp_path / "train.rec", insightface_records([[b"a0", b"a1", b"a2"], [b"b0", b"b1", b"b2"]]))
    lines = rec.with_suffix(".idx").read_text().splitlines()
    (second, fifth) = (lines[row].split("\t")[1] for row in (1, 4))
    lines[1], lines[4] = f"2\t{fifth}", f"5\t{second}"
    rec.with_suffix(".idx").write_text("\n".join(lines))
    source = RecordSource(rec)
    assert [source.read(i) for i in (0, 2, 3, 5)] == [b"a0", b"a2", b"b0", b"b2"]
    for row, found, wanted in ((1, 1, 0), (4, 0, 1)):
        with pytest.raises(OSError, match=f"has the label {found}, but its identity has {wanted}"):
            source.read(row)


@pytest.mark.parametrize(
    "ranges",
    [
        [[1.0, 4.0], [4.0, 5.0], [6.0, 7.0]],  # a gap
        [[1.0, 4.0], [3.0, 5.0], [5.0, 7.0]],  # an overlap
        [[1.0, 4.0], [4.0, 5.0], [5.0, 6.0]],  # too short
        [[0.0, 4.0], [4.0, 5.0], [5.0, 7.0]],
        [[2.0, 4.0], [4.0, 5.0], [5.0, 7.0]],
        [[1.0, 4.0], [4.0, 4.0], [4.0, 7.0]],  # an empty one
        [[1.0, 2.0], [2.0, 5.0], [5.0, 7.0]],  # covers all, but says other labels than the images
        [[1.0, float("nan")], [4.0, 5.0], [5.0, 7.0]],
        [[1.0, 3.5], [3.5, 5.0], [5.0, 7.0]],
        [[], [4.0, 5.0], [5.0, 7.0]],
    ],
)
def test_where_identity_records_are_wrong_the_images_say_it(tmp_path, ranges):
    records = insightface_records(PEOPLE)[:7]
    records += [(7 + i, image_record(both or 1.0, 7 + i)) for i, both in enumerate(ranges)]
    source = RecordSource(write_rec(tmp_path / "train.rec", records))
    assert source.labels.tolist() == [0, 0, 0, 1, 2, 2]


def test_ranges_in_another_order_than_the_labels(tmp_path):
    records = insightface_records([[b"b"] * 2, [b"a"]])[:4]
    records[0], records[1] = (1, image_record(9.0, 1, b"b0")), (2, image_record(9.0, 2, b"b1"))
    records += [(4, image_record([3.0, 4.0], 4)), (5, image_record([1.0, 3.0], 5))]
    source = RecordSource(write_rec(tmp_path / "train.rec", records))
    assert (source.labels.tolist(), source.class_names) == ([0, 1, 1], ["1", "9"])
    assert [source.read(i) for i in range(3)] == [b"a", b"b0", b"b1"]


def test_header_record_without_identity_records(tmp_path):
    source = RecordSource(write_rec(tmp_path / "train.rec", insightface_records(PEOPLE)[:7]))
    assert source.labels.tolist() == [0, 0, 0, 1, 2, 2]


def test_header_beyond_what_float32_counts(tmp_path, monkeypatch):
    """17 million images, whose header and ranges are rounded."""
    records = insightface_records(PEOPLE)
    records[6] = (0, image_record([2.0**24 + 2, 2.0**24 + 6], 0))
    with pytest.raises(UserError, match=r"its header record announces 16,777,217 images, but has 10 · copy .rec and"):
        RecordSource(write_rec(tmp_path / "train.rec", records))
    monkeypatch.setattr(record_labels, "EXACT_IN_FLOAT", 4)
    monkeypatch.setattr(record_labels, "_ROUNDED", 1 + 1 / 8)
    source = RecordSource(write_rec(tmp_path / "train.rec", insightface_records(PEOPLE)))
    assert source.labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert [source.read(i) for i in range(6)] == [image for person in PEOPLE for image in person]


@pytest.mark.parametrize("arrays", [False, True])
def test_without_a_header_record_every_key_is_an_image(tmp_path, arrays):
    labels = {0: 2.0, 1: 0.0, 2: 2.0, 3: 7.0}
    records = [(k, image_record([v, 1.0] if arrays else v, k, b"p%d" % k)) for k, v in labels.items()]
    source = RecordSource(write_rec(tmp_path / "x.rec", [records[i] for i in (2, 0, 3, 1)]))
    assert source.labels.tolist() == [0, 1, 1, 2]
    assert source.class_names == ["0", "2", "7"]
    assert [source.read(i) for i in range(4)] == [b"p1", b"p0", b"p2", b"p3"]


@pytest.mark.parametrize("label", [-1.0, 0.5, float("nan"), float("inf"), 2.0**31])
def test_labels_that_are_none(tmp_path, label):
    records = [(k, image_record([0.0, label][k // 2], k, b"p")) for k in range(4)]
    with pytest.raises(UserError, match=r"record 2 has the label .* allowed: whole numbers of 0 or more"):
        RecordSource(write_rec(tmp_path / "x.rec", records))


def test_damaged_files(tmp_path):
    rec = write_rec(tmp_path / "train.rec", insightface_records(PEOPLE))
    whole, index = rec.read_bytes(), rec.with_suffix(".idx").read_text()

    rec.write_bytes(whole[:-8])
    with pytest.raises(UserError, match=r"train.rec: truncated or damaged: its last record: .*cut off"):
        RecordSource(tmp_path)
    rec.write_bytes(whole[:100])
    with pytest.raises(
        UserError, match=r"train.idx: points to byte \d+, but train.rec has 100 bytes · .* copy both again"
    ):
        RecordSource(tmp_path)
    rec.with_suffix(".idx").unlink()
    with pytest.raises(UserError, match=r"train.rec: truncated: the file ends at byte"):
        RecordSource(tmp_path)
    rec.write_bytes(b"")
    with pytest.raises(UserError, match=r"train.rec: got 0 bytes"):
        RecordSource(tmp_path)

    rec.write_bytes(whole)
    rec.with_suffix(".idx").write_text(index.replace("3\t", "33\t"))
    with pytest.raises(UserError, match=r"announces 6 records, but the index lacks 1, the first with key 3 ·"):
        RecordSource(tmp_path)
    first, second = (line.split("\t")[1] for line in index.splitlines()[:2])  # key 2: inside a range
    rec.with_suffix(".idx").write_text(index.replace(f"\t{second}\n", f"\t{int(first) + 8}\n"))
    with pytest.raises(UserError, match=r"its index has a record at byte \d+, but none begins there"):
        RecordSource(tmp_path)
    rec.with_suffix(".idx").write_text(index.replace("1\t0\n", "1\t-8\n"))
    with pytest.raises(UserError, match=r"a record at byte -8"):
        RecordSource(tmp_path)


def test_ids_that_repeat_need_an_index(tmp_path):
    records = [(k, image_record(float(k), 0, b"p")) for k in range(3)]
    assert len(RecordSource(write_rec(tmp_path / "x.rec", records))) == 3
    (tmp_path / "x.idx").unlink()
    with pytest.raises(UserError, match="several records have the same id"):
        RecordSource(tmp_path / "x.rec")


def test_a_property_of_another_set_is_said(tmp_path, caplog):
    rec = write_rec(tmp_path / "train.rec", insightface_records(PEOPLE))
    (tmp_path / "property").write_text("3,112,96\n")
    RecordSource(rec)
    assert not caplog.records
    (tmp_path / "property").write_text("10572,112,112")
    with pytest.raises(
        UserError, match=r"property: announces '10572' identities, but train.rec has 3 · copy both again"
    ):
        RecordSource(rec)


@pytest.mark.parametrize("several", [False, True])
def test_a_property_belongs_to_the_only_rec_whatever_its_name(tmp_path, several):
    rec = write_rec(tmp_path / "faces.rec", insightface_records(PEOPLE))
    (tmp_path / "property").write_text("12,112,96")
    if several:  # whose is it?
        write_rec(tmp_path / "others.rec", insightface_records(PEOPLE))
        assert len(RecordSource(rec).class_names) == 3
    else:
        with pytest.raises(UserError, match=r"property: announces '12' identities, but faces.rec has 3 · copy both"):
            RecordSource(rec)


def test_a_property_that_counts_labels_without_images_is_said(tmp_path, caplog):
    people = [[b"a0", b"a1"], [], [b"c0"]]
    rec = write_rec(tmp_path / "train.rec", [r for r in insightface_records(people) if r[0] < 4 and r[0]])
    (tmp_path / "property").write_text("3,112,96")
    assert RecordSource(rec).class_names == ["0", "2"]
    assert "property announces 3 identities, but the records have 2" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ann\n\nBo\n", r"txt, line 2: got a blank line instead of a name · allowed: one on each of 3 lines · move"),
        ("\nAnn\nBo\n", r"txt, line 1: got a blank line"),
        ("Ann\n \nBo\nCy\n", r"txt, line 2: got a blank line"),
        ("Ann\nBo\nAnn\n", r"got 2 different names, 'Ann' twice · allowed"),
        ("Zoe\u0308\nZo\u00eb\nBo\nCy\n", r"got 3 different names, 'Zoë' twice · allowed"),
        ("\n\n", r"got 0 different names · allowed"),
    ],
)
def test_names_that_are_blank_or_stand_twice(tmp_path, text, message):
    rec = write_rec(tmp_path / "train.rec", insightface_records(PEOPLE))
    (tmp_path / "train.identities.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        RecordSource(rec)


def test_blank_lines_behind_the_names_and_more_names_than_labels(tmp_path, caplog):
    rec = write_rec(tmp_path / "train.rec", insightface_records(PEOPLE))
    (tmp_path / "train.identities.txt").write_text("Ann\nBo\nCy\n\n \n", encoding="utf-8")
    assert RecordSource(rec).class_names == ["Ann", "Bo", "Cy"]
    assert not caplog.records
    (tmp_path / "train.identities.txt").write_text("Ann\nBo\nCy\nDan\n", encoding="utf-8")
    assert RecordSource(rec).class_names == ["Ann", "Bo", "Cy"]
    assert "train.identities.txt has 4 names, but the labels need 3: does it belong to another .rec?" in caplog.text


def test_names_of_identities(tmp_path):
    rec = write_rec(tmp_path / "train.rec", insightface_records(PEOPLE))
    (tmp_path / "train.identities.txt").write_text("Ann\nBéla\n王\n", encoding="utf-8")
    assert RecordSource(rec).class_names == ["Ann", "Béla", "王"]
    for text in ("Ann\nBéla\n", "Ann\nAnn\nBo\n"):
        (tmp_path / "train.identities.txt").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"got 2 different names(, 'Ann' twice)? · allowed: one on each of 3 "):
            RecordSource(rec)
    (tmp_path / "train.identities.txt").write_bytes("Ann\r\nBéla\r\n王\r\n".encode("utf-8-sig"))
    assert RecordSource(rec).class_names == ["Ann", "Béla", "王"]
    (tmp_path / "train.identities.txt").write_bytes("Ann\nBéla\n王\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"train.identities.txt: cannot be read as UTF-8 text \(it is UTF-16\)"):
        RecordSource(rec)


@pytest.mark.parametrize("block", [1, 7, 64, 10_000])
@pytest.mark.parametrize("form", ["{}\n", "{}", "\ufeff{}\n\n", " {} \r\n"])
def test_an_index_is_read_in_blocks_of_lines(tmp_path, monkeypatch, block, form):
    monkeypatch.setattr(record_index, "_BLOCK", block)
    pairs = [(key, key * 97 % 5000 * 4) for key in range(300)]
    (tmp_path / "a.idx").write_text(form.format("\n".join(f"{key}\t{offset}" for key, offset in pairs)))
    keys, offsets = read_index(tmp_path / "a.idx")
    assert list(zip(keys.tolist(), offsets.tolist(), strict=True)) == pairs


@pytest.mark.parametrize("block", [1, 7, 64, 10_000])
@pytest.mark.parametrize("line", ["7", "7\t8\t9", "x\t8", "", "7\t"])
@pytest.mark.parametrize("place", [0, 150, 299])
def test_a_line_without_two_numbers_is_an_error_in_any_block(tmp_path, monkeypatch, block, line, place):
    monkeypatch.setattr(record_index, "_BLOCK", block)
    lines = [f"{key}\t{4 * key}" for key in range(300)]
    lines[place] = line
    if line == "" and place != 150:
        lines[150] = ""  # at its ends blank lines are passed over
    (tmp_path / "a.idx").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"a.idx: not an index"):
        read_index(tmp_path / "a.idx")
