"""A table of embeddings in a ``.npz`` file, made by ``sphereface embed`` or by any other program.

It has these arrays:

- ``names`` (N,), text: the images, relative to their folder, such as ``Ann/Ann_0001.jpg``. A
  backslash is the same as a slash.
- ``embeddings`` (N, D), float: a row for each image
- ``mirror`` (N, D), float, optional: the same for the mirror images
- ``quality`` (N,), numbers, optional: higher for a better image
- ``image_hash`` (N,), uint64, optional: of the images' files, by
  :func:`~sphereface.files.content_number`
- ``root``, text, optional: the folder of the images, or the ``.bin`` that holds them

Other arrays are allowed and not read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.bins import is_bin
from ..errors import UserError, refusing
from ..files import write_whole
from .embeddings import Embeddings
from .images import Images, stem_of, with_slashes
from .mirror_check import check_mirror
from .source import Source
from .table_check import Origin, changed_rows
from .table_file import Array, as_float32, read_table_with_sha256

SUFFIX = ".npz"
_SEVERAL = -1  # row of a name that belongs to several rows with different embeddings
_MOST_SHOWN = 3
_FIRST_OF_BIN = "000000"


class EmbeddingTable(Source):
    """A table of embeddings. The images need not be on disk.

    Args:
        path: the ``.npz`` file, or the folder of a gallery.
        mirror: how to use the embeddings of the mirror images: ``"join"``, ``"add"`` or ``"none"``.
            None: ``"join"`` if the table has them.

    Raises:
        UserError: the file is not such a table, has no embeddings of mirror images to join or add,
            or has zeros for some of them.
    """

    reads_images = False

    def __init__(self, path: Path, *, mirror: str | None = None) -> None:
        arrays, sha256 = read_table_with_sha256(path)
        super().__init__(path, sha256)
        self._names: list[str] = arrays["names"]
        self._image: Array = arrays["embeddings"]
        stored: Array | None = arrays.get("mirror")
        self._mirror = None if mirror == "none" else stored
        self._stored = stored  # also where it is not used, to know the length of both
        self._quality: Array | None = arrays.get("quality")
        self.image_hash: Array | None = arrays.get("image_hash")
        self._root = Path(arrays.get("root") or ".")
        self._origin = Origin(
            path,
            Path(arrays.get("absolute_root") or self._root),
            self.image_hash,
            arrays.get("stamps"),
            self._names,
            arrays.get("photographs", False),
        )
        self._changed: dict[str, frozenset[int]] = {}  # set → rows whose images changed since they were embedded
        self._bin: Path | None = None  # the .bin whose images the names without a prefix belong to
        self._by: str | None = arrays.get("checkpoint_sha256")
        if self._mirror is None and mirror in ("join", "add"):
            raise UserError(f"{path}: --mirror: got {mirror} · the table has no array 'mirror' · omit it")
        self.mirror = "none" if self._mirror is None else mirror or "join"
        if self._mirror is not None:
            check_mirror(path, self._names, self._image, self._mirror)

    def about(self) -> Mapping[str, Any]:
        """Return the file, its SHA-256, its shape, and the checkpoint that it names, if any."""
        rows, dim = self._image.shape
        return {
            "embeddings": str(self.path),
            "embeddings_sha256": self.sha256,
            "table": f"{rows:,} embeddings of {dim} numbers, {self._image.dtype}",
            "embedded_by_checkpoint": self._by,
        }

    def embeddings(self, images: Images, set_name: str) -> Embeddings:
        """Return the rows of a set's images.

        If the table has names that start with ``set_name/``, all images of the set must be among
        them. Otherwise the name of the image, or its path relative to the table's ``root``, finds
        its row. Each name is compared with its suffix first, then without it. If this finds no
        image at all, the last parts of the names are compared, because the images may be in one
        flat folder.

        The images of every ``.bin`` have the same names, ``000000`` and so on. So names without a
        prefix can belong to one ``.bin`` only. If the table's ``root`` is a ``.bin``, it is that
        one.

        Raises:
            UserError: an image has no row or several rows, two images have the same row, or the
                names may belong to another ``.bin``.
        """
        rows = _as_slice(self._rows(images, set_name))
        quality = None if self._quality is None else self._quality[rows].astype(np.float64)
        image = as_float32(self._image[rows])
        mirror = None if self._mirror is None else as_float32(self._mirror[rows])
        if quality is not None and self._stored is not None and _is_length(quality, image, self._stored[rows]):
            quality = None  # so that the same measure is taken as without a table
        return Embeddings(image, mirror, self.mirror, quality)

    def check(self, images: Images, set_name: str) -> None:
        """Refuse a set that has images without a row, or other images than were embedded.

        Log a warning if a few of its images have changed since they were embedded.

        Raises:
            UserError: see :meth:`embeddings` and :func:`~.table_check.changed_rows`.
        """
        self._changed[set_name] = changed_rows(self._origin, images, self._rows(images, set_name), set_name)

    def changed(self, images: Images, set_name: str) -> frozenset[int]:
        """Return the numbers of the images that :meth:`check` found changed."""
        changed = self._changed.get(set_name)
        if not changed:
            return frozenset()
        return frozenset(np.flatnonzero(np.isin(self._rows(images, set_name), [*changed])).tolist())

    def located(self, images: Images, set_name: str) -> tuple[Array, Array | None, npt.NDArray[np.int64]]:
        """Return the table's embeddings without a copy, and the rows of a set's images.

        Returns:
            The embeddings of images and of mirror images (or None), and (N,) row numbers.

        Raises:
            UserError: see :meth:`embeddings`.
        """
        return self._image, self._mirror, self._rows(images, set_name)

    def _rows(self, images: Images, set_name: str) -> npt.NDArray[np.int64]:
        prefix = f"{set_name}/"
        if not any(name.startswith(prefix) for name in self._names):
            prefix = ""
        names = [with_slashes(name) for name in images.names]
        if not prefix and is_bin(images.root) and any(self._find([name]) is not None for name in names):
            self._check_bin(images.root, set_name)
        found = [self._find(self._ways(images.root, name, prefix)) for name in names]
        if not any(row is not None for row in found):
            last = [name.rpartition("/")[2] for name in names]
            if len(set(last)) == len(last):
                found = [self._find([prefix + name]) for name in last]
        several = [name for name, row in zip(images.names, found, strict=True) if row == _SEVERAL]
        if several:
            raise UserError(
                f"{self.path}: {_some(several)}: the table has several rows whose names differ only in the suffix · "
                f"name the rows as {set_name} does"
            )
        missing = [name for name, row in zip(images.names, found, strict=True) if row is None]
        if missing:
            front = f" with {prefix}" if prefix else f", also with {set_name}/"
            raise UserError(
                f"{self.path}: has no embedding for {len(missing):,} of the {len(images):,} images of {set_name}: "
                f"{_some(missing)} · names in the table: {_some([n for n in self._names if n.startswith(prefix)])} · "
                f"allowed: these names{front} in front or another suffix"
            )
        rows = [row for row in found if row is not None]
        self._check_apart(images, rows, set_name)
        return np.array(rows, dtype=np.int64)

    def _check_apart(self, images: Images, rows: Sequence[int], set_name: str) -> None:
        """Refuse one row for two images, such as ``002.png`` and ``002.jpg``.

        The same name without a suffix does not count as a second image. Nor does a name that is no
        file: the names of LFW's lists end in ``.jpg``, also if the images are PNG.
        """
        if len(set(rows)) == len(rows):
            return
        first = dict[int, str]()
        plain = (with_slashes(os.path.normpath(name)) for name in images.names)
        for name, row in zip(plain, rows, strict=True):
            other = first.setdefault(row, name)
            if name in (other, stem_of(other)) or stem_of(name) == other:
                continue
            if (images.root / name).is_file() == (images.root / other).is_file():
                raise UserError(
                    f"{self.path}: got one row, {self._names[row]}, for two images of {set_name}, {other} and {name} · "
                    f"allowed: a row for each image · name the rows as {set_name} does, with suffixes"
                )

    def _check_bin(self, file: Path, set_name: str) -> None:
        """Refuse a ``.bin`` if the names in this table belong to the images of another one."""
        example = f"{set_name}/{_FIRST_OF_BIN}"
        own = PureWindowsPath(self._root).name  # splits at slashes and backslashes
        if is_bin(own) and own.casefold() != file.name.casefold():
            raise UserError(
                f"{self.path}: got {file.name} for {set_name} · allowed: {own}, the root of the table · embed "
                f"{file.name}, or for a table of several sets put {set_name}/ before the names, as in {example}"
            )
        place = file.resolve()
        if self._bin not in (None, place):
            raise UserError(
                f"{self.path}: got {file} for {set_name} after {self._bin} · allowed: one .bin for names without a "
                f"prefix, since each names its images {_FIRST_OF_BIN}, … · put {set_name}/ before the names, as in "
                f"{example}"
            )
        self._bin = place

    def _ways(self, folder: Path, name: str, prefix: str) -> Iterator[str]:
        """Yield the names that the row of an image may have, in the order in which to try them."""
        yield prefix + name
        place = os.path.normpath(folder.absolute() / name)
        root = os.path.normpath(self._root.absolute())
        yield from (way for way in _places(place, root) if way.startswith(prefix))

    def _find(self, ways: Iterable[str]) -> int | None:
        for way in ways:
            row = self._exact.get(way)
            if row is None:
                row = self._stems.get(stem_of(way))
            if row is not None:
                return row
        return None

    @cached_property
    def _exact(self) -> dict[str, int]:
        """Name → row. Rows with the same name must have the same embedding."""
        rows = dict[str, int]()
        different = []
        for row, name in enumerate(self._names):
            first = rows.setdefault(name, row)
            if first != row and not self._equal(first, row):
                different.append(name)
        if different:
            raise UserError(
                f"{self.path}: {len(different):,} names occur again with another embedding: {_some(different)} · "
                "allowed: one embedding for each name"
            )
        return rows

    @cached_property
    def _stems(self) -> dict[str, int]:
        """Name without suffix → row, or :data:`_SEVERAL`."""
        rows = dict[str, int]()
        for name, row in self._exact.items():
            first = rows.setdefault(stem_of(name), row)
            if first != row and (first == _SEVERAL or not self._equal(first, row)):
                rows[stem_of(name)] = _SEVERAL
        return rows

    def _equal(self, a: int, b: int) -> bool:
        parts = [part for part in (self._image, self._mirror, self._quality) if part is not None]
        return all(np.array_equal(part[a], part[b], equal_nan=True) for part in parts)


def write_table(
    path: Path, names: Sequence[str], image: Array, mirror: Array | None = None, **more: str | int | Array
) -> None:
    """Write a table that :class:`EmbeddingTable` reads, whole or not at all.

    Args:
        path: ``….npz``.
        names: N names of the images.
        image, mirror: (N, D) each; ``mirror`` is optional.
        more: further entries.

    Raises:
        UserError: ``path`` has another suffix, or the file cannot be written.
    """
    if path.suffix != SUFFIX:
        raise UserError(f"{path}: got suffix {path.suffix!r} · allowed: {SUFFIX}")
    arrays: dict[str, Any] = {"names": np.array(names, dtype=np.str_), "embeddings": image}
    if mirror is not None:
        arrays["mirror"] = mirror
    arrays |= {key: np.array(value) for key, value in more.items()}
    with refusing(f"{path}: cannot be written"):
        write_whole(path, lambda file: np.savez(file, **arrays))


def _places(place: str, root: str) -> Iterator[str]:
    """Yield the path of an image, then its path relative to ``root`` if it is in that folder."""
    yield with_slashes(place)
    if place.startswith(root + os.sep):
        yield with_slashes(place[len(root) + 1 :])


def _is_length(quality: npt.NDArray[np.float64], image: Array, mirror: Array) -> bool:
    """Return whether this is the length of image and mirror image, as ``sphereface embed`` writes.

    Rounding to float16 may be between.
    """
    squares = sum(np.einsum("ij,ij->i", part, part, dtype=np.float64) for part in (image, mirror))
    return np.allclose(quality**2, squares, rtol=0.02, atol=0, equal_nan=True)


def _as_slice(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | slice:
    """Return consecutive rows as a slice, which copies nothing; return other rows as they are."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return slice(int(rows[0]), int(rows[0]) + len(rows))
    return rows


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more
