"""The interface of face detectors, and the choice of one face of an image.

A detector is a callable that maps one image, (H, W, 3) uint8 in BGR, to its :class:`Faces`. The
centre of the first pixel has coordinate 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UserError, shown
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


def find_faces(image: Image, detector: Detector) -> list[FoundFace]:
    """Find all faces of an image; if there are none, try again with a border around the image.

    The border is half as wide as the image. It helps with tight crops, where the edge cuts the face
    or the face fills the image. Images of more than ``LONGEST_SIDE`` pixels are shrunk first, and
    the points are mapped back.

    Args:
        image: (H, W, 3) uint8, BGR.
        detector: any face detector.

    Returns:
        The faces, at least one, from the left of the image to the right.

    Raises:
        NoFace: both attempts found none.
        UserError: the detector returned something else than :class:`Faces`.
    """
    height, width = image.shape[:2]
    ratio = min(1.0, LONGEST_SIDE / max(height, width))
    if ratio < 1:
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

    faces, border = _detect(detector, image), (0, 0)
    if not len(faces):
        border = (image.shape[1] // 2, image.shape[0] // 2)
        faces = _detect(detector, _with_border(image, *border))
    if not len(faces):
        raise NoFace(f"no face found in {width}x{height} pixels, with or without a border")

    ratios = np.array([width / image.shape[1], height / image.shape[0]])
    points = (faces.points - border + 0.5) * ratios - 0.5  # pixel edges scale, centres lie half a pixel inside
    boxes = (faces.boxes - [*border, *border] + 0.5) * [*ratios, *ratios] - 0.5
    order = np.argsort(boxes[:, 0] + boxes[:, 2], kind="stable")
    return [
        FoundFace(
            points=np.round(points[row], 2),
            score=float(faces.scores[row]),
            num_faces=len(faces),
            padded=border != (0, 0),
            box=(x1, y1, x2, y2),
            place=place,
        )
        for place, (row, (x1, y1, x2, y2)) in enumerate(zip(order, boxes[order].tolist(), strict=True), start=1)
    ]


def _detect(detector: Detector, image: Image) -> Faces:
    """Return the faces that a detector finds, as float64, after a check of what it returns.

    Raises:
        UserError: the result is not a :class:`Faces` of numbers, with one row for each face, or a
            box or a score is impossible.
    """
    faces = detector(image.copy())  # some draw on it
    allowed = "allowed: a Faces of sphereface.alignment.detector, with no row if there is no face"
    if not isinstance(faces, Faces):
        raise UserError(f"detector: returned {shown(faces)} · {allowed}")
    try:
        parts = [np.asarray(part, dtype=np.float64) for part in (faces.boxes, faces.scores, faces.points)]
    except (TypeError, ValueError):
        raise UserError(
            f"detector: returned {shown(faces)}, which holds something else than numbers · {allowed}"
        ) from None
    if not any(part.size for part in parts):  # empty lists have one dimension
        parts = [np.zeros(shape) for shape in ((0, 4), 0, (0, 5, 2))]
    got = [part.shape for part in parts]
    count = got[1][0] if got[1] else -1
    if got != [(count, 4), (count,), (count, 5, 2)]:
        raise UserError(
            f"detector: returned boxes, scores and points of the shapes {got[0]}, {got[1]}, {got[2]} · {allowed}, and "
            "boxes (N, 4), scores (N,), points (N, 5, 2) for N faces"
        )
    found = Faces(*parts)
    bad = np.flatnonzero(~_plausible(found))
    if len(bad):
        box, score = found.boxes[bad[0]].round(2).tolist(), found.scores[bad[0]]
        raise UserError(
            f"detector: returned a face with box {box} and score {score:g} · allowed: boxes x1, y1, x2, y2 in pixels "
            "with x1 < x2 and y1 < y2, not x, y, width, height, around at least one of the face's points; finite "
            "scores · correct the detector"
        )
    return found


def _plausible(faces: Faces) -> npt.NDArray[np.bool_]:
    """Return for each face whether its box and score can be meant as :class:`Faces` says."""
    starts, ends = faces.boxes[:, :2], faces.boxes[:, 2:]
    inside = (starts[:, None] <= faces.points) & (faces.points <= ends[:, None])
    holds = np.any(np.all(inside, axis=2), axis=1)
    holds |= ~np.isfinite(faces.points).all(axis=(1, 2))  # such points are refused with their image
    numbers = np.isfinite(faces.boxes).all(axis=1) & np.isfinite(faces.scores)
    return np.asarray(numbers & (starts < ends).all(axis=1) & holds)


def find_face(image: Image, detector: Detector, pick: str = "centre") -> FoundFace:
    """Find the faces of an image as :func:`find_faces` does, and choose one.

    Args:
        image: (H, W, 3) uint8, BGR.
        detector: any face detector.
        pick: which of several faces, one of ``choices.PICKS``: the one nearest the centre, or the
            largest. If two are equally near, the one with the higher score is chosen; if two are
            equally large, the one nearer the centre.

    Raises:
        NoFace: both attempts found none.
    """

    def rank(face: FoundFace) -> tuple[float, float]:
        x1, y1, x2, y2 = face.box
        distance = math.hypot((x1 + x2 - image.shape[1] + 1) / 2, (y1 + y2 - image.shape[0] + 1) / 2)
        return (-(x2 - x1) * (y2 - y1), distance) if pick == "largest" else (distance, -face.score)

    return min(find_faces(image, detector), key=rank)


def _with_border(image: Image, across: int, down: int) -> Image:
    bordered = cv2.copyMakeBorder(image, down, down, across, across, cv2.BORDER_CONSTANT, value=_GREY)
    return np.asarray(bordered, dtype=np.uint8)
