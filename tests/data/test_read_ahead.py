"""Reading ahead: the same images in the same order, by a thread where each is a file, and never far ahead."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import zipfile

import numpy as np
import pytest

from sphereface.data.crops import CropBatches
from sphereface.data.identities import Labels
from sphereface.data.packing import pack
from sphereface.data.read_ahead import encoded
from sphereface.data.sampler import Augmentation, BatchOrder
from sphereface.data.sources import FolderSource, JoinedSource, ListSource, RecordSource, ZipSource, cached, open_path
from sphereface.data.sources.base import read_each, threads_of
from sphereface.data.sources.selection import SelectedSource
from sphereface.data.tar_packing import pack_tar
from sphereface.errors import UserError

from ..images import make_training_set


class Recorded:
    """A source of texts that remembers who read what; 7 cannot be read."""

    labels = np.zeros(1000, np.int32)
    class_names = ("one",)
    named = True

    def __init__(self, *, mapped: bool, threads: int = 1) -> None:
        self.mapped, self.threads = mapped, threads
        self.reads: list[tuple[int, threading.Thread]] = []

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        self.reads.append((index, threading.current_thread()))
        if index == 7:
            raise OSError("gone")
        return b"%d" % index

    def name(self, index: int) -> str:
        return str(index)


@pytest.mark.parametrize(("mapped", "threads"), [(True, 1), (False, 1), (False, 3)])
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 96, 97, 300])
def test_every_image_comes_in_its_turn_and_once(mapped, threads, count):
    indices = np.random.default_rng(0).permutation(1000)[:count].tolist()
    source = Recorded(mapped=mapped, threads=threads)
    with encoded(source, indices) as images:
        got = [str(each) if isinstance(each, OSError) else each.decode() for each in images]
    assert got == ["gone" if index == 7 else str(index) for index in indices]
    read = [index for index, _ in source.reads]
    assert read == indices if threads == 1 else sorted(read) == sorted(indices)


@pytest.mark.parametrize("threads", [1, 4])
def test_files_are_read_by_other_threads_while_the_first_images_are_decoded_and_not_far_ahead(threads):
    source = Recorded(mapped=False, threads=threads)
    ahead = 32 * (threads + 1)
    with encoded(source, list(range(1000))) as images:
        next(images)
        deadline = time.monotonic() + 600
        while len(source.reads) < ahead and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert len(source.reads) == ahead
    assert threading.current_thread() not in {thread for _, thread in source.reads}


def test_four_threads_read_files_at_once(tmp_path, monkeypatch):
    folder = FolderSource(make_training_set(tmp_path / "folder", 20, 7, (16, 16)))
    expected = [folder.read(row) for row in range(140)]
    together = threading.Barrier(4)  # opens when four reads wait at it
    plain = FolderSource.read

    def read(self: FolderSource, index: int) -> bytes:
        if index in (0, 32, 64, 96):
            together.wait(timeout=600)
        return plain(self, index)

    monkeypatch.setattr(FolderSource, "read", read)
    with encoded(SelectedSource(cached(folder, 1 << 20), np.ones(20, np.bool_)), list(range(140))) as images:
        assert list(images) == expected


def test_a_list_that_a_plugin_returns_is_read_in_a_joined_source(tmp_path):
    folder = FolderSource(make_training_set(tmp_path / "folder", 2, 2, (16, 16)))
    other = Recorded(mapped=False)
    other.read_each = lambda indices: [other.read(index) for index in indices]
    joined = JoinedSource([folder, other], "ab", merge=False)
    assert list(read_each(joined, [5, 0, 4])) == [b"1", folder.read(0), b"0"]


def test_a_list_that_a_mapped_plugin_returns_is_read_on_not_from_its_start_again():
    source = Recorded(mapped=True)
    source.read_each = lambda indices: [b"%d" % index for index in indices]
    with encoded(source, [3, 1, 2, 0]) as images:
        assert [list(itertools.islice(images, 2)) for _ in range(2)] == [[b"3", b"1"], [b"2", b"0"]]


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(("number", "got"), [(0, "yields 0 for"), (2, "yields 2 for"), (4, "yields more than 3 for")])
def test_another_number_of_images_of_a_plugin_is_one_line(joined, number, got):
    source = Recorded(mapped=True)
    source.read_each = lambda indices: iter([b"x"] * number)
    indices = [5, 0, 4]
    if joined:
        parts = [Recorded(mapped=True), source]
        for part in parts:
            part.labels = Labels.of_counts([1000])
        source, indices = JoinedSource(parts, "ab", merge=False), [1005, 7, 1000, 1004]
    with pytest.raises(
        UserError, match=f"^Recorded, a plugin: its read_each {got} 3 indices · allowed: for each index"
    ):
        list(read_each(source, indices))


def test_only_files_are_read_by_several_threads(tmp_path):
    folder = FolderSource(make_training_set(tmp_path / "folder", 2, 2, (16, 16)))
    other = Recorded(mapped=False)
    del other.threads  # as a plugin's source
    assert [threads_of(source) for source in (folder, other, cached(folder, 100))] == [4, 1, 4]
    assert [threads_of(JoinedSource([folder, each], "ab", merge=False)) for each in (folder, other)] == [4, 1]


def test_of_a_mapped_file_an_image_is_copied_when_it_is_asked_for():
    source = Recorded(mapped=True)
    with encoded(source, list(range(1000))) as images:
        next(images)
        assert source.reads == [(0, threading.current_thread())]


@pytest.mark.parametrize("taken", [1, 300])
def test_no_thread_stays(taken):
    source = Recorded(mapped=False)
    with encoded(source, list(range(300))) as images:
        for _ in range(taken):
            next(images)
    (thread,) = {thread for _, thread in source.reads}
    assert not thread.is_alive()


def test_bad_images_keep_no_thread_and_no_image_for_the_search_for_garbage(tmp_path):
    """It once ended a thread inside the start of another one, and both waited without end."""
    source = FolderSource(make_training_set(tmp_path, 2, 3, (16, 16)))
    first, second, *_ = sorted(tmp_path.rglob("*.png"))
    first.write_bytes(b"")
    second.unlink()
    images = np.zeros((6, 16, 16, 3), np.uint8)
    draw = BatchOrder(6, 6, seed=0, augmentation=Augmentation()).draw(0)
    gc.collect()
    gc.disable()
    try:
        (filled,) = CropBatches(source, (16, 16)).fill([draw], [images])
        assert len(filled.bad) >= 2
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_which_sources_are_mapped(tmp_path):
    folder = FolderSource(make_training_set(tmp_path / "folder", 2, 2, (16, 16)))
    lines = [f"{path.relative_to(tmp_path)} {path.parent.name[-1]}" for path in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    pack(folder, tmp_path / "faces.rec")
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for path in sorted((tmp_path / "folder").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "folder"))
    record, zipped = RecordSource(tmp_path / "faces.rec"), ZipSource(tmp_path / "faces.zip")
    assert [source.mapped for source in (folder, ListSource(tmp_path / "list.txt"))] == [False, False]
    assert [source.mapped for source in (record, zipped)] == [True, True]
    for source in (folder, record):
        assert SelectedSource(source, np.array([True, False])).mapped == source.mapped
    assert JoinedSource([record, zipped], ["a", "b"], merge=False).mapped
    assert not JoinedSource([record, folder], ["a", "b"], merge=False).mapped


def test_a_source_reads_many_images_as_it_reads_one(tmp_path):
    folder = FolderSource(make_training_set(tmp_path / "folder", 4, 5, (16, 16)))
    pack(folder, tmp_path / "faces.rec")
    (tmp_path / "shards").mkdir()
    pack_tar(folder, tmp_path / "shards" / "faces.tar", most_bytes=8_000)
    record, shards = RecordSource(tmp_path / "faces.rec"), open_path(tmp_path / "shards")
    assert len(shards.files) > 2
    some = SelectedSource(shards, np.array([True, False, True, True]))
    for source in (
        folder,
        record,
        shards,
        some,
        cached(folder, 5_000),
        JoinedSource([record, some], "ab", merge=False),
    ):
        indices = np.random.default_rng(0).integers(0, len(source), 50).tolist()
        for _ in range(2):
            assert list(read_each(source, indices)) == [source.read(index) for index in indices]


def test_many_images_with_files_gone_and_more_files_than_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr("sphereface.data.sources.spans._MOST_HELD", 2)
    folder = FolderSource(make_training_set(tmp_path / "folder", 6, 2, (16, 16)))
    (tmp_path / "shards").mkdir()
    pack_tar(folder, tmp_path / "shards" / "faces.tar", most_bytes=4_000)
    source = open_path(tmp_path / "shards")
    assert len(source.files) > 4
    source.files[1].unlink()
    source._start[-1] = 10**9  # behind the end of its file
    indices = list(range(len(source))) * 2

    def alone(index: int) -> bytes | str:
        try:
            return source.read(index)
        except OSError as error:
            return str(error)

    got = [str(each) if isinstance(each, OSError) else each for each in read_each(source, indices)]
    assert got == [alone(index) for index in indices]
    assert any(isinstance(each, str) for each in got)
