"""Read LMDB files of Vec2Face, HSFace and related trainers.

The writer is ``imagelist2lmdb.py`` of github.com/vitoralbiero/face_analysis_pytorch and of
github.com/HaiyuWu/SOTA-Face-Recognition-Train-and-Test. It writes the keys ``0``, ``1``, …, each
with the MessagePack of ``[encoded image, label]``, and ``__len__``, ``__keys__`` and
``__classnum__``. Other layouts (pickles, Caffe's datum) are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, count_of, printable, shown
from ..lmdb_entries import Entry, lmdb_entries
from ..mapped import MappedFile
from ..recordio import Buffer
from .grouping import by_label, checked_label
from .spans import SpanSource

log = logging.getLogger(__name__)

_DATA = "data.mdb"
_KEPT_FOR_ITSELF = b"__"
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""MessagePack's types of bytes, and of strings, which older writers use → width of the length."""
_MOST_ITEMS = 16
_LONGEST_NUMBER = 9  # digits of a key


class LmdbSource(SpanSource):
    """The images of an LMDB file of ``[encoded image, label]``; it needs neither lmdb nor msgpack.

    Classes are in the order of the labels, with gaps closed. Images are in the order of their keys,
    numeric keys by number. Opening reads every entry. Memory: the key and 16 bytes an image, about
    300 while opening.

    Args:
        path: a folder with ``data.mdb``, or the file itself.

    Raises:
        UserError: the file is not LMDB, is truncated or damaged, has another layout or a wrong
            number of images, or no images.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path) / _DATA if Path(path).is_dir() else Path(path)
        buffer = MappedFile(self.path).view()
        keys: list[str] = []
        labels: list[int] = []
        starts: list[int] = []
        sizes: list[int] = []
        announced = None
        for entry in lmdb_entries(buffer, self.path):
            if entry.key.startswith(_KEPT_FOR_ITSELF):
                if entry.key == b"__len__":
                    announced = int_at(buffer, entry.start, entry.start + entry.size)
                continue
            start, size, label = _image(buffer, entry, self.path)
            keys.append(entry.key.decode("utf-8", "surrogateescape"))
            labels.append(label)
            starts.append(start)
            sizes.append(size)
        if not keys or (announced is not None and announced != len(keys)):
            say = "no images"
            if keys:
                say = f"{count_of(len(keys), 'image', 'images')}, but its __len__ is {announced:,}"
            raise UserError(f"{self.path}: got {say} · allowed: all images of the set · copy it again")
        if announced is None:
            _warn_of_no_length(self.path, keys)
        width = max(map(len, keys))
        ordered = [key.zfill(width) if key.isdecimal() else key for key in keys]
        grouped = by_label(ordered, labels, str(self.path), "a label")
        super().__init__([self.path], [0] * len(keys), starts, sizes, keys.__getitem__, grouped)


def _warn_of_no_length(path: Path, keys: Sequence[str]) -> None:
    """Warn that nothing tells whether the file is whole: writers put ``__len__`` last."""
    numbers = {int(key) for key in keys if key.isdecimal() and len(key) <= _LONGEST_NUMBER}
    absent = max(numbers, default=-1) + 1 - len(numbers)
    gaps = f", and {absent:,} of the keys from 0 to {max(numbers):,} are missing" if absent and numbers else ""
    log.warning(
        "data: %s: its %s may be a part of a set: it has no __len__, which its writer puts last%s · make sure that the "
        "writer was not stopped and that the copy is whole",
        *(printable(str(path)), count_of(len(keys), "image", "images"), gaps),
    )


def _image(buffer: Buffer, entry: Entry, path: Path) -> tuple[int, int, int]:
    found = image_and_label(buffer, entry.start, entry.size)
    place = f"{path}, key {shown(entry.key)}"
    if found is None:
        start = bytes(buffer[entry.start : entry.start + min(entry.size, 8)])
        what = "a pickle, which can run any code" if start[:1] == b"\x80" else f"a record that begins {shown(start)}"
        raise UserError(
            f"{place}: got {what} · allowed: MessagePack of [encoded image, label] · write the images into a folder or "
            "a tar file with the program that wrote this file"
        )
    label = checked_label(found[2], place)
    assert isinstance(label, int)
    return found[0], found[1], label


def image_and_label(buffer: Buffer, start: int, size: int) -> tuple[int, int, int] | None:
    """Find the image of a record, its first item, and the label, the first whole number after it.

    Args:
        buffer: the file.
        start, size: the place of the record in it.

    Returns:
        First byte and size of the image, and the label; None if the record has another form.
    """
    end = start + size
    count = buffer[start] - 0x90 if size else 0
    if not 2 <= count <= _MOST_ITEMS - 1:
        return None
    image = _bytes_at(buffer, start + 1, end)
    if image is None:
        return None
    at = sum(image)
    for _ in range(count - 1):
        number = int_at(buffer, at, end)
        if number is not None:
            return *image, number
        skipped = _bytes_at(buffer, at, end)  # some sets contain embeddings
        if skipped is None:
            return None
        at = sum(skipped)
    return None


def int_at(buffer: Buffer, at: int, end: int) -> int | None:
    """Return the whole number at a place; None if there is another type."""
    if at >= end:
        return None
    kind, width = buffer[at], 1 << (buffer[at] & 3)
    if kind < 0x80:
        return kind
    if not 0xCC <= kind <= 0xD3 or at + 1 + width > end:
        return None
    return int.from_bytes(buffer[at + 1 : at + 1 + width], "big", signed=kind >= 0xD0)


def _bytes_at(buffer: Buffer, at: int, end: int) -> tuple[int, int] | None:
    """Return start and size of the bytes or string at a place."""
    if at >= end:
        return None
    kind = buffer[at]
    if 0xA0 <= kind <= 0xBF:
        start, size = at + 1, kind - 0xA0
    elif (width := _LENGTHS.get(kind)) is not None and at + 1 + width <= end:
        start, size = at + 1 + width, int.from_bytes(buffer[at + 1 : at + 1 + width], "big")
    else:
        return None
    return (start, size) if start + size <= end else None
