"""The values in a pickle, as :mod:`.pickle_machine` reads them: places of bytes, texts and arrays.

The bytes stay in the file until they are read and decoded.
"""

from __future__ import annotations

import codecs
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RAW, LATIN_IN_UTF8, LATIN_IN_ESCAPES, QUOTED = "raw", "utf-8", "raw-unicode-escape", "quoted"
"""How bytes are stored.

Raw; as text of their code points, by Python 3, in UTF-8 (protocols 1 and 2) or with escapes
(protocol 0); or between quotes with escapes, by Python 2 (protocol 0).
"""

DTYPES = {"u1": "|", "b1": "|", "i1": "|", "i2": "<", "i4": "<", "i8": "<"}  # numpy type → byte order


class Refused(Exception):
    """The reason why a pickle is refused; the message lacks the path."""


@dataclass(slots=True)
class Bytes:
    """Bytes in the file.

    Attributes:
        offset, length: place of the stored form, in bytes of the file.
        coding: how they are stored, see :data:`RAW`.
        size: number of decoded bytes.
    """

    offset: int
    length: int
    coding: str
    size: int

    def read(self, data: mmap.mmap) -> bytes:
        """Return the decoded bytes."""
        return decoded(data[self.offset : self.offset + self.length], self.coding)


@dataclass(slots=True)
class Text:
    """A text in the file; ``encoded`` caches its bytes in Latin-1."""

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


class Dtype:
    """One of numpy's types in :data:`DTYPES`; only a marker."""

    def __init__(self, name: str) -> None:
        self.name = name


def decoded(data: bytes, coding: str) -> bytes:
    """Decode bytes of a file.

    Args:
        data: the stored bytes.
        coding: see :data:`RAW`.

    Raises:
        ValueError: they do not have this coding.
    """
    if coding == RAW:
        return data
    if coding == QUOTED:
        return codecs.escape_decode(data)[0]
    return data.decode(coding).encode("latin-1")


def decoded_text(data: bytes, text: Text) -> str:
    """Decode the bytes of a text.

    Raises:
        Refused: they are invalid.
    """
    try:
        return data.decode(text.coding, "surrogatepass" if text.coding == LATIN_IN_UTF8 else "strict")
    except UnicodeError:
        raise Refused("an invalid text") from None


def numbers_of(data: bytes, dtype: str) -> npt.NDArray[np.int64]:
    """Return the numbers in an array's bytes; a boolean gives its byte, normally 0 or 1."""
    return np.frombuffer(data, "u1" if dtype == "b1" else "<" + dtype).astype(np.int64)


def array_of(data: Any, *, shape: Any, dtype: Any) -> Array:
    """Return an array of one dimension, or of one column, from the parts of its pickle.

    Raises:
        Refused: the parts are not those of such an array.
    """
    if not isinstance(data, Bytes) or not isinstance(dtype, Dtype):
        raise Refused("an array of other elements than small whole numbers or booleans")
    count, rest = divmod(data.size, np.dtype(dtype.name).itemsize)
    if rest or shape not in ((count,), (count, 1)):
        raise Refused(f"an array whose shape is not ({count},) or ({count}, 1)")
    return Array(data, dtype.name)
