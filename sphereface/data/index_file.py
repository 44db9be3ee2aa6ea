"""Keep the index of a large source: arrays in a file that every process maps.

The file is ``.NAME.index`` beside the source, or in the user's cache folder if that folder is
read-only. It begins with 16 bytes: a mark, the length of a header in JSON, and its CRC-32. The
header has the ``stamp`` of the source, on which the arrays depend, and their types and lengths.
Then the arrays follow. A damaged file, or one of another stamp, is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..archives import DAMAGED
from ..errors import UserError, first_line
from ..files import locked_in_turn, write_whole
from .mapped import MappedFile

log = logging.getLogger(__name__)

Arrays = Mapping[str, npt.NDArray[Any]]
Stamp = Mapping[str, int | str]

_START = struct.Struct("<8sII")  # mark, length and CRC-32 of the header
_MARK = b"sphidx1\n"
_ALIGNED = 64  # bytes: arrays begin at multiples of it
_LONGEST_HEADER = 1 << 16  # bytes


class Index:
    """The arrays of a source by name, in memory or in a mapped file.

    Unpickling maps the file again.

    Args:
        arrays: one-dimensional.
        path: the file that holds them; None: they are in memory.
        stamp: of the source.
    """

    def __init__(self, arrays: Arrays, path: Path | None, stamp: Stamp) -> None:
        self.arrays, self.path, self._stamp = arrays, path, stamp

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.arrays[name]

    def __reduce__(self) -> tuple[Callable[..., Index], tuple[Any, ...]]:
        if self.path is None:
            return Index, (self.arrays, None, self._stamp)
        return _open_again, (self.path, self._stamp)


def indexed(source: Path, stamp: Stamp, make: Callable[[], Arrays], check: Callable[[Arrays], str]) -> Index:
    """Return the index of a source. The first process creates it, while others wait for it.

    Args:
        source: the indexed file or folder.
        stamp: everything that the arrays depend on, such as the size and the time of files.
        make: reads the source; takes long.
        check: compares arrays from a file with a sample of the source; returns the fault, or an
            empty string.
    """
    for place in _places(source):
        if (index := _known(place, stamp, check)) is not None:
            return index
    with _turn(source) as turn:
        if turn is not None and (index := _known(turn, stamp, check)) is not None:  # another process has made it
            return index
        arrays = make()
        if turn is None:
            why = "no folder for it is writable"
        else:
            try:
                write_whole(turn, lambda file: _write(file, arrays, stamp))
                log.info("data: %s: wrote its index for later runs: %s", source, turn)
                return _open_again(turn, stamp)
            except OSError as error:
                why = f"{turn}: {error.strerror or error}"
    log.warning("data: %s: the index stays in memory; each process and run builds it again (%s)", source, why)
    return Index(arrays, None, stamp)


def _places(source: Path) -> list[Path]:
    """Return the possible places of a source's index: beside it, and in the user's cache."""
    real = os.path.realpath(source)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 -- raises nothing
    name = hashlib.sha256(os.fsencode(real)).hexdigest()[:32]
    return [source.with_name(f".{source.name}.index"), *([cache / "sphereface" / name] if cache.is_absolute() else [])]


@contextlib.contextmanager
def _turn(source: Path) -> Iterator[Path | None]:
    """Wait until no other process makes the index; yield the first writable place, or None."""
    with contextlib.ExitStack() as stack:
        for place in _places(source):
            try:
                stack.enter_context(locked_in_turn(place.with_name(f"{place.name}.lock")))
            except OSError:
                continue
            yield place
            return
        yield None


def _known(place: Path, stamp: Stamp, check: Callable[[Arrays], str]) -> Index | None:
    """Return the index in a file, if it fits this state of the source."""
    if not os.path.isfile(place):  # noqa: PTH113 -- raises nothing where a folder may not be searched
        return None
    try:
        index = _open_again(place, stamp)
        problem = check(index.arrays)
    except (UserError, OSError) as error:
        problem = str(error)
    except DAMAGED as error:
        problem = f"damaged ({first_line(error)})"
    if problem:
        log.info("data: the index %s is rebuilt: %s", place, problem)
        return None
    return index


def _open_again(place: Path, stamp: Stamp) -> Index:
    """Map the arrays of a file.

    Raises:
        UserError, OSError, or one of ``DAMAGED``: the file is not valid for this stamp.
    """
    file = MappedFile(place)
    view = file.view()
    mark, length, crc = _START.unpack_from(view)
    header = view[_START.size : _START.size + length] if length <= _LONGEST_HEADER else b""
    if mark != _MARK or zlib.crc32(header) != crc:
        raise ValueError("its header is damaged")
    about = json.loads(header)
    if about["stamp"] != stamp:
        raise ValueError("it belongs to another state of the source")
    arrays, end = {}, _aligned(_START.size + length)
    for name, (kind, count) in about["arrays"].items():
        arrays[name] = np.frombuffer(view, kind, count, end)
        end = _aligned(end + arrays[name].nbytes)
    if end != file.size:
        raise ValueError(f"it has {file.size} bytes instead of {end}")
    return Index(arrays, place, stamp)


def _write(file: BinaryIO, arrays: Arrays, stamp: Stamp) -> None:
    kinds = {name: (array.dtype.str, len(array)) for name, array in arrays.items()}
    header = json.dumps({"stamp": stamp, "arrays": kinds}).encode()
    file.write(_START.pack(_MARK, len(header), zlib.crc32(header)) + header)
    file.write(bytes(_aligned(file.tell()) - file.tell()))
    for array in arrays.values():
        file.write(np.ascontiguousarray(array).data)
        file.write(bytes(_aligned(file.tell()) - file.tell()))


def _aligned(place: int) -> int:
    return place + -place % _ALIGNED
