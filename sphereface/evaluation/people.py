"""List the images of a folder of people, and the person on each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.pairs import Pairs
from ..data.walking import log_left_out, walk_images
from ..errors import UserError
from ..metrics import FloatArray, IntArray
from .embeddings import Features, undefined_rows
from .images import Images


@dataclass(frozen=True)
class People:
    """All images of a folder of people.

    Attributes:
        root: the folder.
        names: (C,) names of the people, sorted.
        person: (N,) int64 rows of ``names``, ascending: the images of one person are consecutive.
        files: (N,) the images, those of a person in the order of their names.
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


def list_people(root: Path) -> People:
    """List every image in ``root/<person>/``, at any depth.

    Warnings count the files that are not read, see :func:`walk_images`, and the images in deeper
    folders.

    Raises:
        UserError: the folder or a folder in it cannot be read, or it holds no such image.
    """
    walked = walk_images(root)
    found = walked.identities()
    log_left_out(walked, num_deeper=sum(name.count("/") > 1 for name in walked.names))
    if not found:
        raise UserError(f"{root}: holds no images · expected DIR/<person>/<image>")
    person = np.repeat(np.arange(len(found), dtype=np.int64), [len(files) for files in found.values()])
    return People(root, tuple(found), person, tuple(root / name for names in found.values() for name in names))


def unit_rows(features: Features, mean: FloatArray | None) -> npt.NDArray[np.float32]:
    """Subtract a mean from features and normalise them to float32 unit vectors.

    Features that are zero or not finite become 0, with or without a mean.

    Args:
        features: (N, F) float.
        mean: (F,) float; None does not centre.

    Returns:
        (N, F) float32.
    """
    centred: npt.NDArray[np.float32] = np.array(features, dtype=np.float32)
    undefined = undefined_rows(centred)
    if mean is not None:
        centred -= mean.astype(np.float32)
    centred[undefined] = 0
    norms = np.sqrt(np.einsum("ij,ij->i", centred, centred, dtype=np.float64))  # 1e25² is too large for float32
    centred /= np.where(norms > 0, norms, 1)[:, None]
    return centred


def mean_of(features: Features) -> FloatArray:
    """Return the (F,) float64 mean of the (N, F) features without undefined ones; 0 if all are."""
    undefined = undefined_rows(features)
    if undefined.all():
        return np.zeros(features.shape[1])
    mean: FloatArray = (features[~undefined] if undefined.any() else features).mean(axis=0, dtype=np.float64)
    return mean


def people_of(pairs: Pairs) -> tuple[IntArray, IntArray] | None:
    """Return the person on the left and on the right of each pair, by the folders of the images.

    Returns:
        Two arrays (P,) of numbers from 0. None if a name has no folder (``Name/Name_0001.jpg``), or
        if the folders contradict ``pairs.same``.
    """
    person = people_of_names(pairs.names)
    if person is None:
        return None
    left, right = person[pairs.left], person[pairs.right]
    return (left, right) if ((left == right) == pairs.same).all() else None


def people_of_names(names: Sequence[str]) -> IntArray | None:
    """Return (M,) int64 the person on each image by its folder; None if a name has no folder."""
    folders = [name.rpartition("/")[0] for name in names]
    if not all(folders):
        return None
    return np.unique(folders, return_inverse=True)[1].astype(np.int64)
