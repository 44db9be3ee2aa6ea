"""The images of a folder of people: who is on each, and which is whose first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.pairs import Pairs
from ..data.walking import say_left_out, walk_images
from ..errors import UserError
from ..metrics import BoolArray, FloatArray, IntArray
from .embeddings import Features, undefined_rows
from .images import Images


@dataclass(frozen=True)
class People:
    """All images of a folder of people.

    Attributes:
        root: the folder.
        names: (C,) of the people, sorted.
        person: (N,) int64 rows into ``names``, rising: the images of one person stand together.
        files: (N,) the images; those of a person by file name.
    """

    root: Path
    names: tuple[str, ...]
    person: IntArray
    files: tuple[Path, ...]

    @property
    def images(self) -> Images:
        """The images, named relative to ``root``."""
        names = tuple(file.relative_to(self.root).as_posix() for file in self.files)
        return Images(self.root, names, self.files)

    @property
    def first(self) -> BoolArray:
        """(N,) bool: image 1 of its person."""
        return np.append(True, self.person[1:] != self.person[:-1])

    @property
    def num_images(self) -> IntArray:
        """(N,) how many images the person on each image has."""
        return np.bincount(self.person)[self.person]


def list_people(root: Path) -> People:
    """Every image in ``root/<person>/``, at any depth. Files that are not read are logged; see
    :func:`walk_images`.

    Raises:
        UserError: the folder, or one in it, cannot be read, or it holds no such image.
    """
    walked = walk_images(root)
    found = walked.identities()
    say_left_out(walked)
    if not found:
        raise UserError(f"{root}: holds no images · expected DIR/<person>/<image>")
    person = np.repeat(np.arange(len(found), dtype=np.int64), [len(files) for files in found.values()])
    return People(root, tuple(found), person, tuple(root / name for names in found.values() for name in names))


def unit_rows(features: Features, mean: FloatArray | None) -> npt.NDArray[np.float32]:
    """Features less a mean, as float32 unit vectors, ready for matrix products.

    Features that are zero or not finite become 0, with or without a mean.

    Args:
        features: (N, F) float.
        mean: (F,), or None to leave them uncentred.

    Returns:
        (N, F) float32.
    """
    centred: npt.NDArray[np.float32] = np.array(features, dtype=np.float32)
    undefined = undefined_rows(centred)
    if mean is not None:
        centred -= mean.astype(np.float32)
    centred[undefined] = 0
    norms = np.sqrt(np.einsum("ij,ij->i", centred, centred, dtype=np.float64))  # 1e25 squared is no float32
    centred /= np.where(norms > 0, norms, 1)[:, None]
    return centred


def mean_of(features: Features) -> FloatArray:
    """Return the (F,) float64 mean of features (N, F) without those that are zero or not finite; 0
    if all are.
    """
    undefined = undefined_rows(features)
    if undefined.all():
        return np.zeros(features.shape[1])
    mean: FloatArray = (features[~undefined] if undefined.any() else features).mean(axis=0, dtype=np.float64)
    return mean


def people_of(pairs: Pairs) -> tuple[IntArray, IntArray] | None:
    """Who is on the left and on the right of each pair, by the folders of the images
    (``Name/Name_0001.jpg``).

    Returns:
        Two arrays (P,) of numbers from 0; None where the names do not say, or say something else
        than ``pairs.same``.
    """
    person = people_of_names(pairs.names)
    if person is None:
        return None
    left, right = person[pairs.left], person[pairs.right]
    return (left, right) if ((left == right) == pairs.same).all() else None


def people_of_names(names: Sequence[str]) -> IntArray | None:
    """(M,) int64 who is on each image, numbered by name; None where a name has no folder."""
    folders = [name.rpartition("/")[0] for name in names]
    if not all(folders):
        return None
    number = {folder: index for index, folder in enumerate(sorted(set(folders)))}
    return np.array([number[folder] for folder in folders], dtype=np.int64)
