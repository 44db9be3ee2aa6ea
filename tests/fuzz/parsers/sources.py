"""Training sets of every form, verification sets in one file, and what goes with them."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from sphereface.data.bins import read_bin
from sphereface.data.images import BadImage, decode
from sphereface.data.record_names import names_path, tie_path, tie_text
from sphereface.data.sources import Source, open_path, open_source, records
from sphereface.data.sources.name_lists import read_names

from ...data.recs import image_record, insightface_records, write_rec
from ...data.shards import face_lmdb, table_of, write_arrow, write_parquet, write_tar
from ...images import make_training_set
from ..registry import register
from .images import SIZE

PEOPLE, EACH = 3, 3


def _people(folder: Path) -> list[list[bytes]]:
    root = make_training_set(folder / "people", PEOPLE, EACH, SIZE)
    return [[path.read_bytes() for path in sorted(person.iterdir())] for person in sorted(root.iterdir())]


def check_source(source: Source) -> None:
    """Read a source as training does: damage of one image is an OSError or a BadImage, which the feed counts."""
    assert len(source) == len(source.labels)
    assert len(source)
    assert np.asarray(source.labels).min() >= 0
    assert np.asarray(source.labels).max() < len(source.class_names)
    assert len(set(source.class_names)) == len(source.class_names)
    for index in range(min(len(source), 20)):
        source.name(index)
        with contextlib.suppress(OSError, BadImage):
            decode(source.read(index))


def _parse_at(*names: str):
    def parse(folder: Path, path: Path) -> None:
        check_source(open_path(folder / names[0] if names else path))

    return parse


def make_folder_source(folder: Path) -> None:
    _people(folder)
    (folder / "exclude.txt").write_text("id00\nnobody\n", encoding="utf-8")


def parse_folder_source(folder: Path, _path: Path) -> None:
    read_names(folder / "exclude.txt")
    check_source(open_source(folder / "people", exclude_file=folder / "exclude.txt"))


def make_list(folder: Path) -> None:
    _people(folder)
    lines = [
        f"{path.relative_to(folder).as_posix()} {label}"
        for label, person in enumerate(sorted((folder / "people").iterdir()))
        for path in sorted(person.iterdir())
    ]
    (folder / "list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_lst(folder: Path) -> None:
    """mxnet's: number, label, path, between tabs."""
    make_list(folder)
    rows = [line.split() for line in (folder / "list.txt").read_text().splitlines()]
    lines = [f"{number}\t{label}.000000\t{path}" for number, (path, label) in enumerate(rows)]
    (folder / "list.lst").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_rec(folder: Path) -> None:
    write_rec(folder / "rec" / "train.rec", insightface_records(_people(folder)))
    (folder / "rec" / "property").write_text(f"{PEOPLE},112,112", encoding="utf-8")


def make_plain_rec(folder: Path) -> None:
    """im2rec's: no header, labels in the records; one of the records in parts."""
    people = _people(folder)
    records = [
        (
            number,
            image_record(
                float(number % PEOPLE), number, people[number % PEOPLE][0] + b"\x0a\x23\xd7\xce" * (number == 1)
            ),
        )
        for number in range(PEOPLE * EACH)
    ]
    write_rec(folder / "rec" / "train.rec", records)


def make_rec_names(folder: Path) -> None:
    make_rec(folder)
    names = "".join(f"Person {number}\n" for number in range(PEOPLE)).encode()
    names_path(folder / "rec" / "train.rec").write_bytes(names)
    tie_path(folder / "rec" / "train.rec").write_bytes(tie_text(folder / "rec" / "train.rec", names))


def make_zip(folder: Path) -> None:
    make_list(folder)
    for name, method in (("stored.zip", zipfile.ZIP_STORED), ("deflated.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / name, "w", method) as file:
            for path in sorted((folder / "people").rglob("*.png")):
                file.write(path, path.relative_to(folder).as_posix())
    with zipfile.ZipFile(folder / "listed.zip", "w") as file:
        for path in sorted((folder / "people").rglob("*.png")):
            file.write(path, path.relative_to(folder).as_posix())
        file.write(folder / "list.txt", "list.txt")


def make_joined(folder: Path) -> None:
    make_list(folder)
    make_zip(folder)
    (folder / "stored.zip").unlink()
    (folder / "deflated.zip").unlink()


def parse_joined(folder: Path, _path: Path) -> None:
    for merge in (False, True):
        check_source(open_source([folder / "list.txt", folder / "listed.zip"], merge=merge, min_images=2))


def make_bin(folder: Path) -> None:
    images = [image for person in _people(folder) for image in person]
    pairs = [(k % 9, (k + 1) % 9 if k % 2 else (k + 3) % 9) for k in range(20)]
    encoded = [images[index] for pair in pairs for index in pair]
    for protocol in (2, 4):
        (folder / f"{protocol}.bin").write_bytes(pickle.dumps((encoded, [k % 2 == 1 for k in range(20)]), protocol))
    arrays = [np.frombuffer(image, np.uint8) for image in encoded]
    (folder / "numpy.bin").write_bytes(pickle.dumps((arrays, np.arange(20) % 2 == 1), 4))


def parse_bin(_folder: Path, path: Path) -> None:
    images, pairs = read_bin(path)
    assert pairs.left.max() < len(images)
    assert pairs.right.max() < len(images)
    for image in images[:20]:
        with contextlib.suppress(OSError, BadImage):
            decode(image.read_bytes())


def make_tar(folder: Path) -> None:
    """With folders, and with each kind of label; in each of the forms that tar knows."""
    people = _people(folder)
    images = [(label, number, data) for label, person in enumerate(people) for number, data in enumerate(person)]
    write_tar(folder / "folders.tar", [(f"id{a}/{b}.png", data) for a, b, data in images], tarfile.USTAR_FORMAT)
    long = "n" * 120
    write_tar(folder / "gnu.tar", [(f"{long}{a}/{b}.png", data) for a, b, data in images], tarfile.GNU_FORMAT)
    write_tar(folder / "pax.tar", [(f"{long}{a}/ü{b}.png", data) for a, b, data in images], tarfile.PAX_FORMAT)
    for kind in ("cls", "txt", "json"):
        members: list[tuple[str, bytes]] = []
        for a, b, data in images:
            label = json.dumps({"identity": f"id{a}"}) if kind == "json" else str(a)
            members += [(f"{a}{b}.png", data), (f"{a}{b}.{kind}", label.encode())]
        write_tar(folder / f"{kind}.tar", members)


def make_tables(folder: Path) -> None:
    """Parquet and Arrow, as datasets and others write them."""
    people = _people(folder)
    images = [(f"{a}{b}.png", data) for a, person in enumerate(people) for b, data in enumerate(person)]
    labels = [label for label, person in enumerate(people) for _ in person]
    table = table_of(images, labels, ["Ann", "Bo", "Cy"])
    write_parquet(folder / "snappy.parquet", table, row_group_size=4)
    write_parquet(folder / "plain.parquet", table, row_group_size=4, compression="none", use_dictionary=False)
    write_parquet(folder / "zstd.parquet", table, compression="zstd", data_page_version="2.0")
    write_arrow(folder / "stream.arrow", table)
    write_arrow(folder / "file.arrow", table, stream=False)


def make_lmdb(folder: Path) -> None:
    people = _people(folder)
    face_lmdb(folder / "big.lmdb", [(data, label) for label, person in enumerate(people) for data in person])
    face_lmdb(folder / "small.lmdb", [(b"x" * (number % 50), number % 3) for number in range(300)])  # in the leaves


@contextlib.contextmanager
def _indexed():
    """Let a small .rec have an index too."""
    fewest, records._FEWEST_BYTES = records._FEWEST_BYTES, 0
    try:
        yield
    finally:
        records._FEWEST_BYTES = fewest


def make_rec_index(folder: Path) -> None:
    write_rec(folder / "rec" / "train.rec", insightface_records(_people(folder)))
    with _indexed():
        open_path(folder / "rec")


def parse_rec_index(folder: Path, _path: Path) -> None:
    """Whatever the index says, what is read is what the records hold, or an error of one image."""
    copy = folder / "out" / "rec"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "rec", copy)  # with the times of the files
    plain = open_path(copy)
    with _indexed():
        source = open_path(copy)
    check_source(source)
    assert source.labels.tolist() == plain.labels.tolist()


register(
    "folder",
    make_folder_source,
    parse_folder_source,
    reads="data.sources.folder data.sources.selection data.sources.base",
)
register("list", make_list, _parse_at("list.txt"), files="list.txt", reads="data.sources.listing data.text_files")
register("lst", make_lst, _parse_at(), files="list.lst", reads="data.sources.listing")
register(
    "rec",
    make_rec,
    _parse_at("rec"),
    files="rec/*",
    reads="data.recordio data.record_index data.record_labels data.sources.records",
)
register(
    "rec-plain",
    make_plain_rec,
    _parse_at("rec"),
    files="rec/*",
    reads="data.recordio data.record_index data.record_labels data.sources.records",
)
register("rec-names", make_rec_names, _parse_at("rec"), files="rec/train.identities.*", reads="data.record_names")
register("rec-index", make_rec_index, parse_rec_index, files="rec/.train.rec.index", reads="data.index_file")
register(
    "zip",
    make_zip,
    _parse_at(),
    files="*.zip",
    reads="archives data.sources.zipped data.sources.zip_lists data.sources.zip_members",
)
register(
    "tar",
    make_tar,
    _parse_at(),
    files="*.tar",
    reads="data.tar_members data.sources.tar data.sources.members data.sources.grouping data.sources.spans",
)
register("parquet", make_tables, _parse_at(), files="*.parquet", reads="data.sources.parquet data.sources.columns")
register("arrow", make_tables, _parse_at(), files="*.arrow", reads="data.sources.arrow data.sources.columns")
register("lmdb", make_lmdb, _parse_at(), files="*.lmdb", reads="data.lmdb_entries data.sources.lmdb")
register("joined", make_joined, parse_joined, files="list*", reads="data.sources.joined data.sources.selection")
register("bin", make_bin, parse_bin, files="*.bin", reads="data.bins data.pickle_machine data.pickled")
