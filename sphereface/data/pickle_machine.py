"""Read the value that a pickle describes without loading it.

Loading a pickle can run any code. This module reads the operations one by one, as
:mod:`pickletools` describes them. It runs only the few that lists of bytes, of numbers and of
numpy's arrays and booleans need, on a small stack. It imports, constructs and calls nothing by
name; any other operation is an error. Bytes stay in the file. Python 2 and 3, numpy 1 and 2 and the
protocols 0 to 5 are supported.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, cast

from ..errors import shown
from .pickled import (
    DTYPES,
    LATIN_IN_ESCAPES,
    LATIN_IN_UTF8,
    QUOTED,
    RAW,
    Array,
    Bytes,
    Dtype,
    Refused,
    Text,
    array_of,
    decoded,
    decoded_text,
    numbers_of,
)

MOST_OPERATIONS, BYTES_AN_OPERATION = 2_500_000, 50
"""The largest number of operations, plus one for every 50 bytes of the pickle.

An image takes up to 17 operations, and a kilobyte or more. The limit bounds the time for a small
file (seconds) and its memory (250 MB).
"""

_OPERATIONS = {operation.code.encode("latin-1"): operation for operation in pickletools.opcodes}
_PUSHED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_ARGUMENT_PUSHED = frozenset({"BININT", "BININT1", "BININT2", "INT", "BINFLOAT", "FLOAT"})
_BYTES = {  # operation → width of the length before the bytes
    **{"SHORT_BINSTRING": 1, "SHORT_BINBYTES": 1, "BINSTRING": 4, "BINBYTES": 4},
    **{"BINBYTES8": 8, "BYTEARRAY8": 8},
}
_TEXTS = {"SHORT_BINUNICODE": 1, "BINUNICODE": 4, "BINUNICODE8": 8}  # as above
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
_TYPES = ", ".join(DTYPES)
_LONGEST_TEXT = 100  # bytes of a text that is a name
_MOST_ARGUMENTS = 9  # of a call or a state


class _Global:
    """One of the names in :data:`_GLOBALS`; only a marker, not the object."""

    def __init__(self, name: str) -> None:
        self.name = name


_MARK = object()


class Machine:
    """Run the operations of one pickle; it knows only those below.

    Args:
        data: the file.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the value that the pickle describes, its bytes as :class:`Bytes`."""
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
                    f"at byte {position}: {error} · allowed: only (list of encoded images, list of booleans) · "
                    "none of its code was run; do not load this file with pickle"
                ) from None
        raise AssertionError("operations end with STOP or an error")

    def _operations(self) -> Iterator[tuple[str, Any, int]]:
        """Yield (name, argument, position) of each operation, as :func:`pickletools.genops`.

        ``genops`` allows only ASCII for STRING.
        """
        file = cast(IO[bytes], self.data)  # it has all methods needed; read() stops at the end of the map
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
        elif name == "UNICODE":  # to the end of its line
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
            raise Refused("values appended to something that is not a list")
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
            raise Refused("a global without a text as its name")
        self._global(f"{module} {name}")

    def _global(self, name: str) -> None:
        if name not in _GLOBALS:
            raise Refused(f"a reference to {name.replace(' ', '.', 1)[:80]!r}")
        self.stack.append(_Global(_GLOBALS[name]))

    def _text(self, value: Any) -> Any:
        """Return a short text as a str, even if Python 2 stored bytes; any other value as it is."""
        if isinstance(value, (Text, Bytes)) and value.length <= _LONGEST_TEXT:
            data = self.data[value.offset : value.offset + value.length]
            return (
                decoded(data, value.coding).decode("latin-1") if isinstance(value, Bytes) else decoded_text(data, value)
            )
        return value

    def _reduce(self) -> None:
        """Emulate a call that converts text to bytes, or makes one of numpy's arrays or numbers."""
        arguments, function = self._pop(), self._pop()
        name = function.name if isinstance(function, _Global) else ""
        few = isinstance(arguments, tuple) and len(arguments) <= _MOST_ARGUMENTS
        made = self._call(name, arguments, [self._text(value) for value in arguments]) if few else None
        if made is None:
            raise Refused(f"a call of {name or 'an unknown function'} with arguments that bytes and arrays do not need")
        self.stack.append(made[0])

    def _call(self, name: str, arguments: tuple[Any, ...], values: list[Any]) -> tuple[Any] | None:
        """Return the result in a tuple; None if the arguments are unknown.

        Args:
            name: of the function.
            arguments: as in the pickle.
            values: the same, with short texts as str.
        """
        count = len(values)
        if (name, count) in ((_ENCODE, 2), (_BYTEARRAY, 2)) and isinstance(arguments[0], Text):
            return (self._encoded(arguments[0]),) if isinstance(values[1], str) and values[1] in _LATIN else None
        if (name, count) == (_BYTEARRAY, 1) and isinstance(arguments[0], Bytes):
            return (arguments[0],)
        if (name, count) in ((_EMPTY_BYTES, 0), (_BYTEARRAY, 0)):
            return (Bytes(0, 0, RAW, 0),)
        if (name, count) == (_DTYPE, 3) and isinstance(values[0], str):
            if values[0] not in DTYPES:
                raise Refused(f"an array or a number of numpy's type {shown(values[0])}, not one of {_TYPES}")
            return (Dtype(values[0]),)
        if (name, count) == (_RECONSTRUCT, 3) and getattr(values[0], "name", None) == _NDARRAY:
            return (Array(None, ""),)  # BUILD fills it in
        if (name, count) == (_FROMBUFFER, 4):
            return (array_of(arguments[0], shape=arguments[2], dtype=arguments[1]),)
        if (name, count) == (_SCALAR, 2):
            array = array_of(arguments[1], shape=(1,), dtype=arguments[0])
            return (int(numbers_of(arguments[1].read(self.data), array.dtype)[0]),)
        return None

    def _encoded(self, text: Text) -> Bytes:
        """Emulate ``_codecs.encode(text, "latin1")``, once for each text."""
        if text.encoded is None:
            data = self.data[text.offset : text.offset + text.length]
            try:
                size = len(decoded(data, text.coding))
            except UnicodeError:
                raise Refused("bytes from a text with characters outside Latin-1") from None
            text.encoded = Bytes(text.offset, text.length, text.coding, size)
        return text.encoded

    def _build(self) -> None:
        """Emulate setting the state of numpy's dtype, or of an array."""
        state, target = self._pop(), self._top()
        values = state if isinstance(state, tuple) and len(state) <= _MOST_ARGUMENTS else ()
        if isinstance(target, Dtype):
            expected = [3, DTYPES[target.name], None, None, None, -1, -1, 0]
            if [self._text(value) for value in values] == expected:
                return
        if isinstance(target, Array) and target.data is None and len(values) == 5:
            array = array_of(values[4], shape=values[1], dtype=values[2])
            target.data, target.dtype = array.data, array.dtype
            return
        raise Refused("the state of an object other than an array of numpy's small types")


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
