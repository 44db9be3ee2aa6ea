"""An index that is made once beside a source: used while the source is as it was, made again otherwise."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from sphereface.data import index_file
from sphereface.data.index_file import indexed
from sphereface.data.sources import RecordSource, open_source
from sphereface.data.sources import records as records_source

from .recs import image_record, insightface_records, write_rec

ARRAYS = {"a": np.arange(5), "b": np.array([7, 300], np.uint16), "none": np.array([], np.int64)}
STAMP = {"bytes": 10, "form": 1}
PEOPLE = [[b"a0", b"a1", b"a2"], [b"b0"], [b"c0", b"c1"]]


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A place for one, in a folder of its own, with a cache elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "set.rec"


@pytest.fixture
def file(source) -> Path:
    """The index of such a source."""
    opened(source)
    return source.parent / ".set.rec.index"


def opened(source: Path, stamp=STAMP, problem: str = "", arrays=ARRAYS):
    """The index, and how often it was made."""
    made = []

    def make():
        made.append(1)
        return arrays

    index = indexed(source, stamp, make, lambda arrays: problem)
    for name, array in arrays.items():
        np.testing.assert_array_equal(index[name], array)
        assert index[name].dtype == array.dtype
    return index, len(made)


def test_it_is_made_once_and_mapped_afterwards(source, caplog):
    with caplog.at_level(logging.INFO):
        first, made = opened(source)
        second, again = opened(source)
    assert (made, again) == (1, 0)
    file = source.parent / ".set.rec.index"
    assert caplog.messages == [f"data: {source}: wrote its index for later runs: {file}"]
    assert first.path == second.path == file
    assert not second["a"].flags.writeable
    assert [path.name for path in source.parent.iterdir()] == [".set.rec.index"]  # no lock, no temporary file


def test_a_pickle_holds_no_array_of_a_file(source):
    arrays = {"a": np.arange(100_000)}
    index, _ = opened(source, arrays=arrays)
    data = pickle.dumps(index)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data)["a"], arrays["a"])


def test_a_source_of_another_state_gets_a_new_one(source, caplog):
    opened(source)
    with caplog.at_level(logging.INFO):
        assert opened(source, {"bytes": 11, "form": 1}, arrays={"a": np.arange(3)})[1] == 1
    assert "is rebuilt: damaged (it belongs to another state of the source)" in caplog.text
    assert opened(source, {"bytes": 11, "form": 1}, arrays={"a": np.arange(3)})[1] == 0
    index, made = opened(source, {"bytes": 11, "form": 1}, problem="a sample differs")
    assert (made, index.path) == (1, source.parent / ".set.rec.index")


def header(change) -> bytes:
    about = {"stamp": STAMP, "arrays": {"a": ["<i8", 5], "b": ["<u2", 2], "none": ["<i8", 0]}}
    change(about)
    text = json.dumps(about).encode()
    return (struct.pack("<8sII", b"sphidx1\n", len(text), zlib.crc32(text)) + text).ljust(128, b"\0") + bytes(128)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:100],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"X" + data[1:],
        lambda data: data[:30] + b"#" + data[31:],
        lambda data: data.replace(b'["<i8", 5]', b'["<i8", 6]'),
        lambda data: data[:8] + struct.pack("<I", 2**32 - 1) + data[12:],
        lambda data: header(lambda about: about.pop("stamp")),
        lambda data: header(lambda about: about["arrays"].update(a=["<i8", -1])),
        lambda data: header(lambda about: about["arrays"].update(a=["<i8", 10**9])),
        lambda data: header(lambda about: about["arrays"].update(a=["O", 5])),
        lambda data: header(lambda about: about["arrays"].update(a=5)),
    ],
)
def test_a_damaged_one_is_made_again(source, file, damage):
    file.write_bytes(damage(file.read_bytes()))
    index, made = opened(source)
    assert (made, index.path) == (1, file)
    assert opened(source)[1] == 0


def test_the_header_of_these_tests_is_one(source, file):
    assert len(header(lambda about: None)) == len(file.read_bytes())
    file.write_bytes(header(lambda about: None)[:128] + file.read_bytes()[128:])
    assert opened(source)[1] == 0


def refuses(path: Path):
    """A folder of which no file may be written, whoever this user is."""
    path.write_bytes(b"")
    return path / "x"


def test_where_the_folder_may_not_be_written_it_is_in_the_cache(source, monkeypatch, tmp_path, caplog):
    places = index_file._places(source)
    assert places[1].parent == tmp_path / "cache" / "sphereface"
    monkeypatch.setattr(index_file, "_places", lambda _: [refuses(tmp_path / "file"), places[1]])
    with caplog.at_level(logging.WARNING):
        index, made = opened(source)
        assert (made, index.path) == (1, places[1])
        assert opened(source)[1] == 0
    assert caplog.messages == []
    monkeypatch.setattr(index_file, "_places", lambda _: places)
    assert opened(source)[0].path == places[1]  # found there, though the folder may be written by now


def test_where_no_folder_may_be_written_it_is_in_memory_and_one_line_says_so(source, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(index_file, "_places", lambda _: [refuses(tmp_path / "file")])
    with caplog.at_level(logging.WARNING):
        index, made = opened(source)
    assert (made, index.path) == (1, None)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(index))["a"], ARRAYS["a"])
    assert caplog.messages == [
        f"data: {source}: the index stays in memory; each process and run builds it again "
        "(no folder for it is writable)"
    ]


def test_a_disk_that_is_full_is_one_line(source, monkeypatch, caplog):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_file, "write_whole", full)
    assert opened(source)[0].path is None
    assert ".set.rec.index: No space left on device)" in caplog.text


def test_without_a_home_the_cache_is_left_out(source, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert index_file._places(source) == [source.parent / ".set.rec.index"]


def test_a_cache_that_may_not_be_looked_into_is_left_out(source, monkeypatch, tmp_path):
    """Such as /root for another user. A name that is too long raises OSError for root too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("x" * 300)))
    index, made = opened(source)
    assert (made, index.path) == (1, source.parent / ".set.rec.index")
    places = index_file._places(source)
    monkeypatch.setattr(index_file, "_places", lambda _: places[1:])
    assert opened(source)[0].path is None


def _make_slowly(source, queue):
    def make():
        queue.put("made")
        time.sleep(0.5)
        return ARRAYS

    queue.put(indexed(source, STAMP, make, lambda _: "")["a"].tolist())


def test_of_several_processes_one_makes_it(source):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_make_slowly, args=(source, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    said = [queue.get(timeout=600) for _ in range(5)]
    for process in processes:
        process.join()
    assert said.count("made") == 1
    assert said.count([0, 1, 2, 3, 4]) == 4


# ---------------------------------------------------------------- of a .rec


@pytest.fixture
def rec(source, monkeypatch) -> Path:
    monkeypatch.setattr(records_source, "_FEWEST_BYTES", 0)
    return write_rec(source, insightface_records(PEOPLE))


def all_of(source) -> list[tuple[str, bytes]]:
    return [(source.class_names[source.labels[row]], source.read(row)) for row in range(len(source))]


def reads_idx(monkeypatch) -> list[Path]:
    read, paths = records_source.read_index, []
    monkeypatch.setattr(records_source, "read_index", lambda path: (paths.append(path), read(path))[1])
    return paths


@pytest.mark.parametrize("form", ["insightface", "plain", "no idx"])
def test_a_rec_opens_by_its_index_as_without(source, monkeypatch, form):
    contents = [(row, image_record(float(label), row, b"%d" % row)) for row, label in enumerate([4, 0, 4, 9])]
    write_rec(source, insightface_records(PEOPLE) if form == "insightface" else contents, index=form != "no idx")
    without = RecordSource(source)
    assert not (source.parent / ".set.rec.index").exists()  # it is small
    monkeypatch.setattr(records_source, "_FEWEST_BYTES", 0)
    first, later = RecordSource(source), RecordSource(source)
    assert (source.parent / ".set.rec.index").exists()
    for other in (first, later, pickle.loads(pickle.dumps(later))):
        assert all_of(other) == all_of(without)
        assert other.class_names == without.class_names == list(other.class_names)
        assert [other.name(row) for row in range(len(other))] == [without.name(row) for row in range(len(other))]
        assert other.labels.tolist() == without.labels.tolist()


def test_a_later_opening_reads_no_idx(rec, monkeypatch):
    paths = reads_idx(monkeypatch)
    RecordSource(rec)
    RecordSource(rec)
    open_source(str(rec))
    assert paths == [rec.with_suffix(".idx")]


@pytest.mark.parametrize("suffix", [".rec", ".idx"])
@pytest.mark.parametrize("what", ["time", "size"])
def test_files_of_another_time_or_size_are_read_again(rec, monkeypatch, suffix, what):
    RecordSource(rec)
    paths, path = reads_idx(monkeypatch), rec.with_suffix(suffix)
    stat = path.stat()
    if what == "size":
        path.write_bytes(path.read_bytes() + (b"\n" if suffix == ".idx" else b""))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + (what == "time" or suffix == ".rec")))
    assert all_of(RecordSource(rec)) == [
        ("0", b"a0"),
        ("0", b"a1"),
        ("0", b"a2"),
        ("1", b"b0"),
        ("2", b"c0"),
        ("2", b"c1"),
    ]
    assert len(paths) == 1


def test_records_of_other_people_under_the_same_time_and_size_are_noticed(rec):
    RecordSource(rec)
    stat = rec.stat()
    write_rec(rec, insightface_records([PEOPLE[0], [b"b0", b"b1"], [b"c0"]]))
    assert rec.stat().st_size == stat.st_size
    os.utime(rec, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    idx = rec.with_suffix(".idx")
    assert RecordSource(rec).labels.counts.tolist() == [3, 2, 1]
    assert idx.exists()


@pytest.mark.parametrize("name", ["offsets", "keys", "firsts", "values"])
@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: a[::-1].copy(), lambda a: a[:0], lambda a: a - a])
def test_figures_that_make_no_sense_are_not_used(rec, name, change):
    source = RecordSource(rec)
    arrays = {key: source._index[key] for key in ("offsets", "keys", "firsts", "values")}
    assert source._problem(arrays) == ""
    if name == "keys" and len(change(arrays[name])) == len(arrays[name]):
        return  # only ever shown
    try:
        assert source._problem({**arrays, name: change(arrays[name])}) != ""
    except records_source.UserError as error:
        assert "no record" in str(error) or "none begins there" in str(error)  # noqa: PT017


def test_gaps_between_labels_are_said_by_every_opening(source, monkeypatch, caplog):
    monkeypatch.setattr(records_source, "_FEWEST_BYTES", 0)
    write_rec(source, [(row, image_record(float(label), row, b"x")) for row, label in enumerate([0, 5])])
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert RecordSource(source).class_names == ["0", "5"]
        assert "labels from 0 to 5 have gaps" in caplog.text


def test_a_folder_of_an_index_alone_is_no_set(rec, monkeypatch):
    """What lies there beside the .rec changes nothing that is read of a folder."""
    (rec.parent / "train.rec").write_bytes(rec.read_bytes())
    (rec.parent / "train.idx").write_bytes(rec.with_suffix(".idx").read_bytes())
    RecordSource(rec.parent)
    assert len(RecordSource(rec.parent)) == 6
