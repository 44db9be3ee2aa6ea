"""A table of embeddings in a ``.npz`` file, made by ``sphereface embed`` or by any other program.

===============  =======================  ================================================================
array            shape                    meaning
===============  =======================  ================================================================
``names``        (N,) text                of the images, relative to their folder: ``Ann/Ann_0001.jpg``
``embeddings``   (N, D) float             a row for each image
``mirror``       (N, D) float, optional   the same for the mirror images
``quality``      (N,) float, optional     higher for a better image
``root``         text, optional           folder of the images
===============  =======================  ================================================================

Galleries of older versions have ``paths`` in place of ``names``. Other arrays are allowed and not read.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..files import write_whole
from .embeddings import Embeddings
from .images import Images, stem_of
from .mapped_array import map_array
from .source import Source

SUFFIX = ".npz"
_SEVERAL = -1  # row of a name that belongs to several rows with different embeddings
_MOST_SHOWN = 3
_NUMBERS = ("embeddings", "mirror", "quality")
_TEXTS = ("root", "checkpoint_sha256")
_LARGE = ("embeddings", "mirror")  # mapped, not read
_READ = ("names", "paths", *_NUMBERS, *_TEXTS)

Array = npt.NDArray[Any]


class EmbeddingTable(Source):
    """A table of embeddings. The images need not be on disk.

    Args:
        path: the ``.npz`` file.
        mirror: ``"join"``, ``"add"`` or ``"none"``: how to use the embeddings of the mirror images; None: ``"join"``
            where the table has them.

    Raises:
        UserError: the file is no such table, or has no embeddings of mirror images to join or add.
    """

    reads_images = False

    def __init__(self, path: Path, *, mirror: str | None = None) -> None:
        super().__init__(path)
        arrays = _read(path, skip=("mirror",) if mirror == "none" else ())
        self._names: list[str] = arrays["names"]
        self._image: Array = arrays["embeddings"]
        self._mirror: Array | None = arrays.get("mirror")
        self._quality: Array | None = arrays.get("quality")
        self._root = Path(arrays.get("root") or ".")
        self._by: str | None = arrays.get("checkpoint_sha256")
        if self._mirror is None and mirror in ("join", "add"):
            raise UserError(f"{path}: --mirror: got {mirror} · the table has no array 'mirror' · omit it")
        self.mirror = "none" if self._mirror is None else mirror or "join"

    def about(self) -> Mapping[str, Any]:
        """The file, its SHA-256, its shape, and which checkpoint computed it, if it says so."""
        rows, dim = self._image.shape
        return {
            "embeddings": str(self.path),
            "embeddings_sha256": self.sha256,
            "table": f"{rows:,} embeddings of {dim} numbers, {self._image.dtype}",
            "embedded_by_checkpoint": self._by,
        }

    def embeddings(self, images: Images, set_name: str) -> Embeddings:
        """Return the rows of a set's images.

        A row is found by ``set_name/name``, then by ``name``, each first as it is and then without the suffix; then by
        the place of the image relative to the table's ``root``. Where nothing is found so, the last parts of the names
        are compared, because images may lie in one flat folder.

        Raises:
            UserError: images without a row, or with several.
        """
        rows = _as_slice(self._rows(images, set_name))
        quality = None if self._quality is None else self._quality[rows].astype(np.float64)
        mirror = None if self._mirror is None else _single(self._mirror[rows])
        fusion = "join" if self.mirror == "none" else self.mirror
        return Embeddings(_single(self._image[rows]), mirror, fusion, quality)

    def _rows(self, images: Images, set_name: str) -> npt.NDArray[np.int64]:
        prefix = f"{set_name}/"
        prefixes = (prefix, "") if any(name.startswith(prefix) for name in self._names) else ("",)
        found = [self._find(self._ways(images, name, prefixes)) for name in images.names]
        if not any(row is not None for row in found):
            last = [name.rpartition("/")[2] for name in images.names]
            if len(set(last)) == len(last):
                found = [self._find([name]) for name in last]
        several = [name for name, row in zip(images.names, found, strict=True) if row == _SEVERAL]
        if several:
            raise UserError(
                f"{self.path}: {_some(several)}: the table has several rows whose names differ only in the suffix · "
                f"name the rows as {set_name} does"
            )
        missing = [name for name, row in zip(images.names, found, strict=True) if row is None]
        if missing:
            raise UserError(
                f"{self.path}: has no embedding for {len(missing):,} of the {len(images):,} images of {set_name}: "
                f"{_some(missing)} · names in the table: {_some(self._names)} · "
                f"allowed: these names, also with {set_name}/ in front or another suffix"
            )
        return np.array(found, dtype=np.int64)

    def _ways(self, images: Images, name: str, prefixes: Sequence[str]) -> Iterator[str]:
        """Return the names that the row of an image may have, one after the other."""
        yield from (prefix + name for prefix in prefixes)
        place = os.path.normpath(images.root.absolute() / name)
        root = os.path.normpath(self._root.absolute())
        yield place
        if place.startswith(root + os.sep):
            yield Path(place[len(root) + 1 :]).as_posix()

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
        """Name → row. The same name twice must have the same embedding."""
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
    path: Path,
    names: Sequence[str],
    image: npt.NDArray[np.float32],
    mirror: npt.NDArray[np.float32] | None = None,
    **more: str | int,
) -> None:
    """Write a table that :class:`EmbeddingTable` reads, as a whole or not at all.

    Args:
        path: ``….npz``.
        names: N, of the images.
        image, mirror: (N, D) each.
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
    try:
        write_whole(path, lambda file: np.savez(file, **arrays))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


# ---------------------------------------------------------------- reading


def _read(path: Path, skip: Sequence[str]) -> dict[str, Any]:
    """Read and check the arrays of a table."""
    try:
        if not zipfile.is_zipfile(path):
            path.open("rb").close()  # a missing file is said as such
            raise _wrong(path, "not a .npz file, which is a zip archive")
        with np.load(path, allow_pickle=False) as file:
            wanted = [key for key in _READ if key in file and key not in skip]
            found = {key: map_array(path, key) if key in _LARGE else file[key] for key in wanted}
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror or error}) · expected a table of embeddings"
        ) from None
    except MemoryError as error:
        raise UserError(f"{path}: needs more memory than there is ({error})") from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise _wrong(path, "holds an array of Python objects, which could run code") from None
        raise _wrong(path, f"damaged ({error})") from None
    names = found.pop("names", found.pop("paths", None))
    if names is None or "embeddings" not in found:
        raise _wrong(path, f"has no array {'names' if names is None else 'embeddings'}")
    _check(path, found, names)
    return {**found, "names": _texts(path, names), **{key: str(found[key]) for key in _TEXTS if key in found}}


def _check(path: Path, found: Mapping[str, Array], names: Array) -> None:
    if names.ndim != 1 or not len(names):
        raise _wrong(path, f"names: got shape {names.shape}")
    for key in (key for key in _NUMBERS if key in found):
        array = found[key]
        wanted = (len(names),) if key == "quality" else (len(names), found["embeddings"].shape[-1])
        if array.dtype.kind != "f":
            raise _wrong(path, f"{key}: got {array.dtype}, not float16, float32 or float64")
        if array.shape != wanted or 0 in array.shape:
            raise _wrong(path, f"{key}: got shape {array.shape} with {len(names):,} names")


def _texts(path: Path, names: Array) -> list[str]:
    if names.dtype.kind not in "US":
        raise _wrong(path, f"names: got {names.dtype}, not text")
    try:
        texts = np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names
    except UnicodeDecodeError as error:
        raise _wrong(path, f"names: bytes that are not UTF-8 ({error.reason})") from None
    return [name.removeprefix("./") for name in texts.tolist()]


def _wrong(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: {what} · allowed: names (N,) text, embeddings (N, D) float, and if wanted mirror (N, D), "
        "quality (N,) · write it with numpy.savez"
    )


def _as_slice(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | slice:
    """Return consecutive rows as a slice, which makes no copy: a table in the order of the set is used in place."""
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return slice(int(rows[0]), int(rows[0]) + len(rows))
    return rows


def _single(array: Array) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and counted as undefined
        return array.astype(np.float32, copy=False)


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more
