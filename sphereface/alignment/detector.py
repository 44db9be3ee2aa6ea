"""The interface of face detectors, and the choice of one face of an image.

A detector is a callable that maps one image, (H, W, 3) uint8 in BGR, to its :class:`Faces`. The
centre of the first pixel has coordinate 0.
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

LONGEST_SIDE = 2000  # pixels; larger images are shrunk to it, which bounds time and memory
_GREY = (127, 127, 127)  # about zero for a detector: a flat border without a face


class NoFace(ValueError):
    """No face was found in an image. The message gives the reason, without the image's name."""


class SeveralFaces(ValueError):
    """An image is rejected because it has several faces. The message gives their number."""


@dataclass(frozen=True)
class Faces:
    """All faces of one image.

    Args:
        boxes: (N, 4) float64, x1, y1, x2, y2 in pixels; may extend past the image.
        scores: (N,) float64 in [0, 1].
        points: (N, 5, 2) float64, (x, y) in pixels, ordered as ``templates.TEMPLATES``.
    """

    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    points: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """A face detector; picklable, so that every worker can have its own copy."""

    @property
    def name(self) -> str:
        """One line with everything that affects the results; the report of the crops keeps it."""
        ...

    def __call__(self, image: Image) -> Faces:
        """Find the faces of one image, (H, W, 3) uint8, BGR."""
        ...


@dataclass(frozen=True)
class FoundFace:
    """The chosen face of an image.

    Args:
        points: (5, 2) float64, (x, y) in pixels of the image, to 1/100 pixel.
        score: the detector's score, in [0, 1].
        num_faces: number of faces in the image.
        padded: found only in the second attempt, on the image with a border.
        box: x1, y1, x2, y2 in pixels of the image; it may extend past the image.
        place: number of the face from the left, starting at 1.
    """

    points: Points
    score: float
    num_faces: int
    padded: bool
    box: tuple[float, float, float, float]
    place: int


@dataclass(frozen=True)
class FoundFaces:
    """All faces of an image.

    Args:
        found: at least one face, in pixels of the image.
        padded: found only in the second attempt, on the image with a border.
    """

    found: Faces
    padded: bool

    def face(self, index: int) -> FoundFace:
        """Return the face of an index."""
        points, score = np.round(self.found.points[index], 2), float(self.found.scores[index])
        x1, y1, x2, y2 = self.found.boxes[index].tolist()
        place = self._order().index(index) + 1
        return FoundFace(points, score, len(self.found), self.padded, (x1, y1, x2, y2), place)

    def left_to_right(self) -> list[FoundFace]:
        """Return all faces, from the left of the image to the right."""
        return [self.face(index) for index in self._order()]

    def _order(self) -> list[int]:
        """Return the indices of the faces, from left to right."""
        middles = self.found.boxes[:, 0] + self.found.boxes[:, 2]
        return [int(index) for index in np.argsort(middles, kind="stable")]


Pick = Callable[[Faces, tuple[float, float]], int]


def nearest(faces: Faces, centre: tuple[float, float]) -> int:
    """Return the index of the face whose box is nearest to ``centre``, (x, y).

    Of two faces equally near, the one with the higher score is chosen.
    """
    middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    distances = np.hypot(*(middles - centre).T)
    return int(np.lexsort((-faces.scores, distances))[0])


def largest(faces: Faces, centre: tuple[float, float]) -> int:
    """Return the index of the face with the largest box; ties go to the one nearer ``centre``."""
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    return int(np.lexsort((np.hypot(*(middles - centre).T), -sides.prod(axis=1)))[0])


_PICKS: dict[str, Pick] = dict(zip(PICKS, (nearest, largest), strict=True))


def find_faces(image: Image, detector: Detector) -> FoundFaces:
    """Find all faces of an image; if there are none, try again with a border around the image.

    The border is half as wide as the image. It helps with tight crops, where the edge cuts the face
    or the face fills the image. Images of more than ``LONGEST_SIDE`` pixels are shrunk first, and
    the points are mapped back.

    Args:
        image: (H, W, 3) uint8, BGR.
        detector: any face detector.

    Raises:
        NoFace: both attempts found none.
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
        raise NoFace(f"no face found in {width}x{height} pixels, with or without a border")

    ratios = np.array([width / image.shape[1], height / image.shape[0]])
    points = (faces.points - border + 0.5) * ratios - 0.5  # pixel edges scale, centres lie half a pixel inside
    boxes = (faces.boxes - [*border, *border] + 0.5) * [*ratios, *ratios] - 0.5
    return FoundFaces(Faces(boxes, faces.scores, points), padded=border != (0, 0))


def find_face(image: Image, detector: Detector, pick: str = "centre") -> FoundFace:
    """Find the faces of an image as :func:`find_faces` does, and choose one.

    Args:
        image: (H, W, 3) uint8, BGR.
        detector: any face detector.
        pick: which of several faces, one of ``choices.PICKS``: the one nearest the centre, or the
            largest.

    Raises:
        NoFace: both attempts found none.
    """
    faces = find_faces(image, detector)
    centre = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    chosen = _PICKS[pick](faces.found, centre)
    return faces.face(chosen)


def _with_border(image: Image, across: int, down: int) -> Image:
    bordered = cv2.copyMakeBorder(image, down, down, across, across, cv2.BORDER_CONSTANT, value=_GREY)
    return np.asarray(bordered, dtype=np.uint8)
