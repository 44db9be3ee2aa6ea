"""Read Parquet files with an image and a label per row, such as Hugging Face's."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError, first_line, printable
from ..mapped import MappedFile
from .base import Encoded, Labelled, TextTable, smallest_index
from .columns import Columns, find_columns, grouped_rows, no_bytes, pyarrow, row_name
from .shards import log_copies, shard_paths
from .spans import MappedFiles, read_spans

log = logging.getLogger(__name__)

_MOST_GROUP = 2**28  # bytes of images in a compressed row group, which is unpacked as a whole
_KEPT_BYTES = 2**26
_MOST_OPEN = 64
_BATCH = 1_024
_SLOW_GROUP = 2**22  # bytes
_MOST_MISSED, _MOST_AGAIN = 32, 100  # images not found before the search stops
_BETWEEN, _MOST_SKIPPED = 2**16, 2**20  # bytes between found images: page headers, and other images


class ParquetSource(Labelled):
    """The images of one or several Parquet files (extra ``parquet``).

    Identities have the names of the labels, sorted. Without names, they are the labels in order,
    with gaps closed. Opening reads labels and paths. The first read of a row group reads the whole
    group. The process then records the places of uncompressed images, as ``datasets`` writes them,
    and reads them through a map. It keeps up to 64 MiB of the others. Memory: 20 bytes an image,
    besides those.

    Args:
        path: a ``.parquet``, a folder of them, or a pattern such as
            ``train-{00000..00009}-of-00010.parquet``.

    Raises:
        UserError: pyarrow or a file is missing, a file is truncated or damaged, has no such
            columns, too large row groups, or rows without an image; there are no images.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.files = files = shard_paths(self.path, ".parquet")
        tables = [_Table(file) for file in files]
        paths, grouped = grouped_rows(tables, self.path, "Parquet")
        if (largest := max(table.largest for table in tables)) > _SLOW_GROUP:
            log.warning(
                "data: %s: its images are compressed in row groups of up to %d MiB, and reading one image unpacks "
                "a group · write it with compression='none', or pack it with sphereface pack",
                *(printable(str(self.path)), largest >> 20),
            )
        self.labels, self.class_names, self.named = grouped.labels, grouped.class_names, grouped.named
        self._rows = smallest_index(grouped.rows)
        self._paths = TextTable(path or "" for path in paths)
        self._groups = _Groups(MappedFiles(files), tables, tables[0].columns.bytes)
        numbers = np.repeat(np.arange(len(tables)), [len(table.labels) for table in tables])
        log_copies(self.path, files, numbers, paths, None, self._groups.read)

    @property
    def mapped(self) -> bool:
        """Whether this process knows the places of all images."""
        return self._groups.known

    def read(self, index: int) -> bytes:
        """Return the encoded image. Raises OSError if it cannot be read."""
        return self._groups.read(int(self._rows[index]))

    def read_each(self, indices: Sequence[int]) -> Iterator[Encoded]:
        """Return an iterator over images, each read when it is requested."""
        rows = self._rows[np.asarray(indices, dtype=np.int64)]
        return read_spans(self, self._groups.files, indices, self._groups.spans(rows))

    def name(self, index: int) -> str:
        """Return the name of the image in messages: its file, its row and its path."""
        row = int(self._rows[index])
        file, within = self._groups.place(row)
        return printable(f"{file}/{row_name(within, self._paths[row])}")


class _Table:
    """One file: its labels, paths and row groups, and the size of its largest compressed group."""

    def __init__(self, path: Path) -> None:
        self.path = path
        MappedFile(path)  # checks that it exists and is not empty
        try:
            with _parquet_file(path) as file:
                self.columns = find_columns(file.schema_arrow, str(path))
                self.counts, self.largest = _checked_groups(file.metadata, self.columns, path)
                wanted = [self.columns.label, *([self.columns.paths] if self.columns.paths else [])]
                table = file.read(columns=wanted, use_threads=False)
                table.validate(full=True)
        except (pyarrow().ArrowException, OSError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: truncated or damaged ({first_line(error)}) · copy it again") from error
        self.labels: list[Any] = table.column(self.columns.label).to_pylist()
        self.paths: list[str | None] = [None] * len(self.labels)
        if self.columns.paths:
            self.paths = [row and row["path"] for row in table.column(self.columns.image).to_pylist()]
        if len(self.labels) != sum(self.counts):
            raise UserError(f"{path}: contains {len(self.labels)} of {sum(self.counts)} rows · copy it again")


def _parquet_file(path: Path) -> Any:
    """Open a file. Its pages are compared with their checksums when they are read, if any."""
    return pyarrow("pyarrow.parquet").ParquetFile(path, memory_map=True, page_checksum_verification=True)


def _checked_groups(metadata: Any, columns: Columns, path: Path) -> tuple[list[int], int]:
    """Return the rows of each row group, and the bytes of the largest compressed one."""
    missing, largest, counts = 0, 0, []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        images = _images_of(group, columns.bytes)
        if images is None or group.num_rows < 0:
            raise UserError(f"{path}: damaged: row group {number} lacks the column {columns.bytes} · copy it again")
        if images.compression != "UNCOMPRESSED":
            largest = max(largest, images.total_uncompressed_size)
        if largest > _MOST_GROUP:
            raise UserError(
                f"{path}: row group {number} has {images.total_uncompressed_size:,} bytes of compressed images · "
                f"allowed: {_MOST_GROUP:,}, since a group is unpacked as a whole · write it again with "
                "row_group_size=1000, or compression='none'"
            )
        statistics = images.statistics
        missing += statistics.null_count if statistics is not None and statistics.has_null_count else 0
        counts.append(group.num_rows)
    if missing:
        raise no_bytes(str(path), missing, sum(counts))
    return counts, largest


def _images_of(group: Any, column: str) -> Any:
    """Return the column of images of a row group; None if it lacks it, or has several."""
    found = [group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == column]
    return found[0] if len(found) == 1 else None


class _Groups:
    """The row groups of all files: the known places of images, and recently used groups."""

    def __init__(self, files: MappedFiles, tables: list[_Table], column: str) -> None:
        self.files, self._column = files, column
        counts = [count for table in tables for count in table.counts]
        self._firsts = np.cumsum([0, *counts])  # the first row of each group
        self._file = np.repeat(np.arange(len(tables)), [len(table.counts) for table in tables])
        self._first_groups = np.cumsum([0, *(len(table.counts) for table in tables)])  # the first group of each file
        self._starts = np.zeros(self._firsts[-1], dtype=np.int64)  # 0: unknown; a file begins with its magic
        self._sizes = np.zeros(self._firsts[-1], dtype=np.uint32)
        self._num_known = 0  # rows of groups whose images all have known places
        self._forget()

    def _forget(self) -> None:
        """Start without open files: pyarrow's files and locks belong to the process with them."""
        self._opened = functools.lru_cache(_MOST_OPEN)(self._open)
        self._kept: OrderedDict[int, dict[int, bytes | None]] = OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        left_behind = {"_opened", "_kept", "_lock", "_process"}
        return {key: value for key, value in self.__dict__.items() if key not in left_behind}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @property
    def known(self) -> bool:
        """Whether the places of all images are known."""
        return bool(self._num_known == self._firsts[-1])

    def place(self, row: int) -> tuple[Path, int]:
        """Return the file of a row, and the number of the row in it."""
        file = int(self._file[self._group(row)])
        return self.files.files[file].path, int(row - self._firsts[self._first_groups[file]])

    def read(self, row: int) -> bytes:
        """Return the image of a row. Raises OSError if it cannot be read."""
        group = self._group(row)
        with self._own_lock():
            if not self._starts[row] and group not in self._kept:
                self._load(group)
            if self._starts[row]:
                return self.files.read(int(self._file[group]), int(self._starts[row]), int(self._sizes[row]))
            self._kept.move_to_end(group)
            image = self._kept[group][row]
        if image is None:
            raise OSError("the row contains no image")
        return image

    def spans(
        self, rows: npt.NDArray[np.integer]
    ) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Return the file, the place, 0 if it is unknown, and the size of each of K images."""
        files = self._file[np.searchsorted(self._firsts, rows, side="right") - 1]
        with self._own_lock():
            return files, self._starts[rows], self._sizes[rows]

    def _own_lock(self) -> threading.Lock:
        """Return the lock of this process, in which a thread may read ahead."""
        if self._process != os.getpid():
            self._forget()
        return self._lock

    def _group(self, row: int) -> int:
        return int(np.searchsorted(self._firsts, row, side="right")) - 1

    def _load(self, group: int) -> None:
        """Record the places of a group's uncompressed images, and keep the others."""
        file, first, end = int(self._file[group]), int(self._firsts[group]), int(self._firsts[group + 1])
        number, row = int(group - self._first_groups[file]), first
        rest: dict[int, bytes | None] = {}
        unpacked, size = dict[bytes, bytes](), 0
        try:
            opened = self._opened(file)
            column = _images_of(opened.metadata.row_group(number), self._column)
            finder, most = (
                _Finder(self.files.open(file).view(), column),
                min(column.total_uncompressed_size, _MOST_GROUP),
            )
            for image in _images(opened, number, self._column):
                found = -1 if image is None else finder.find(image)
                if found < 0:
                    size += len(image or b"")
                    rest[row] = unpacked.setdefault(image, image) if image and size > most else image  # of a dictionary
                elif row < end:
                    self._starts[row], self._sizes[row] = found, len(image or b"")
                row += 1
        except (pyarrow().ArrowException, ValueError, OverflowError, OSError) as error:
            self._starts[first:end] = 0
            raise OSError(f"damaged Parquet ({first_line(error)})") from error
        if row != end:
            raise OSError("damaged Parquet: the row group has a wrong number of rows")
        self._kept[group] = rest
        self._num_known += 0 if rest else end - first
        while len(self._kept) > 1 and self._num_kept() > _KEPT_BYTES:
            self._kept.popitem(last=False)

    def _num_kept(self) -> int:
        unlike = {id(image): image for images in self._kept.values() for image in images.values()}
        return sum(len(image or b"") for image in unlike.values())

    def _open(self, file: int) -> Any:
        return _parquet_file(self.files.files[file].path)


class _Finder:
    """Find images in the bytes of their column, where uncompressed ones lie in sequence.

    Args:
        view: the file.
        column: the images of a row group in it.
    """

    def __init__(self, view: mmap, column: Any) -> None:
        first = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
        self._view, self._start = view, max(first, 4)
        self._at, self._end = self._start, self._start + column.total_compressed_size
        self._skipped = self._again = self._missed = 0

    def find(self, image: bytes) -> int:
        """Return the place of the image; -1 if it is not found at acceptable cost."""
        if self._missed > _MOST_MISSED:  # so many misses in sequence mean that the column is compressed
            return -1
        end = min(self._end, self._at + self._skipped + len(image) + _BETWEEN)
        found = self._view.find(image, self._at, end)
        if found >= 0:
            self._at, self._skipped, self._missed = found + len(image), 0, 0
            return found
        self._skipped = min(self._skipped + len(image), _MOST_SKIPPED)
        self._missed += 1
        if self._again < _MOST_AGAIN:  # a dictionary stores equal images once
            self._again += 1
            found = self._view.find(image, self._start, self._at)
        return found


def _images(opened: Any, number: int, column: str) -> Iterator[bytes | None]:
    """Yield the images of a row group."""
    for batch in opened.iter_batches(_BATCH, row_groups=[number], columns=[column], use_threads=False):
        images = batch.column(0)
        yield from (images.field(0) if pyarrow().types.is_struct(images.type) else images).to_pylist()
