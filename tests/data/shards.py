"""Writers of tar, Parquet, Arrow and LMDB sets that owe nothing to the package: tarfile, pyarrow, lmdb and msgpack."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import pyarrow as pa
import pyarrow.parquet as pq

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def table_of(
    images: Sequence[tuple[str, bytes | None]], labels: Sequence[Any], names: list[str] | None = None
) -> pa.Table:
    """A table as ``datasets`` has it: (path, bytes) and a label a row; with names the label is a ClassLabel."""
    label: dict[str, Any] = {"_type": "Value"} if names is None else {"_type": "ClassLabel", "names": names}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    rows = pa.array([{"bytes": data, "path": path} for path, data in images], IMAGE)
    table = pa.table({"image": rows, "label": pa.array(labels)})
    return table.replace_schema_metadata({b"huggingface": json.dumps(features).encode()})


def write_parquet(path: Path, table: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **{"row_group_size": 10, **options})
    return path


def write_arrow(path: Path, table: pa.Table, *, stream: bool = True, options: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as out, new(out, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=6)
    return path


def write_lmdb(path: Path, values: Iterable[tuple[bytes, bytes]], *, folder: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = lmdb.open(str(path), subdir=folder, map_size=2**28)
    with environment.begin(write=True) as transaction:
        for key, value in values:
            transaction.put(key, value)
    environment.close()
    return path


def face_lmdb(path: Path, images: Sequence[tuple[bytes, int]], *, folder: bool = False) -> Path:
    """As ``imagelist2lmdb.py`` of the face trainers writes it."""
    keys = [str(number).encode("ascii") for number in range(len(images))]
    values = [(key, msgpack.dumps(image)) for key, image in zip(keys, images, strict=True)]
    values += [(b"__keys__", msgpack.dumps(keys)), (b"__len__", msgpack.dumps(len(keys)))]
    values += [(b"__classnum__", msgpack.dumps(1 + max(label for _, label in images)))]
    return write_lmdb(path, values, folder=folder)
