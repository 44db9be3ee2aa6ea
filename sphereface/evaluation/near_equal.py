"""Find images under two names that show one photograph: label errors, found by their pixels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ..data.images import BadImage, EncodedImage, decode, read_encoded
from ..metrics import IntArray

NEARLY_EQUAL = 0.97
"""Lowest correlation of two thumbnails that count as one photograph.

On LFW's 13,233 original images, five pairs of two names lie above it. On crops aligned by MTCNN,
four do (0.987 and more): the crops of the fifth photograph show two different faces. Crops of
different photographs reach 0.967.
"""
_SIDE = 32
_ROWS = 512  # thumbnails that are compared with all later ones at a time


def nearly_equal(files: Sequence[EncodedImage], person: IntArray) -> list[tuple[float, int, int]]:
    """Find pairs of images of two people that are nearly equal.

    Args:
        files: N images.
        person: (N,) the person on each image.

    Returns:
        (correlation, row, row) of each pair, the highest first. Images that cannot be read are in
        no pair.
    """
    thumbnails = np.stack([_thumbnail(file) for file in files])
    found: list[tuple[float, int, int]] = []
    for start in range(0, len(thumbnails), _ROWS):
        correlations = thumbnails[start : start + _ROWS] @ thumbnails[start:].T
        left, right = np.nonzero(correlations >= NEARLY_EQUAL)
        wanted = (right > left) & (person[left + start] != person[right + start])
        left, right = left[wanted], right[wanted]
        values = correlations[left, right].tolist()
        found += zip(values, (left + start).tolist(), (right + start).tolist(), strict=True)
    return sorted(found, reverse=True)


def _thumbnail(file: EncodedImage) -> npt.NDArray[np.float32]:
    """Return (1024,) grey values with mean 0 and length 1; zeros if unreadable or of one colour."""
    try:
        image = decode(read_encoded(file))
    except (OSError, BadImage):
        return np.zeros(_SIDE * _SIDE, dtype=np.float32)
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    values = small.astype(np.float32).ravel()
    values -= values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length else values
