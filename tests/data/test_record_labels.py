"""The labels of a .rec by its identity records, also where float32 rounds the numbers in them."""

from __future__ import annotations

import logging
import random

import numpy as np
import pytest

from sphereface.data import record_labels
from sphereface.data.record_labels import Records
from sphereface.data.sources import RecordSource, records
from sphereface.errors import UserError

from .recs import image_record, insightface_records, write_rec

BITS = 4  # of the whole numbers that the tests' header and identity records can store


def stored(number: int, bits: int = BITS) -> int:
    """Round to a number of ``bits`` binary digits; a tie goes to the even one, as in float32."""
    dropped = max(0, number.bit_length() - bits)
    return round(number / 2**dropped) * 2**dropped


@pytest.fixture
def coarse(monkeypatch):
    """Numbers above 16 are rounded, as those above 2**24 are in float32."""
    monkeypatch.setattr(record_labels, "_BITS", BITS)
    monkeypatch.setattr(record_labels, "EXACT_IN_FLOAT", 2**BITS)
    monkeypatch.setattr(record_labels, "_ROUNDED", 1 + 2 / 2**BITS)


@pytest.fixture
def by_ranges(monkeypatch):
    """Fail if the head of each record is read."""
    monkeypatch.setattr(Records, "_all_heads", lambda self: pytest.fail("reads all heads"))


def coarse_records(people: list[int], *, labels: list[int] | None = None) -> list[tuple[int, bytes]]:
    """Records of identities with the given numbers of images, all numbers of keys rounded."""
    records, ranges, key = [], [], 1
    for number, images in enumerate(people):
        label = float(number if labels is None else labels[number])
        records += [(key + row, image_record(label, key + row, b"%d" % (key + row))) for row in range(images)]
        ranges.append([float(stored(key)), float(stored(key + images))])
        key += images
    header = [float(stored(key)), float(stored(key + len(people)))]
    return [(0, image_record(header, 0)), *records] + [
        (key + row, image_record(both, key + row)) for row, both in enumerate(ranges)
    ]


def truth(people: list[int]) -> list[int]:
    return [label for label, images in enumerate(people) for _ in range(images)]


def test_rounds_as_float32_does():
    numbers = np.array([2**power + step for power in range(45) for step in range(-9, 10) if 2**power + step > 0])
    expected = numbers.astype(np.float32).astype(np.int64)
    assert record_labels._rounded(numbers).tolist() == expected.tolist()
    above = np.nextafter(numbers.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    distance = np.maximum(above - numbers.astype(np.float32), 1).astype(np.int64)
    assert record_labels._spacing(expected).tolist() == distance.tolist()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("place", ["first", "behind"])
def test_rounded_ranges_give_the_labels_without_reading_all_heads(tmp_path, coarse, by_ranges, seed, place):
    """The identities have 1 to 40 images, so some ranges are rounded to nothing."""
    draw = random.Random(seed)
    people = [draw.choice([1, 2, 3, 9, 40]) for _ in range(30)]
    records = coarse_records(people)
    records = records if place == "first" else records[1:] + records[:1]
    source = RecordSource(write_rec(tmp_path / "train.rec", records))
    assert source.labels.tolist() == truth(people)
    assert [source.read(row) for row in range(len(source))] == [b"%d" % (row + 1) for row in range(sum(people))]


def test_an_opening_reads_the_heads_beside_the_edges_only(tmp_path, monkeypatch):
    people = [500, 300, 700]
    read = []
    real = record_labels.read_heads
    monkeypatch.setattr(record_labels, "read_heads", lambda *given: read.append(len(given[1])) or real(*given))
    source = RecordSource(write_rec(tmp_path / "train.rec", insightface_records([[b"x"] * size for size in people])))
    assert source.labels.tolist() == truth(people)
    assert sum(read) == 1 + 3 + 6  # the header, the identities, and the first and last image of each


@pytest.mark.parametrize("labels", [[0, 1, 1, 2], [0, 0, 0, 0], [3, 1, 0, 2]])
def test_two_ranges_of_one_label_and_other_orders(tmp_path, coarse, labels):
    people = [30, 20, 50, 25]
    source = RecordSource(write_rec(tmp_path / "train.rec", coarse_records(people, labels=labels)))
    given = sorted(label for label, images in zip(labels, people, strict=True) for _ in range(images))
    assert [int(source.class_names[label]) for label in source.labels] == given


@pytest.mark.parametrize("wrong", [(1, [32.0, 52.0]), (2, [52.0, 96.0]), (3, [1.0, 2.0]), (0, [2.0, 32.0]), (3, [])])
def test_where_rounded_ranges_are_wrong_the_images_say_it(tmp_path, coarse, wrong):
    people = [30, 20, 50, 25]
    records = coarse_records(people)
    row, both = len(records) - 4 + wrong[0], wrong[1]
    records[row] = (records[row][0], image_record(both or 1.0, records[row][0]))
    if not both:  # a record without image and with one label is no identity record, and ignored
        assert record_labels._rounded(np.array([row])) > 2**BITS
    source = RecordSource(write_rec(tmp_path / "train.rec", records))
    assert source.labels.tolist() == truth(people)


@pytest.mark.parametrize("at", [1, 30, 31, 100, 124, 125, 126, 128])
def test_a_renumbered_index_that_lacks_a_record_is_refused(tmp_path, coarse, at):
    """The rounded header fits one record less, so only the ids and the bytes show it."""
    rec = write_rec(tmp_path / "train.rec", coarse_records([30, 20, 50, 25]))
    offsets = [line.split("\t")[1] for line in rec.with_suffix(".idx").read_text().splitlines()]
    del offsets[at]
    rec.with_suffix(".idx").write_text("".join(f"{key}\t{offset}\n" for key, offset in enumerate(offsets)))
    with pytest.raises(UserError, match="its index has no record in the bytes"):
        RecordSource(rec)


def test_ids_that_are_not_the_keys_cost_time_only(tmp_path, coarse):
    people = [30, 20, 50, 25]
    records = [(key, content[:8] + bytes(8) + content[16:]) for key, content in coarse_records(people)]
    assert RecordSource(write_rec(tmp_path / "train.rec", records)).labels.tolist() == truth(people)


def test_a_header_that_announces_other_rounded_numbers(tmp_path, coarse):
    records = coarse_records([30, 20, 50, 25])
    for header, message in [((160.0, 160.0), "announces 159 images, but has"), ((96.0, 112.0), "0 to 111, but")]:
        records[0] = (0, image_record(list(header), 0))
        with pytest.raises(UserError, match=message):
            RecordSource(write_rec(tmp_path / "train.rec", records))


def test_a_wrong_label_inside_a_rounded_range_is_found_when_its_image_is_read(tmp_path, coarse, by_ranges):
    people = [30, 100, 100]
    records = coarse_records(people)
    records[75] = (75, image_record(2.0, 75, b"x"))  # 44 images behind an edge; numbers there are rounded by 4
    source = RecordSource(write_rec(tmp_path / "train.rec", records))
    assert source.labels.tolist() == truth(people)
    with pytest.raises(OSError, match="has the label 2, but its identity has 1"):
        source.read(74)


@pytest.mark.parametrize("keys", [[3, 0, 2, 1], [9, 0, 4, 2], [0, 2**63 + 5, 1, 3]])
def test_images_are_in_the_order_of_their_keys(tmp_path, keys):
    """Without .idx the ids are the keys; those above 2**63 are negative in int64."""
    records = [(key % 2**62, image_record(float(row), key, b"%d" % key)) for row, key in enumerate(keys)]
    source = RecordSource(write_rec(tmp_path / "x.rec", records, index=False))
    assert [source.read(row) for row in range(4)] == [b"%d" % key for key in keys]  # in the order of labels
    one = [
        (key, image_record(0.0, key, content[24:])) for key, content in zip(keys, dict(records).values(), strict=True)
    ]
    source = RecordSource(write_rec(tmp_path / "y.rec", one, index=False))
    signed = sorted(keys, key=lambda key: key - 2**64 if key >= 2**63 else key)
    assert [source.read(row) for row in range(4)] == [b"%d" % key for key in signed]


def test_a_header_of_another_length_makes_the_opening_read_all_heads(tmp_path, coarse, monkeypatch):
    people, read = [30, 20, 50, 25], []
    real = Records._all_heads
    monkeypatch.setattr(Records, "_all_heads", lambda self: read.append(1) or real(self))
    records = coarse_records(people)
    for end, expected in ((128.0, 0), (144.0, 1)):
        records[0] = (0, image_record([128.0, end], 0))
        assert RecordSource(write_rec(tmp_path / "train.rec", records)).labels.tolist() == truth(people)
        assert len(read) == expected


def test_keys_with_a_gap_in_a_rounded_set(tmp_path, coarse):
    people = [30, 20, 50, 25]
    records = [record for record in coarse_records(people) if record[0] not in (60, 126 - 7)]
    expected = [0] * 30 + [1] * 20 + [2] * 49 + [3] * 24
    assert RecordSource(write_rec(tmp_path / "train.rec", records)).labels.tolist() == expected


def test_images_behind_the_last_range_keep_their_own_labels(tmp_path):
    """The identity records end at key 6, but there are images of another identity up to key 9."""
    labels = [0, 0, 0, 1, 2, 2, 2, 3, 3]
    records = [(0, image_record([10.0, 13.0], 0))]
    records += [(key, image_record(float(label), key, b"x")) for key, label in enumerate(labels, 1)]
    ranges = [[1.0, 4.0], [4.0, 5.0], [5.0, 6.0]]
    for middle, end in [(5.0, 6.0), (5.0, 1e30), (5.0, float("inf")), (5.0, 3.0), (1e30, 10.0)]:
        ranges[1][1], ranges[2] = middle, [middle, end]
        identities = [(10 + row, image_record(both, 10 + row)) for row, both in enumerate(ranges)]
        assert RecordSource(write_rec(tmp_path / "train.rec", records + identities)).labels.tolist() == labels


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([123456780 + k for k in range(30)], "4 of 4"),
        ([3, 2**24 - 1, 2**24, 2**24 + 2], "2 of 4"),
        ([3, 2**24 - 1, 2**24], ""),  # sphereface pack writes these
    ],
)
def test_labels_that_float32_rounds_are_told(tmp_path, caplog, monkeypatch, labels, told):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    RecordSource(write_rec(tmp_path / "f.rec", [(k, image_record(label, k, b"x")) for k, label in enumerate(labels)]))
    line = f"data: {tmp_path}/f.rec: {told} labels are 16,777,216 or more, where a .rec stores only some whole numbers"
    assert [text.startswith(line) for text in caplog.messages if "have gaps" not in text] == [True] * bool(told)


def slipped(people: list[int], by: int) -> list[tuple[int, bytes]]:
    """Records of InsightFace whose images have the label of the image ``by`` rows before."""
    labels = truth(people)
    images = [(row + 1, image_record(float(labels[max(row - by, 0)]), row + 1, b"x")) for row in range(len(labels))]
    others = insightface_records([[b"x"] * size for size in people])[len(labels) :]
    return [*images, *others]


@pytest.mark.parametrize(
    ("by", "told"),
    [
        (0, ""),
        (1, "images have several labels in 3 of 4 identity records, such as record 31 with the label 0 and record 32 "
            "with 1: the labels of the images count"),
        (25, "images have several labels in 1 of 4 identity records, such as record 51 with the label 0 and record "
             "56 with 1: the labels of the images count"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("large", [False, True])
def test_labels_that_slipped_against_the_identity_records_are_told(tmp_path, caplog, monkeypatch, by, told, large):
    """Every opening tells it, also by the index of a large file."""
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    monkeypatch.setattr(records, "_FEWEST_BYTES", 0 if large else 1 << 20)
    rec = write_rec(tmp_path / "f.rec", slipped([30, 20, 50, 25], by))
    for _ in range(2):
        caplog.clear()
        source = RecordSource(rec)
        lines = [line for line in caplog.messages if "identity record" in line]
        assert [line.startswith(f"data: {rec}: {told}") for line in lines] == [True] * bool(told)
        counts = [30 + by, 20, 50, 25 - by]
        assert source.labels.counts.tolist() == [count for count in counts if count]
    assert rec.with_name(".f.rec.index").exists() == large


def test_two_identity_records_of_one_label_are_no_slip(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    content = [*slipped([3, 2], 0)]
    content[3:5] = [(key, image_record(0.0, key, b"x")) for key in (4, 5)]
    assert RecordSource(write_rec(tmp_path / "f.rec", content)).labels.tolist() == [0] * 5
    assert caplog.messages == []


def test_a_header_record_between_the_images(tmp_path):
    records = insightface_records([[b"a", b"b", b"c"], [b"d"]])
    records = records[:2] + records[4:] + records[2:4]
    source = RecordSource(write_rec(tmp_path / "train.rec", records))
    assert [source.read(row) for row in range(4)] == [b"a", b"b", b"c", b"d"]
    assert source.labels.tolist() == [0, 0, 0, 1]
