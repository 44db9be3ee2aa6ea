"""InsightFace's verification sets, ``lfw.bin`` and its like: a pickle of (encoded pictures, same or not).

Pictures 2i and 2i + 1 are pair i. Such files are passed around, and a pickle may run anything when it is loaded. So
none is loaded here: :mod:`pickletools` lists its operations, and those few that these files need (lists, tuples,
bytes, booleans, numpy's arrays of uint8) are followed on a small stack. Nothing is imported, constructed or called
by name; whatever else a file asks for ends in an error. Files of Python 2 and of both numpy 1 and 2 are read.
"""

from __future__ import annotations

import hashlib
import mmap
import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from ..errors import UserError
from .pairs import Pairs

BIN_SUFFIX = ".bin"
NUM_FOLDS = 10
MOST_OPERATIONS = 10_000_000  # 600,000 pictures as arrays; bounds time (seconds) and memory (2 GB)

_PUSHED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_ARGUMENT_PUSHED = frozenset({"BININT", "BININT1", "BININT2", "SHORT_BINUNICODE", "BINUNICODE"})
_BYTES = {  # and the width of the length before them
    **{"SHORT_BINSTRING": 1, "SHORT_BINBYTES": 1, "BINSTRING": 4, "BINBYTES": 4},
    **{"BINBYTES8": 8, "BYTEARRAY8": 8},
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MEMO_READS = frozenset({"BINGET", "LONG_BINGET"})
_MEMO_WRITES = frozenset({"BINPUT", "LONG_BINPUT"})
_IGNORED = frozenset({"PROTO", "FRAME"})

_DTYPE, _NDARRAY, _RECONSTRUCT, _FROMBUFFER = "dtype", "ndarray", "_reconstruct", "_frombuffer"
_GLOBALS = {
    "numpy dtype": _DTYPE,
    "numpy ndarray": _NDARRAY,
    **{f"numpy.{core}.multiarray _reconstruct": _RECONSTRUCT for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": _FROMBUFFER for core in ("core", "_core")},
}
_UINT8_STATE = [3, "|", None, None, None, -1, -1, 0]  # what numpy stores with the dtype u1


@dataclass(frozen=True)
class BinPicture:
    """An encoded picture inside a ``.bin`` file, read when it is asked for; holds no open file."""

    path: Path
    number: int
    offset: int
    length: int

    def read_bytes(self) -> bytes:
        """The encoded picture. Raises OSError where the file is gone."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)

    def __str__(self) -> str:
        return f"{self.path}, picture {self.number}"


def is_bin(path: str | Path) -> bool:
    """Whether a path names a ``.bin`` file."""
    return Path(path).suffix.lower() == BIN_SUFFIX


def read_bin(path: str | Path) -> tuple[tuple[BinPicture, ...], Pairs]:
    """Read a verification set, but not its pictures.

    A picture that occurs in several pairs is stored as often in the file, and listed here once. The ten folds are
    runs of the pairs in the order of the file, as in InsightFace: where the number of pairs is no multiple of ten,
    the first folds have one more. Memory: about 200 bytes a picture.

    Args:
        path: the ``.bin`` file.

    Returns:
        The (M,) pictures, each once, and the pairs as rows into them. Names are six digits: the picture's place in
        the file.

    Raises:
        UserError: no such file; a pickle that is cut off, or holds anything but such a set (nothing of it is run);
            other than two pictures for each pair; fewer than ten pairs, or pairs of one kind only.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            spans, same = _check(_Machine(data).run())
            digests = [hashlib.sha256(data[span.offset : span.offset + span.length]).digest() for span in spans]
    except _Refused as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}) · expected a verification set (.bin)") from None
    except ValueError as error:  # of mmap, for an empty file, or pickletools, for one that is cut off
        raise UserError(f"{path}: is not a whole pickle ({error}) · download or copy it again") from None
    first: dict[bytes, int] = {}
    rows = np.array([first.setdefault(digest, len(first)) for digest in digests], dtype=np.int64)
    numbers = np.unique(rows, return_index=True)[1].tolist()
    pictures = tuple(BinPicture(path, number, spans[number].offset, spans[number].length) for number in numbers)
    sizes = [len(part) for part in np.array_split(np.arange(len(same)), NUM_FOLDS)]
    pairs = Pairs(
        path=path,
        names=tuple(f"{number:06d}" for number in numbers),
        left=rows[0::2],
        right=rows[1::2],
        same=np.array(same, dtype=bool),
        fold=np.repeat(np.arange(1, NUM_FOLDS + 1, dtype=np.int64), sizes),
        num_folds=NUM_FOLDS,
    )
    return pictures, pairs


class _Refused(Exception):
    """Why a pickle is not a verification set; the message lacks the path."""


@dataclass
class _Bytes:
    """Where bytes stand in the file. ``length`` is −1 for numpy's array that has not got its bytes yet."""

    offset: int
    length: int


class _Global:
    """One of the names in :data:`_GLOBALS`: a mark, not the thing."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Uint8:
    """Stands for numpy's dtype of uint8."""


_MARK = object()


class _Machine:
    """Follows the operations of one pickle, and knows no others than those below.

    Args:
        data: the file.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle describes, its bytes as :class:`_Bytes`."""
        file = cast(IO[bytes], self.data)  # all of it that is needed; its read() stops at the end of the map
        for count, (operation, argument, position) in enumerate(pickletools.genops(file)):
            if count >= MOST_OPERATIONS:
                raise _Refused(f"more than {MOST_OPERATIONS:,} operations · a verification set needs far fewer")
            try:
                if operation.name == "STOP":
                    return self._pop()
                self._step(operation.name, argument, position or 0)
            except _Refused as error:
                raise _Refused(
                    f"at byte {position}: {error} · allowed: (list of encoded pictures, list of booleans) and nothing "
                    "else · nothing of it was run; do not load this file with pickle either"
                ) from None
        raise AssertionError("genops ends with STOP or an error")

    def _step(self, name: str, argument: Any, position: int) -> None:
        if name in _PUSHED:
            self.stack.append(_PUSHED[name])
        elif name in _ARGUMENT_PUSHED:
            self.stack.append(argument)
        elif name in _BYTES:
            self.stack.append(_Bytes(position + 1 + _BYTES[name], len(argument)))
        elif name in _TUPLES:
            self.stack.append(tuple(reversed([self._pop() for _ in range(_TUPLES[name])])))
        elif name in _MEMO_READS:
            self.stack.append(self._recall(argument))
        elif name in _MEMO_WRITES:
            self.memo[argument] = self._top()
        elif name == "GLOBAL":
            self._global(argument)
        elif name in _OTHERS:
            _OTHERS[name](self)
        elif name not in _IGNORED:
            raise _Refused(f"the operation {name}")

    def _top(self) -> Any:
        if not self.stack:
            raise _Refused("an operation without its operands")
        return self.stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        self.stack.pop()
        return value

    def _pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self._pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _recall(self, index: int) -> Any:
        if index not in self.memo:
            raise _Refused(f"value {index}, which it never stored")
        return self.memo[index]

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self._top()

    def _extend(self, values: Sequence[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise _Refused("values appended to what is no list")
        target.extend(values)

    def _append(self) -> None:
        self._extend([self._pop()])

    def _stack_global(self) -> None:
        name, module = self._text(self._pop()), self._text(self._pop())
        self._global(f"{module} {name}")

    def _global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise _Refused(f"asks for {name.replace(' ', '.', 1)[:80]!r}")
        self.stack.append(_Global(_GLOBALS[name]))

    def _text(self, value: Any) -> Any:
        """A short text, which Python 2 wrote as bytes; anything else as it is."""
        if isinstance(value, _Bytes) and 0 <= value.length < 8:
            return self.data[value.offset : value.offset + value.length].decode("latin-1")
        return value

    def _reduce(self) -> None:
        """What would call a function: one of numpy's three that describe an array of bytes."""
        arguments, function = self._pop(), self._pop()
        name = function.name if isinstance(function, _Global) else None
        values = [self._text(value) for value in arguments] if isinstance(arguments, tuple) else []
        if name == _DTYPE and len(values) == 3 and values[0] == "u1":
            self.stack.append(_Uint8())
        elif name == _RECONSTRUCT and len(values) == 3 and getattr(values[0], "name", None) == _NDARRAY:
            self.stack.append(_Bytes(0, -1))  # empty; BUILD fills it in
        elif name == _FROMBUFFER and len(values) == 4:
            self.stack.append(self._array(arguments[0], shape=arguments[2], dtype=arguments[1]))
        else:
            raise _Refused(f"a call of {name or 'an unknown function'} with other arguments than those of uint8 arrays")

    def _build(self) -> None:
        """What would set an object's state: that of numpy's dtype, or of the array that was begun."""
        state, target = self._pop(), self._top()
        values = state if isinstance(state, tuple) else ()
        if isinstance(target, _Uint8) and [self._text(value) for value in values] == _UINT8_STATE:
            return
        if isinstance(target, _Bytes) and target.length == -1 and len(values) == 5:
            array = self._array(values[4], shape=values[1], dtype=values[2])
            target.offset, target.length = array.offset, array.length
            return
        raise _Refused("the state of something that is no array of uint8")

    @staticmethod
    def _array(data: Any, *, shape: Any, dtype: Any) -> _Bytes:
        if not isinstance(data, _Bytes) or data.length < 0 or not isinstance(dtype, _Uint8):
            raise _Refused("an array of something else than uint8")
        if shape not in ((data.length,), (data.length, 1)):
            raise _Refused(f"an array of another shape than ({data.length},) or ({data.length}, 1)")
        return data


_OTHERS: dict[str, Callable[[_Machine], None]] = {
    "MARK": lambda machine: machine.stack.append(_MARK),
    "EMPTY_LIST": lambda machine: machine.stack.append([]),
    "TUPLE": lambda machine: machine.stack.append(tuple(machine._pop_to_mark())),
    "APPEND": _Machine._append,
    "APPENDS": lambda machine: machine._extend(machine._pop_to_mark()),
    "MEMOIZE": _Machine._memoize,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
}


def _check(value: Any) -> tuple[list[_Bytes], list[bool]]:
    """(pictures, same or not) out of what the pickle describes."""
    parts = value if isinstance(value, (tuple, list)) else ()
    if len(parts) != 2 or not all(isinstance(part, (tuple, list)) for part in parts):
        raise _Refused("holds no pair of lists · expected (encoded pictures, same or not), as InsightFace packs them")
    pictures, same = parts
    if not all(isinstance(picture, _Bytes) and picture.length >= 0 for picture in pictures):
        raise _Refused("its first list holds something else than encoded pictures (bytes, or arrays of uint8)")
    if not all(isinstance(answer, int) and answer in (0, 1) for answer in same):
        raise _Refused("its second list holds something else than True and False")
    if len(pictures) != 2 * len(same):
        raise _Refused(f"has {len(pictures)} pictures for {len(same)} pairs · expected two for each pair")
    if len(same) < NUM_FOLDS or len(set(same)) < 2:
        raise _Refused(
            f"has {sum(same)} pairs of one person and {len(same) - sum(same)} of two · "
            f"allowed: both kinds, {NUM_FOLDS} pairs or more, for {NUM_FOLDS} folds"
        )
    return list(pictures), [bool(answer) for answer in same]
