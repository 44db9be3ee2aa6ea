"""Embeddings of the images of a set: of each image, and of its mirror image where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..metrics import BoolArray, FloatArray, IntArray

Features = npt.NDArray[np.floating[Any]]

_ROWS = 4096  # looked at at a time
LARGEST = 1e6
"""Of a number of an embedding. Those of trained networks stay below 1,000: what lies beyond this is no embedding."""

FUSIONS = ("join", "add")
"""How an image and its mirror image become one vector: joined to 2D numbers (SphereFace), or added (InsightFace)."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of N images, as the network gives them: not normalised.

    Attributes:
        image: (N, D) float.
        mirror: (N, D) float, of the mirror images; None where there are none.
        fusion: one of :data:`FUSIONS`; of no effect without mirror images.
        quality: (N,) float, higher for a better image, where the source of the embeddings gives it.
    """

    image: Features
    mirror: Features | None = None
    fusion: str = "join"
    quality: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.image)

    @property
    def flip(self) -> bool:
        """Whether there are embeddings of mirror images."""
        return self.mirror is not None

    @property
    def mirrored(self) -> str:
        """What becomes of mirror images: ``"join"``, ``"add"`` or ``"none"``."""
        return self.fusion if self.flip else "none"

    def features(self, fusion: str | None = None) -> Features:
        """Return what protocols compare: (N, D) float, or (N, 2D) where the mirror images'
        embeddings are joined.

        Args:
            fusion: ``"join"``, ``"add"``, or ``"none"`` for the images alone; None takes this
                object's own.
        """
        fusion = fusion or self.fusion
        if self.mirror is None or fusion == "none":
            return self.image
        if fusion == "add":
            return self.image + self.mirror
        return np.concatenate([self.image, self.mirror], axis=1)

    def at(self, rows: IntArray | slice) -> Embeddings:
        """Return the embeddings of some of the images, in this order."""
        mirror = None if self.mirror is None else self.mirror[rows]
        return Embeddings(self.image[rows], mirror, self.fusion, None if self.quality is None else self.quality[rows])

    def undefined(self) -> BoolArray:
        """Return (N,) bool: images whose embedding has no direction, because it is zero or not
        finite.
        """
        return undefined_rows(self.image, *([] if self.mirror is None else [self.mirror]))


def undefined_rows(*parts: Features) -> BoolArray:
    """Return (N,) bool: rows that hold a number that is not finite in any part, or only zeros in
    all of them.

    Args:
        parts: (N, D) float each.
    """
    finite, zero = np.ones(len(parts[0]), dtype=bool), np.ones(len(parts[0]), dtype=bool)
    for part in parts:
        for start in range(0, len(part), _ROWS):
            block = slice(start, start + _ROWS)
            finite[block] &= np.isfinite(part[block]).all(axis=1)
            zero[block] &= ~part[block].any(axis=1)
    return ~finite | zero


def oversized_rows(rows: Features) -> BoolArray:
    """Return (N,) bool: rows of finite numbers with one beyond ±:data:`LARGEST`.

    Args:
        rows: (N, D) float.
    """
    found = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), _ROWS):
        largest = np.abs(rows[start : start + _ROWS]).max(axis=1).astype(np.float64)  # NaN where one is NaN
        found[start : start + _ROWS] = (largest > LARGEST) & (largest < np.inf)
    return found


def split_mirror(features: Features, flip: bool, fusion: str = "join") -> Embeddings:
    """Split what ``embed_files`` returns, (N, D) or with ``flip`` (N, 2D), without a copy."""
    if not flip:
        return Embeddings(features, fusion=fusion)
    half = features.shape[1] // 2
    return Embeddings(features[:, :half], features[:, half:], fusion)
