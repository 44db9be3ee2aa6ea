"""Labels that join people: two lists that were joined, in any order of their lines."""

from __future__ import annotations

import logging
import random

import pytest

from sphereface.data.sources import open_source
from sphereface.data.sources.listing import read_listing

from .shards import write_tar

NUMBERS = [f"{45 + 7 * n:07d}" for n in range(20)]
NAMES = ["anna", "ben", "carl", "dora", "emil", "fred"]


@pytest.fixture(autouse=True)
def heard_log(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="sphereface")


def numbered(folders: list[str], first: int = 0) -> list[tuple[str, int]]:
    return [(f"{folder}/{k}.jpg", label) for label, folder in enumerate(folders, first) for k in range(3)]


def below(*parts: tuple[str, list[str]]) -> list[str]:
    return [f"{part}/{name}" for part, names in parts for name in names]


def reordered(rows: list[tuple[str, int]], order: str) -> list[tuple[str, int]]:
    if order == "by label":
        return sorted(rows, key=lambda row: row[1])
    return random.Random(7).sample(rows, len(rows))


def warnings_of(rows: list[tuple[str, int]], caplog, head: str = "") -> list[str]:
    caplog.clear()
    text = head + "".join(f"{path} {label}\n" for path, label in rows)
    read_listing(text.encode(), "l.txt", instead="give their folder")
    return caplog.messages


JOINED = {
    "the second one has fewer people": (
        numbered(below(("casia", NUMBERS))) + numbered(below(("own", NAMES))),
        "6 of 20 labels are in two folders or more, such as 0 in casia/0000045 and in own/anna: ",
    ),
    "as many": (
        numbered(below(("casia", NUMBERS[:6]))) + numbered(below(("own", NAMES))),
        "6 of 6 labels are in two folders or more, such as 0 in casia/0000045 and in own/anna: ",
    ),
    "three": (
        numbered(below(("casia", NUMBERS))) + numbered(below(("own", NAMES))) + numbered(below(("x", NAMES[::-1]))),
        "6 of 20 labels are in two folders or more, such as 0 in casia/0000045 and in own/anna: ",
    ),
    "albums": (
        numbered(below(("casia", NUMBERS))) + [(f"own/{n}/{a}/0.jpg", p) for p, n in enumerate(NAMES) for a in "ab"],
        "6 of 20 labels are in two folders or more, such as 0 in casia/0000045 and in own/anna: ",
    ),
    "one person": (
        numbered(below(("casia", NUMBERS))) + numbered(["own/me"]),
        "1 of 20 labels are in two folders or more, such as 0 in casia/0000045 and in own/me: ",
    ),
    "one label too few": (
        numbered(below(("casia", NUMBERS))) + numbered(below(("own", NAMES)), 19),
        "1 of 25 labels are in two folders or more, such as 19 in casia/0000178 and in own/anna: ",
    ),
    "in one folder": (
        numbered(NUMBERS) + numbered(NAMES),
        "6 of 20 labels are in two folders or more, such as 0 in 0000045 and in anna: ",
    ),
    "in one folder, sorted by number": (
        numbered([f"p{n}" for n in range(20)]) + numbered([f"q{n}" for n in range(12)]),
        "12 of 20 labels are in two folders or more, such as 0 in p0 and in q0: ",
    ),
    "parts that were numbered apart": (
        numbered(below(("train", NUMBERS))) + numbered(below(("val", NUMBERS[:12] + NUMBERS[15:]))),
        "5 of 20 labels are in two folders or more, such as 12 in train/0000129 and in val/0000150: ",
    ),
}


@pytest.mark.parametrize("order", ["by label", "shuffled"])
@pytest.mark.parametrize("case", JOINED)
def test_joined_lists_that_were_sorted_or_shuffled_are_told(caplog, case, order):
    rows, sentence = JOINED[case]
    (line,) = warnings_of(reordered(rows, order), caplog)
    remedy = "each label is one identity · if two sets were joined, give each as its own path in data.train"
    assert line == f"data: l.txt: {sentence}{remedy}"
    assert warnings_of(reordered(rows, order), caplog, "# identities: labels\n") == []


COUNTED = [str(n) for n in range(12)]


@pytest.mark.parametrize("order", ["as given", "by label", "shuffled"])
@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (below(("one", COUNTED)), below(("two", COUNTED)), "12 of 12 labels {}, such as 0 in one/0 and in two/0"),
        (below(("x", COUNTED[1:])), below(("y", COUNTED[1:5])), "4 of 11 labels {}, such as 0 in x/1 and in y/1"),
        (below(("x", COUNTED)), [f"y/{n:04d}" for n in range(5)], "5 of 12 labels {}, such as 0 in x/0 and in y/0000"),
    ],
)
def test_joined_lists_whose_folders_are_their_labels_are_told(caplog, order, one, other, told):
    rows = numbered(one) + numbered(other)
    (line,) = warnings_of(rows if order == "as given" else reordered(rows, order), caplog)
    given = order == "as given"
    what = "have other folders in another part of the set" if given else "are in two folders or more"
    remedy = "each label is one identity · if two sets were joined, give each as its own path in data.train"
    assert line == f"data: l.txt: {told.format(what)}: {remedy}"


def test_a_tar_of_two_lists_whose_folders_are_their_labels_is_told(tmp_path, caplog):
    rows = numbered(below(("one", COUNTED))) + numbered(below(("two", COUNTED)))
    members = [(path, path.encode()) for path, _ in reordered(rows, "shuffled")]
    members += [(f"{path[:-4]}.cls", b"%d" % label) for path, label in rows]
    open_source(write_tar(tmp_path / "f.tar", members))
    assert "f.tar: 12 of 12 labels are in two folders or more, such as 0 in one/0 and in two/0: each " in caplog.text


@pytest.mark.parametrize("order", ["as given", "by label", "shuffled"])
@pytest.mark.parametrize("name", ["{}", "n{:04d}"])
def test_people_with_a_label_in_each_part_are_told(caplog, order, name):
    """As ``groupby(folder).ngroup()`` gives them."""
    names = [name.format(n) for n in range(12)]
    rows = numbered(below(("Test", names), ("Train", names[1:])))
    (line,) = warnings_of(rows if order == "as given" else reordered(rows, order), caplog)
    such = f"such as 1 in Test/{names[1]} and 12 in Train/{names[1]}: each label is one identity"
    sentence = f"data: l.txt: 11 of 11 folders that are in several parts of the set have a label in each, {such}"
    assert line == f"{sentence} · if they are the same people, give each one label"


def test_the_example_of_several_labels_has_two(caplog):
    """Of three parts, two agree."""
    names = [f"q{n}" for n in range(4)]
    rows = [
        (f"{part}/{n}/0.jpg", k + 10 * (part == "val"))
        for part in ("test", "train", "val")
        for k, n in enumerate(names)
    ]
    (line,) = warnings_of(rows, caplog)
    assert "4 of 4 folders that are in several parts of the set have a label in each" in line
    assert "such as 0 in test/q0 and 10 in val/q0: each label is one identity" in line


def of_clips(names: str) -> list[tuple[str, int]]:
    return [(f"clips/{name}/0.jpg", label) for label, clips in enumerate(names.split()) for name in clips]


def clips(counts: list[int], name: str = "{:06d}") -> list[tuple[str, int]]:
    """People's clips, of which no name tells the person."""
    numbers = random.Random(3).sample(range(10**6), sum(counts))
    people = [label for label, count in enumerate(counts) for _ in range(count)]
    return [(f"clips/{name.format(n)}/{k}.jpg", p) for n, p in zip(numbers, people, strict=True) for k in range(3)]


VALID = {
    "albums": [(f"{n}/{a}/{k}.jpg", p) for p, n in enumerate(NUMBERS) for a in range(1 + p % 3) for k in range(3)],
    "albums of two sources": [
        (f"{'ca' if p < 9 else 'cb'}/{n}/{a}/{k}.jpg", p)
        for p, n in enumerate(NUMBERS)
        for a in range(1 + p % 3)
        for k in range(3)
    ],
    "clips of some people": clips([1 + (p % 5 == 0) for p in range(20)]),
    "clips of people by their number": clips([3, 3, 2, 2, 2, *[1] * 15]),
    "clips of which the first do not ascend": of_clips("ax by d c e f g h i j"),
    "clips of which the second do not ascend": of_clips("ay bx c d e f g h i j"),
    "clips of other people, too": of_clips("ac bd e f g hi j k l m"),
    "clips in sequence": [(f"clips/{n:03d}/0.jpg", max(n // 2, n - 5)) for n in range(25)],
    "years": [(f"{y}/{p}_{k}.jpg", p) for y in range(2010, 2014) for p in range(20) for k in range(2)],
    "years of people": [(f"{y}/{n}/0.jpg", p) for y in range(2010, 2014) for p, n in enumerate(NUMBERS)],
    "cameras": [(f"c{c}/{n}/0.jpg", p) for c in range(2) for p, n in enumerate(NUMBERS) if not c or p % 3],
    "tracks of cameras": [
        (f"c{c}/{(p * 7919 + c * 104729) % 99991}/0.jpg", p) for c in range(2) for p in range(20) if not c or p % 3
    ],
    "sessions": [(f"s{s}/{n}{k % 2}_s{s}/{k}.jpg", p) for s in (1, 2) for p, n in enumerate(NAMES) for k in range(2)],
    "ages": [(f"{20 + (p + k) % 15}/{p}_{k}.jpg", p) for p in range(20) for k in range(4)],
    "parts": [(f"{s}/{n}/0.jpg", p) for s in ("train", "val") for p, n in enumerate(NUMBERS)],
    "parts of other people": [(f"{'train' if p < 15 else 'val'}/{n}/0.jpg", p) for p, n in enumerate(NUMBERS)],
    "ages of numbered people": [(f"{a}/{p}/0.jpg", p) for a in range(8) for p in range(30)],
    "poses of numbered people": [(f"{a:02d}/{p:03d}/0.jpg", p) for a in range(1, 9) for p in range(30)],
    "sessions of cameras": [(f"cam{c}/{s}/{p}/0.jpg", p) for c in range(2) for s in range(3) for p in range(12)],
    "numbered parts": [(f"{s}/{p}/0.jpg", p) for s in ("train", "val") for p in range(20)],
    "numbered parts below another folder": [
        (f"x/{s}/{p}/0.jpg", p) for s in ("test_set", "train_set") for p in range(9)
    ],
    "numbered cameras": [(f"c{c}/{p:03d}/0.jpg", p) for c in range(2) for p in range(20)],
    "numbered parts of other people": [(f"{'train' if p < 15 else 'val'}/{p}/0.jpg", p) for p in range(20)],
    "flat parts of other people": [
        (f"{s}/images/{p}_{k}.jpg", p + 9 * (s == "val")) for s in ("train", "val") for p in range(9) for k in range(3)
    ],
    "numbered people of two sources, of which one has few": numbered(below(("ca", COUNTED)))
    + [(f"cb/{p}/0.jpg", p) for p in (3, 9, 11)],
    "albums with numbers": [(f"{p}/{a}/{k}.jpg", p) for p in range(9) for a in range(3) for k in range(3)],
    "flat": [(f"{p}_{k}.jpg", p) for p in range(20) for k in range(4)],
    "flat in a folder": [(f"images/{p}_{k}.jpg", p) for p in range(20) for k in range(4)],
    "merged people": [*numbered(NUMBERS), ("z/0.jpg", 3), ("y/0.jpg", 17)],
    "a folder of new images": [*numbered(NUMBERS), ("new/0.jpg", 3), ("new/1.jpg", 9), ("new/2.jpg", 20)],
    "pairs of people in a folder": [(f"{p % 10}/{p}_{k}.jpg", p) for p in range(20) for k in range(4)],
    "half of the people in one folder": [(f"{n}/{k}.jpg", p) for p, n in enumerate(NAMES) for k in range(9)]
    + [("anna/9.jpg", 9), *((f"rest/{p}_{k}.jpg", p) for p in range(6, 12) for k in range(3))],
    "merged people of two sources": numbered(below(("ca", NUMBERS)))
    + [(f"cb/{n}/0.jpg", p) for n, p in zip(NAMES, (3, 9, 17, 20, 21, 22), strict=True)],
}


@pytest.mark.parametrize("order", ["by label", "shuffled"])
@pytest.mark.parametrize("case", VALID)
def test_people_who_have_several_folders_are_silent(caplog, case, order):
    assert warnings_of(reordered(VALID[case], order), caplog) == []


WRONG = {
    "another label": (3, "1 image contradicts, such as 0000115/1.jpg with label 3 in the folder of label 10"),
    "a new label": (57, "1 image contradicts, such as 0000115/1.jpg with label 57 in the folder of label 10"),
}


@pytest.mark.parametrize("top", ["", "casia/", "{}/"])
@pytest.mark.parametrize("order", ["by label", "shuffled"])
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_label_among_folders_that_are_the_identities_is_told(tmp_path, caplog, case, order, top):
    """All identities lose their names then."""
    label, told = WRONG[case]
    rows = [(top.format("ab"[n % 2]) + path, n) for path, n in numbered(NUMBERS)]
    assert rows[31][0].endswith("0000115/1.jpg")
    rows[31] = (rows[31][0], label)
    head = "nearly every label has its own folder, but "
    tail = (
        ": so the identities are named by their labels, not by the folders · if the folders are right, correct these "
        "labels"
    )
    told = head + told.replace("0000115", rows[31][0][:-6]) + tail
    assert warnings_of(reordered(rows, order), caplog) == [f"data: l.txt: {told}"]
    assert warnings_of(reordered(rows, order), caplog, "# identities: labels\n") == []
    members = [(path, path.encode()) for path, _ in reordered(rows, order)]
    members += [(f"{path[:-4]}.cls", b"%d" % n) for path, n in rows]
    open_source(write_tar(tmp_path / "f.tar", members))
    assert caplog.messages == [f"data: {tmp_path}/f.tar: {told}"]


@pytest.mark.parametrize(("wrong", "told"), [(3, True), (4, False)])
def test_more_than_a_few_contradictions_are_no_wrong_keystrokes(caplog, wrong, told):
    rows = numbered(NUMBERS)
    for k in range(wrong):
        rows[3 * k] = (rows[3 * k][0], 10 + k)
    assert any("nearly every label" in line for line in warnings_of(reordered(rows, "shuffled"), caplog)) == told


CUT = "its last line has the label 1 and no line end, but all other images of 0000178 have the label 19"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}0000178/2.jpg 1", [f"data: l.txt: {CUT} · if the list is cut off, copy it again"]),
        ("# identities: labels\n{}0000178/2.jpg 1", [f"data: l.txt: {CUT} · if the list is cut off, copy it again"]),
        ("{}0000178/2.jpg 19", []),
        ("# identities: labels\n{}0000178/2.jpg 1\n", []),
        ("# identities: labels\n{}0000178/2.jpg 9", []),
        ("# identities: labels\n{}0000178/2.jpg 1\n# identities: labels", []),
        ("# identities: labels\n{}x/0.jpg 18\nx/1.jpg 19\nx/2.jpg 1", []),
        ("# identities: labels\n{}x/0.jpg 1", []),
        ("# identities: labels\n{}a.jpg 19\nb.jpg 1", []),
    ],
)
def test_a_list_that_is_cut_in_its_last_label_is_told(caplog, text, told):
    rows = numbered(NUMBERS)[:-1]
    read_listing(text.format("".join(f"{path} {label}\n" for path, label in rows)).encode(), "l.txt")
    assert [line for line in caplog.messages if "nearly every label" not in line] == told
    assert len(caplog.messages) == len(told) + (not text.startswith("#") and bool(told))


def test_merged_people_at_the_end_of_a_list_are_silent(caplog):
    """They are no second list, whose labels would begin at the first one."""
    assert warnings_of(VALID["merged people"], caplog) == []


@pytest.mark.parametrize(
    "parts",
    [
        *(("train", "val"), ("Train", "Test"), ("TRAINING", "Validation"), ("Training", "Testing"), ("train", "eval")),
        *(("gallery", "probe"), ("session1", "session2"), ("train_set", "test_set"), ("train2019", "val2019")),
        *(("fold1", "fold2"), ("images/train", "images/holdout")),
    ],
)
@pytest.mark.parametrize("names", [NUMBERS, [str(n) for n in range(20)]])
def test_parts_of_one_set_after_each_other_are_silent(caplog, parts, names):
    assert warnings_of([(f"{part}/{n}/0.jpg", p) for part in parts for p, n in enumerate(names)], caplog) == []


def test_shuffled_shards_of_two_lists_are_told(tmp_path, caplog):
    rows = reordered(JOINED["the second one has fewer people"][0], "shuffled")
    members = [(f"{path}", path.encode()) for path, _ in rows]
    members += [(f"{path[:-4]}.cls", b"%d" % label) for path, label in rows]
    write_tar(tmp_path / "f.tar", members)
    assert len(open_source(tmp_path / "f.tar").class_names) == 20
    assert "f.tar: 6 of 20 labels are in two folders or more, such as 0 in casia/0000045 and in own/" in caplog.text
