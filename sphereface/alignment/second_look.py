"""Compare a landmark file with the faces that MTCNN finds in some of its images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from ..data.images import BadImage, decode
from ..errors import UserError
from ..files import read_plain
from .detector import Detector
from .fit import Floats, scales_to
from .mtcnn import Mtcnn
from .similarity import Image, Points, template

_IMAGES = 32  # that are looked at, about 0.05 s each
_FEWEST = 8  # in which a face is found
_SIDE = 400  # pixels; larger images are shrunk to it, which bounds the time
_LEAST_EYES = 12.0  # pixels between the eyes of a found face: those of smaller faces are not exact
_FARTHEST = 4.5  # crop pixels, the median; docs/alignment.md has the measurements


def compare_with_detector(
    points: Mapping[str, Points], folder: Path, file: str, detector: Detector | None = None
) -> str:
    """Compare the landmarks of up to 32 images with the nearest face that a detector finds.

    Args:
        points: name of an image below ``folder`` → its (5, 2) landmarks.
        folder: folder of the images.
        file: the landmark file's name in messages.
        detector: None: MTCNN, if it is installed.

    Returns:
        A warning if the median distance is large; otherwise, or if the detector is not installed or
        finds too few faces, an empty string.
    """
    names = list(points)
    if len(names) < _FEWEST:
        return ""
    try:
        detector = detector or Mtcnn()
    except UserError:
        return ""
    distances = []
    for at in np.linspace(0, len(names) - 1, min(_IMAGES, len(names))).astype(int).tolist():
        try:
            image = decode(read_plain(folder / names[at]))
            distances += _distance(np.asarray(points[names[at]], dtype=np.float64), image, detector)
        except (OSError, BadImage):
            continue
    if len(distances) < _FEWEST or (median := float(np.median(distances))) <= _FARTHEST:
        return ""
    name = detector.name.partition(" ")[0]
    return (
        f"{file}: its landmarks lie {median:.1f} crop pixels from the faces that {name} finds (median of "
        f"{len(distances)} images; other versions of MTCNN: 1 to 2.5) · look at some crops: the landmarks may belong "
        "to other images, such as those of the next line, or to another version of these"
    )


def _distance(points: Floats, image: Image, detector: Detector) -> list[float]:
    """Return the root mean square distance to the nearest face, in crop pixels, if there is one."""
    ratio = min(1.0, _SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA) if ratio < 1 else image
    found = detector(np.asarray(small, dtype=np.uint8)).points
    found = found[np.linalg.norm(found[:, 0] - found[:, 1], axis=1) >= _LEAST_EYES]
    if not len(found):
        return []
    scale = float(np.abs(scales_to(template(), points[None])[0][0]))
    apart = ((found + 0.5) / ratio - 0.5 - points) * scale
    return [float(np.sqrt((apart**2).sum(axis=2).mean(axis=1)).min())] if np.isfinite(scale) else []
