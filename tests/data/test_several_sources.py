"""Several sources as one set: an empty one, parts of one set, copies in another form, open files."""

from __future__ import annotations

import itertools
import json
import logging
import random
import shutil
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sphereface.data.packing import pack
from sphereface.data.sources import joined, open_path, open_source
from sphereface.data.sources.base import read_each
from sphereface.data.sources.selection import other_spellings, spelled
from sphereface.data.sources.spans import _MOST_HELD, _MOST_OPEN
from sphereface.errors import UserError

from ..images import make_training_set
from .recs import image_record, write_rec
from .shards import table_of, write_parquet, write_tar


@pytest.fixture(autouse=True)
def heard_log(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("sphereface"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="sphereface")


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("inside", ["", "lost+found", "a.jpg"])
def test_a_source_without_an_identity_is_refused(tmp_path, inside, merge):
    """Such as the mount point of a disk that is not mounted, or a new disk."""
    sets = [make_training_set(tmp_path / name, 3, 1, size=(16, 12)) for name in ("one", "two")]
    empty = tmp_path / "disk"
    empty.mkdir()
    if inside == "a.jpg":
        shutil.copy(next(sets[0].rglob("*.png")), empty / "a.png")
    elif inside:
        (empty / inside).mkdir()
    for paths in ([*sets, empty], [empty, *sets]):
        with pytest.raises(UserError, match=rf"^data.train: {empty}: got no identity · allowed: .* leave it out$"):
            open_source(paths, merge=merge)
    assert len(open_source(sets, merge=merge)) == 6


def shard(labels: list[int], number: int) -> list[tuple[str, bytes]]:
    keys = [(f"{100 * number + row:06d}", label) for row, label in enumerate(labels)]
    return [m for key, label in keys for m in ((f"{key}.jpg", key.encode()), (f"{key}.cls", b"%d" % label))]


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ([0, 1, 2, 0, 1, 2], [2, 1, 0], True),  # shuffled
        ([0, 1, 2, 5], [1, 2, 3, 4], True),
        ([0, 0, 1, 1], [1, 2, 2, 3], True),  # sorted
        ([0, 0, 1, 1], [0, 0, 1, 1, 2], False),  # two sets, as two whole sets in one folder are to be given
    ],
)
@pytest.mark.parametrize("suffix", ["tar", "parquet"])
def test_parts_of_one_set_that_are_given_one_by_one_are_told(tmp_path, caplog, suffix, one, other, told):
    paths = [tmp_path / f"web-{number:04d}.{suffix}" for number in (0, 1)]
    for number, labels in enumerate((one, other)):
        if suffix == "tar":
            write_tar(paths[number], shard(labels, number))
        else:
            rows = [(None, b"%d %d" % (number, row)) for row in range(len(labels))]
            write_parquet(paths[number], table_of(rows, labels))
    source = open_source(paths)
    assert len(source.class_names) == len(set(one)) + len(set(other))
    sentence = (
        f"data.train: 2 sources, such as {paths[0]} and {paths[1]}, differ only in the name of a part, and number "
        f"{min(set(one) & set(other))} of each is an identity of its own"
    )
    remedy = f"if they are parts of one set, give their folder, or a pattern such as web-{{0000..0001}}.{suffix}"
    assert caplog.messages == ([f"{sentence} · {remedy}"] if told else [])
    caplog.clear()
    open_source(tmp_path / f"web-{{0000..0001}}.{suffix}")
    paths[1] = paths[1].rename(tmp_path / f"own.{suffix}")
    open_source(paths)
    assert caplog.messages == []


def source_of(path: Path, labels: list[int], number: int) -> Path:
    """A source of the form that the path shows, with an image of its own for each label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [(f"{number}{row:04d}.png", b"%d %d" % (number, row), label) for row, label in enumerate(labels)]
    listing = "".join(f"{name} {label}\n" for name, _, label in images)
    if path.suffix == ".tar":
        write_tar(path, shard(labels, number))
    elif path.suffix == ".parquet":
        write_parquet(path, table_of([(None, data) for _, data, _ in images], labels))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, text in [*((name, data) for name, data, _ in images), ("list.txt", listing.encode())]:
                file.writestr(name, text)
    elif path.suffix == ".rec":
        write_rec(path, [(key, image_record(float(label), key, data)) for key, (_, data, label) in enumerate(images)])
    else:
        folder = path.parent if path.suffix == ".txt" else path
        for name, data, label in images:
            place = folder / name if path.suffix == ".txt" else folder / str(label) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        if path.suffix == ".txt":
            path.write_text(listing, encoding="utf-8")
    return path


MERGE, NAMES = "set data.merge to true", "give their identities names, and set data.merge to true (docs/data.md)"
MOVE, LIST = "move their files into a folder of their own, and give that", "join them to one list"


@pytest.mark.parametrize(
    ("one", "other", "remedy"),
    [
        ("S/train", "S/val", MERGE),
        ("faces_train.rec", "faces_val.rec", NAMES),
        ("chunk_0.rec", "chunk_1.rec", NAMES),
        ("train.zip", "test.zip", NAMES),
        ("train_list.txt", "val_list.txt", LIST),
        ("train.tar", "val.tar", MOVE),
        ("shard_a.tar", "shard_b.tar", MOVE),
        ("p1/s-000.tar", "p2/s-001.tar", MOVE),
        ("train-00000-of-00001.parquet", "validation-00000-of-00001.parquet", MOVE),
        ("MS1M.rec", "Glint.rec", ""),
        ("casia.tar", "own.tar", ""),
        ("casia", "own", ""),
    ],
)
def test_parts_of_one_set_in_any_form_are_told(tmp_path, caplog, one, other, remedy):
    """Each person would be two identities."""
    paths = [source_of(tmp_path / name, [0, 0, 1, 1, 2, 2], number) for number, name in enumerate((one, other))]
    open_source(paths)
    sentence = (
        f"data.train: 2 sources, such as {paths[0]} and {paths[1]}, differ only in the name of a part, and number 0"
    )
    line = f"{sentence} of each is an identity of its own · if they are parts of one set, {remedy}"
    assert caplog.messages == ([line] if remedy else [])


@pytest.mark.parametrize(("one", "other"), [([0, 1, 2], [0, 1]), ([0, 1, 2], [3, 4]), ([1, 2, 3], [1, 2])])
@pytest.mark.parametrize("suffix", ["", ".rec"])
def test_parts_of_other_people_are_silent(tmp_path, caplog, suffix, one, other):
    """They are numbered apart, or on."""
    paths = [source_of(tmp_path / f"val{suffix}", one, 0), source_of(tmp_path / f"train{suffix}", other, 1)]
    open_source(paths)
    assert caplog.messages == []


def test_merged_parts_are_not_told_to_be_merged(tmp_path, caplog):
    paths = [source_of(tmp_path / "train", [0, 1, 2], 0), source_of(tmp_path / "val", [0, 1, 2], 1)]
    assert len(open_source(paths, merge=True).class_names) == 3
    assert "differ only in the name of a part" not in caplog.text


@pytest.mark.parametrize("suffix", ["tar", "parquet"])
def test_a_part_of_a_numbered_set_is_told(tmp_path, monkeypatch, caplog, suffix):
    for number in range(4):
        source_of(tmp_path / f"s-{number:03d}.{suffix}", [0, 1, 2], number)
    source_of(tmp_path / f"t-004.{suffix}", [0, 1, 2], 4)
    for name, beside in (("s-001", "s-000"), ("s-{000..001}", "s-002"), ("s-{001..002}", "s-000")):
        first = name.replace("{", "").partition("..")[0]
        for opened in (open_source, open_path):
            caplog.clear()
            opened(tmp_path / f"{name}.{suffix}")
            line = (
                f"data: {tmp_path}/{first}.{suffix}: {beside}.{suffix} beside it is not read, and differs only in the "
            )
            remedy = "if it is a part of the set, give their folder, or a pattern of all parts"
            assert caplog.messages == [f"{line}number · {remedy}"]
    caplog.clear()
    for whole in (f"s-{{000..003}}.{suffix}", f"t-004.{suffix}"):
        open_source(tmp_path / whole)
    monkeypatch.chdir(tmp_path)
    open_source([tmp_path / f"s-{{000..001}}.{suffix}", f"s-{{002..003}}.{suffix}"])
    (tmp_path / "link").symlink_to(tmp_path)
    open_source([f"link/../{tmp_path.name}/s-{{000..001}}.{suffix}", tmp_path / "link" / f"s-{{002..003}}.{suffix}"])
    assert not [line for line in caplog.messages if "beside it" in line]
    source_of(tmp_path / f"set_v1.{suffix}", [0, 1], 0)
    source_of(tmp_path / f"set_v2.{suffix}", [0, 1], 1)
    caplog.clear()
    open_source(tmp_path / f"set_v2.{suffix}")  # versions
    assert caplog.messages == []


def test_a_folder_and_records_of_fewer_of_its_people_are_told(tmp_path, caplog):
    """The records have only numbers, and positions do not help: one person in the middle lacks."""
    faces = make_training_set(tmp_path / "faces", 7, 2, size=(16, 12))
    listing = tmp_path / "list.txt"
    rows = [f"{p.relative_to(tmp_path)} {p.parent.name[2:]}\n" for p in sorted(faces.rglob("*.png"))]
    listing.write_text("# identities: labels\n" + "".join(row for row in rows if "id01" not in row), encoding="utf-8")
    pack(open_path(listing), tmp_path / "r/train.rec")
    for both in ([faces, tmp_path / "r"], [tmp_path / "r", faces]):
        caplog.clear()
        assert len(open_source(both).class_names) == 13
        assert "contain the same images: an image of 6 of 6 compared identities is in both" in caplog.text
    caplog.clear()
    open_source([make_training_set(tmp_path / "others", 9, 2, size=(16, 13)), tmp_path / "r"])
    assert caplog.messages == []


def test_a_copy_with_numbered_folders_is_told(tmp_path, caplog):
    """Their names say nothing of the people in them."""
    faces = make_training_set(tmp_path / "faces", 7, 2, size=(16, 12))
    for number, folder in enumerate(sorted(faces.iterdir())):
        shutil.copytree(folder, tmp_path / "numbers" / f"{number + 3:04d}")
    open_source([faces, tmp_path / "numbers"])
    assert "contain the same images: an image of 7 of 7 compared identities is in both" in caplog.text
    caplog.clear()
    open_source([faces, make_training_set(tmp_path / "others", 7, 2, size=(16, 13))])
    assert "the same images" not in caplog.text


@pytest.mark.parametrize("fewer", [0, 2])
@pytest.mark.parametrize("named", [True, False])
def test_a_copy_in_another_order_is_told(tmp_path, caplog, named, fewer):
    """Of the identities, under other names or numbers, and of the images of each."""
    faces = make_training_set(tmp_path / "faces", 7, 3, size=(16, 12))
    people = [sorted(folder.iterdir()) for folder in sorted(faces.iterdir())]
    for number, images in enumerate(people[::-1][fewer:]):
        for place, image in enumerate(images[::-1]):
            copy = tmp_path / "copy" / (f"p{number}" if named else str(number)) / f"{place}.png"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, copy)
    for both in ([faces, tmp_path / "copy"], [tmp_path / "copy", faces]):
        caplog.clear()
        open_source(both)
        number = 7 - fewer
        sentence = f"contain the same images: an image of {number} of {number} compared identities is in both · leave"
        assert sentence in caplog.text


def parts_of(faces: Path, folder: Path, images: slice, people: slice = slice(None), *, named: bool = True) -> Path:
    """A copy of some images of some identities, under their names or numbers from 100."""
    for number, person in enumerate(sorted(faces.iterdir())[people], start=100):
        (folder / (person.name if named else str(number))).mkdir(parents=True)
        for image in sorted(person.iterdir())[images]:
            shutil.copy(image, folder / (person.name if named else str(number)))
    return folder


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize(
    ("images", "people", "named", "number"),
    [
        (slice(1, None), slice(None), True, 5),
        (slice(1, None), slice(None), False, 5),  # an older set under numbers, without the first image of each
        (slice(4, 7), slice(None), False, 5),
        (slice(1, None, 2), slice(3, 7), False, 4),
    ],
)
def test_a_copy_without_the_first_images_is_told_in_both_orders(tmp_path, caplog, merge, images, people, named, number):
    faces = make_training_set(tmp_path / "faces", 10, 8, size=(16, 12))
    other = parts_of(faces, tmp_path / "other", images, people, named=named)
    said = []
    for both in ([faces, other], [other, faces]):
        caplog.clear()
        open_source(both, merge=merge)
        said += [line.partition("contain")[2] for line in caplog.messages if "the same images" in line]
    share = f"an image of {number} of {number} compared identities is in both"
    assert [line.partition(": ")[2].partition(" · ")[0] for line in said] == [share, share]


@pytest.mark.parametrize("named", [True, False])
def test_a_few_images_in_common_are_no_copy(tmp_path, caplog, named):
    """One image of nine of each person, and no image: two parts of the same people."""
    faces = make_training_set(tmp_path / "faces", 10, 17, size=(16, 12))
    one = parts_of(faces, tmp_path / "one", slice(0, 9))
    for start, folder in ((8, "shares one"), (9, "shares none")):
        other = parts_of(faces, tmp_path / folder, slice(start, None), named=named)
        for both in ([one, other], [other, one]):
            for merge in (True, False):
                open_source(both, merge=merge)
    assert "the same images" not in caplog.text


def test_a_third_of_the_images_in_common_is_a_copy(tmp_path, caplog):
    faces = make_training_set(tmp_path / "faces", 10, 15, size=(16, 12))
    one = parts_of(faces, tmp_path / "one", slice(0, 9))
    open_source([one, parts_of(faces, tmp_path / "other", slice(6, None), named=False)])
    assert "the same images: an image of 5 of 5 compared identities is in both" in caplog.text


@pytest.mark.parametrize("named", [True, False])
def test_one_image_of_each_person_in_common_is_no_copy_where_few_are_looked_up(tmp_path, caplog, monkeypatch, named):
    """As a badge photograph: 10 identities and 16 images looked up, so the first of each."""
    monkeypatch.setattr(joined, "COMPARED", 16)
    faces = make_training_set(tmp_path / "faces", 10, 17, size=(16, 12))
    one, other = (parts_of(faces, tmp_path / name, slice(0, 1), named=named) for name in ("one", "other"))
    for number, person in enumerate(sorted(faces.iterdir())):
        for place, image in enumerate(sorted(person.iterdir())[1:]):
            folder = (one, other)[place % 2] / (person.name if named else str(100 + number))
            shutil.copy(image, folder)
    for both in ([one, other], [other, one]):
        open_source(both)
    assert "the same images" not in caplog.text


def test_a_copy_of_a_large_set_is_found_without_the_first_images(tmp_path, caplog, monkeypatch):
    """Where only identities of one name are compared, more of their images are."""
    monkeypatch.setattr(joined, "COMPARED", 5)
    monkeypatch.setattr(joined, "_FIRST", 2)
    faces = make_training_set(tmp_path / "faces", 10, 8, size=(16, 12))
    other = parts_of(faces, tmp_path / "other", slice(3, None))
    for both in ([faces, other], [other, faces]):
        caplog.clear()
        open_source(both)
        assert "the same images: an image of 5 of 5 compared identities is in both" in caplog.text


@pytest.mark.parametrize(("common", "warned"), [(1, False), (7, False), (8, True)])
def test_a_few_people_in_common_are_no_copy_of_a_set(tmp_path, caplog, common, warned):
    faces = make_training_set(tmp_path / "faces", 60, 4, size=(16, 12))
    one = parts_of(faces, tmp_path / "one", slice(None), slice(0, 30))
    other = parts_of(faces, tmp_path / "other", slice(None), slice(30 - common, 60 - common))
    for both in ([one, other], [other, one]):
        caplog.clear()
        open_source(both)
        assert ("the same images" in caplog.text) is warned


@pytest.mark.parametrize("named", [True, False])
def test_the_images_that_are_compared_are_bounded(tmp_path, caplog, monkeypatch, named):
    """One image each of 40 identities where at most 64 are compared, and ten each of eight."""
    faces = make_training_set(tmp_path / "faces", 40, 10, size=(16, 12))
    other = parts_of(faces, tmp_path / "other", slice(1, None), slice(None, None, -1), named=named)
    few = make_training_set(tmp_path / "few", 3, 5, size=(16, 13))
    read, digest = Counter[int](), joined._digest
    monkeypatch.setattr(joined, "COMPARED", 64)
    monkeypatch.setattr(joined, "_digest", lambda source, row: read.update([id(source)]) or digest(source, row))
    open_source([faces, few, other])
    assert "the same images: an image of 8 of 8 compared identities is in both" in caplog.text
    assert caplog.text.count("the same images") == 1
    by_place = 8 * 10 + 3 * 10  # by name or position with each of the others
    assert max(read.values()) <= 40 + 8 * 10 + by_place + 8 * 10  # once, and what has an image in common
    monkeypatch.setattr(joined, "COMPARED", 39)
    caplog.clear()
    open_source([faces, other])
    assert ("the same images" in caplog.text) is named


def test_one_picture_in_place_of_many_images_is_no_copy(tmp_path, caplog):
    one = make_training_set(tmp_path / "one", 6, 3, size=(16, 12))
    other = make_training_set(tmp_path / "other", 8, 3, size=(16, 13))
    nothing = next(one.rglob("*.png")).read_bytes()
    for folder in (*sorted(one.iterdir())[:4], *sorted(other.iterdir())[:1]):
        (folder / "000.png").write_bytes(nothing)
    open_source([one, other])
    open_source([other, one])
    assert "the same images" not in caplog.text


def test_identities_in_common_are_also_found_at_the_end_of_a_set(tmp_path, caplog):
    """Of fifteen identities, the first six differ: eight of these are compared, from the first to the last."""
    faces = make_training_set(tmp_path / "faces", 15, 2, size=(16, 12))
    for number, folder in enumerate(sorted(make_training_set(tmp_path / "others", 6, 2, size=(16, 13)).iterdir())):
        shutil.copytree(folder, tmp_path / "numbers" / f"{number:04d}")
    for number, folder in enumerate(sorted(faces.iterdir())[6:], start=6):
        shutil.copytree(folder, tmp_path / "numbers" / f"{number:04d}")
    open_source([faces, tmp_path / "numbers"])
    assert "contain the same images: an image of 5 of 8 compared identities is in both" in caplog.text


def test_a_table_without_rows_is_told(tmp_path, caplog):
    rows = [(f"{n}.jpg", b"%d" % n) for n in range(4)]
    write_parquet(tmp_path / "t-00000-of-00002.parquet", table_of(rows, [0, 0, 1, 1]))
    write_parquet(tmp_path / "t-00001-of-00002.parquet", table_of([], []).cast(table_of(rows, [0] * 4).schema))
    open_source(tmp_path)
    sentence = "1 file has no image, such as t-00001-of-00002.parquet · copy or pack them again"
    assert caplog.messages == [f"data: {tmp_path}: {sentence}"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts the open files of Linux")
def test_several_sets_together_keep_few_files_open(tmp_path):
    for number in range(10):
        for k in range(70):
            write_tar(tmp_path / f"s{number}" / f"x-{k:04d}.tar", [(f"p{k % 2}/{k}.jpg", b"%d %d" % (number, k))])

    def num_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, most = num_open(), 0
    source = open_source([tmp_path / f"s{number}" for number in range(10)])
    for image in read_each(source, random.Random(0).sample(range(len(source)), len(source))):
        assert not isinstance(image, OSError)
        most = max(most, num_open())
    assert _MOST_OPEN // 2 < most - before <= _MOST_OPEN + _MOST_HELD


TOM = (
    "1 name is in more than one spelling, such as {}: they are separate identities · if they are the same people, give "
    "each one spelling"
)


def with_names(path: Path, names: list[str], number: int = 0) -> Path:
    """A source of the form that the path shows, with two images for each name."""
    images = [(f"{number}{row:04d}", b"%d %d" % (number, row), names[row // 2]) for row in range(2 * len(names))]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tar":
        members = [(f"{key}.jpg", data) for key, data, _ in images]
        write_tar(
            path, [*members, *((f"{key}.json", json.dumps({"identity": name}).encode()) for key, _, name in images)]
        )
    elif path.suffix == ".parquet":
        write_parquet(path, table_of([(None, data) for _, data, _ in images], [name for *_, name in images]))
    elif path.suffix == ".rec":
        write_rec(path, [(k, image_record(float(k // 2), k, data)) for k, (_, data, _) in enumerate(images)])
        path.with_suffix(".identities.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    else:
        for key, data, name in images:
            (path / name).mkdir(parents=True, exist_ok=True)
            (path / name / f"{key}.jpg").write_bytes(data)
    return path


@pytest.mark.parametrize("form", ["faces", "f.tar", "f.parquet", "f.rec"])
@pytest.mark.parametrize(
    ("one", "other"), [("Tom Cruise", "Tom_Cruise"), ("Anna", "anna"), ("Anna", "Anna "), ("Ann Lee", "Ann\u00a0Lee")]
)
def test_names_in_two_spellings_within_a_source_are_told(tmp_path, caplog, form, one, other):
    if other.endswith(" ") and form in ("f.rec", "faces"):
        other = " Anna" if form == "faces" else "anna"
    path = with_names(tmp_path / form, ["Bo", one, other, "Tom"])
    assert len(open_source(path).class_names) == 4
    both = " and ".join(map(repr, sorted([one, other])))
    assert caplog.messages == [f"data: {path}: {TOM.format(both)}"]
    caplog.clear()
    open_source(path, exclude=[one, other])
    open_path(path)
    assert caplog.messages == []


@pytest.mark.parametrize("merge", [False, True])
def test_a_name_in_two_spellings_has_one_warning_in_several_sources(tmp_path, caplog, merge):
    one = with_names(tmp_path / "one", ["Tom Cruise", "Tom_Cruise", "Bo"], 0)
    other = with_names(tmp_path / "other", ["Tom Cruise", "Eva", "eva"], 1)
    open_source([one, other], merge=merge)
    common, within = caplog.messages
    such = "'Tom Cruise' and 'Tom_Cruise': they are separate identities · if they are the same people, give each one"
    assert common.startswith(f"data.train: 1 name is in more than one of one and other, such as {such} spelling")
    both = "'Eva' and 'eva'"
    assert within == f"data: other: {TOM.format(both)}"


def test_numbers_and_different_names_are_no_spellings(tmp_path, caplog):
    open_source(with_names(tmp_path / "f.tar", ["1", "01", "10", "m.0a_b", "m.0ab", "Tom", "Tom Cruise", "TomCruise"]))
    open_source(source_of(tmp_path / "f.rec", [0, 0, 1, 1, 2], 0))
    assert caplog.messages == []


@given(st.lists(st.text(alphabet="aAbß_ \u00a0\n1", min_size=1, max_size=3), unique=True, max_size=12))
def test_spellings_are_those_of_a_comparison_of_all_pairs(names):
    pairs = {(a, b) for group in other_spellings(names) for a, b in itertools.combinations(group, 2)}
    every = itertools.combinations(range(len(names)), 2)
    assert pairs == {(a, b) for a, b in every if spelled(names[a]) == spelled(names[b])}


@pytest.mark.parametrize("form", ["faces", "list.txt", "f.zip", "f.tar", "f.parquet", "f.rec"])
def test_a_label_for_each_image_is_told(tmp_path, caplog, form):
    """Such as ``for i, path in enumerate(paths): print(path, i)``."""
    path = source_of(tmp_path / form, list(range(20)), 0)
    open_source(path)
    (line,) = caplog.messages
    assert line == (
        f"data: {path}: got 20 images of 20 identities: nearly every identity has one image, so hardly any label says "
        "which images show one person · if the labels or folders are numbers of images, give each image the identity "
        "of its person"
    )
    caplog.clear()
    with pytest.raises(UserError, match="0 identities with 2 or more images, of 20"):
        open_source(path, min_images=2)
    open_source(path, least=1)  # a teacher alone trains: no label is used
    assert caplog.messages == []


@pytest.mark.parametrize(("labels", "told"), [([0, *range(20)], True), ([0, 0, *range(18)], False), (range(19), False)])
def test_only_labels_that_nearly_all_have_one_image_are_told(tmp_path, caplog, labels, told):
    open_source(source_of(tmp_path / "f.rec", list(labels), 0))
    assert ["nearly every identity has one image" in line for line in caplog.messages] == [True] * told


@pytest.mark.parametrize("merge", [False, True])
def test_an_image_of_each_person_from_each_of_two_days_is_told_where_they_stay_apart(tmp_path, caplog, merge):
    names = [f"p{number}" for number in range(20)]
    days = [with_names(tmp_path / day, names, number) for number, day in enumerate(("mon", "tue"))]
    for image in itertools.chain(*(sorted(day.rglob("*.jpg"))[::2] for day in days)):
        image.unlink()
    open_source(days, merge=merge)
    told = [line.split(":")[1] for line in caplog.messages if "nearly every identity has one image" in line]
    assert told == ([] if merge else [f" {day}" for day in days])


def test_a_folder_in_a_tar_is_not_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="sphereface")
    faces = make_training_set(tmp_path / "faces", 2, 2, size=(16, 12))
    (faces / "notes.tsv").write_text("a")
    with tarfile.open(tmp_path / "f.tar", "w") as file:
        file.add(faces, ".")
    open_source(tmp_path / "f.tar")
    assert "1 .tsv" in caplog.text
    assert "that are not regular" not in caplog.text
    with tarfile.open(tmp_path / "f.tar", "a") as file:
        link = tarfile.TarInfo("a/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "id00/000.png"
        file.addfile(link)
    open_source(tmp_path / "f.tar")
    assert "1 that are not regular files" in caplog.text
