"""The pictures of a folder of people: who is on each, and which is whose first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.images import IMAGE_SUFFIXES
from ..errors import UserError
from ..metrics import BoolArray, FloatArray, IntArray

Features = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class People:
    """All pictures of a folder of people.

    Attributes:
        root: the folder.
        names: (C,) of the people, sorted.
        person: (N,) int64 rows into ``names``, rising: the pictures of one person stand together.
        files: (N,) the pictures; those of a person by file name.
    """

    root: Path
    names: tuple[str, ...]
    person: IntArray
    files: tuple[Path, ...]

    @property
    def first(self) -> BoolArray:
        """(N,) bool: picture 1 of its person."""
        return np.append(True, self.person[1:] != self.person[:-1])

    @property
    def pictures(self) -> IntArray:
        """(N,) how many pictures the person on each picture has."""
        return np.bincount(self.person)[self.person]


def list_people(root: Path) -> People:
    """Every picture in ``root/<person>/``. Names that start with a dot, and folders without pictures, are passed over.

    Raises:
        UserError: the folder cannot be read, or holds no such picture.
    """
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        found = {folder.name: files for folder in folders if (files := _pictures(folder))}
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror}) · expected a folder of people") from error
    if not found:
        raise UserError(f"{root}: holds no pictures · expected DIR/<person>/<picture>")
    person = np.repeat(np.arange(len(found), dtype=np.int64), [len(files) for files in found.values()])
    return People(root, tuple(found), person, tuple(file for files in found.values() for file in files))


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def unit_rows(features: Features, mean: FloatArray | None) -> npt.NDArray[np.float32]:
    """Features less a mean, as float32 unit vectors, ready for matrix products. What has no direction becomes 0.

    Args:
        features: (N, F) float.
        mean: (F,), or None to leave them uncentred.

    Returns:
        (N, F) float32.
    """
    centred: npt.NDArray[np.float32] = np.array(features, dtype=np.float32)
    if mean is not None:
        centred -= mean.astype(np.float32)
    centred[~np.isfinite(centred).all(axis=1)] = 0
    norms = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    centred /= np.where(norms > 0, norms, 1)[:, None]
    return centred
