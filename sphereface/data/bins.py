"""Read InsightFace's verification sets (``lfw.bin`` …): a pickle of (encoded images, same or not).

Images 2i and 2i + 1 are pair i. Such files come from many places, and loading a pickle can run any
code. :mod:`~sphereface.data.pickle_machine` reads this one without running any.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..errors import UserError, count_of, first_line, shown
from ..files import regular_file
from .pair_folds import NUM_FOLDS
from .pairs import Pairs
from .pickle_machine import Machine
from .pickled import RAW, Array, Bytes, Refused, Text, decoded, numbers_of

BIN_SUFFIX = ".bin"


@dataclass(frozen=True)
class BinImage:
    """An encoded image inside a ``.bin`` file, read on demand; it holds no open file.

    ``coding`` tells how its bytes are stored, see :data:`.pickled.RAW`.
    """

    path: Path
    number: int
    offset: int
    length: int
    coding: str = RAW

    def read_bytes(self) -> bytes:
        """Return the encoded image. Raises OSError if the file is missing or was replaced."""
        with open(self.path, "rb", opener=regular_file) as file:
            file.seek(self.offset)
            data = file.read(self.length)
        try:
            return decoded(data, self.coding)
        except ValueError:
            raise OSError(errno.EIO, "the file changed after it was read", str(self.path)) from None

    def __str__(self) -> str:
        return f"{self.path}, image {self.number}"


def is_bin(path: str | Path) -> bool:
    """Return whether a path names a ``.bin`` file."""
    return Path(path).suffix.lower() == BIN_SUFFIX


def read_bin(path: str | Path) -> tuple[tuple[BinImage, ...], Pairs]:
    """Read a verification set without its images.

    An image of several pairs is stored, or referenced, several times in the file; the result lists
    it once. The ten folds are consecutive pairs in the order of the file, as in InsightFace. If the
    number of pairs is not a multiple of ten, the first folds have one more. Memory: about 200 bytes
    an image.

    Args:
        path: the ``.bin`` file.

    Returns:
        The (M,) distinct images, and the pairs as rows into them. A name is six digits: the image's
        place in the file.

    Raises:
        UserError: there is no such file; the pickle is truncated or contains anything else (none of
            its code runs); the number of images is not twice the number of pairs; fewer than ten
            pairs, pairs of one kind only, or only copies of one image.
    """
    path = Path(path)
    try:
        with (
            open(path, "rb", opener=regular_file) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            value = Machine(data).run()
            if left := len(data) - data.tell():
                raise Refused(
                    f"{left:,} bytes follow the end of its pickle at byte {data.tell():,} · allowed: one pickle only · "
                    "download or copy it again"
                )
            images, same = _check(value, data)
            rows = _rows(images, data)
            if not rows.any():
                raise Refused(f"repeats one image {len(rows):,} times · allowed: different images · pack it again")
    except Refused as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}) · allowed: a verification set (.bin)") from None
    except ValueError as error:  # mmap raises it for an empty file, pickletools for a truncated one
        raise UserError(f"{path}: not a whole pickle ({first_line(error)}) · download or copy it again") from None
    numbers = np.unique(rows, return_index=True)[1].tolist()
    unique = tuple(BinImage(path, n, images[n].offset, images[n].length, images[n].coding) for n in numbers)
    sizes = [len(part) for part in np.array_split(np.arange(len(same)), NUM_FOLDS)]
    fold = np.repeat(np.arange(1, NUM_FOLDS + 1, dtype=np.int64), sizes)
    names = tuple(f"{number:06d}" for number in numbers)
    return unique, Pairs(path, names, rows[0::2], rows[1::2], same, fold, NUM_FOLDS)


def _rows(images: Sequence[Bytes], data: mmap.mmap) -> npt.NDArray[np.int64]:
    """Return a number for each image, from 0 in order of appearance, equal for equal images.

    Each place in the file is read once.
    """
    digests: dict[tuple[int, int, str], bytes] = {}
    first: dict[bytes, int] = {}
    rows = np.empty(len(images), dtype=np.int64)
    for index, image in enumerate(images):
        place = (image.offset, image.length, image.coding)
        if place not in digests:
            digests[place] = hashlib.sha256(image.read(data)).digest()
        rows[index] = first.setdefault(digests[place], len(first))
    return rows


def _check(value: Any, data: mmap.mmap) -> tuple[list[Bytes], npt.NDArray[np.bool_]]:
    """Return (images, same or not) from the contents of the pickle."""
    parts = value if isinstance(value, (tuple, list)) else ()
    if len(parts) != 2 or not isinstance(parts[0], (tuple, list)) or not isinstance(parts[1], (tuple, list, Array)):
        raise Refused("is not a pair of lists · allowed: (encoded images, same or not), as InsightFace packs them")
    parts_of_images = (part.data if isinstance(part, Array) and part.dtype == "u1" else part for part in parts[0])
    images = [part for part in parts_of_images if isinstance(part, Bytes)]
    if len(images) != len(parts[0]):
        raise Refused("its first list has elements other than encoded images · allowed: bytes, or arrays of uint8")
    if len(images) != 2 * len(parts[1]):
        raise Refused(f"has {len(images)} images for {len(parts[1])} pairs · allowed: two for each pair")
    answers = _answers(parts[1], data)
    for number, answer in enumerate(answers, 1):
        if not isinstance(answer, int) or answer not in (0, 1):
            raise Refused(
                f"element {number} of its second list is {_described(answer)} · "
                "allowed: True (or 1) for a pair of one person, False (or 0) for a pair of two people"
            )
    same = np.array(answers, dtype=bool)
    if len(same) < NUM_FOLDS or same.all() or not same.any():
        raise Refused(
            f"has {count_of(int(same.sum()), 'pair', 'pairs')} of one person and {(~same).sum()} of two people · "
            f"allowed: both kinds, {NUM_FOLDS} pairs or more, for {NUM_FOLDS} folds"
        )
    return images, np.asarray(same)


def _described(value: Any) -> str:
    if isinstance(value, (int, float)):
        return shown(value)
    return {Bytes: "bytes", Text: "a text"}.get(type(value), f"a value of type {type(value).__name__}")


def _answers(labels: Sequence[Any] | Array, data: mmap.mmap) -> Sequence[Any]:
    if not isinstance(labels, Array):
        return labels
    return [] if labels.data is None else cast(list[int], numbers_of(labels.data.read(data), labels.dtype).tolist())
