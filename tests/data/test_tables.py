"""Parquet and Arrow as Hugging Face writes them: read as the folder, or refused in one line."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import sys
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sphereface.data.clean_list import check_listable
from sphereface.data.sources import ArrowSource, ParquetSource, open_path, open_source
from sphereface.errors import UserError

from .shards import IMAGE, table_of, write_arrow, write_parquet

IMAGES = [(f"{k:02d}.jpg", os.urandom(20) + os.urandom(20 + k) * 9) for k in range(30)]  # which can be compressed
LABELS = [k // 10 for k in range(30)]
NAMES = ["Ann", "Bo", "Cy"]
EXPECTED = [(NAMES[label], data) for label, (_, data) in zip(LABELS, IMAGES, strict=True)]


def content(source) -> list[tuple[str, bytes]]:
    return [(source.class_names[label], source.read(row)) for row, label in enumerate(source.labels.tolist())]


def table() -> pa.Table:
    return table_of(IMAGES, LABELS, NAMES)


OPTIONS = {
    "uncompressed": {"compression": "none", "use_dictionary": False},  # as datasets 5 writes
    "snappy": {},
    "dictionary": {"compression": "none"},
    "zstd": {"compression": "zstd", "data_page_version": "2.0"},
    "one group": {"compression": "none", "row_group_size": 1000, "data_page_size": 100},
    "no statistics": {"write_statistics": False},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_parquet_in_every_way_of_writing(tmp_path, name):
    path = write_parquet(tmp_path / "t.parquet", table(), **OPTIONS[name])
    source = pickle.loads(pickle.dumps(open_path(path)))
    assert isinstance(source, ParquetSource)
    assert source.named
    for _ in range(2):
        assert content(source) == EXPECTED
    located = int((source._groups._starts > 0).sum())
    assert (
        located == 30 if OPTIONS[name].get("compression") == "none" else located < 9
    )  # of some, statistics hold a copy
    assert source.name(11) == f"{path}/row 11 (11.jpg)"
    everything = list(range(29, -1, -1))
    assert [source.read(row) for row in everything] == [EXPECTED[row][1] for row in everything]


@pytest.mark.parametrize("name", OPTIONS)
def test_many_rows_of_parquet_are_those_read_alone_and_it_is_mapped_when_all_places_are_known(tmp_path, name):
    source = open_path(write_parquet(tmp_path / "t.parquet", table(), **OPTIONS[name]))
    assert not source.mapped
    some, everything = [3, 29, 3, 0, 17], list(range(30))
    for indices in (some, some, everything, everything):
        assert list(source.read_each(indices)) == [EXPECTED[index][1] for index in indices]
    known = OPTIONS[name].get("compression") == "none"
    assert (source.mapped, pickle.loads(pickle.dumps(source)).mapped) == (known, known)


def test_images_that_occur_again_in_a_dictionary(tmp_path):
    images = [(f"{k:03d}.jpg", b"%d" % (k % 3) * 40) for k in range(250)]
    path = write_parquet(
        tmp_path / "t.parquet", table_of(images, [0] * 250, ["a"]), row_group_size=125, compression="none"
    )
    assert [data for _, data in content(open_path(path))] == [data for _, data in images]


def test_images_of_a_dictionary_are_stored_once(tmp_path):
    """A small file may name one image in very many rows."""
    image, rows = os.urandom(10_000), 8_000
    images = pa.DictionaryArray.from_arrays(pa.array([0] * rows), pa.array([image], pa.binary()))
    columns = pa.table({"image": images, "label": pa.array([2 * row // rows for row in range(rows)])})
    options = {"compression": "none", "row_group_size": rows, "store_schema": False}
    source = open_source(write_parquet(tmp_path / "x.parquet", columns, **options))
    assert (tmp_path / "x.parquet").stat().st_size < 20_000
    tracemalloc.start()
    assert (source.read(7), source.read(rows - 1)) == (image, image)
    assert tracemalloc.get_traced_memory()[1] < 40_000_000  # of 80 MB
    tracemalloc.stop()


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_files_and_streams(tmp_path, stream):
    source = open_path(write_arrow(tmp_path / "t.arrow", table(), stream=stream))
    assert isinstance(source, ArrowSource)
    assert content(pickle.loads(pickle.dumps(source))) == EXPECTED
    assert source.mapped


def test_a_folder_of_save_to_disk(tmp_path, caplog):
    for number in range(2):
        write_arrow(tmp_path / f"data-0000{number}-of-00002.arrow", table().slice(15 * number, 15))
    write_arrow(tmp_path / "cache-0123.arrow", table())  # which map() leaves there
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert content(open_source(tmp_path)) == EXPECTED
    assert "several sets" not in caplog.text
    (tmp_path / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserError, match=r"got 1 of the 00002 files 'data' · allowed: all files of the set"):
        open_path(tmp_path)
    (tmp_path / "dataset_dict.json").write_text("{}")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"contains several data sets · allowed: one of them: train"):
        open_path(tmp_path)


def test_a_folder_of_parquet_files_and_a_pattern(tmp_path):
    for number in range(3):
        write_parquet(tmp_path / f"train-0000{number}-of-00003.parquet", table().slice(10 * number, 10))
    for path in (tmp_path, tmp_path / "train-{00000..00002}-of-00003.parquet"):
        source = open_source(path)
        assert content(source) == EXPECTED
    assert source.name(25) == f"{tmp_path}/train-00002-of-00003.parquet/row 5 (25.jpg)"


HASHES = ("a1b2c3d4e5f60718", "0f9e8d7c6b5a4938", "11111111111111f9")


def test_files_whose_names_have_the_hash_of_hugging_face(tmp_path, caplog):
    """As datasets 2.0 to 2.13 writes them."""
    paths = [tmp_path / f"train-0000{number}-of-00003-{name}.parquet" for number, name in enumerate(HASHES)]
    for number, path in enumerate(paths):
        write_parquet(path, table().slice(10 * number, 10))
    with caplog.at_level(logging.WARNING):
        assert len(open_source(tmp_path)) == 30
    assert not caplog.records
    again = write_parquet(tmp_path / "train-00001-of-00003.parquet", table().slice(0, 10))
    with pytest.raises(UserError, match=rf"{paths[1].name} and {again.name}, both file 00001 of a set · allowed: one"):
        open_source(tmp_path)
    again.unlink()
    paths[2].unlink()
    with pytest.raises(UserError, match="got 2 of the 00003 files 'train' · allowed: all files of the set"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "name", ["train-00001-of-00003.parquet", f"train-00001-of-00003-{HASHES[0]}.parquet", "1-of-12.parquet"]
)
def test_one_file_of_a_set_is_told(tmp_path, caplog, name):
    path = write_parquet(tmp_path / name, table())
    assert len(open_source(path)) == 30
    count = 12 if "12" in name[:10] else 3
    sentence = f"is one of the {count} files of its set · to read all of them, give their folder or a pattern"
    assert f"data: {path}: {sentence}" in caplog.messages
    caplog.clear()
    open_source(write_parquet(tmp_path / "train-00000-of-00001.parquet", table()))
    assert "of its set" not in caplog.text


@pytest.mark.parametrize(("write", "suffix"), [(write_parquet, "parquet"), (write_arrow, "arrow")])
def test_parts_that_an_earlier_run_left_are_told(tmp_path, caplog, write, suffix):
    """Of 30 rows in files of 8 at first, then of 11: the fourth file of the first run stays, with other labels."""
    images, labels = [(f"{n}.jpg", b"%d" % n * 90) for n in range(30)], [n // 5 for n in range(30)]
    for each in (8, 11):
        for number, start in enumerate(range(0, 30, each)):
            rows = slice(start, start + each)
            write(tmp_path / f"part-{number}.{suffix}", table_of(images[rows], [n + 20 // each for n in labels[rows]]))
    assert len(open_source(tmp_path)) == 36
    assert "6 images are also in another file of the set, such as part-3." in caplog.text
    (tmp_path / f"part-3.{suffix}").unlink()
    caplog.clear()
    open_source(tmp_path)
    for number in range(3):  # names from 0 in each file
        own = [(f"{n}.jpg", b"%d %d" % (number, n)) for n in range(10)]
        write(tmp_path / f"part-{number}.{suffix}", table_of(own, [number] * 10))
    open_source(tmp_path)
    assert "another file" not in caplog.text


@pytest.mark.parametrize(("write", "suffix"), [(write_parquet, "parquet"), (write_arrow, "arrow")])
def test_two_sets_in_one_folder_and_labels_across_folders_are_told(tmp_path, caplog, write, suffix):
    for number in range(2):
        images = [
            (f"p{person + 10 * number}/{k}.jpg", b"%d" % (person + number)) for person in range(3) for k in range(3)
        ]
        write(tmp_path / f"part-{number}.{suffix}", table_of(images, [n // 3 for n in range(9)]))
    open_source(tmp_path)
    sentence = "3 of 3 labels have other folders in another part of the set, such as 0 in p0 and in p10: each label is"
    assert sentence in caplog.text
    caplog.clear()
    write(tmp_path / "ages" / f"a.{suffix}", table_of(images, [20 + n % 2 for n in range(9)]))
    open_source(tmp_path / "ages" / f"a.{suffix}")
    told = (
        "2 of 2 are in several of 3 folders, such as 20 in p10 and p11 · if the folders are the identities, write them"
    )
    assert told in caplog.text


@pytest.mark.parametrize("write", [write_parquet, write_arrow])
def test_the_columns_that_others_write(tmp_path, write):
    suffix = "." + write.__name__.partition("_")[2]
    images = [data for _, data in IMAGES]
    plain = pa.table({"jpg": pa.array(images, pa.large_binary()), "id": LABELS, "cls": pa.array(LABELS, pa.int8())})
    assert content(open_path(write(tmp_path / f"a{suffix}", plain))) == [
        (str(k), i) for k, i in zip(LABELS, images, strict=True)
    ]
    texts = pa.table({"image": pa.array(images, pa.binary()), "identity": [NAMES[label] for label in LABELS]})
    assert content(open_path(write(tmp_path / f"b{suffix}", texts))) == EXPECTED
    numbers = table_of(IMAGES, LABELS, ["0", "1", "2"])
    source = open_path(write(tmp_path / f"c{suffix}", numbers))
    assert source.class_names == ["0", "1", "2"]
    assert not source.named
    order = [29, *range(29)]
    mixed = table().take(order)
    assert content(open_path(write(tmp_path / f"d{suffix}", mixed))) == EXPECTED  # by path in an identity


def test_rows_that_hold_no_image(tmp_path):
    images = [(path, None if k == 3 else data) for k, (path, data) in enumerate(IMAGES)]
    message = r"1 of 30 rows contain no image, at most a path · .* · train on the folder"
    with pytest.raises(UserError, match=message):
        open_path(write_parquet(tmp_path / "t.parquet", table_of(images, LABELS, NAMES)))
    with pytest.raises(UserError, match=message.replace("30", "6")):
        open_path(write_arrow(tmp_path / "t.arrow", table_of(images, LABELS, NAMES)))
    unseen = write_parquet(tmp_path / "u.parquet", table_of(images, LABELS, NAMES), write_statistics=False)
    with pytest.raises(OSError, match="the row contains no image"):
        open_path(unseen).read(3)


def _labels(values, names=None):
    return table_of(IMAGES[: len(values)], values, names)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_labels([0, 1, -1], NAMES), r"column label: got -1 · allowed: an identity's number"),
        (_labels([0, 1, 3], NAMES), r"column label: got 3 · allowed: 0 to 2, as the table has names for these"),
        (_labels([0, 1, None], NAMES), r"1 of 3 images have no label, such as 02\.jpg · allowed: the column label"),
        (_labels([0, 1, 2], ["a", "b", "a"]), r"got 3 names, 2 of them different · allowed: one for each label"),
        (_labels([0, 1, 2], ["a", "b", 7.5]), r"label: got 7\.5 · allowed"),
        (_labels([0.5, 1.5]), r"column label: got the type double · allowed: integers or texts · write it again"),
        (_labels([True, False]), r"column label: got the type bool"),
        (_labels([b"a", b"b"]), r"column label: got the type binary"),
        (pa.table({"a": [b"1"], "b": [b"2"], "label": [1]}), r"the column of the image, got a: binary, b: binary"),
        (pa.table({"image": ["text"], "label": [1]}), r"column image: got the type string · allowed: struct<bytes"),
        (pa.table({"photo": ["text"], "label": [1]}), r"the column of the image, got photo: string"),
        (
            pa.table({"image": [b"x"], "person": [1]}),
            r"the label, .* one of identity, label, cls \(integers",
        ),
        (_labels([0, 1]).slice(0, 0), r"got no images"),
    ],
)
def test_tables_that_cannot_be_a_training_set(tmp_path, rows, message):
    for path in (write_parquet(tmp_path / "t.parquet", rows), write_arrow(tmp_path / "t.arrow", rows)):
        with pytest.raises(UserError, match=message) as caught:
            open_path(path)
        assert "\n" not in str(caught.value)


def _features(table, **kinds):
    features = {name: {"_type": kind} for name, kind in kinds.items()}
    return table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})


def test_several_columns_of_one_kind_without_a_usual_name_are_refused(tmp_path):
    row = pa.array([{"bytes": b"x", "path": "a.jpg"}], IMAGE)
    two = {"age": [1], "gender": [0]}
    classes = _features(pa.table({"image": row, **two, "person_id": [7]}), age="ClassLabel", gender="ClassLabel")
    message = r"got 2 columns of classes, 'age', 'gender' · allowed: one, or one of them named identity or .* · rename"
    for path in (write_parquet(tmp_path / "a.parquet", classes), write_arrow(tmp_path / "a.arrow", classes)):
        with pytest.raises(UserError, match=message):
            open_path(path)
    named = _features(pa.table({"image": row, **two, "label": [7]}), age="ClassLabel", gender="ClassLabel")
    assert open_path(write_parquet(tmp_path / "b.parquet", named)).class_names == ["7"]
    one = _features(pa.table({"image": row, "age": [1], "person": ["P"]}), person="ClassLabel")
    assert open_path(write_parquet(tmp_path / "c.parquet", one)).class_names == ["P"]
    images = _features(pa.table({"face": row, "mask": row, "label": [7]}), face="Image", mask="Image")
    with pytest.raises(
        UserError, match=r"got 2 columns of images, 'face', 'mask' · .* · rename the right one to image"
    ):
        open_path(write_parquet(tmp_path / "d.parquet", images))
    mask = pa.array([{"bytes": b"m", "path": "a.jpg"}], IMAGE)
    first = _features(pa.table({"mask": mask, "image": row, "label": [7]}), mask="Image", image="Image")
    assert open_path(write_parquet(tmp_path / "e.parquet", first)).read(0) == b"x"


@pytest.mark.parametrize(
    ("kind", "path_kind"),
    [
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),  # categories of pandas
        (pa.string_view(), pa.string_view()),  # texts of polars
        (pa.large_string(), pa.large_string()),
    ],
)
def test_texts_of_every_type_are_labels(tmp_path, kind, path_kind):
    rows = [{"bytes": data, "path": path} for path, data in IMAGES]
    image = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", path_kind)]))
    texts = pa.table({"image": image, "label": pa.array([NAMES[k] for k in LABELS]).cast(kind)})
    assert content(open_path(write_parquet(tmp_path / "t.parquet", texts, row_group_size=30))) == EXPECTED
    for new in (pa.ipc.new_stream, pa.ipc.new_file):
        with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as out, new(out, texts.schema) as writer:
            writer.write_table(texts)
        assert content(open_path(tmp_path / "t.arrow")) == EXPECTED


def test_names_in_both_forms_of_unicode_are_one_with_a_word(tmp_path, caplog):
    names = ["Zo\xeb", "Zoe\u0308", "Ann"]
    source = open_path(write_parquet(tmp_path / "t.parquet", table_of(IMAGES[:3], names)))
    assert list(source.class_names) == ["Ann", "Zo\xeb"]
    assert "1 identity has names that differ only in Unicode's form, such as Zo\xeb" in caplog.text


def test_features_that_are_no_json_are_passed_over(tmp_path):
    for features in (b"{", b"[]", json.dumps({"info": {"features": [1]}}).encode(), b"\xff"):
        path = write_parquet(tmp_path / "t.parquet", table().replace_schema_metadata({b"huggingface": features}))
        assert open_path(path).class_names == ["0", "1", "2"]


NO_PATHS = [
    ("a", pa.array([{"bytes": data, "path": None} for _, data in IMAGES])),  # pandas, Dataset.from_generator
    ("b", pa.array([{"bytes": data} for _, data in IMAGES])),
    ("c", pa.array([{"path": None, "bytes": data} for _, data in IMAGES])),
]


@pytest.mark.parametrize(("name", "image"), NO_PATHS)
def test_images_without_paths(tmp_path, name, image):
    """Of images from memory: the type of the paths is null, or there is no such field."""
    assert not any(pa.types.is_string(field.type) for field in image.type)
    rows = pa.table({"image": image, "label": [NAMES[k] for k in LABELS]})
    for path in (write_parquet(tmp_path / f"{name}.parquet", rows), write_arrow(tmp_path / f"{name}.arrow", rows)):
        source = open_path(path)
        assert content(source) == EXPECTED
        assert source.name(11) == f"{path}/row 11"


@pytest.mark.parametrize(("write", "suffix"), [(write_parquet, "parquet"), (write_arrow, "arrow")])
def test_files_of_one_set_with_and_without_paths(tmp_path, write, suffix):
    texts = [NAMES[k] for k in LABELS]
    named = pa.table({"image": pa.array([{"bytes": d, "path": p} for p, d in IMAGES], IMAGE), "label": texts})
    write(tmp_path / "s" / f"a.{suffix}", named.slice(0, 15))
    write(tmp_path / "s" / f"b.{suffix}", pa.table({"image": NO_PATHS[0][1], "label": texts}).slice(15))
    assert sorted(content(open_path(tmp_path / "s"))) == sorted(EXPECTED)


def test_a_hole_in_a_page_of_labels_is_found_by_its_checksum(tmp_path):
    """pyarrow compares these checksums only if it is told to."""
    labels = list(range(30)) * 10
    rows = table_of(IMAGES * 10, labels)
    path = write_parquet(
        tmp_path / "t.parquet", rows, write_page_checksum=True, row_group_size=1000, use_dictionary=False,
        compression="none",
    )  # fmt: skip
    group = pq.ParquetFile(path).metadata.row_group(0)
    (column,) = (group.column(k) for k in range(group.num_columns) if group.column(k).path_in_schema == "label")
    whole = path.read_bytes()
    hole = column.data_page_offset + column.total_compressed_size - 400
    path.write_bytes(whole[:hole] + bytes(64) + whole[hole + 64 :])
    assert pq.read_table(path)["label"].to_pylist() != labels
    with pytest.raises(UserError, match=r"damaged \(.*CRC checksum verification failed.*\) · copy it again"):
        open_path(path)
    at = whole.index(IMAGES[7][1], whole.index(IMAGES[9][1], whole.index(IMAGES[8][1])))  # not in the statistics
    path.write_bytes(whole[:at] + bytes(9) + whole[at + 9 :])
    with pytest.raises(OSError, match="damaged Parquet"):
        open_path(path).read(7)


def test_files_that_are_cut_or_compressed(tmp_path):
    for write, name in ((write_parquet, "t.parquet"), (write_arrow, "t.arrow")):
        path = write(tmp_path / name, table())
        whole = path.read_bytes()
        for part in (len(whole) // 3, len(whole) // 2, len(whole) - 1 if write is write_parquet else len(whole) - 20):
            path.write_bytes(whole[:part])
            with pytest.raises(
                UserError, match=r"truncated(: it lacks its end mark| or damaged \(.*\)) · copy it again"
            ):
                open_path(path)
    path = write_arrow(tmp_path / "z.arrow", table(), options=pa.ipc.IpcWriteOptions(compression="lz4"))
    with pytest.raises(UserError, match=r"is compressed · allowed: Arrow files as save_to_disk writes them"):
        open_path(path)
    write_arrow(tmp_path / "two" / "a.arrow", table())
    write_arrow(tmp_path / "two" / "b.arrow", table().rename_columns(["image", "cls"]))
    with pytest.raises(UserError, match=r"b\.arrow: has other columns than a\.arrow"):
        open_path(tmp_path / "two")


def test_an_arrow_file_without_its_end_is_an_error(tmp_path):
    """A stream that stops between two batches is read in silence by pyarrow."""
    path = write_arrow(tmp_path / "t.arrow", table())
    path.write_bytes(path.read_bytes()[:-8])  # the end mark
    with pa.OSFile(str(path)) as file:
        assert pa.ipc.open_stream(file).read_all().num_rows == 30
    with pytest.raises(UserError, match=r"truncated: it lacks its end mark · copy it again"):
        open_path(path)


@pytest.mark.parametrize("stream", [True, False])
def test_two_arrow_files_joined_by_cat_are_an_error(tmp_path, stream):
    """All images have one size, so that the second index finds the batches of the first file at its own places."""
    tables = [table_of([(f"{k}{n}.jpg", b"\xff%d%02d" % (k, n)) for n in range(10, 22)], [k] * 12) for k in (1, 2)]
    one, other = (write_arrow(tmp_path / f"{k}.arrow", rows, stream=stream) for k, rows in enumerate(tables))
    (tmp_path / "t.arrow").write_bytes(one.read_bytes() + other.read_bytes())
    with pa.OSFile(str(tmp_path / "t.arrow")) as file:  # pyarrow reads half of them
        reader = pa.ipc.open_stream(file) if stream else pa.ipc.open_file(file)
        assert reader.read_all().column("label").to_pylist() == [1] * 12
    with pytest.raises(UserError, match=r"its rows end at byte .* not several joined by cat"):
        open_path(tmp_path / "t.arrow")


def test_a_hole_of_zeros_that_looks_like_the_end_of_an_arrow_stream(tmp_path):
    path = write_arrow(tmp_path / "t.arrow", table())
    data = bytearray(path.read_bytes())
    batches = [at for at in range(0, len(data), 8) if data[at : at + 4] == b"\xff" * 4]  # schema, five batches, end
    assert len(batches) == 7
    data[batches[3] : batches[3] + 8] = bytes(8)
    path.write_bytes(data)
    with pa.OSFile(str(path)) as file:
        assert pa.ipc.open_stream(file).read_all().num_rows == 12
    with pytest.raises(UserError, match=rf"its rows end at byte {batches[3] + 4:,}, and {len(data):,} was expected"):
        open_path(path)


def test_an_arrow_file_whose_stream_has_no_end_mark_is_read_by_its_index(tmp_path):
    path = write_arrow(tmp_path / "t.arrow", table(), stream=False)
    data = path.read_bytes()
    index = len(data) - 10 - int.from_bytes(data[-10:-6], "little")
    assert data[index - 8 : index] == b"\xff\xff\xff\xff\0\0\0\0"
    path.write_bytes(data[: index - 8] + data[index:])
    assert content(open_path(path)) == EXPECTED


def test_row_groups_too_large_to_unpack(tmp_path, monkeypatch, caplog):
    path = write_parquet(tmp_path / "t.parquet", table())
    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr("sphereface.data.sources.parquet._SLOW_GROUP", 100)
        open_path(path)
    assert "reading one image unpacks" in caplog.text
    monkeypatch.setattr("sphereface.data.sources.parquet._MOST_GROUP", 1000)
    with pytest.raises(UserError, match=r"row group \d has [\d,]+ bytes of compressed images · allowed: 1,000"):
        open_path(path)


def _read(source, queue):
    queue.put([source.read(row) for row in range(len(source))])


@pytest.mark.parametrize("name", ["snappy", "uncompressed"])
def test_workers_that_are_forked_after_reading(tmp_path, name):
    source = open_path(write_parquet(tmp_path / "t.parquet", table(), **OPTIONS[name]))
    source.read(0)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_read, args=(source, queue))
    worker.start()
    assert queue.get(timeout=600) == [data for _, data in EXPECTED]
    worker.join()


def test_groups_that_do_not_fit_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr("sphereface.data.sources.parquet._KEPT_BYTES", 10)
    source = open_path(write_parquet(tmp_path / "t.parquet", table()))
    assert content(source) == EXPECTED
    assert len(source._groups._kept) == 1


def test_without_pyarrow_one_line_says_what_to_install(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "t.parquet", table())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"data\.train: pyarrow\S* is not installed · pip install '\.\[parquet\]'"):
        open_path(path)


def test_damage_of_a_row_group_is_of_its_images(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", table())
    source = open_path(path)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(OSError, match="damaged Parquet"):
        source.read(12)
    assert source.read(25) == EXPECTED[25][1]


def test_a_null_struct_is_a_row_without_an_image(tmp_path):
    rows = pa.table({"image": pa.array([{"bytes": b"x", "path": "a"}, None], IMAGE), "label": [0, 1]})
    for path in (write_parquet(tmp_path / "t.parquet", rows), write_arrow(tmp_path / "t.arrow", rows)):
        with pytest.raises(UserError, match=r"1 of 2 rows contain no image"):
            open_path(path)


def test_no_list_can_name_a_row(tmp_path):
    """Also where the images of another source are files of their own."""
    write_parquet(tmp_path / "t.parquet", table())
    (tmp_path / "faces" / "z").mkdir(parents=True)
    (tmp_path / "faces" / "z" / "0.jpg").write_bytes(b"x")
    for place in (tmp_path / "t.parquet", [tmp_path / "faces", tmp_path / "t.parquet"]):
        with pytest.raises(UserError, match=r"t\.parquet/row \d+ \(\d+\.jpg\) is not a separate file, so no list"):
            check_listable(open_source(place))
