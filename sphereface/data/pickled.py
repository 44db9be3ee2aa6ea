"""What a pickle describes, followed and never loaded: lists, tuples, booleans, and bytes, left
where they stand.

A pickle may run anything when it is loaded. Here the operations are read one by one, as
:mod:`pickletools` describes them, and the few that lists of bytes, of numbers and of numpy's arrays
and booleans need are followed on a small stack. Nothing is imported, constructed or called by name;
any other operation is an error. Python 2 and 3, numpy 1 and 2 and the protocols 0 to 5 are
understood.
"""

from __future__ import annotations

import codecs
import mmap
import pickletools
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from ..errors import shown

MOST_OPERATIONS, BYTES_AN_OPERATION = 2_500_000, 50
"""A pickle may have so many operations, and another one for every 50 bytes: an image takes up to 17, and a kilobyte and
more. That bounds the time that a small file takes (seconds) and its memory (250 MB)."""

RAW, LATIN_IN_UTF8, LATIN_IN_ESCAPES, QUOTED = "raw", "utf-8", "raw-unicode-escape", "quoted"
"""How bytes are written: as they are; by Python 3 as text of their code points, in UTF-8 (protocols 1 and 2) or with
escapes (protocol 0); by Python 2 between quotes, with escapes (protocol 0)."""

_OPERATIONS = {operation.code.encode("latin-1"): operation for operation in pickletools.opcodes}
_PUSHED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_ARGUMENT_PUSHED = frozenset({"BININT", "BININT1", "BININT2", "INT", "BINFLOAT", "FLOAT"})
_BYTES = {  # and the width of the length before them
    **{"SHORT_BINSTRING": 1, "SHORT_BINBYTES": 1, "BINSTRING": 4, "BINBYTES": 4},
    **{"BINBYTES8": 8, "BYTEARRAY8": 8},
}
_TEXTS = {"SHORT_BINUNICODE": 1, "BINUNICODE": 4, "BINUNICODE8": 8}  # likewise
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MEMO_READS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_MEMO_WRITES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_IGNORED = frozenset({"PROTO", "FRAME"})

_DTYPE, _NDARRAY, _RECONSTRUCT, _FROMBUFFER, _SCALAR = "dtype", "ndarray", "_reconstruct", "_frombuffer", "scalar"
_ENCODE, _EMPTY_BYTES, _BYTEARRAY = "_codecs.encode", "bytes", "bytearray"
_CORES = ("numpy.core", "numpy._core")  # numpy 1 and 2
_BUILTINS = ("__builtin__", "builtins")  # Python 2 and 3
_GLOBALS = {
    "numpy dtype": _DTYPE,
    "numpy ndarray": _NDARRAY,
    "_codecs encode": _ENCODE,
    **{f"{core}.multiarray _reconstruct": _RECONSTRUCT for core in _CORES},
    **{f"{core}.multiarray scalar": _SCALAR for core in _CORES},
    **{f"{core}.numeric _frombuffer": _FROMBUFFER for core in _CORES},
    **{f"{module} bytes": _EMPTY_BYTES for module in _BUILTINS},
    **{f"{module} bytearray": _BYTEARRAY for module in _BUILTINS},
}
_LATIN = frozenset({"latin1", "latin-1"})
_DTYPES = {"u1": "|", "b1": "|", "i1": "|", "i2": "<", "i4": "<", "i8": "<"}  # and their byte order
_TYPES = ", ".join(_DTYPES)
_LONGEST_TEXT = 100  # bytes of the texts that name something
_MOST_ARGUMENTS = 9  # of a call, or parts of a state


class Refused(Exception):
    """Why a pickle is not followed; the message lacks the path."""


@dataclass(slots=True)
class Bytes:
    """Where bytes stand in the file.

    Attributes:
        offset, length: of what is written, in bytes of the file.
        coding: how they are written, see :data:`RAW`.
        size: how many bytes it means.
    """

    offset: int
    length: int
    coding: str
    size: int

    def read(self, data: mmap.mmap) -> bytes:
        """The bytes that are meant."""
        return decoded(data[self.offset : self.offset + self.length], self.coding)


@dataclass(slots=True)
class Text:
    """Where a text stands in the file. ``encoded`` keeps its bytes in Latin-1 after the first
    use.
    """

    offset: int
    length: int
    coding: str
    encoded: Bytes | None = None


@dataclass(slots=True)
class Array:
    """A numpy array of one dimension. ``data`` is None until its state is set."""

    data: Bytes | None
    dtype: str

    def __len__(self) -> int:
        return 0 if self.data is None else self.data.size // np.dtype(self.dtype).itemsize


class _Global:
    """One of the names in :data:`_GLOBALS`: a mark, not the thing."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Dtype:
    """Stands for one of numpy's types in :data:`_DTYPES`."""

    def __init__(self, name: str) -> None:
        self.name = name


def decoded(data: bytes, coding: str) -> bytes:
    """What bytes of a file mean.

    Args:
        data: what is written.
        coding: see :data:`RAW`.

    Raises:
        ValueError: they are not so written.
    """
    if coding == RAW:
        return data
    if coding == QUOTED:
        return codecs.escape_decode(data)[0]
    return data.decode(coding).encode("latin-1")


def numbers_of(data: bytes, dtype: str) -> npt.NDArray[np.int64]:
    """The numbers in an array's bytes; booleans as 0, 1 or whatever else stands there."""
    return np.frombuffer(data, "u1" if dtype == "b1" else "<" + dtype).astype(np.int64)


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
        most = MOST_OPERATIONS + len(self.data) // BYTES_AN_OPERATION
        for count, (name, argument, position) in enumerate(self._operations()):
            if count >= most:
                raise Refused(f"more than {most:,} operations · a verification set of this size needs far fewer")
            try:
                if name == "STOP":
                    return self._pop()
                self._step(name, argument, position)
            except Refused as error:
                raise Refused(
                    f"at byte {position}: {error} · allowed: (list of encoded images, list of booleans) and nothing "
                    "else · nothing of it was run; do not load this file with pickle either"
                ) from None
        raise AssertionError("operations end with STOP or an error")

    def _operations(self) -> Iterator[tuple[str, Any, int]]:
        """(name, argument, position) of each operation, as :func:`pickletools.genops`, which wants
        STRING in ASCII.
        """
        file = cast(IO[bytes], self.data)  # all of it that is needed; its read() stops at the end of the map
        while True:
            position = self.data.tell()
            code = self.data.read(1)
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise ValueError(f"no operation {code!r} at byte {position}" if code else "it ends before STOP")
            if operation.name == "STRING":
                yield operation.name, self.data.readline(), position
            else:
                yield operation.name, operation.arg.reader(file) if operation.arg else None, position

    def _step(self, name: str, argument: Any, position: int) -> None:
        if name in _PUSHED:
            self.stack.append(_PUSHED[name])
        elif name in _ARGUMENT_PUSHED:
            self.stack.append(argument)
        elif name in _BYTES:
            self.stack.append(Bytes(position + 1 + _BYTES[name], len(argument), RAW, len(argument)))
        elif name in _TEXTS:
            start = position + 1 + _TEXTS[name]
            self.stack.append(Text(start, self.data.tell() - start, LATIN_IN_UTF8))
        elif name == "UNICODE":  # up to the end of its line
            self.stack.append(Text(position + 1, self.data.tell() - position - 2, LATIN_IN_ESCAPES))
        elif name == "STRING":
            self.stack.append(self._quoted(argument, position))
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

    @staticmethod
    def _quoted(line: bytes, position: int) -> Bytes:
        quote, inner = line[:1], line[1:-2]
        if quote not in (b"'", b'"') or line[-2:] != quote + b"\n":
            raise ValueError(f"a text without its second quote at byte {position}")
        return Bytes(position + 2, len(inner), QUOTED, len(decoded(inner, QUOTED)))

    def _stack_global(self) -> None:
        name, module = self._text(self._pop()), self._text(self._pop())
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused("a global that is not named by texts")
        self._global(f"{module} {name}")

    def _global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise Refused(f"asks for {name.replace(' ', '.', 1)[:80]!r}")
        self.stack.append(_Global(_GLOBALS[name]))

    def _text(self, value: Any) -> Any:
        """A short text, which Python 2 wrote as bytes, as a str; anything else as it is."""
        if isinstance(value, (Text, Bytes)) and value.length <= _LONGEST_TEXT:
            data = self.data[value.offset : value.offset + value.length]
            return (
                decoded(data, value.coding).decode("latin-1")
                if isinstance(value, Bytes)
                else _decoded_text(data, value)
            )
        return value

    def _reduce(self) -> None:
        """What would call a function: one that makes bytes of a text, or one of numpy's for arrays
        and numbers.
        """
        arguments, function = self._pop(), self._pop()
        name = function.name if isinstance(function, _Global) else ""
        few = isinstance(arguments, tuple) and len(arguments) <= _MOST_ARGUMENTS
        made = self._call(name, arguments, [self._text(value) for value in arguments]) if few else None
        if made is None:
            raise Refused(
                f"a call of {name or 'an unknown function'} with other arguments than those of bytes or arrays"
            )
        self.stack.append(made[0])

    def _call(self, name: str, arguments: tuple[Any, ...], values: list[Any]) -> tuple[Any] | None:
        """The result, alone in a tuple; None where the arguments are others than those that are
        known.

        Args:
            name: of the function.
            arguments: as the pickle has them.
            values: the same, short texts as str.
        """
        count = len(values)
        if (name, count) in ((_ENCODE, 2), (_BYTEARRAY, 2)) and isinstance(arguments[0], Text):
            return (self._encoded(arguments[0]),) if _is_in(values[1], _LATIN) else None
        if (name, count) == (_BYTEARRAY, 1) and isinstance(arguments[0], Bytes):
            return (arguments[0],)
        if (name, count) in ((_EMPTY_BYTES, 0), (_BYTEARRAY, 0)):
            return (Bytes(0, 0, RAW, 0),)
        if (name, count) == (_DTYPE, 3) and isinstance(values[0], str):
            if values[0] not in _DTYPES:
                raise Refused(f"an array or a number of numpy's type {shown(values[0])}, which is none of {_TYPES}")
            return (_Dtype(values[0]),)
        if (name, count) == (_RECONSTRUCT, 3) and getattr(values[0], "name", None) == _NDARRAY:
            return (Array(None, ""),)  # BUILD fills it in
        if (name, count) == (_FROMBUFFER, 4):
            return (_array(arguments[0], shape=arguments[2], dtype=arguments[1]),)
        if (name, count) == (_SCALAR, 2):
            array = _array(arguments[1], shape=(1,), dtype=arguments[0])
            return (int(numbers_of(arguments[1].read(self.data), array.dtype)[0]),)
        return None

    def _encoded(self, text: Text) -> Bytes:
        """What ``_codecs.encode(text, "latin1")`` would make; once for each text, however often it
        is named.
        """
        if text.encoded is None:
            data = self.data[text.offset : text.offset + text.length]
            try:
                size = len(decoded(data, text.coding))
            except UnicodeError:
                raise Refused("bytes from a text with characters outside Latin-1") from None
            text.encoded = Bytes(text.offset, text.length, text.coding, size)
        return text.encoded

    def _build(self) -> None:
        """What would set an object's state: that of numpy's dtype, or of the array that was
        begun.
        """
        state, target = self._pop(), self._top()
        values = state if isinstance(state, tuple) and len(state) <= _MOST_ARGUMENTS else ()
        if isinstance(target, _Dtype):
            expected = [3, _DTYPES[target.name], None, None, None, -1, -1, 0]
            if [self._text(value) for value in values] == expected:
                return
        if isinstance(target, Array) and target.data is None and len(values) == 5:
            array = _array(values[4], shape=values[1], dtype=values[2])
            target.data, target.dtype = array.data, array.dtype
            return
        raise Refused("the state of something that is no array of one of numpy's small types")


def _decoded_text(data: bytes, text: Text) -> str:
    try:
        return data.decode(text.coding, "surrogatepass" if text.coding == LATIN_IN_UTF8 else "strict")
    except UnicodeError:
        raise Refused("a text that is not valid") from None


def _is_in(value: Any, names: Container[str]) -> bool:
    """Whether a value is one of these texts; a value that cannot be hashed is not."""
    return isinstance(value, str) and value in names


def _array(data: Any, *, shape: Any, dtype: Any) -> Array:
    if not isinstance(data, Bytes) or not isinstance(dtype, _Dtype):
        raise Refused("an array of something else than small whole numbers or booleans")
    count, rest = divmod(data.size, np.dtype(dtype.name).itemsize)
    if rest or shape not in ((count,), (count, 1)):
        raise Refused(f"an array of another shape than ({count},) or ({count}, 1)")
    return Array(data, dtype.name)


_OTHERS: dict[str, Callable[[Machine], None]] = {
    "MARK": lambda machine: machine.stack.append(_MARK),
    "EMPTY_LIST": lambda machine: machine.stack.append([]),
    "LIST": lambda machine: machine.stack.append(machine._pop_to_mark()),
    "TUPLE": lambda machine: machine.stack.append(tuple(machine._pop_to_mark())),
    "APPEND": Machine._append,
    "APPENDS": lambda machine: machine._extend(machine._pop_to_mark()),
    "MEMOIZE": Machine._memoize,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "BUILD": Machine._build,
}
