"""InsightFace's verification sets, ``lfw.bin`` and its like: a pickle of (encoded pictures, same or not).

Pictures 2i and 2i + 1 are pair i. Such files are passed around, and a pickle may run anything when it is loaded: this
one is followed by :mod:`~sphereface.data.pickled`, which runs nothing.
"""

from __future__ import annotations

import hashlib
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .pairs import Pairs
from .pickled import Bytes, Machine, Refused

BIN_SUFFIX = ".bin"
NUM_FOLDS = 10


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
            spans, same = _check(Machine(data).run())
            digests = [hashlib.sha256(data[span.offset : span.offset + span.length]).digest() for span in spans]
    except Refused as error:
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


def _check(value: Any) -> tuple[list[Bytes], list[bool]]:
    """(pictures, same or not) out of what the pickle describes."""
    parts = value if isinstance(value, (tuple, list)) else ()
    if len(parts) != 2 or not all(isinstance(part, (tuple, list)) for part in parts):
        raise Refused("holds no pair of lists · expected (encoded pictures, same or not), as InsightFace packs them")
    pictures, same = parts
    if not all(isinstance(picture, Bytes) and picture.length >= 0 for picture in pictures):
        raise Refused("its first list holds something else than encoded pictures (bytes, or arrays of uint8)")
    if not all(isinstance(answer, int) and answer in (0, 1) for answer in same):
        raise Refused("its second list holds something else than True and False")
    if len(pictures) != 2 * len(same):
        raise Refused(f"has {len(pictures)} pictures for {len(same)} pairs · expected two for each pair")
    if len(same) < NUM_FOLDS or len(set(same)) < 2:
        raise Refused(
            f"has {sum(same)} pairs of one person and {len(same) - sum(same)} of two · "
            f"allowed: both kinds, {NUM_FOLDS} pairs or more, for {NUM_FOLDS} folds"
        )
    return list(pictures), [bool(answer) for answer in same]
