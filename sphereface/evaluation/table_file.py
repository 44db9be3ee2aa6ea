"""Read and check the arrays of a table of embeddings.

:mod:`sphereface.evaluation.embedding_table` explains the arrays.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..archives import DAMAGED
from ..errors import UserError, first_line, refusing
from ..files import moment, regular_file, sha256_of
from .embeddings import LARGEST, oversized_rows
from .gallery_folder import read_folder_as_table
from .images import row_name
from .mapped_array import map_arrays

_MOST_SHRUNK = 20  # uncompressed size / file size; the numbers of a network hardly compress
_FEW = 1 << 22  # bytes of embeddings that may compress by any factor
_PER_ROW = ("quality",)
_NUMBERS = ("embeddings", "mirror", *_PER_ROW)
_HASH = "image_hash"  # of this program; other programs may use the name for another array
_TEXTS = ("root", "absolute_root", "people_root", "checkpoint_sha256", "settings", "alignment")
_INTEGERS = ("format",)
_EXPECTED = "expected a table of embeddings"
_CHANGED = "changed while it was read · run the command again"
_READ = ("names", *_NUMBERS, _HASH, *_TEXTS, *_INTEGERS)

Array = npt.NDArray[Any]


class NotATable(UserError):
    """A file is not a table of embeddings.

    Args:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"{path}: {reason} · allowed: names (N,) text, embeddings (N, D) float, optionally mirror (N, D), "
            "quality (N,) · write it with numpy.savez"
        )


def read_table(path: Path, *, slashes: bool = True) -> dict[str, Any]:
    """Read and check a table.

    Args:
        path: the ``.npz`` file.
        slashes: replace backslashes in the names. A file's own name may have them.

    Returns:
        ``names``, a list of N texts, and ``embeddings`` (N, D) of floats. If the file
        has them: ``mirror`` (N, D) and ``quality`` (N,) of floats; ``image_hash`` (N,) uint64; the
        texts ``root``, ``absolute_root``, ``people_root``, ``checkpoint_sha256``, ``settings``,
        ``alignment``; the integer ``format``.

    Raises:
        NotATable: the file is not a table.
        UserError: the file cannot be read, or changed while it was read.
    """
    try:
        os.close(regular_file(str(path), os.O_RDONLY))  # raises "No such file" if it is missing; a FIFO would block
        before = moment(path)
        if not zipfile.is_zipfile(path):
            raise NotATable(path, "not a .npz file, which is a zip archive")
        found = map_arrays(path, _READ, _READ)
        changed = moment(path) != before  # map_array opens the file again for each array
    except MemoryError as error:
        raise UserError(f"{path}: needs more memory than there is ({error})") from None
    except (OSError, *DAMAGED) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"{path}: cannot be read ({error.strerror}) · {_EXPECTED}") from None
        if "Object arrays" in str(error):
            raise NotATable(path, "holds an array of Python objects, which could run code") from None
        raise NotATable(path, f"damaged ({first_line(error)})") from None
    if changed:
        raise UserError(f"{path}: {_CHANGED}")
    for key in ("names", "embeddings"):
        if key not in found:
            raise NotATable(path, f"has no array {key}")
    names = found.pop("names")
    _check(path, found, names)
    if _HASH in found and (found[_HASH].dtype != np.uint64 or found[_HASH].shape != names.shape):
        found = {key: array for key, array in found.items() if key != _HASH}
    texts = _texts(path, "names", names)
    texts = [row_name(name, slashes=slashes) for name in texts]
    more: dict[str, Any] = {key: _text(path, key, found[key]) for key in _TEXTS if key in found}
    more |= {key: _integer(path, key, found[key]) for key in _INTEGERS if key in found}
    return {**found, **more, "names": texts}


def read_table_with_sha256(path: Path) -> tuple[dict[str, Any], str]:
    """Read a table like :func:`read_table`, and the SHA-256 of the same file.

    The gallery of a folder is read into memory, see :func:`read_folder_as_table`.

    Raises:
        UserError: see :func:`read_table`; or the file was replaced or changed while it was read.
    """
    if path.is_dir():
        return read_folder_as_table(path)
    before = None
    with contextlib.suppress(OSError, ValueError):  # read_table raises the error
        before = moment(path)
    table = read_table(path)
    with refusing(f"{path}: cannot be read", _EXPECTED):
        sha256, after = sha256_of(path), moment(path)
    if before != after:
        raise UserError(f"{path}: {_CHANGED}")
    return table, sha256


def _check(path: Path, found: Mapping[str, Array], names: Array) -> None:
    if names.ndim != 1 or not len(names):
        raise NotATable(path, f"names: got shape {names.shape}")
    shape = found["embeddings"].shape
    for key in (key for key in _NUMBERS if key in found):
        array = found[key]
        wanted = (len(names),) if key in _PER_ROW else (len(names), *shape[1:2])
        allowed = "fiu" if key in _PER_ROW else "f"
        if array.dtype.kind not in allowed or array.dtype.itemsize > np.dtype(np.float64).itemsize:
            raise NotATable(path, f"{key}: got {array.dtype}, not float16, float32 or float64")
        if array.nbytes > max(_FEW, _MOST_SHRUNK * path.stat().st_size):  # before the texts, whose check costs more
            raise NotATable(path, f"{key}: {array.nbytes:,} bytes, far more than the size of the file")
        if len(shape) != 2 or array.shape != wanted or 0 in array.shape:
            raise NotATable(path, f"{key}: got shape {array.shape} with {len(names):,} names")
        _check_range(path, key, array)


def _check_range(path: Path, key: str, array: Array) -> None:
    """Refuse numbers that are too large. The evaluation counts embeddings that are not finite."""
    wrong = ~np.isfinite(array) if key in _PER_ROW else oversized_rows(array)
    if wrong.any():
        row = int(np.argmax(wrong))
        wanted = "finite numbers" if key == "quality" else f"numbers up to ±{LARGEST:,.0f}"
        raise NotATable(path, f"{key}: row {row} holds {np.max(np.abs(array[row])):g}, expected {wanted}")


def _texts(path: Path, key: str, array: Array) -> list[str]:
    if array.dtype.kind not in "US":
        raise NotATable(path, f"{key}: got {array.dtype}, not text")
    if array.dtype.kind == "U" and array.dtype.itemsize and array.size:
        letters = np.ascontiguousarray(array).reshape(-1).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
        if letters.max() > sys.maxunicode:  # Python would fail later, whenever it uses the text
            raise NotATable(path, f"damaged ({key}: numbers that are not characters of Unicode)")
    try:
        return list((np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array).tolist())
    except UnicodeDecodeError as error:
        raise NotATable(path, f"{key}: bytes that are not UTF-8 ({error.reason})") from None
    except (ValueError, SystemError) as error:  # numpy raises these for numbers that are not characters of Unicode
        raise NotATable(path, f"damaged ({key}: {first_line(error)})") from None


def _text(path: Path, key: str, array: Array) -> str:
    if array.size != 1:
        raise NotATable(path, f"{key}: got shape {array.shape}, not one text")
    return _texts(path, key, array.reshape(1))[0]


def _integer(path: Path, key: str, array: Array) -> int:
    if array.size != 1 or array.dtype.kind not in "iu":
        raise NotATable(path, f"{key}: got {array.dtype} of shape {array.shape}, not one integer")
    return int(array.reshape(1)[0])


def as_float32(array: Array) -> npt.NDArray[np.float32]:
    """Return numbers as float32. A number that is too large becomes infinite: it is undefined."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)
