"""Pack any source into ``.rec``, ``.idx`` and ``property``, as mxnet and InsightFace do."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..errors import UserError
from ..files import read_plain, temporary_name
from .identities import Labels
from .images import BadImage, decode
from .pack_files import left_by_killed, left_to_write, packing_to, renamed_together
from .record_names import names_path, tie_path, tie_text, ties_names
from .recordio import EXACT_IN_FLOAT, RecordWriter, record_content
from .sources.base import Source, numbers_of
from .sources.records import RecordSource

_QUALITY = 95


@dataclass(frozen=True)
class Encoding:
    """How images are encoded again.

    Args:
        quality: of the JPEG, 1 to 100.
        size: (height, width) in pixels; None: unchanged.
    """

    quality: int = _QUALITY
    size: tuple[int, int] | None = None


def pack(
    source: Source,
    rec: Path,
    encoding: Encoding | None = None,
    *,
    more: Mapping[str, bytes] | None = None,
    progress: bool = False,
) -> None:
    """Write a source to ``rec``, with its ``.idx`` and ``property`` beside it.

    A ``.rec`` that is not encoded again keeps its records unchanged. Every other source gets
    InsightFace's form. Key 0 is the header record, (a, b) = (N + 1, N + 1 + C), and the images have
    the keys 1 … N. Then each identity has a record with the keys (first, end) of its images. From
    2²⁴ records on, float32 cannot hold these numbers, and header and identity records are omitted.
    Images are copied byte for byte, unless ``encoding`` is given. Names of identities are written
    to ``<name>.identities.txt``, one a line, which mxnet does not know, and a file beside it ties
    them to this ``.rec``. Identities that have only numbers keep them as labels.

    All files are written under temporary names (``.….part``) and renamed at the end, the ``.rec``
    last. So a ``.rec`` is always whole and complete, even after an interruption. If two processes
    pack to one place, the second fails at once.

    Args:
        source: the images.
        rec: the file to write.
        encoding: of new JPEGs; None: keep the images unchanged.
        more: other files to write beside it: name → content.
        progress: show a progress bar on stderr.

    Raises:
        UserError: there are no images, ``rec`` or another output exists with other content, another
            process writes ``rec``, an image cannot be read, or the disk is full. Partial output is
            removed.
    """
    if len(source) == 0:
        raise UserError(f"{rec}: got no images to pack · allowed: a source with one or more · nothing was written")
    texts = {rec.with_name("property"): _property(source, encoding)}  # before anything is written
    texts |= {rec.with_name(name): content for name, content in (more or {}).items()}
    names = _names(source, encoding) if source.named else None
    if names is not None:
        texts[names_path(rec)] = names
    with packing_to(rec):
        _check_target(source, rec)
        tie = tie_path(rec)
        replaced = names is not None and ties_names(tie, names)
        others = (rec.with_suffix(".idx"), names_path(rec), *([] if replaced else [tie]))
        left = left_to_write(rec, texts, others)
        _write(source, rec, encoding, left, names=names, progress=progress)


def _write(
    source: Source,
    rec: Path,
    encoding: Encoding | None,
    texts: Mapping[Path, bytes],
    *,
    names: bytes | None,
    progress: bool,
) -> None:
    """Write all files of a pack, after those that killed packs left are removed."""
    idx, tie = rec.with_suffix(".idx"), tie_path(rec)
    if left_by_killed(rec) and names is None:
        for path in (names_path(rec), tie):
            path.unlink(missing_ok=True)  # left by the killed pack, which has no .rec
    for old in [old for path in (idx, tie, *texts, rec) for old in left_by_killed(path)]:
        old.unlink()
    total, records = _records(source, encoding)
    with renamed_together(texts) as parts:
        tied, index, content = map(temporary_name, (tie, idx, rec))
        parts |= {index: idx, content: rec} if names is None else {tied: tie, index: idx, content: rec}
        with (
            content.open("wb") as rec_file,
            index.open("wb") as index_file,
            tqdm(records, total=total, unit=" records", disable=not progress) as bar,
        ):
            writer = RecordWriter(rec_file, index_file)
            for key, record in bar:
                writer.write(key, record)
        if names is not None:
            tied.write_bytes(tie_text(content, names))


def _check_target(source: Source, rec: Path) -> None:
    if rec.suffix != ".rec":
        raise UserError(f"{rec}: got the ending {rec.suffix!r} · allowed: .rec, .tar")
    if os.path.lexists(rec):
        raise UserError(f"{rec}: exists already · move it away, or give another name")
    others = [path.name for path in rec.parent.glob("*.rec")] if rec.with_name("property").exists() else []
    if others:
        raise UserError(f"{rec}: the property beside it belongs to {others[0]} · give another folder")
    if any("\n" in name or "\r" in name for name in source.class_names):
        raise UserError(f"{rec}: an identity's name contains a line break · rename it")
    if source.named and not all(name.strip() for name in source.class_names):
        raise UserError(f"{rec}: an identity's name is blank · rename it")


def _records(source: Source, encoding: Encoding | None) -> tuple[int, Iterator[tuple[int, bytes]]]:
    """Return the number of records, and their keys and contents in the order of the file."""
    if isinstance(source, RecordSource) and encoding is None:
        keys, offsets = source.index()
        return len(keys), _copied(source, keys.tolist(), offsets.tolist())
    num_images, num_classes = len(source), len(source.class_names)
    if num_classes > EXACT_IN_FLOAT:
        raise UserError(f"{num_classes} identities · allowed in a .rec, whose labels are float32: {EXACT_IN_FLOAT}")
    if (highest := int(numbers_of(source)[-1])) > EXACT_IN_FLOAT:
        raise UserError(
            f"got an identity with the number {highest} · allowed in a .rec, whose labels are float32: up to "
            f"{EXACT_IN_FLOAT} · pack to a .tar, or give the identities smaller numbers"
        )
    num_records = num_images + num_classes + 1
    if num_records > EXACT_IN_FLOAT:
        return num_images, _images(source, encoding, first=0)
    return num_records, itertools.chain(_images(source, encoding, first=1), _identities(source))


def _copied(source: RecordSource, keys: list[int], offsets: list[int]) -> Iterator[tuple[int, bytes]]:
    for key, offset in zip(keys, offsets, strict=True):
        try:
            yield key, source.content(offset)
        except OSError as error:
            raise _bad_image(f"{source.path}, record {key}", str(error)) from error


def _images(source: Source, encoding: Encoding | None, first: int) -> Iterator[tuple[int, bytes]]:
    numbers = numbers_of(source)
    for row in range(len(source)):
        label = int(numbers[source.labels[row]])
        yield first + row, record_content(label, first + row, packed_image(source, row, encoding))


def _identities(source: Source) -> Iterator[tuple[int, bytes]]:
    """Yield the header record and one record for each identity."""
    num_classes, first = len(source.class_names), len(source) + 1
    yield 0, record_content((first, first + num_classes), 0)
    edges = (1 + Labels.of(source.labels).firsts).tolist()
    for key, both in enumerate(itertools.pairwise(edges), first):
        yield key, record_content(both, key)


def packed_image(source: Source, row: int, encoding: Encoding | None) -> bytes:
    """Return an image as it is packed: unchanged, or encoded again.

    Raises:
        UserError: the image cannot be read or decoded.
    """
    name = source.name(row)
    try:
        data = source.read(row)
        if not data:
            raise BadImage("the file is empty (0 bytes)")
        return data if encoding is None else _encoded(data, encoding)
    except BadImage as error:
        raise _bad_image(name, str(error)) from error
    except OSError as error:  # a read error, which must not look like a write error
        raise _bad_image(name, error.strerror or str(error)) from error


def _encoded(data: bytes, encoding: Encoding) -> bytes:
    image = decode(data)
    if encoding.size is not None and image.shape[:2] != encoding.size:
        height, width = encoding.size
        smaller = height * width < image.shape[0] * image.shape[1]
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        image = np.asarray(resized, dtype=np.uint8)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, encoding.quality])
    return jpeg.tobytes()


def _names(source: Source, encoding: Encoding | None) -> bytes:
    """Return the file of names: a copy for an unchanged ``.rec``, else a line for each identity."""
    if isinstance(source, RecordSource) and encoding is None:
        return read_plain(names_path(source.path))
    return "".join(f"{name}\n" for name in source.class_names).encode("utf-8", "surrogateescape")


def _property(source: Source, encoding: Encoding | None) -> bytes:
    """Return InsightFace's ``property``: number of identities, height and width of the images."""
    try:
        height, width = decode(packed_image(source, 0, encoding)).shape[:2]
    except BadImage as error:
        raise _bad_image(source.name(0), str(error)) from error
    return f"{len(source.class_names)},{height},{width}".encode()


def _bad_image(name: str, why: str) -> UserError:
    return UserError(
        f"{name}: {why} · nothing was packed · for a folder or a list, list the usable images with "
        "sphereface check --write-list, and pack that list; copy a zip or a .rec again"
    )
