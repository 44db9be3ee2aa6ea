"""InsightFace's verification sets, ``lfw.bin`` and its like: a pickle of (encoded images, same or
not).

Images 2i and 2i + 1 are pair i. Such files are passed around, and a pickle may run anything when it
is loaded: this one is followed by :mod:`~sphereface.data.pickled`, which runs nothing.
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

from ..errors import UserError, first_line, shown
from ..files import regular_file
from .pair_lists import NUM_FOLDS
from .pairs import Pairs
from .pickled import RAW, Array, Bytes, Machine, Refused, Text, decoded, numbers_of

BIN_SUFFIX = ".bin"


@dataclass(frozen=True)
class BinImage:
    """An encoded image inside a ``.bin`` file, read when it is asked for; holds no open file.

    ``coding`` says how its bytes are written there, see :data:`.pickled.RAW`.
    """

    path: Path
    number: int
    offset: int
    length: int
    coding: str = RAW

    def read_bytes(self) -> bytes:
        """The encoded image. Raises OSError where the file is gone, or is another one by now."""
        with open(self.path, "rb", opener=regular_file) as file:
            file.seek(self.offset)
            data = file.read(self.length)
        try:
            return decoded(data, self.coding)
        except ValueError:
            raise OSError(errno.EIO, "the file was changed after it had been read", str(self.path)) from None

    def __str__(self) -> str:
        return f"{self.path}, image {self.number}"


def is_bin(path: str | Path) -> bool:
    """Whether a path names a ``.bin`` file."""
    return Path(path).suffix.lower() == BIN_SUFFIX


def read_bin(path: str | Path) -> tuple[tuple[BinImage, ...], Pairs]:
    """Read a verification set, but not its images.

    An image that occurs in several pairs is stored as often in the file, or named as often, and
    listed here once. The ten folds are runs of the pairs in the order of the file, as in
    InsightFace: where the number of pairs is no multiple of ten, the first folds have one more.
    Memory: about 200 bytes an image.

    Args:
        path: the ``.bin`` file.

    Returns:
        The (M,) images, each once, and the pairs as rows into them. Names are six digits: the
        image's place in the file.

    Raises:
        UserError: no such file; a pickle that is cut off, or holds anything but such a set (nothing
            of it is run); other than two images for each pair; fewer than ten pairs, or pairs of
            one kind only.
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
                    f"{left:,} bytes follow the end of its pickle at byte {data.tell():,} · allowed: one pickle, and "
                    "nothing after it · download or copy it again"
                )
            images, same = _check(value, data)
            rows = _rows(images, data)
    except Refused as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}) · expected a verification set (.bin)") from None
    except ValueError as error:  # of mmap, for an empty file, or pickletools, for one that is cut off
        raise UserError(f"{path}: is not a whole pickle ({first_line(error)}) · download or copy it again") from None
    numbers = np.unique(rows, return_index=True)[1].tolist()
    unique = tuple(BinImage(path, n, images[n].offset, images[n].length, images[n].coding) for n in numbers)
    sizes = [len(part) for part in np.array_split(np.arange(len(same)), NUM_FOLDS)]
    pairs = Pairs(
        path=path,
        names=tuple(f"{number:06d}" for number in numbers),
        left=rows[0::2],
        right=rows[1::2],
        same=same,
        fold=np.repeat(np.arange(1, NUM_FOLDS + 1, dtype=np.int64), sizes),
        num_folds=NUM_FOLDS,
    )
    return unique, pairs


def _rows(images: Sequence[Bytes], data: mmap.mmap) -> npt.NDArray[np.int64]:
    """A number for each image, from 0 in order of appearance, equal for equal images. Each place is
    read once.
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
    """(images, same or not) out of what the pickle describes."""
    parts = value if isinstance(value, (tuple, list)) else ()
    if len(parts) != 2 or not isinstance(parts[0], (tuple, list)) or not isinstance(parts[1], (tuple, list, Array)):
        raise Refused("holds no pair of lists · expected (encoded images, same or not), as InsightFace packs them")
    parts_of_images = (part.data if isinstance(part, Array) and part.dtype == "u1" else part for part in parts[0])
    images = [part for part in parts_of_images if isinstance(part, Bytes)]
    if len(images) != len(parts[0]):
        raise Refused("its first list holds something else than encoded images (bytes, or arrays of uint8)")
    if len(images) != 2 * len(parts[1]):
        raise Refused(f"has {len(images)} images for {len(parts[1])} pairs · expected two for each pair")
    answers = _answers(parts[1], data)
    for number, answer in enumerate(answers, 1):
        if not isinstance(answer, int) or answer not in (0, 1):
            raise Refused(
                f"its second list holds something else than True and False: {_described(answer)} in place {number} · "
                "allowed: True (or 1) for a pair of one person, False (or 0) for one of two"
            )
    same = np.array(answers, dtype=bool)
    if len(same) < NUM_FOLDS or same.all() or not same.any():
        raise Refused(
            f"has {same.sum()} pairs of one person and {(~same).sum()} of two people · "
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
