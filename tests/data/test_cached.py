"""Images kept in memory: each file is opened once, by all processes together, and never more than the limit."""

from __future__ import annotations

import copy
import logging
import mmap
import os
import pickle
import threading

import numpy as np
import pytest

from sphereface.data.crops import CropBatches
from sphereface.data.loader import batches
from sphereface.data.packing import pack
from sphereface.data.sampler import Augmentation, BatchOrder
from sphereface.data.sources import FolderSource, RecordSource, cached
from sphereface.data.sources.cached import CachedSource

from ..images import make_training_set


class Counted:
    """A source of texts that counts its readings, image 7 of which cannot be read."""

    class_names = ("one",)
    named = True
    mapped = False

    def __init__(self, size: int = 4, count: int = 20, unreadable: int | None = None) -> None:
        self.labels = np.zeros(count, np.int32)
        self.size, self.unreadable = size, unreadable
        self.reads = [0] * count

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        self.reads[index] += 1
        if index == self.unreadable:
            raise OSError("gone")
        return b"%0*d" % (self.size, index)

    def name(self, index: int) -> str:
        return f"image {index}"


def test_every_image_is_read_once_and_comes_as_it_was():
    source = Counted()
    keeps = cached(source, 1000)
    order = [*np.random.default_rng(0).permutation(20).tolist(), *range(20), 3, 3]
    assert [keeps.read(index) for index in order] == [b"%04d" % index for index in order]
    assert source.reads == [1] * 20
    assert keeps.mapped
    assert (len(keeps), keeps.name(3), keeps.labels is source.labels) == (20, "image 3", True)


def test_it_is_not_all_in_memory_before_the_last():
    keeps = cached(Counted(), 1000)
    for index in range(19):
        keeps.read(index)
        assert not keeps.mapped
    keeps.read(19)
    assert keeps.mapped


@pytest.mark.parametrize(("limit", "fit"), [(1, 0), (3, 0), (4, 1), (41, 10), (79, 19), (80, 20)])
def test_no_more_is_kept_than_the_limit(limit, fit):
    source = Counted()
    keeps = cached(source, limit)
    for _ in range(3):
        assert [keeps.read(index) for index in range(20)] == [b"%04d" % index for index in range(20)]
    assert source.reads == [1] * fit + [3] * (20 - fit)
    assert keeps.mapped == (fit == 20)


def test_a_smaller_image_still_fits_where_a_larger_one_did_not():
    source = Counted()
    keeps = cached(source, 10)
    keeps.read(0)
    source.size = 7
    keeps.read(1)
    source.size = 6
    keeps.read(2)
    for index, size in ((0, 4), (2, 6)):
        assert keeps.read(index) == b"%0*d" % (size, index)
    assert source.reads[:3] == [1, 1, 1]
    keeps.read(1)
    assert source.reads[1] == 2


def test_an_image_that_another_has_kept_meanwhile_is_not_kept_twice():
    source = Counted(count=2)
    keeps = cached(source, 8)
    plain = source.read

    def read(index: int) -> bytes:
        if not source.reads[index]:
            source.reads[index] = 1
            keeps.read(index)  # another one, before this one has it
        return plain(index)

    source.read = read
    for _ in range(2):
        assert [keeps.read(index) for index in range(2)] == [b"0000", b"0001"]
    assert keeps.mapped  # there was room for each once


def test_what_cannot_be_read_is_tried_each_time_and_an_empty_file_stays_one():
    source = Counted(unreadable=7)
    keeps = cached(source, 1000)
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            keeps.read(7)
    assert source.reads[7] == 2
    source.read = lambda index: b""
    assert [keeps.read(0), keeps.read(0)] == [b"", b""]


def test_an_image_longer_than_its_place_can_say_is_not_kept():
    source = Counted(size=1 << 24, count=1)
    keeps = cached(source, 1 << 26)
    assert [len(keeps.read(0)) for _ in range(2)] == [1 << 24] * 2
    assert source.reads == [2]
    source.size = (1 << 24) - 1
    assert [len(keeps.read(0)) for _ in range(2)] == [(1 << 24) - 1] * 2
    assert source.reads == [3]


def test_what_a_forked_process_reads_all_have():
    source = Counted()
    keeps = cached(source, 1000)
    children = []
    for start in (0, 10):
        child = os.fork()
        if child == 0:
            for index in range(start, start + 10):
                keeps.read(index)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert keeps.mapped
    assert [keeps.read(index) for index in range(20)] == [b"%04d" % index for index in range(20)]
    assert source.reads == [0] * 20


def test_threads_and_processes_that_read_the_same_at_once_leave_every_image_whole():
    source = Counted(size=3000, count=200)
    wanted = [b"%03000d" % index for index in range(200)]
    keeps = cached(source, 3000 * 200)  # not one byte for an image that is kept twice
    go, told = os.pipe()
    children = []
    for seed in range(4):
        child = os.fork()
        if child == 0:
            os.close(told)
            os.read(go, 1)  # until all are there
            order = np.random.default_rng(seed).permutation(200).tolist()
            os._exit(0 if [keeps.read(index) for index in order] == [wanted[index] for index in order] else 1)
        children.append(child)
    os.close(told)
    threads = [threading.Thread(target=lambda: [keeps.read(index) for index in range(200)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    os.close(go)
    assert keeps.mapped
    assert [keeps.read(index) for index in range(200)] == wanted


def test_a_pickle_or_a_copy_is_the_source_alone(tmp_path):
    make_training_set(tmp_path / "faces", 2, 3)
    folder = FolderSource(tmp_path / "faces")
    keeps = cached(folder, 1000)
    for one in (pickle.loads(pickle.dumps(keeps)), copy.deepcopy(keeps)):
        assert type(one) is FolderSource
        assert one.read(2) == folder.read(2)


def test_a_mapped_source_stays_as_it_is_and_so_does_any_with_no_bytes_to_keep(tmp_path):
    make_training_set(tmp_path / "faces", 2, 3)
    folder = FolderSource(tmp_path / "faces")
    pack(folder, tmp_path / "faces.rec")
    record = RecordSource(tmp_path / "faces.rec")
    assert cached(record, 1000) is record
    assert cached(folder, 0) is folder
    assert type(cached(folder, 1)) is CachedSource


def test_a_system_without_so_much_memory_reads_each_time_and_says_so(monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    source = Counted()
    with caplog.at_level(logging.WARNING):
        assert cached(source, 5 << 20) is source
    assert caplog.messages == ["data.keep_mb: no memory for 5 MiB (Cannot allocate memory): each epoch reads from disk"]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_opens_no_file_in_its_second_epoch(tmp_path, workers):
    make_training_set(tmp_path / "faces", 4, 8)
    source = cached(FolderSource(tmp_path / "faces"), 1 << 20)
    order = BatchOrder(32, 8, seed=0, augmentation=Augmentation())
    plain = batches(CropBatches(FolderSource(tmp_path / "faces"), (112, 96)), order, workers=0, pin_memory=False)
    wanted = [next(plain).images.clone() for _ in range(40)]
    stream = batches(CropBatches(source, (112, 96)), order, workers=workers, pin_memory=False)
    seen = [next(stream).images.clone() for _ in range(20)]
    assert source.mapped  # whichever process read them
    for image in (tmp_path / "faces").glob("*/*"):
        image.unlink()
    seen += [next(stream).images.clone() for _ in range(20)]
    assert all((a == b).all() for a, b in zip(seen, wanted, strict=True))
    stream.close()
