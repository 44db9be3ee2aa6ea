"""What a face detector is to this package, and how one face of an image is found with any of them.

A detector is a callable: one image, (H, W, 3) uint8 in BGR, to its :class:`Faces`. Pixel
coordinates count from 0, the first pixel's centre being 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ..choices import PICKS
from .similarity import Image, Points

LONGEST_SIDE = 2000  # pixels; larger images are searched at this size, which bounds time and memory
_GREY = (127, 127, 127)  # what a detector reads as zero: an even border that holds no face


class NoFace(ValueError):
    """An image in which no face was found. The message says why, without the image's name."""


class SeveralFaces(ValueError):
    """An image with several faces that is to be left out. The message says how many, without the
    image's name.
    """


@dataclass(frozen=True)
class Faces:
    """All faces of one image.

    Args:
        boxes: (N, 4) float64, x1, y1, x2, y2 in pixels; may reach past the image.
        scores: (N,) float64 in [0, 1].
        points: (N, 5, 2) float64, (x, y) in pixels, ordered as ``templates.TEMPLATES``.
    """

    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    points: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """Finds faces; picklable, so that every worker can have its own."""

    @property
    def name(self) -> str:
        """All that its answers depend on, in a line: kept with the crops, which other settings must
        not join.
        """
        ...

    def __call__(self, image: Image) -> Faces:
        """Find the faces of one image, (H, W, 3) uint8, BGR."""
        ...


@dataclass(frozen=True)
class FoundFace:
    """The face of an image that was chosen.

    Args:
        points: (5, 2) float64, (x, y) in pixels of the image, to 1/100 pixel.
        score: the detector's, in [0, 1].
        num_faces: how many there were to choose from.
        padded: found only in the second try, on the image with a border.
    """

    points: Points
    score: float
    num_faces: int
    padded: bool


@dataclass(frozen=True)
class FoundFaces:
    """All faces of an image.

    Args:
        found: in pixels of the image; at least one.
        padded: found only in the second try, on the image with a border.
    """

    found: Faces
    padded: bool

    def face(self, index: int) -> FoundFace:
        """Return one of them."""
        points = np.round(self.found.points[index], 2)
        return FoundFace(points, float(self.found.scores[index]), len(self.found), self.padded)

    def left_to_right(self) -> list[FoundFace]:
        """Return all of them, from the left of the image to the right."""
        middles = self.found.boxes[:, 0] + self.found.boxes[:, 2]
        return [self.face(int(index)) for index in np.argsort(middles, kind="stable")]


Pick = Callable[[Faces, tuple[float, float]], int]


def nearest(faces: Faces, centre: tuple[float, float]) -> int:
    """Return the index of the face whose box lies nearest to ``centre``, (x, y); the surer of two
    as near.
    """
    middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    distances = np.hypot(*(middles - centre).T)
    return int(np.lexsort((-faces.scores, distances))[0])


def largest(faces: Faces, centre: tuple[float, float]) -> int:
    """Return the index of the face with the largest box; the one nearer to ``centre`` of two as
    large.
    """
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    return int(np.lexsort((np.hypot(*(middles - centre).T), -sides.prod(axis=1)))[0])


_PICKS: dict[str, Pick] = dict(zip(PICKS, (nearest, largest), strict=True))


def find_faces(image: Image, detector: Detector) -> FoundFaces:
    """Find all faces of an image, if need be in a second try with a border half as wide as the
    image.

    The border helps with tight crops, where the face is cut by the edge or fills the image. Images
    of more than ``LONGEST_SIDE`` pixels are searched at that size and the points mapped back.

    Args:
        image: (H, W, 3) uint8, BGR.
        detector: any.

    Raises:
        NoFace: neither try found one.
    """
    height, width = image.shape[:2]
    ratio = min(1.0, LONGEST_SIDE / max(height, width))
    if ratio < 1:
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    faces, border = detector(image), (0, 0)
    if not len(faces):
        border = (image.shape[1] // 2, image.shape[0] // 2)
        faces = detector(_with_border(image, *border))
    if not len(faces):
        raise NoFace(f"no face found in {width}x{height} pixels, nor with a border around them")

    ratios = np.array([width / image.shape[1], height / image.shape[0]])
    points = (faces.points - border + 0.5) * ratios - 0.5  # pixel centres lie at halves of the pixel's edges
    boxes = (faces.boxes - [*border, *border] + 0.5) * [*ratios, *ratios] - 0.5
    return FoundFaces(Faces(boxes, faces.scores, points), padded=border != (0, 0))


def find_face(image: Image, detector: Detector, pick: str = "centre") -> FoundFace:
    """Find the faces of an image as :func:`find_faces`, and choose one.

    Args:
        image: (H, W, 3) uint8, BGR.
        detector: any.
        pick: of several faces, one of ``choices.PICKS``: the one nearest the centre, or the
            largest.

    Raises:
        NoFace: neither try found one.
    """
    faces = find_faces(image, detector)
    centre = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    chosen = _PICKS[pick](faces.found, centre)
    return faces.face(chosen)


def _with_border(image: Image, across: int, down: int) -> Image:
    bordered = cv2.copyMakeBorder(image, down, down, across, across, cv2.BORDER_CONSTANT, value=_GREY)
    return np.asarray(bordered, dtype=np.uint8)
