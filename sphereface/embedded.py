"""What comes of a list of images that are embedded, and how they are read ahead of the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from .errors import UserError, shown
from .faces import Face, Image

Read = tuple[list[tuple[int, Face]], dict[int, str]]
"""The faces of some images, by number, and why other images cannot be used."""

NO_PIXELS = np.empty((0, 0, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Embedded:
    """What came of a list of N images.

    Attributes:
        rows: (M,) int64, which of them could be used; one several times with ``on_several="all"``.
        embeddings: (M, D) float32 unit vectors of these.
        problems: number of an image that could not → why.
        num_faces: number of an image with several faces → how many.
        places: (M,) int64, which face of its image each row is, from the left; the first is 1.
        boxes: (M, 4) float32, x1, y1, x2, y2 of the faces in pixels of their images; None if no
            faces were searched, like ``scores``.
        scores: (M,) float32, of the detector, in [0, 1].
    """

    rows: npt.NDArray[np.int64]
    embeddings: npt.NDArray[np.float32]
    problems: dict[int, str]
    num_faces: dict[int, int]
    places: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32] | None
    scores: npt.NDArray[np.float32] | None


def read_ahead(
    pool: ThreadPoolExecutor,
    read: Callable[[Sequence[Image], range], Read],
    images: Sequence[Image],
    batches: Sequence[range],
) -> Iterator[Read]:
    """Yield what ``read`` returns for each batch; the next one is being read meanwhile."""
    waiting: deque[Future[Read]] = deque()
    for batch in batches:
        waiting.append(pool.submit(read, images, batch))
        if len(waiting) > 1:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def embedded(
    found: Sequence[tuple[int, Face]],
    embeddings: npt.NDArray[np.float32],
    problems: dict[int, str],
    *,
    searched: bool,
) -> Embedded:
    """Put together what came of a list of images.

    Args:
        found: M faces, each with the number of its image.
        embeddings: (M, D) of these.
        problems: see :class:`Embedded`.
        searched: whether the faces were searched, so that they have boxes and scores.
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


def listed_images(images: Iterable[Image]) -> Sequence[Image]:
    """Return images that can be counted; a generator is read to its end."""
    if isinstance(images, str | Path | bytes | bytearray | memoryview) or (
        isinstance(images, np.ndarray) and images.ndim == 3
    ):
        raise UserError("images: got a single image · allowed: a list of images, as in embed([image])")
    if hasattr(images, "__len__") and hasattr(images, "__getitem__"):
        return cast(Sequence[Image], images)
    try:
        return list(images)
    except TypeError:
        raise UserError(f"images: got {shown(images)} · allowed: a list of images") from None


def name_of(image: Image, number: int | None = None) -> str:
    """What messages call an image: its path, or its place in the list."""
    if isinstance(image, str | Path):
        return str(image)
    return "image" if number is None else f"image {number}"
