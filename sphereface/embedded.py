"""Embedding a list of images: their checks, their batches, and the result."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from .errors import UserError, shown
from .faces import Face, FaceReader, Image, Pixels, ReadFile, UnusableImage

NO_PIXELS = np.empty((0, 0, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Embedded:
    """The result of embedding N images.

    Attributes:
        rows: (M,) int64, number of the image of each embedding. With ``on_several="all"`` a number
            may occur several times.
        embeddings: (M, D) float32 unit vectors.
        problems: number of an image without an embedding → the reason.
        num_faces: number of an image with several faces → how many faces.
        places: (M,) int64, number of the face within its image, counted from the left; the first
            is 1.
        boxes: (M, 4) float32, x1, y1, x2, y2 of the faces in pixels of their images; None for
            crops.
        scores: (M,) float32, of the detector, in [0, 1]; None for crops.
    """

    rows: npt.NDArray[np.int64]
    embeddings: npt.NDArray[np.float32]
    problems: dict[int, str]
    num_faces: dict[int, int]
    places: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32] | None
    scores: npt.NDArray[np.float32] | None


def embedded(
    found: Sequence[tuple[int, Face]], embeddings: npt.NDArray[np.float32], problems: dict[int, str], *, searched: bool
) -> Embedded:
    """Return the :class:`Embedded` of a list of images.

    Args:
        found: M faces, each with the number of its image.
        embeddings: (M, D) of these faces.
        problems: see :class:`Embedded`.
        searched: a detector found the faces, so they have boxes and scores.
    """
    faces = [face for _, face in found]
    return Embedded(
        np.array([number for number, _ in found], dtype=np.int64),
        embeddings,
        problems,
        {number: face.num_faces for number, face in found if face.num_faces > 1},
        np.array([face.place for face in faces], dtype=np.int64),
        np.array([face.box for face in faces], dtype=np.float32).reshape(-1, 4) if searched else None,
        np.array([face.score for face in faces], dtype=np.float32) if searched else None,
    )


def images_given(images: Iterable[Image]) -> Sequence[Image] | itertools.chain[Image]:
    """Return the images as a sequence; return those of a generator as a chain.

    Raises:
        UserError: ``images`` is a single image, a dictionary, a set, a file, or not iterable.
    """
    is_array = isinstance(images, np.ndarray) and images.ndim == 3
    if is_array or isinstance(images, str | Path | bytes | bytearray | memoryview):
        raise UserError("images: got a single image · allowed: a list of images, as in embed([image])")
    if isinstance(images, Mapping):
        raise UserError(f"images: got {shown(images)} · allowed: a list of images, as in embed(list(images.values()))")
    if isinstance(images, set | frozenset):
        raise UserError(
            "images: got a set, which has no order · allowed: a list of images, as in embed(sorted(images))"
        )
    if isinstance(images, io.IOBase):
        raise UserError(f"images: got {shown(images)}, an open file · allowed: a list of images, as in embed([path])")
    if hasattr(images, "__len__") and hasattr(images, "__getitem__") and not _has_labels(images):
        return cast(Sequence[Image], images)
    try:
        return itertools.chain(iter(images))  # its own iterator, also where iter(images) begins again each time
    except TypeError:
        raise UserError(f"images: got {shown(images)} · allowed: a list of images") from None


def in_batches(
    images: Sequence[Image] | itertools.chain[Image], size: int
) -> Iterator[tuple[range, Iterator[Image | ReadFile]]]:
    """Divide images into batches, each with the numbers of its images.

    Only the images of the next batch are read from an iterator, which may fill one buffer with each
    of them, or write each into one file. An image of a sequence is read when it is needed.
    """
    if not isinstance(images, itertools.chain):
        for start in range(0, len(images), size):
            numbers = range(start, min(start + size, len(images)))
            yield numbers, map(images.__getitem__, numbers)
        return
    start = 0
    while batch := list(map(_own, itertools.islice(images, size))):
        yield range(start, start + len(batch)), iter(batch)
        start += len(batch)


def read_batch(
    reader: FaceReader, batch: tuple[range, Iterator[Image | ReadFile]]
) -> tuple[int, list[tuple[int, Face]], dict[int, str]]:
    """Return the size of a batch, its faces with the numbers of their images, and problems."""
    numbers, images = batch
    found, problems = [], {}
    for number in numbers:
        try:
            image = next(images)
            name = image.name if isinstance(image, ReadFile) else name_of(image, number)
            found += [(number, face) for face in reader.read_faces(image, name)]
        except UnusableImage as error:
            problems[number] = str(error)
    return len(numbers), found, problems


def _own(image: Image) -> Image | ReadFile:
    """Return an image that does not change when its memory or its file is used again."""
    if isinstance(image, str | Path):
        return ReadFile(image)
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    return np.array(image) if isinstance(image, np.ndarray) else image


def _has_labels(images: object) -> bool:
    """Return whether ``images[0]`` may not be the first image, as in a pandas Series."""
    return hasattr(images, "keys") or (isinstance(images, np.ndarray) and images.ndim == 0)


def checked_crops(crops: object, size: tuple[int, int]) -> Pixels:
    """Return crops as a contiguous array.

    Args:
        crops: (B, H, W, 3) uint8.
        size: (H, W) of the network.

    Raises:
        UserError: they are not such an array.
    """
    if isinstance(crops, np.ndarray) and crops.dtype == np.uint8 and crops.shape[1:] == (*size, 3):
        return np.ascontiguousarray(crops)
    got = f"an array {crops.shape} {crops.dtype}" if isinstance(crops, np.ndarray) else shown(crops)
    raise UserError(f"crops: got {got} · allowed: an array (B, {size[0]}, {size[1]}, 3) uint8, BGR")


def name_of(image: Image, number: int | None = None) -> str:
    """Return the name of an image in messages: its path, or its number in the list."""
    if isinstance(image, str | Path):
        return str(image)
    return "image" if number is None else f"image {number}"
