"""Read Caffe's ``.caffemodel`` files without Caffe and without generated code.

The file is one protobuf message, ``NetParameter`` of ``caffe.proto``. A message is a list of
fields, each with a key (number and kind) and a value. The reader takes the layers, their names, and
the shapes and numbers of their blobs, and skips the rest.

Messages are nested four deep, so the reader needs no recursion. It compares every length with the
bytes that are left before it reads. So no file makes it allocate much more than the file's own
size.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..checkpoint import BadCheckpoint
from ..files import regular_file

Array = npt.NDArray[np.float32]

# NetParameter: field of a layer → the fields of name and blobs in it (LayerParameter, and the older
# V1LayerParameter)
_LAYERS = {100: (1, 7), 2: (4, 6)}
_NET_NAME, _NET_INPUT_DIM, _NET_INPUT_SHAPE = 1, 4, 8
_LAYER_INPUT, _INPUT_SHAPE = 143, 1  # LayerParameter.input_param, InputParameter.shape
_BLOB_DATA, _BLOB_SHAPE, _BLOB_DOUBLES = 5, 7, 8
_BLOB_OLD_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
_SHAPE_DIM = 1

# kinds of value; caffe.proto has no groups (3, 4)
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}  # bytes

_MAX_AXES = 32  # Caffe's own limit
_MAX_BLOBS = 10_000  # the deepest networks have about 2,000
_MAX_BYTES = 2**31 - 1  # protobuf's own limit

Value = int | slice
"""The value of a field: the number itself, or the place of its bytes in the file."""


class _Damaged(Exception):
    """The file is not a Caffe model; the message says where."""


@dataclass(frozen=True)
class CaffeModel:
    """The content of a ``.caffemodel``.

    Attributes:
        blobs: layer name → its blobs in order (weight, bias; for a PReLU its slopes), float32, with
            the shapes in the file. Layers without blobs are left out.
        input_shapes: shapes of the network's inputs where the file states them, such as (1, 3, 112,
            96).
    """

    blobs: dict[str, list[Array]]
    input_shapes: list[tuple[int, ...]]


def read_caffemodel(path: Path) -> CaffeModel:
    """Read a binary ``.caffemodel`` of any Caffe version.

    The file may use ``layer`` or ``layers``, and blobs with ``shape`` or with the four older
    numbers.

    Raises:
        BadCheckpoint: the file is truncated, too large, or not a Caffe model.
        OSError: the file cannot be read.
    """
    with open(path, "rb", opener=regular_file) as file:
        size = os.fstat(file.fileno()).st_size
    if not 0 < size <= _MAX_BYTES:
        raise BadCheckpoint(f"{path}: got {size:,} bytes · allowed for a .caffemodel: 1 to {_MAX_BYTES:,}")
    data = np.memmap(path, np.uint8, "r").data
    try:
        return _net(data, slice(0, size))
    except _Damaged as damage:
        raise BadCheckpoint(f"{path}: truncated, damaged or not a .caffemodel ({damage}) · get it again") from None


def _net(data: memoryview, span: slice) -> CaffeModel:
    blobs: dict[str, list[Array]] = {}
    old_input: list[int] = []
    inputs: list[tuple[int, ...]] = []
    num_blobs = 0
    for number, value in _fields(data, span):
        if number in _LAYERS:
            name, found = _layer(data, _bytes(value), number, inputs)
            num_blobs += len(found)
            if name in blobs and found:
                raise _Damaged(f"two layers called {name!r}")
            if num_blobs > _MAX_BLOBS:
                raise _Damaged(f"more than {_MAX_BLOBS:,} blobs")
            if found:
                blobs[name] = found
        elif number == _NET_INPUT_SHAPE:
            inputs.append(_dims(data, _bytes(value)))
        elif number == _NET_INPUT_DIM:
            _extend(old_input, _numbers(data, value))
        elif number == _NET_NAME:
            _bytes(value)
    if len(old_input) == 4:
        inputs.append(tuple(old_input))
    return CaffeModel(blobs, inputs)


def _layer(data: memoryview, span: slice, kind: int, inputs: list[tuple[int, ...]]) -> tuple[str, list[Array]]:
    """Return a layer's name and blobs; append an input layer's shapes to ``inputs``."""
    name_field, blobs_field = _LAYERS[kind]
    name, blobs = "", list[Array]()
    for number, value in _fields(data, span):
        if number == name_field:
            name = bytes(data[_bytes(value)][:200]).decode("utf-8", errors="replace")
        elif number == blobs_field:
            blobs.append(_blob(data, _bytes(value), name))
            if len(blobs) > _MAX_BLOBS:
                raise _Damaged(f"layer {name!r}: more than {_MAX_BLOBS:,} blobs")
        elif number == _LAYER_INPUT:
            inputs += [_dims(data, _bytes(v)) for n, v in _fields(data, _bytes(value)) if n == _INPUT_SHAPE]
    return name, blobs


def _blob(data: memoryview, span: slice, layer: str) -> Array:
    """Return the numbers of a blob in their shape.

    A repeated field may come in several pieces: packed, single, or both.
    """
    floats, doubles = bytearray(), bytearray()
    shape: list[int] = []
    old_shape: dict[int, int] = {}
    for number, value in _fields(data, span):
        if number == _BLOB_DATA:
            floats += data[_bytes(value)]
        elif number == _BLOB_DOUBLES:
            doubles += data[_bytes(value)]
        elif number == _BLOB_SHAPE:
            _extend(shape, _dims(data, _bytes(value)))
        elif number in _BLOB_OLD_SHAPE and isinstance(value, int):
            old_shape[number] = value
    raw, kind = (doubles, "<f8") if doubles else (floats, "<f4")
    axes = tuple(old_shape.get(number, 0) for number in _BLOB_OLD_SHAPE) if old_shape else tuple(shape)
    if len(raw) != math.prod(axes) * np.dtype(kind).itemsize:
        raise _Damaged(f"layer {layer!r}: {len(raw):,} bytes of numbers for the shape {axes}")
    with np.errstate(over="ignore"):  # a double beyond float32 becomes inf, which the importer refuses
        numbers = np.frombuffer(raw, kind).astype(np.float32, copy=False)
    try:
        return numbers.reshape(axes)
    except (ValueError, OverflowError):  # no numbers, and an axis that is too long for numpy
        raise _Damaged(f"layer {layer!r}: the shape {axes}") from None


def _dims(data: memoryview, span: slice) -> tuple[int, ...]:
    """Read a BlobShape."""
    dims: list[int] = []
    for number, value in _fields(data, span):
        if number == _SHAPE_DIM:
            _extend(dims, _numbers(data, value))
    return tuple(dims)


def _extend(axes: list[int], more: Iterable[int]) -> None:
    for axis in more:
        axes.append(axis)
        if len(axes) > _MAX_AXES:
            raise _Damaged(f"a shape of more than {_MAX_AXES} axes")


def _numbers(data: memoryview, value: Value) -> Iterator[int]:
    """Return the integers of one piece of a repeated field, packed or single."""
    if isinstance(value, int):
        yield value
        return
    at = value.start
    while at < value.stop:
        number, at = _varint(data, at, value.stop)
        yield number


def _bytes(value: Value) -> slice:
    if isinstance(value, int):
        raise _Damaged("a number in place of a text, a layer or a blob")
    return value


def _fields(data: memoryview, span: slice) -> Iterator[tuple[int, Value]]:
    """Yield the fields of a message in order: number, and value or place of the value."""
    at, stop = span.start, span.stop
    while at < stop:
        start = at
        key, at = _varint(data, at, stop)
        number, kind = key >> 3, key & 7
        if number == 0 or kind not in (_VARINT, _BYTES, *_FIXED):
            raise _Damaged(f"byte {start:,}: no field starts with {key}")
        if kind == _VARINT:
            value, at = _varint(data, at, stop)
            yield number, value
            continue
        length, at = _varint(data, at, stop) if kind == _BYTES else (_FIXED[kind], at)
        if length > stop - at:
            raise _Damaged(f"byte {start:,}: a field of {length:,} bytes where {stop - at:,} are left")
        yield number, slice(at, at + length)
        at += length


def _varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    """Return an integer of 1 to 10 bytes, seven bits each, lowest first, and where it ends."""
    result = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            raise _Damaged(f"byte {at:,}: ends within a number")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
    raise _Damaged(f"byte {at:,}: a number of more than 10 bytes")
