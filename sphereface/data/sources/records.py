"""RecordIO as InsightFace ships its training sets: ``train.rec``, ``train.idx``, ``property``."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import UserError, shown
from ...files import regular_file
from ..mapped import MappedFile
from ..record_index import check_no_gaps, find_records, read_index
from ..recordio import EXACT_IN_FLOAT, Buffer, Heads, read_content, read_heads, read_picture
from ..text_files import read_text_lines
from ..walking import nfc
from .base import smallest_index, without_gaps

log = logging.getLogger(__name__)

_SAMPLED = 64
_LONGEST_PROPERTY = 100  # characters
_ROUNDED = 1 + 2 / EXACT_IN_FLOAT  # numbers of float32 are right within this factor


class RecordSource:
    """A ``.rec`` with its ``.idx``, in either of two forms.

    With InsightFace's header record (key 0: several labels (a, b), no picture) pictures are the keys 1 … a − 1, and
    keys a … b − 1 are identity records: no picture, labels (first, end) = the keys of one identity. Without it every
    key is a picture. A picture's class is its label, or the first of several.

    Classes are in the order of the labels, gaps closed, their pictures in the order of the keys: that of the folder
    that was packed. Identities are called by their label, unless ``<name>.identities.txt``, which
    ``scripts/pack_faces.py`` writes beside the ``.rec``, has a name on line label + 1.

    Memory: 16 bytes a picture. Opening reads the heads of the identity records; where there are none, those of all
    records; and without ``.idx`` it walks through the file. The label of each record is compared when it is read.

    Args:
        path: the ``.rec``, or a folder with a ``train.rec``.

    Raises:
        UserError: a file is missing, truncated or damaged, or a label is no whole number of 0 or more.
    """

    mapped = True

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path) / "train.rec" if Path(path).is_dir() else Path(path)
        self._file = MappedFile(self.path)
        keys, offsets = self.index()
        records = _Records(self._file.view(), str(self.path), keys, offsets)
        images, given = records.images()
        if len(images) == 0:
            raise UserError(f"{self.path}: got no pictures · allowed: a .rec of labelled pictures")
        order = np.lexsort((keys[images], given))
        self.labels, values = without_gaps(given[order], str(self.path))
        self._offsets = offsets[images][order]
        self._keys = smallest_index(keys[images][order])
        self._values = values
        names = _read_names(names_path(self.path), int(values[-1]) + 1)
        self.named = names is not None
        self.class_names = [names[value] if names else str(value) for value in values.tolist()]
        self._compare_property(int(values[-1]))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises OSError where no whole record of its identity is there."""
        return read_picture(self._file.view(), int(self._offsets[index]), float(self._values[self.labels[index]]))

    def name(self, index: int) -> str:
        return f"{self.path}, record {self._keys[index]}"

    def content(self, offset: int) -> bytes:
        """The whole record at an offset, its head included."""
        return read_content(self._file.view(), offset)

    def index(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Keys and offsets of all records, header and identity records included, in the order of the file."""
        buffer, path = self._file.view(), self.path.with_suffix(".idx")
        if not path.exists():
            log.info("data: %s: no %s beside it, so it is read through once", self.path, path.name)
            offsets = find_records(buffer, str(self.path))
            keys = read_heads(buffer, offsets, str(self.path)).id.astype(np.int64)
            if len(np.unique(keys)) < len(keys):
                raise UserError(f"{self.path}: records share an id · allowed with no .idx beside it: an id each")
            return keys, offsets
        keys, offsets = read_index(path)
        order = np.argsort(offsets, kind="stable")
        _check_end(buffer, self.path, path, int(offsets[order[-1]]))
        spread = order[np.unique(np.linspace(0, len(order) - 1, _SAMPLED).astype(np.int64))]
        read_heads(buffer, offsets[spread], str(self.path))  # or the index belongs to another file
        check_no_gaps(buffer, offsets[order], np.searchsorted(offsets[order], offsets[spread]), str(self.path))
        return keys[order], offsets[order]

    def _compare_property(self, highest: int) -> None:
        """Compare with the number of identities that ``property`` announces: another one means half a copy."""
        path = self.path.with_name("property")
        if self.path.name != "train.rec" or not path.is_file():
            return
        with open(path, encoding="utf-8", errors="replace", opener=regular_file) as file:
            announced = file.read(_LONGEST_PROPERTY).split(",")[0].strip()
        found = len(self.class_names)
        if announced == str(found):
            return
        if announced != str(highest + 1):  # the number of labels, some of which no image has
            raise UserError(
                f"{path}: announces {shown(announced)} identities, {self.path.name} holds {found} · copy both again, "
                "or move property away where it belongs to another set"
            )
        log.warning("data: %s announces %s identities, the records hold %d", path, announced, found)


def names_path(rec: Path) -> Path:
    """Where the identities of a ``.rec`` have their names."""
    return rec.with_suffix(".identities.txt")


class _Header(NamedTuple):
    first_identity: int
    end: int


class _Records:
    """All records of one file, and which of them are pictures of whom.

    Args:
        buffer: the file.
        name: what to call it in a message.
        keys, offsets: (R,) int64.
    """

    def __init__(self, buffer: Buffer, name: str, keys: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> None:
        self.buffer, self.name, self.keys, self.offsets = buffer, name, keys, offsets
        self.by_key = np.argsort(keys, kind="stable")

    def images(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows of the pictures, and their labels."""
        header = self._header()
        if header is None:
            rows = self.by_key
            return rows, self._labels(rows, self._all_heads())
        if header.first_identity - 1 > len(self.keys) * _ROUNDED:
            raise self._other_count(header.first_identity - 1, len(self.keys))
        if header.end > EXACT_IN_FLOAT:  # the numbers of header and identity records are rounded
            heads = self._all_heads()
            rows = self.by_key[~heads.empty]
            self._check_last_key(header)
            if not header.first_identity - 1 <= len(rows) * _ROUNDED <= header.first_identity * _ROUNDED**2:
                raise self._other_count(header.first_identity - 1, len(rows))
            return rows, self._labels(rows, heads.of(~heads.empty))
        rows = self.rows(np.arange(1, header.first_identity))
        self._check_last_key(header)
        labels = self._labels_of_ranges(header)
        return rows, self._labels(rows, self._heads(rows)) if labels is None else labels

    def _all_heads(self) -> Heads:
        """The heads of all records by key; here, where each is read anyway, no gap between them stays unnoticed."""
        heads = self._heads(self.by_key)
        check_no_gaps(self.buffer, self.offsets, np.arange(len(self.offsets)), self.name)
        return heads

    def _check_last_key(self, header: _Header) -> None:
        """Whether a record has a key beyond those that the header record announces."""
        last = int(self.keys[self.by_key[-1]])
        if last >= header.end * _ROUNDED:
            raise UserError(
                f"{self.name}: its header record announces the keys 0 to {header.end - 1}, the index has the key "
                f"{last} · one of them is of another set: copy .rec and .idx again"
            )

    def _other_count(self, announced: int, found: int) -> UserError:
        return UserError(
            f"{self.name}: its header record announces {announced} images, there are {found} · copy .rec and .idx again"
        )

    def _header(self) -> _Header | None:
        row = self.by_key[0]
        if self.keys[row] != 0:
            return None
        heads = self._heads(self.by_key[:1])
        if heads.flag[0] < 2 or not heads.empty[0]:
            return None
        first, end = float(heads.label[0]), float(heads.second[0])
        if not (1 <= first <= end < 2**62):  # NaN too
            raise UserError(f"{self.name}: its header record says ({first:g}, {end:g}) · allowed: keys, 1 or more")
        return _Header(int(first), int(end))

    def rows(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The rows of some keys. Raises UserError where one is missing."""
        places = np.minimum(np.searchsorted(self.keys, keys, sorter=self.by_key), len(self.keys) - 1)
        rows = self.by_key[places]
        missing = self.keys[rows] != keys
        if missing.any():
            raise UserError(
                f"{self.name}: its header record announces {len(keys)} records, of which the index lacks "
                f"{missing.sum()}, the first key {keys[missing.argmax()]} · copy .rec and .idx again"
            )
        return rows

    def _labels_of_ranges(self, header: _Header) -> npt.NDArray[np.int64] | None:
        """Labels of the keys 1 … a − 1 by the identity records; None where those do not say it beyond doubt."""
        identities = np.arange(header.first_identity, header.end)
        if len(identities) == 0 or not np.isin(identities, self.keys).all():
            return None
        ranges = self._heads(self.rows(identities))
        if not (ranges.empty & (ranges.flag >= 2)).all():
            return None
        order = np.argsort(ranges.label, kind="stable")
        edges = np.append(ranges.label[order], ranges.second[order][-1])
        if not (np.array_equal(edges[1:], ranges.second[order]) and (edges == np.floor(edges)).all()):  # NaN too
            return None
        if edges[0] != 1 or edges[-1] != header.first_identity or not (edges[:-1] < edges[1:]).all():
            return None
        keys = edges.astype(np.int64)
        labels, last = (self._labels(rows, self._heads(rows)) for rows in map(self.rows, (keys[:-1], keys[1:] - 1)))
        return np.repeat(labels, np.diff(keys)) if (labels == last).all() else None

    def _heads(self, rows: npt.NDArray[np.int64]) -> Heads:
        return read_heads(self.buffer, self.offsets[rows], self.name)

    def _labels(self, rows: npt.NDArray[np.int64], heads: Heads) -> npt.NDArray[np.int64]:
        with np.errstate(invalid="ignore"):
            wrong = ~((heads.label >= 0) & (heads.label < 2**31) & (heads.label == np.floor(heads.label)))
        if wrong.any():
            row = wrong.argmax()
            raise UserError(
                f"{self.name}: record {self.keys[rows[row]]} has the label {heads.label[row]:g} · "
                "allowed: whole numbers of 0 or more"
            )
        return heads.label.astype(np.int64)


def _check_end(buffer: Buffer, path: Path, index: Path, last: int) -> None:
    """Whether the last record of the index is whole: a copy that was cut short is noticed at once."""
    if last >= len(buffer):
        raise UserError(
            f"{index}: points to byte {last}, {path.name} has {len(buffer)} · "
            ".rec and .idx belong together, and this .rec is truncated or another one: copy both again"
        )
    try:
        read_content(buffer, last)
    except OSError as error:
        raise UserError(f"{path}: truncated or damaged: its last record: {error} · copy .rec and .idx again") from error


def _read_names(path: Path, num_labels: int) -> list[str] | None:
    if not path.is_file():
        return None
    names = [nfc(name) for name in read_text_lines(path, "a name a line")]
    while names and not names[-1].strip():
        names.pop()
    allowed = f"allowed: one on each of {num_labels} lines · move it away where it belongs to another .rec"
    if blank := [number for number, name in enumerate(names, 1) if not name.strip()]:
        raise UserError(f"{path}, line {blank[0]}: got a blank line for a name · {allowed}")
    if len(names) < num_labels or len(set(names)) < len(names):
        such = next((f", {shown(name)} twice" for name, count in Counter(names).items() if count > 1), "")
        raise UserError(f"{path}: got {len(set(names))} different names{such} · {allowed}")
    if len(names) > num_labels:
        log.warning("data: %s has %d names, the labels need %d: is it of another .rec?", path, len(names), num_labels)
    return names
