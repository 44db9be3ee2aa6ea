"""Any source into ``.rec``, ``.idx`` and ``property``, as mxnet and InsightFace write them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..errors import UserError
from ..files import flush_folder
from .images import BadImage, decode
from .recordio import EXACT_IN_FLOAT, RecordWriter, record_content
from .sources.base import Source
from .sources.records import RecordSource, names_path

_QUALITY = 95
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Encoding:
    """How pictures are encoded anew.

    Args:
        quality: of the JPEG, 1 to 100.
        size: (height, width) in pixels; None: as it is.
    """

    quality: int = _QUALITY
    size: tuple[int, int] | None = None


def pack(source: Source, rec: Path, encoding: Encoding | None = None, *, progress: bool = False) -> None:
    """Write a source to ``rec``, its ``.idx`` and ``property`` beside it.

    A ``.rec`` that is not encoded anew keeps its records as they are. Everything else gets InsightFace's form: key 0
    is the header record, (a, b) = (N + 1, N + 1 + C), behind the pictures 1 … N; then an identity record each, with
    the keys (first, end) of its pictures. From 2²⁴ records on, where float32 has no such numbers, those are left out.
    Pictures stay byte for byte, unless ``encoding`` is given. Where identities have names, they are written to
    ``<name>.identities.txt``, a line each, which mxnet does not know.

    All is written under names that start with a dot and end in ``.part``, and renamed at the end, the ``.rec`` last:
    whatever interrupts this, a ``.rec`` is whole, with all that belongs to it.

    Raises:
        UserError: ``rec`` is there already, a picture cannot be read, or the disk is full. What was begun is removed.
    """
    finals = [rec.with_suffix(".idx"), rec.with_name("property"), names_path(rec), rec]
    _check_target(source, rec)
    parts = [path.with_name(f".{path.name}.part") for path in finals]
    try:
        rec.parent.mkdir(parents=True, exist_ok=True)
        names = "".join(f"{name}\n" for name in source.class_names) if source.named else None
        _write_parts(parts, _records(source, encoding), _property(source, encoding), names, len(source), progress)
        if names is None:
            finals[2].unlink(missing_ok=True)  # of an earlier try: without its .rec it belongs to nothing
        for part, final in zip(parts, finals, strict=True):
            if part.exists():
                part.replace(final)
        flush_folder(rec.parent)
    except OSError as error:
        why = "the disk is full" if error.errno in _DISK_FULL else error.strerror or str(error)
        raise UserError(f"{rec}: cannot be written: {why} · make room, or give another place") from error
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink()


def _check_target(source: Source, rec: Path) -> None:
    if rec.suffix != ".rec":
        raise UserError(f"{rec}: got the ending {rec.suffix!r} · allowed: .rec")
    if rec.exists():
        raise UserError(f"{rec}: there already · move it away, or give another name")
    others = [path.name for path in rec.parent.glob("*.rec")] if rec.with_name("property").exists() else []
    if others:
        raise UserError(f"{rec}: the property beside it belongs to {others[0]} · give another folder")
    if any("\n" in name for name in source.class_names):
        raise UserError(f"{rec}: an identity's name holds a line break · rename it")


def _write_parts(
    parts: list[Path], records: Iterator[tuple[int, bytes]], about: str, names: str | None, total: int, progress: bool
) -> None:
    index, prop, identities, rec = parts
    prop.write_text(about, encoding="utf-8")
    if names is not None:
        identities.write_bytes(names.encode("utf-8", "surrogateescape"))
    with rec.open("wb") as rec_file, index.open("wb") as index_file:
        writer = RecordWriter(rec_file, index_file)
        for key, content in tqdm(records, total=total, unit=" pictures", disable=not progress, smoothing=0.05):
            writer.write(key, content)
    for part in parts:
        if part.exists():
            with part.open("rb") as file:
                os.fsync(file.fileno())


def _records(source: Source, encoding: Encoding | None) -> Iterator[tuple[int, bytes]]:
    """Keys and contents of all records, in the order of the file."""
    if isinstance(source, RecordSource) and encoding is None:
        for key, offset in zip(*(array.tolist() for array in source.index()), strict=True):
            yield key, _read(lambda at=offset: source.content(at), f"{source.path}, record {key}")  # type: ignore[misc]
        return
    num_images, num_classes = len(source), len(source.class_names)
    with_header = num_images + num_classes + 1 <= EXACT_IN_FLOAT
    if num_classes > EXACT_IN_FLOAT:
        raise UserError(f"{num_classes} identities · allowed in a .rec, whose labels are float32: {EXACT_IN_FLOAT}")
    first = 1 if with_header else 0
    for row in range(num_images):
        yield first + row, record_content(int(source.labels[row]), first + row, _picture(source, row, encoding))
    if with_header:
        yield 0, record_content((num_images + 1, num_images + 1 + num_classes), 0)
        edges = 1 + np.searchsorted(source.labels, np.arange(num_classes + 1))
        for label in range(num_classes):
            key = num_images + 1 + label
            yield key, record_content((int(edges[label]), int(edges[label + 1])), key)


def _picture(source: Source, row: int, encoding: Encoding | None) -> bytes:
    name = source.name(row)
    data = _read(lambda: source.read(row), name)
    try:
        if not data:
            raise BadImage("the file is empty (0 bytes)")
        return data if encoding is None else _encoded(data, encoding)
    except BadImage as error:
        raise _bad_picture(name, str(error)) from error


def _encoded(data: bytes, encoding: Encoding) -> bytes:
    image = decode(data)
    if encoding.size is not None and image.shape[:2] != encoding.size:
        height, width = encoding.size
        smaller = height * width < image.shape[0] * image.shape[1]
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        image = np.asarray(resized, dtype=np.uint8)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, encoding.quality])
    return jpeg.tobytes()


def _property(source: Source, encoding: Encoding | None) -> str:
    """InsightFace's ``property``: identities, height and width of the pictures."""
    try:
        height, width = decode(_picture(source, 0, encoding)).shape[:2]
    except BadImage as error:
        raise _bad_picture(source.name(0), str(error)) from error
    return f"{len(source.class_names)},{height},{width}"


def _read(read: Callable[[], bytes], name: str) -> bytes:
    """What ``read`` gives. An OSError of reading is not one of writing, so it becomes a UserError here."""
    try:
        return read()
    except OSError as error:
        raise _bad_picture(name, error.strerror or str(error)) from error


def _bad_picture(name: str, why: str) -> UserError:
    return UserError(
        f"{name}: {why} · nothing was packed · list the whole pictures with scripts/check_faces.py --write-list, and "
        "pack that list"
    )
