"""Several sources as one set: an empty one, parts of one set, copies in another form, open files."""

from __future__ import annotations

import logging
import random
import shutil
from pathlib import Path

import pytest

from sphereface.data.packing import pack
from sphereface.data.sources import open_path, open_source
from sphereface.data.sources.base import read_each
from sphereface.data.sources.spans import _MOST_HELD, _MOST_OPEN
from sphereface.errors import UserError

from ..images import make_training_set
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
    sentence = f"data.train: 2 files, such as web-0000.{suffix}, differ only in a number: each is a set with its own "
    remedy = f"if they are parts of one set, give their folder, or a pattern such as web-{{0000..0001}}.{suffix}"
    assert caplog.messages == ([f"{sentence}identities · {remedy}"] if told else [])
    caplog.clear()
    open_source(tmp_path / f"web-{{0000..0001}}.{suffix}")
    paths[1] = paths[1].rename(tmp_path / f"own.{suffix}")
    open_source(paths)
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
        assert "contain the same images: the first image of 6 of 6 compared identities is the same" in caplog.text
    caplog.clear()
    open_source([make_training_set(tmp_path / "others", 9, 2, size=(16, 13)), tmp_path / "r"])
    assert caplog.messages == []


def test_a_copy_with_numbered_folders_is_told(tmp_path, caplog):
    """Their names say nothing of the people in them."""
    faces = make_training_set(tmp_path / "faces", 7, 2, size=(16, 12))
    for number, folder in enumerate(sorted(faces.iterdir())):
        shutil.copytree(folder, tmp_path / "numbers" / f"{number + 3:04d}")
    open_source([faces, tmp_path / "numbers"])
    assert "contain the same images: the first image of 7 of 7 compared identities is the same" in caplog.text
    caplog.clear()
    open_source([faces, make_training_set(tmp_path / "others", 7, 2, size=(16, 13))])
    assert "the same images" not in caplog.text


def test_identities_in_common_are_also_found_at_the_end_of_a_set(tmp_path, caplog):
    """Of fifteen identities, the first six differ: eight of these are compared, from the first to the last."""
    faces = make_training_set(tmp_path / "faces", 15, 2, size=(16, 12))
    for number, folder in enumerate(sorted(make_training_set(tmp_path / "others", 6, 2, size=(16, 13)).iterdir())):
        shutil.copytree(folder, tmp_path / "numbers" / f"{number:04d}")
    for number, folder in enumerate(sorted(faces.iterdir())[6:], start=6):
        shutil.copytree(folder, tmp_path / "numbers" / f"{number:04d}")
    open_source([faces, tmp_path / "numbers"])
    assert "contain the same images: the first image of 5 of 8 compared identities is the same" in caplog.text


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
    source = open_source([tmp_path / f"s{number}" for number in range(10)])

    def num_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, most = num_open(), 0
    for image in read_each(source, random.Random(0).sample(range(len(source)), len(source))):
        assert not isinstance(image, OSError)
        most = max(most, num_open())
    assert _MOST_OPEN // 2 < most - before <= _MOST_OPEN + _MOST_HELD
