"""Images in files of many: all of a batch are announced to the system before the first is read."""

from __future__ import annotations

import itertools
import mmap
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sphereface.data.disk_reads import DiskReads, reads_so_far
from sphereface.data.mapped import MappedFile
from sphereface.data.packing import pack
from sphereface.data.sources import FolderSource, JoinedSource, Source, open_path
from sphereface.data.sources.base import read_each
from sphereface.data.sources.selection import SelectedSource
from sphereface.data.tar_packing import pack_tar

from ..images import make_training_set
from .recs import image_record, write_rec
from .shards import face_lmdb, table_of, write_arrow, write_parquet

FORMS = ("rec", "tar", "zip", "lmdb", "parquet", "arrow", "joined", "merged", "selected")


@pytest.fixture(autouse=True)
def disk(monkeypatch) -> DiskReads:
    """A process that reads from a disk all the time."""
    reads = DiskReads(itertools.count().__next__)
    for module in ("records", "spans", "zipped"):
        monkeypatch.setattr(f"sphereface.data.sources.{module}.DISK", reads)
    return reads


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> FolderSource:
    return FolderSource(make_training_set(tmp_path_factory.mktemp("faces"), 5, 8, (16, 16)))


def written(form: str, folder: FolderSource, place: Path) -> Source:
    images = [(folder.read(row), int(folder.labels[row])) for row in range(len(folder))]
    table = table_of([(f"{row}.png", data) for row, (data, _) in enumerate(images)], [label for _, label in images])
    if form == "rec":
        pack(folder, place / "f.rec")
    elif form == "tar":
        place = place / "shards"
        place.mkdir()
        pack_tar(folder, place / "f.tar", most_bytes=9_000)
        assert len(list(place.iterdir())) > 2
        return open_path(place)
    elif form == "zip":
        with zipfile.ZipFile(place / "f.zip", "w") as archive:
            for row, (data, label) in enumerate(images):
                archive.writestr(f"{label}/{row:04}.png", data)
    elif form == "lmdb":
        face_lmdb(place / "f.lmdb", images)
    elif form == "parquet":
        write_parquet(place / "f.parquet", table, compression="none")
    elif form == "arrow":
        write_arrow(place / "f.arrow", table)
    elif form == "selected":
        return SelectedSource(written("rec", folder, place), np.array([True, False, True, True, False]))
    else:
        sources = [written(each, folder, place) for each in ("tar", "zip")]
        return JoinedSource(sources, "ab", merge=form == "merged")
    return open_path(place / f"f.{form}")


@pytest.mark.parametrize("form", FORMS)
def test_all_images_are_announced_before_the_first_is_read_and_little_else(tmp_path, folder, form, monkeypatch):
    source = written(form, folder, tmp_path)
    for row in range(len(source)):  # Parquet finds the places of its images
        source.read(row)
    calls: list[tuple[Path, int, int]] = []
    monkeypatch.setattr(
        MappedFile, "announce", lambda self, start, size: calls.append((self.path, start, start + size))
    )
    rows = np.random.default_rng(0).permutation(len(source)).tolist()
    images = read_each(source, rows)
    data = [next(images)]
    announced = list(calls)
    data += images
    assert data == [source.read(row) for row in rows]
    if form in ("joined", "merged"):
        announced = calls  # the second source announces its images when the first of them is read
    assert announced == calls
    assert len(calls) == len(rows)
    spans = [path.read_bytes()[start:end] for path, start, end in calls]
    for image in data:
        least = min(len(span) for span in spans if image in span)
        assert least <= len(image) + 600 or least == 1 << 14


@pytest.mark.parametrize("form", FORMS)
def test_the_advice_reaches_the_system_and_changes_no_image(tmp_path, folder, form, monkeypatch):
    """With pages as small as a span, all of it; what the system refuses is left out."""
    source = written(form, folder, tmp_path)
    rows = np.random.default_rng(1).integers(0, len(source), 64).tolist()
    expected = [source.read(row) for row in rows]
    assert list(read_each(source, rows)) == expected
    for advice in (None, 9999):  # Windows; an advice that the system does not know
        monkeypatch.setattr("sphereface.data.mapped._WILL_NEED", advice)
        assert list(read_each(source, rows)) == expected


def test_the_advice_is_of_whole_pages_inside_the_file(tmp_path, monkeypatch):
    given: list[tuple[int, int, int]] = []

    class View(bytes):
        def madvise(self, *advice: int) -> None:
            given.append(advice)

    path = tmp_path / "f"
    path.write_bytes(bytes(3 * mmap.PAGESIZE))
    file = MappedFile(path)
    monkeypatch.setattr(MappedFile, "view", lambda self: View(3 * mmap.PAGESIZE))
    for start in (0, 5, mmap.PAGESIZE - 1, mmap.PAGESIZE, -1, 3 * mmap.PAGESIZE):
        file.announce(start, 100)
    size, will_need = mmap.PAGESIZE, mmap.MADV_WILLNEED
    assert given == [(will_need, 0, 100), (will_need, 0, 105), (will_need, 0, size + 99), (will_need, size, 100)]


def test_a_file_that_is_gone_is_left_to_reading(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    file = MappedFile(tmp_path / "f")
    (tmp_path / "f").unlink()
    file.announce(0, 3)
    with pytest.raises(OSError, match="No such file"):
        file.read(0, 3)


def test_records_in_another_order_than_their_keys_are_announced_as_far_as_is_known(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.bytes(size) for size in (70_000, 3, 40_000, 17)]
    records = [(key, image_record(0.0, key, image)) for key, image in zip((3, 1, 4, 2), images, strict=True)]
    source = open_path(write_rec(tmp_path / "f.rec", records))
    assert list(read_each(source, [0, 1, 2, 3])) == [images[1], images[3], images[0], images[2]]


@pytest.mark.parametrize("form", FORMS)
def test_images_in_memory_are_not_announced_until_the_disk_is_read_again(tmp_path, folder, form, disk, monkeypatch):
    source = written(form, folder, tmp_path)
    expected = [source.read(row) for row in range(len(source))]
    calls: list[int] = []
    monkeypatch.setattr(MappedFile, "announce", lambda self, start, size: calls.append(size))
    disk._count = lambda: 7

    def announced() -> bool:
        calls.clear()
        assert list(read_each(source, range(len(source)))) == expected
        return bool(calls)

    announced()
    assert [announced() for _ in range(3)] == [False] * 3
    disk._count = lambda: 8
    assert announced()


def test_a_disk_that_counts_only_waits_is_tried_more_and_more_rarely():
    """As a network disk: no group that was announced counts as a read; one that was not does."""
    waits, announced = 0, []
    reads = DiskReads(lambda: waits)
    for _ in range(20_000):
        announced.append(reads.expected())
        waits += not announced[-1]
    silent = np.flatnonzero(~np.array(announced))
    assert len(silent) < 40
    assert np.diff(silent).tolist()[:6] == [3, 5, 9, 17, 33, 65]
    assert np.diff(silent).max() == 1025


def test_the_first_group_is_announced_and_reads_of_every_group_keep_it_so():
    assert DiskReads(lambda: 5).expected()
    reads = DiskReads(itertools.count(3).__next__)
    assert all(reads.expected() for _ in range(100))


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot forget a file")
def test_the_system_counts_reads_of_a_map(tmp_path):
    """A page that was dropped from memory counts when it is read again, one in memory does not."""
    path = tmp_path / "f"
    path.write_bytes(bytes(1 << 20))
    file = MappedFile(path)
    with path.open("rb+") as open_file:
        os.fdatasync(open_file.fileno())
        os.posix_fadvise(open_file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = reads_so_far()
    file.read(0, 10)
    after = reads_so_far()
    if after == before:
        pytest.skip("this system keeps the file in memory")
    file.read(0, 10)
    assert reads_so_far() == after
