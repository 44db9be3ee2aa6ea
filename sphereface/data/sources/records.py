"""Read RecordIO sets of InsightFace: ``train.rec``, ``train.idx``, ``property``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import UserError, count_of, shown
from ...files import regular_file
from ..disk_reads import DISK
from ..identities import Labels, NumberNames
from ..index_file import Arrays, Index, Stamp, indexed
from ..mapped import MappedFile
from ..record_index import check_end, check_no_gaps, find_records, read_index, rising
from ..record_labels import Contrary, Records
from ..record_names import read_names
from ..recordio import EXACT_IN_FLOAT, read_content, read_heads, read_image
from .base import Encoded, Labelled, grouped, log_gaps, smallest_index

log = logging.getLogger(__name__)

_SAMPLED = 64
_LONGEST_PROPERTY = 100  # characters
_FEWEST_BYTES = 1 << 26  # of a .rec before an index pays: 20,000 crops, which open in 10 ms
_ANNOUNCED = 1 << 14  # bytes that nearly always contain a record
_MOST_ANNOUNCED = 1 << 20
_FORM = 1  # version of the arrays of an index


class RecordSource(Labelled):
    """A ``.rec`` with its ``.idx``, in one of two forms.

    InsightFace's form has a header record (key 0: labels (a, b), no image). Images have the keys 1
    … a − 1. Keys a … b − 1 are identity records: no image, labels (first, end) = the keys of one
    identity. In the other form every key is an image. An image's class is its label, or the first
    of several.

    Classes are in the order of the labels, with gaps closed, and their images in the order of the
    keys, which is that of the packed folder. An identity's name is its label, unless
    ``<name>.identities.txt``, which ``sphereface pack`` writes beside the ``.rec``, has a name on
    line label + 1. Names that were packed with another ``.rec`` are refused
    (:mod:`sphereface.data.record_names`).

    The first opening reads the ``.idx``, the heads of the identity records, and those of the images
    beside the edges of identities. Without identity records it reads the heads of all records, and
    without ``.idx`` it scans the file. The result is kept in an index beside the ``.rec``
    (:mod:`sphereface.data.index_file`), which later openings and all processes map. Memory: 16
    bytes an identity. A ``.rec`` of less than 64 MiB has no index and takes 12 more an image.
    Reading compares the label of each record.

    Args:
        path: the ``.rec``, or a folder with a ``train.rec``.

    Raises:
        UserError: a file is missing, truncated or damaged, a label is not a whole number of 0 or
            more, or the names belong to another ``.rec``.
    """

    mapped = True

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path) / "train.rec" if Path(path).is_dir() else Path(path)
        self._file = MappedFile(self.path)
        self._index = self._opened()
        self.labels, values = Labels(self._index["firsts"]), self._index["values"]
        log_gaps(values, str(self.path))
        if values[-1] > EXACT_IN_FLOAT:
            log.warning(
                "data: %s: %d of %d labels are %s or more, where a .rec stores only some whole numbers and rounds to "
                "them: several people may have one label, and labels may differ from your numbers · pack the images "
                "again with labels from 0 on",
                *(self.path, np.count_nonzero(values >= EXACT_IN_FLOAT), len(values), f"{EXACT_IN_FLOAT:,}"),
            )
        self._log_contrary()
        names = read_names(self.path, int(values[-1]) + 1)
        self.named = names is not None
        self.class_names = [names[value] for value in values.tolist()] if names else NumberNames(values)
        self._compare_property(int(values[-1]))

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises OSError if there is no whole record of its identity."""
        label = self._index["values"][self.labels[index]]
        return read_image(self._file.view(), int(self._index["offsets"][index]), float(label))

    def read_each(self, indices: Sequence[int]) -> Iterator[Encoded]:
        """Yield images, each read when it is requested."""
        rows = np.asarray(indices, dtype=np.int64)
        labels = self._index["values"][self.labels[rows]].astype(np.float64)
        offsets = self._index["offsets"]
        starts, nexts = offsets[rows].tolist(), offsets[np.minimum(rows + 1, len(offsets) - 1)].tolist()
        # most records end where that of the next image begins
        for start, after in zip(starts, nexts, strict=True) if DISK.expected() else ():
            self._file.announce(start, after - start if 0 < after - start <= _MOST_ANNOUNCED else _ANNOUNCED)
        for start, label in zip(starts, labels.tolist(), strict=True):
            try:
                data: Encoded = read_image(self._file.view(), start, label)
            except OSError as error:
                data = error
            yield data

    def name(self, index: int) -> str:
        return f"{self.path}, record {self._index['keys'][index]}"

    def content(self, offset: int) -> bytes:
        """Return the whole record at an offset, with its head."""
        return read_content(self._file.view(), offset)

    def index(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the keys and offsets of all records, in file order.

        This includes header and identity records.
        """
        buffer, path = self._file.view(), self.path.with_suffix(".idx")
        if not path.exists():
            log.info("data: %s: scans the whole file, since there is no %s beside it", self.path, path.name)
            offsets = find_records(buffer, str(self.path))
            keys = read_heads(buffer, offsets, str(self.path)).id.astype(np.int64)
            if len(np.unique(keys)) < len(keys):
                raise UserError(f"{self.path}: several records have the same id · allowed without .idx: distinct ids")
            return keys, offsets
        keys, offsets = read_index(path)
        if not rising(offsets):
            order = np.argsort(offsets, kind="stable")
            keys, offsets = keys[order], offsets[order]
        check_end(buffer, self.path, path, int(offsets[-1]))
        spread = _spread(len(offsets))
        read_heads(buffer, offsets[spread], str(self.path))  # fails if the index belongs to another file
        check_no_gaps(buffer, offsets, spread, str(self.path))
        return keys, offsets

    def _opened(self) -> Index:
        stamp = self._stamp()
        if self._file.size < _FEWEST_BYTES:
            return Index(self._arrays(), None, stamp)
        return indexed(self.path, stamp, self._arrays, self._problem)

    def _stamp(self) -> Stamp:
        stamp = {"form": _FORM}
        for path in (self.path, self.path.with_suffix(".idx")):
            if path.exists():
                stat = path.stat()
                stamp |= {f"bytes{path.suffix}": stat.st_size, f"ns{path.suffix}": stat.st_mtime_ns}
        return stamp

    def _arrays(self) -> Arrays:
        """Return the arrays of an index.

        These are the offset and the key of each image's record, and each identity's first image and
        label.
        """
        keys, offsets = self.index()
        records = Records(self._file.view(), str(self.path), keys, offsets)
        images, given = records.images()
        if len(images) == 0:
            raise UserError(f"{self.path}: got no images · allowed: a .rec of labelled images")
        if (given[1:] < given[:-1]).any():  # images are in the order of their keys
            order = np.argsort(given, kind="stable")
            images, given = images[order], given[order]
        labels, values = grouped(given)
        rows = _slice_if_consecutive(images)
        places, numbers = offsets[rows], smallest_index(keys[rows])
        arrays = {"offsets": places, "keys": numbers, "firsts": labels.firsts, "values": values}
        return arrays if records.contrary is None else {**arrays, "contrary": np.array(records.contrary)}

    def _problem(self, arrays: Arrays) -> str:
        """Describe the fault of an index: impossible numbers, or a sample with other labels."""
        offsets, keys, firsts, values = (arrays[name] for name in ("offsets", "keys", "firsts", "values"))
        whole = len(firsts) == len(values) + 1 > 1 and firsts[0] == 0 and len(offsets) == len(keys) == firsts[-1]
        whole = whole and len(arrays.get("contrary", Contrary._fields)) == len(Contrary._fields)
        if not (whole and (firsts[1:] > firsts[:-1]).all() and values[0] >= 0 and (values[1:] > values[:-1]).all()):
            return "its numbers are impossible"
        rows = _spread(len(offsets))
        heads = read_heads(self._file.view(), offsets[rows], str(self.path))
        return "" if (heads.label == values[Labels(firsts)[rows]]).all() else "records have other labels"

    def _log_contrary(self) -> None:
        """Warn of identity records whose images have several labels, as of labels that slipped."""
        found = self._index.arrays.get("contrary")
        if found is None:
            return
        contrary = Contrary(*found.tolist())
        log.warning(
            "data: %s: images have several labels in %d of %s, such as record %d with the label %d and record %d "
            "with %d: the labels of the images count · if these slipped, images have the label of another person: "
            "pack the images again",
            *(self.path, contrary.several, count_of(contrary.total, "identity record", "identity records")),
            *contrary[2:],
        )

    def _compare_property(self, highest: int) -> None:
        """Compare the number of identities in ``property``; a difference means a partial copy."""
        path = self.path.with_name("property")
        if not path.is_file() or not self._owns_property():
            return
        with open(path, encoding="utf-8", errors="replace", opener=regular_file) as file:
            announced = file.read(_LONGEST_PROPERTY).split(",")[0].strip()
        found = len(self.class_names)
        if announced == str(found):
            return
        if announced != str(highest + 1):  # the number of labels, some without images
            raise UserError(
                f"{path}: announces {shown(announced)} identities, but {self.path.name} has {found} · copy both "
                "again, or move property away if it belongs to another set"
            )
        log.warning("data: %s announces %s identities, but the records have %d", path, announced, found)

    def _owns_property(self) -> bool:
        """Whether ``property`` describes this file: it is ``train.rec`` or the only ``.rec``."""
        return self.path.name == "train.rec" or len(list(self.path.parent.glob("*.rec"))) == 1


def _slice_if_consecutive(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | slice:
    """Return consecutive rows as a slice, which takes no copy; other rows are unchanged."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first == len(rows) - 1 and rising(rows) else rows


def _spread(count: int) -> npt.NDArray[np.int64]:
    """Return a sample of the numbers below ``count``, including the first and the last."""
    return np.unique(np.linspace(0, count - 1, _SAMPLED).astype(np.int64))
