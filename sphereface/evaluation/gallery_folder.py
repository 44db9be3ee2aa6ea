"""Read a gallery that is a folder: ``gallery.json`` and the shards that it lists.

An update replaces ``gallery.json`` last and as a whole. So a reader sees the gallery either before
or after an update. A shard that the list does not name belongs to a run that has not finished.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError, refusing
from ..files import write_whole
from ..options import option
from ..small_files import is_file, read_form, reason
from .embeddings import joined_unit_rows
from .gallery_shard import (
    SHARD_NAME,
    Array,
    DamagedShard,
    GalleryKind,
    Shard,
    map_names,
    map_rows,
    path_of,
    read_shard,
    text,
)
from .images import row_name

LIST = "gallery.json"
LOCK = ".embed.lock"  # of the process that writes a gallery
FOLDER_FORMAT = 1

_MAPPED = 32  # shards whose names stay mapped; each takes a file descriptor, of which a process may have 256

Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Form:
    format: int = option(choices=[FOLDER_FORMAT])
    kind: GalleryKind = option()
    shards: tuple[Shard, ...] = option()
    absolute_root: str = option("")
    people_root: str = option("")


def is_gallery_folder(path: Path) -> bool:
    """Return whether a folder is a finished gallery."""
    return is_file(path / LIST)


def is_unfinished(path: Path) -> bool:
    """Return whether a folder holds the lock or shards of a gallery, but no list of them."""
    names = [LOCK] if is_file(path / LOCK) else [each.name for each in path.glob("*.npz")]
    return not is_gallery_folder(path) and any(name == LOCK or SHARD_NAME.fullmatch(name) for name in names)


@dataclass(frozen=True)
class GalleryFolder:
    """A gallery in a folder. The shards are read when they are needed.

    Attributes:
        path: the folder.
        kind: the properties that all shards share.
        shards: in the order of the rows.
        absolute_root: the root with links resolved, when the gallery was written; empty if unknown.
        people_root: see :meth:`.image_list.ImageList.people_root`.
    """

    path: Path
    kind: GalleryKind
    shards: tuple[Shard, ...]
    absolute_root: str = ""
    people_root: str = ""

    def save(self) -> None:
        """Replace ``gallery.json``. Raises UserError if it cannot be written."""
        form = _Form(FOLDER_FORMAT, self.kind, self.shards, self.absolute_root, self.people_root)
        with refusing(f"{self.path / LIST}: cannot be written"):
            write_whole(self.path / LIST, json.dumps(asdict(form), indent=1) + "\n")

    @property
    def sha256(self) -> str:
        """SHA-256 of the list. It changes if any row changes."""
        return hashlib.sha256(repr((self.kind, self.shards)).encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def ends(self) -> list[int]:
        """For each shard, the number of the first row after it."""
        return list(itertools.accumulate(shard.rows for shard in self.shards))

    def shard(self, number: int) -> tuple[Path, Shard, int]:
        """Return the file of a shard, its entry, and the number of its first row."""
        shard = self.shards[number]
        return self.path / shard.file, shard, self.ends[number] - shard.rows


def read_list(path: Path) -> GalleryFolder:
    """Read the list of a gallery.

    Raises:
        UserError: the list is missing or damaged.
    """
    command = shlex.quote(str(path))
    if not is_gallery_folder(path):
        raise UserError(
            f"{path}: not a gallery ({LIST} is missing) · make or finish it: sphereface embed DIR {command}"
        )
    try:
        form = read_form(path / LIST, _Form)
        for shard in form.shards:
            if Path(shard.file).name != shard.file or not shard.file.endswith(".npz"):
                raise ValueError(f"file: got {shard.file!r:.100}, allowed: a .npz in the same folder")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path / LIST}: not the list of a gallery ({reason(error)}) · if sphereface embed wrote it, delete it and "
            f"run sphereface embed DIR {command} again, which keeps whole shards; if not, give it another name"
        ) from None
    return GalleryFolder(path, form.kind, form.shards, form.absolute_root, form.people_root)


def read_gallery_folder(path: Path) -> GalleryFolder:
    """Read the list of a gallery, and check that its shards exist.

    Raises:
        UserError: see :func:`read_list`; or a shard is missing or has another size.
    """
    gallery = read_list(path)
    for shard in gallery.shards:
        _check_size(path / shard.file, shard)
    if not any(shard.rows for shard in gallery.shards):
        raise UserError(f"{path / LIST}: has no rows · embed images first")
    return gallery


def _check_size(path: Path, shard: Shard) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DamagedShard(path, error) from None
    if size != shard.bytes:
        raise DamagedShard(path, f"has {size:,} bytes, {LIST} gives {shard.bytes:,}")


class FolderRows:
    """The rows of a gallery as unit vectors, which are read block by block.

    ``rows[100:200]`` is (100, width) float32. The first time that rows of a shard are read, its
    checksums are compared.

    Args:
        gallery: the folder.
    """

    def __init__(self, gallery: GalleryFolder) -> None:
        self._gallery = gallery
        self._checked = set[int]()
        self.shape = (gallery.ends[-1], gallery.kind.width)
        self.sha256 = gallery.sha256

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Embeddings:
        start, stop, _ = rows.indices(len(self))
        number = bisect.bisect_right(self._gallery.ends, start)
        blocks = []
        while start < stop:
            end = min(stop, self._gallery.ends[number])
            blocks.append(self._block(number, start, end))
            start, number = end, number + 1
        if len(blocks) == 1:
            return blocks[0]
        return np.concatenate(blocks or [np.empty((0, self.shape[1]), dtype=np.float32)])

    def take(self, rows: npt.NDArray[np.int64]) -> Embeddings:
        """Return some rows, (K, width) float32. Only these are read; no checksum is compared."""
        found = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        numbers = np.searchsorted(self._gallery.ends, rows, side="right")
        for number in np.unique(numbers).tolist():
            path, shard, first = self._gallery.shard(number)
            places = np.flatnonzero(numbers == number)
            parts = map_rows(path, shard, self._gallery.kind, checked=False)
            found[places] = joined_unit_rows([part[rows[places] - first] for part in parts])
        return found

    def _block(self, number: int, start: int, end: int) -> Embeddings:
        """Return rows of one shard."""
        path, shard, first = self._gallery.shard(number)
        parts = map_rows(path, shard, self._gallery.kind, checked=number not in self._checked)
        self._checked.add(number)
        block = joined_unit_rows([part[start - first : end - first] for part in parts])
        if not np.isfinite(block[:, 0]).all():  # joined_unit_rows makes a bad row NaN throughout
            row = start - first + int(np.argmin(np.isfinite(block[:, 0])))
            raise DamagedShard(path, f"row {row} is zero, not finite, or beyond what networks give")
        return block


class FolderPaths(Sequence[str]):
    """The paths of the rows of a gallery. They are read when they are needed.

    The names of some shards stay mapped, so rows in ascending order are read fastest.
    """

    def __init__(self, gallery: GalleryFolder) -> None:
        self._gallery = gallery
        self._names = functools.lru_cache(_MAPPED)(lambda number: map_names(*gallery.shard(number)[:2]))

    def __len__(self) -> int:
        return self._gallery.ends[-1]

    def __getitem__(self, row: int) -> str:  # type: ignore[override]  # no slices
        if not 0 <= row < len(self):
            raise IndexError(row)
        number = bisect.bisect_right(self._gallery.ends, row)
        first = self._gallery.shard(number)[2]
        return path_of(self._gallery.kind.root, text(self._names(number)[row - first]))


def read_folder_as_table(path: Path) -> tuple[dict[str, Any], str]:
    """Read a gallery into memory as one table, with the SHA-256 of its list.

    Returns:
        See :func:`~sphereface.evaluation.table_file.read_table_with_sha256`.

    Raises:
        UserError: see :func:`read_gallery_folder`.
    """
    gallery = read_gallery_folder(path)
    contents = [read_shard(path / shard.file, gallery.kind) for shard in gallery.shards]
    keys = ["embeddings", "quality", *(["mirror"] if gallery.kind.mirror else [])]
    parts: dict[str, list[Array]] = {key: [getattr(content, key) for content in contents] for key in keys}
    table: dict[str, Any] = {key: np.concatenate(arrays) for key, arrays in parts.items()}
    table["names"] = [row_name(text(name)) for content in contents for name in content.names]
    stamps = [np.stack([each.sizes, each.times], axis=1)[each.image_of] for each in contents]
    table |= {
        "stamps": np.concatenate(stamps),
        "photographs": any(each.boxes is not None for each in contents),
        "absolute_root": gallery.absolute_root,
        "root": gallery.kind.root,
        "checkpoint_sha256": gallery.kind.checkpoint_sha256,
    }
    return table, gallery.sha256
