"""What a pickle describes, followed and never loaded: lists, tuples, booleans, and bytes, left where they stand.

A pickle may run anything when it is loaded. Here :mod:`pickletools` lists its operations, and the few that plain lists
of bytes and of numpy's arrays of uint8 need are followed on a small stack. Nothing is imported, constructed or called
by name; any other operation is an error. Python 2 and 3 and numpy 1 and 2 are understood.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

MOST_OPERATIONS = 10_000_000  # 600,000 pictures as arrays; bounds time (half a minute) and memory (1 GB)

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


class Refused(Exception):
    """Why a pickle is not followed; the message lacks the path."""


@dataclass
class Bytes:
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


class Machine:
    """Follows the operations of one pickle, and knows no others than those below.

    Args:
        data: the file.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle describes, its bytes as :class:`Bytes`."""
        file = cast(IO[bytes], self.data)  # all of it that is needed; its read() stops at the end of the map
        for count, (operation, argument, position) in enumerate(pickletools.genops(file)):
            if count >= MOST_OPERATIONS:
                raise Refused(f"more than {MOST_OPERATIONS:,} operations · a verification set needs far fewer")
            try:
                if operation.name == "STOP":
                    return self._pop()
                self._step(operation.name, argument, position or 0)
            except Refused as error:
                raise Refused(
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
            self.stack.append(Bytes(position + 1 + _BYTES[name], len(argument)))
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
            raise Refused(f"the operation {name}")

    def _top(self) -> Any:
        if not self.stack:
            raise Refused("an operation without its operands")
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
            raise Refused(f"value {index}, which it never stored")
        return self.memo[index]

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self._top()

    def _extend(self, values: Sequence[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise Refused("values appended to what is no list")
        target.extend(values)

    def _append(self) -> None:
        self._extend([self._pop()])

    def _stack_global(self) -> None:
        name, module = self._text(self._pop()), self._text(self._pop())
        self._global(f"{module} {name}")

    def _global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise Refused(f"asks for {name.replace(' ', '.', 1)[:80]!r}")
        self.stack.append(_Global(_GLOBALS[name]))

    def _text(self, value: Any) -> Any:
        """A short text, which Python 2 wrote as bytes; anything else as it is."""
        if isinstance(value, Bytes) and 0 <= value.length < 8:
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
            self.stack.append(Bytes(0, -1))  # empty; BUILD fills it in
        elif name == _FROMBUFFER and len(values) == 4:
            self.stack.append(self._array(arguments[0], shape=arguments[2], dtype=arguments[1]))
        else:
            raise Refused(f"a call of {name or 'an unknown function'} with other arguments than those of uint8 arrays")

    def _build(self) -> None:
        """What would set an object's state: that of numpy's dtype, or of the array that was begun."""
        state, target = self._pop(), self._top()
        values = state if isinstance(state, tuple) else ()
        if isinstance(target, _Uint8) and [self._text(value) for value in values] == _UINT8_STATE:
            return
        if isinstance(target, Bytes) and target.length == -1 and len(values) == 5:
            array = self._array(values[4], shape=values[1], dtype=values[2])
            target.offset, target.length = array.offset, array.length
            return
        raise Refused("the state of something that is no array of uint8")

    @staticmethod
    def _array(data: Any, *, shape: Any, dtype: Any) -> Bytes:
        if not isinstance(data, Bytes) or data.length < 0 or not isinstance(dtype, _Uint8):
            raise Refused("an array of something else than uint8")
        if shape not in ((data.length,), (data.length, 1)):
            raise Refused(f"an array of another shape than ({data.length},) or ({data.length}, 1)")
        return data


_OTHERS: dict[str, Callable[[Machine], None]] = {
    "MARK": lambda machine: machine.stack.append(_MARK),
    "EMPTY_LIST": lambda machine: machine.stack.append([]),
    "TUPLE": lambda machine: machine.stack.append(tuple(machine._pop_to_mark())),
    "APPEND": Machine._append,
    "APPENDS": lambda machine: machine._extend(machine._pop_to_mark()),
    "MEMOIZE": Machine._memoize,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "BUILD": Machine._build,
}
