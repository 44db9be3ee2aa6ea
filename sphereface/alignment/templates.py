"""The published places of the five landmarks in a crop. This module imports nothing large."""

from __future__ import annotations

from typing import Final

Size = tuple[int, int]  # (height, width) in pixels

SPHEREFACE_SIZE: Final[Size] = (112, 96)

# (x, y) of the left eye, right eye, nose tip, left and right mouth corner, as seen in the image.
TEMPLATES: Final[dict[Size, tuple[tuple[float, float], ...]]] = {
    # SphereFace, preprocess/code/face_align_demo.m
    (112, 96): (
        (30.2946, 51.6963),
        (65.5318, 51.5014),
        (48.0252, 71.7366),
        (33.5493, 92.3655),
        (62.7299, 92.2041),
    ),
    # ArcFace (InsightFace): the same face, 8 pixels further right in a wider crop
    (112, 112): (
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ),
}
