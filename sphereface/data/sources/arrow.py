"""Read Arrow files of Hugging Face, as ``Dataset.save_to_disk`` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError, first_line
from ..mapped import MappedFile
from .columns import find_columns, grouped_rows, no_bytes, pyarrow, row_name
from .shards import log_copies, shard_paths
from .spans import SpanSource

_FILE_MAGIC, _STREAM_END = b"ARROW1", b"\xff\xff\xff\xff\0\0\0\0"
_FILE_START, _FILE_END = 8, 10  # bytes around the stream and the index: the magic, and the index's length and the magic
_MOST_PADDING = 64


class ArrowSource(SpanSource):
    """The images of a data set that ``datasets`` saved as Arrow files (extra ``parquet``).

    Identities have the names of the labels, sorted. Without names, they are the labels in order,
    with gaps closed. Opening records the place of each image, so reading needs no pyarrow. Memory:
    16 bytes an image and its path, about 300 while opening.

    Args:
        path: a folder of ``save_to_disk``, or an ``.arrow`` file; files named ``cache-…`` are
            ignored.

    Raises:
        UserError: a file is missing, truncated, damaged or compressed, continues after its last
            row, has no such columns, or rows without an image.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        files = [each for each in shard_paths(self.path, ".arrow") if not each.name.startswith("cache-")]
        tables = [_Table(file) for file in files]
        paths, grouped = grouped_rows(tables, self.path, "Arrow")
        numbers = np.repeat(np.arange(len(tables)), [len(table.labels) for table in tables])
        starts, sizes = (np.concatenate(parts) for parts in zip(*((t.starts, t.sizes) for t in tables), strict=True))
        within = np.concatenate([np.arange(len(table.labels)) for table in tables])

        def content(row: int) -> bytes:
            return MappedFile(files[numbers[row]]).read(int(starts[row]), int(sizes[row]))

        log_copies(self.path, files, numbers, paths, sizes.tolist(), content)
        super().__init__(files, numbers, starts, sizes, lambda row: row_name(within[row], paths[row]), grouped)


class _Table:
    """One Arrow file: its labels, its paths, and the places of its images."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.paths: list[str | None] = []
        self.labels: list[Any] = []
        places = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        start, end = (
            MappedFile(path).view()[part] for part in (slice(len(_FILE_MAGIC)), slice(-len(_STREAM_END), None))
        )
        if start != _FILE_MAGIC and end != _STREAM_END:  # pyarrow stops without an error between two batches
            raise UserError(f"{path}: truncated: it lacks its end mark · copy it again")
        try:
            with pyarrow().memory_map(str(path)) as file:
                whole = file.read_buffer(file.size())
                file.seek(0)
                reader = _reader(file)
                self.columns = find_columns(reader.schema, str(path))
                for batch in _batches(reader):
                    places.append(self._add(batch, whole))
                _check_end(file, path)
        except (pyarrow().ArrowException, OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: truncated or damaged ({first_line(error)}) · copy it again") from error
        self.starts, self.sizes = map(np.concatenate, zip(*places, strict=True))

    def _add(self, batch: Any, whole: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Add the paths and labels of a batch; return the places of its images, and their sizes."""
        images, labels = batch.column(self.columns.image), batch.column(self.columns.label)
        images.validate(full=True)  # a damaged offset would read outside the file
        labels.validate(full=True)
        if self.columns.nested:
            self.paths += images.field("path").to_pylist() if self.columns.has_paths else [None] * len(images)
            missing = images.null_count or images.field("bytes").null_count
            images = images.field("bytes")
        else:
            self.paths += [None] * len(images)
            missing = images.null_count
        if missing:
            raise no_bytes(str(self.path), missing, len(images))
        self.labels += labels.to_pylist()
        return _places(images, whole, self.path)


def _reader(file: Any) -> Any:
    """Open a stream, which ``datasets`` writes, or a file with an index at its end."""
    ipc = pyarrow("pyarrow.ipc")
    magic = file.read(len(_FILE_MAGIC))
    file.seek(0)
    return ipc.open_file(file) if magic == _FILE_MAGIC else ipc.open_stream(file)


def _batches(reader: Any) -> Any:
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return reader


def _check_end(file: Any, path: Path) -> None:
    """Check that the rows end where the file does; pyarrow takes zeros for the end of a stream."""
    size = end = file.size()
    stopped = file.tell()  # an open stream reads on demand, and so stops behind its end mark
    file.seek(0)
    if file.read(len(_FILE_MAGIC)) == _FILE_MAGIC:  # the file contains a stream, and its index
        file.seek(size - _FILE_END)
        end -= _FILE_END + int.from_bytes(file.read(4), "little")
        file.seek(_FILE_START)
        try:
            for _ in pyarrow("pyarrow.ipc").open_stream(file):
                pass
        except (pyarrow().ArrowException, OSError):  # without an end mark, which the index replaces
            return
        stopped = file.tell()
    if not 0 <= end - stopped <= (0 if end == size else _MOST_PADDING):
        raise UserError(
            f"{path}: its rows end at byte {stopped:,}, and {end:,} was expected · allowed: one whole Arrow file, not "
            "several joined by cat · copy it again, or give joined ones as files of a folder"
        )


def _places(images: Any, whole: Any, path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the places of an array's values in the file, and their sizes."""
    large = pyarrow().types.is_large_binary(images.type)
    _, offsets, values = images.buffers()
    if len(images) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    edges = np.frombuffer(offsets, np.int64 if large else np.int32)[images.offset : images.offset + len(images) + 1]
    start = values.address - whole.address
    if not 0 <= start <= whole.size - values.size:
        raise UserError(f"{path}: is compressed · allowed: Arrow files as save_to_disk writes them, or Parquet")
    return start + edges[:-1].astype(np.int64), np.diff(edges).astype(np.int64)
