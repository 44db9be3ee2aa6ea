"""Pool the embeddings of images to templates, in the test modes of InsightFace's IJB scripts.

A template is several images or video frames of one subject. Its embedding is

    template = normalise(sum over media(mean over frames of the medium(row of the image)))

A test mode defines the row of an image: ``N1D1F2`` means N 1, D 1, F 2.

| part | value | row of an image |
|---|---|---|
| F | 0 | the embedding of the image |
|   | 1 | the embeddings of the image and of its mirror image, joined |
|   | 2 | their sum |
| N | 0 | divided by its length |
|   | 1 | not divided: the length of an embedding acts as a weight |
| D | 0 | unchanged |
|   | 1 | multiplied by the score of the face detector |

N, D and F apply in the order F, N, D. The published figures of InsightFace use N1D1F2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import scipy.sparse  # type: ignore[import-untyped]

from ..errors import UserError
from ..metrics import BoolArray, FloatArray, Ids, IntArray, Vectors

Flip = Literal["none", "join", "add"]

_FLIPS: tuple[Flip, ...] = get_args(Flip)
_BLOCK = 1024  # images in float64 at a time: 4 MB at 512 numbers each


@dataclass(frozen=True)
class PoolMode:
    """A test mode.

    Attributes:
        normalise: divide the row of each image by its length. This is N0; N1 keeps the lengths.
        detector_score: multiply the row of each image by its detector score (D1).
        flip: use of the mirror image: F0 ``"none"``, F1 ``"join"``, F2 ``"add"``.
    """

    normalise: bool = False
    detector_score: bool = True
    flip: Flip = "add"

    @property
    def name(self) -> str:
        """The name of the mode, such as ``"N1D1F2"``."""
        return f"N{int(not self.normalise)}D{int(self.detector_score)}F{_FLIPS.index(self.flip)}"

    @classmethod
    def parse(cls, name: str) -> PoolMode:
        """Return the mode with this name.

        Raises:
            UserError: the name is unknown.
        """
        found = re.fullmatch(r"N([01])D([01])F([012])", name.strip().upper())
        if found is None:
            raise UserError(f"test mode: got {name!r} · allowed: N0 or N1, then D0 or D1, then F0, F1 or F2 (N1D1F2)")
        return cls(found[1] == "0", found[2] == "1", _FLIPS[int(found[3])])


@dataclass(frozen=True)
class Pooled:
    """The embeddings of templates.

    Attributes:
        ids: (T,) int64, the templates, sorted.
        templates: (T, d) float64 unit vectors. NaN for a template without a direction: all its
            images are undefined, or they add up to zero.
        num_undefined: number of ignored images, whose row is zero or not finite.
    """

    ids: IntArray
    templates: FloatArray
    num_undefined: int


def pool(
    image: Vectors,
    mirror: Vectors | None,
    template_of_image: Ids,
    media_of_image: Ids,
    *,
    mode: PoolMode | None = None,
    detector_score: Vectors | None = None,
) -> Pooled:
    """Pool the embeddings of images to templates.

    The sums are in float64. The function reads the images twice in blocks and does not copy them.

    Args:
        image: (N, D) float, the embedding of each image.
        mirror: (N, D) float, the embedding of its mirror image; None if the mode needs none.
        template_of_image: (N,) integers, the template of each image.
        media_of_image: (N,) integers; images of one template with equal numbers are frames of one
            video. The same number in another template is another medium.
        mode: the test mode; N1D1F2 if None.
        detector_score: (N,) finite float; None if the mode needs none.

    Returns:
        The templates; d is 2 D with ``flip="join"``, else D.

    Raises:
        ValueError: the arrays have different lengths, or the mode needs a missing array.
    """
    mode = PoolMode() if mode is None else mode
    parts = _parts(image, mirror, mode)
    weight = _detector_weights(len(image), detector_score, mode)
    if not len(image) == len(template_of_image) == len(media_of_image):
        raise ValueError(
            f"got {len(image)} embeddings, {len(template_of_image)} templates and {len(media_of_image)} media · "
            "one of each for each image is needed"
        )
    ids, template = np.unique(template_of_image, return_inverse=True)
    lengths = _lengths(parts)
    defined = np.isfinite(lengths) & (lengths > 0)
    weight = np.where(defined, weight, 0)
    if mode.normalise:
        weight = np.divide(weight, lengths, out=weight, where=defined)
    weight /= np.maximum(_frames(template, media_of_image, defined), 1)
    sums = _weighted_sums(parts, template, weight, defined, len(ids))
    return Pooled(ids.astype(np.int64), _unit(sums), int(np.count_nonzero(~defined)))


def _parts(image: Vectors, mirror: Vectors | None, mode: PoolMode) -> list[tuple[Vectors, ...]]:
    """Return the parts that a row concatenates, each a tuple of arrays that are added."""
    if mode.flip == "none":
        return [(image,)]
    if mirror is None or mirror.shape != image.shape:
        got = None if mirror is None else mirror.shape
        raise ValueError(f"mirror: got {got} · {mode.name} needs the {image.shape} embeddings of the mirror images")
    return [(image,), (mirror,)] if mode.flip == "join" else [(image, mirror)]


def _detector_weights(num_images: int, score: Vectors | None, mode: PoolMode) -> FloatArray:
    if not mode.detector_score:
        return np.ones(num_images)
    if score is None or score.shape != (num_images,) or not np.isfinite(score).all():
        raise ValueError(f"detector_score: {mode.name} needs a finite number for each of the {num_images} images")
    return np.asarray(score, dtype=np.float64)


def _blocks(arrays: tuple[Vectors, ...]) -> Iterator[tuple[slice, FloatArray]]:
    """Yield the sum of the arrays in float64, block by block; the next block overwrites a block."""
    buffer = np.empty((_BLOCK, arrays[0].shape[1]))
    for start in range(0, len(arrays[0]), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(arrays[0])))
        block = buffer[: rows.stop - start]
        block[:] = arrays[0][rows]
        for other in arrays[1:]:
            block += other[rows]
        yield rows, block


def _lengths(parts: list[tuple[Vectors, ...]]) -> FloatArray:
    """Return (N,) the length of the row of each image; not finite if one of its numbers is not."""
    squares = np.zeros(len(parts[0][0]))
    with np.errstate(invalid="ignore", over="ignore"):
        for part in parts:
            for rows, block in _blocks(part):
                squares[rows] += np.einsum("ij,ij->i", block, block)
    return np.asarray(np.sqrt(squares))


def _frames(template: IntArray, media: Ids, defined: BoolArray) -> IntArray:
    """Return (N,) the number of defined images of the medium of each image."""
    _, medium = np.unique(media, return_inverse=True)
    key = template * (int(medium.max(initial=0)) + 1) + medium
    _, group = np.unique(key, return_inverse=True)
    return np.bincount(group, weights=defined)[group].astype(np.int64)


def _weighted_sums(
    parts: list[tuple[Vectors, ...]], template: IntArray, weight: FloatArray, defined: BoolArray, num_templates: int
) -> FloatArray:
    """Return (T, d) float64: the sum of weight × row over the images of each template."""
    dim = parts[0][0].shape[1]
    sums = np.zeros((num_templates, len(parts) * dim))
    for index, part in enumerate(parts):
        columns = slice(index * dim, (index + 1) * dim)
        for rows, block in _blocks(part):
            block[~defined[rows]] = 0  # 0 × NaN would be NaN
            found, local = np.unique(template[rows], return_inverse=True)
            sides = (weight[rows], (local, np.arange(len(block))))
            matrix = scipy.sparse.csr_array(sides, shape=(len(found), len(block)))
            sums[found, columns] += matrix @ block
    return sums


def _unit(rows: FloatArray) -> FloatArray:
    """Divide the rows by their length, in place; NaN if it is 0."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    lengths[lengths == 0] = np.nan
    rows /= lengths[:, None]
    return rows
