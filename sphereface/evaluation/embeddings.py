"""Embeddings of the images of a set, and of their mirror images if the source computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..metrics import BoolArray, FloatArray, IntArray, Vectors

Features = Vectors

_ROWS = 4096  # checked at a time
LARGEST = 1e6
"""Largest allowed number of an embedding. The numbers of trained networks stay below 1,000."""

FUSIONS = ("join", "add")
"""Join the vectors of image and mirror image to 2D numbers (SphereFace), or add (InsightFace)."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of N images, as the network computes them: not normalised.

    Attributes:
        image: (N, D) float.
        mirror: (N, D) float, of the mirror images; None without mirror images.
        fusion: one of :data:`FUSIONS`; it has no effect without mirror images.
        quality: (N,) float, higher for a better image; None if the source has no quality.
        inside: ``"add"`` or ``"join"`` where the network itself embeds the mirror image, and
            ``image`` contains both; else ``"none"``.
        content: (N,) int64, equal numbers for images of equal bytes; None if they are unknown.
    """

    image: Features
    mirror: Features | None = None
    fusion: str = "join"
    quality: FloatArray | None = None
    inside: str = "none"
    content: IntArray | None = None

    def __len__(self) -> int:
        return len(self.image)

    @property
    def flip(self) -> bool:
        """Whether there are embeddings of mirror images."""
        return self.mirror is not None

    @property
    def mirrored(self) -> str:
        """How mirror images are used: ``"join"``, ``"add"`` or ``"none"``."""
        return self.fusion if self.flip else "none"

    def features(self, fusion: str | None = None) -> Features:
        """Return what protocols compare: (N, D) float, or (N, 2D) with joined mirror images.

        Args:
            fusion: ``"join"``, ``"add"``, or ``"none"`` for the images alone; None means
                ``self.fusion``.
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
        quality = None if self.quality is None else self.quality[rows]
        content = None if self.content is None else self.content[rows]
        return replace(self, image=self.image[rows], mirror=mirror, quality=quality, content=content)

    def undefined(self) -> BoolArray:
        """Return (N,) bool: images whose embedding is zero or not finite, so has no direction."""
        return undefined_rows(self.image, *([] if self.mirror is None else [self.mirror]))


def undefined_rows(*parts: Features) -> BoolArray:
    """Return (N,) bool: rows with a number that is not finite, or with zeros only.

    Args:
        parts: arrays (N, D) float; a row is its concatenation over the parts.
    """
    finite, zero = np.ones(len(parts[0]), dtype=bool), np.ones(len(parts[0]), dtype=bool)
    for part in parts:
        for start in range(0, len(part), _ROWS):
            block = slice(start, start + _ROWS)
            finite[block] &= np.isfinite(part[block]).all(axis=1)
            zero[block] &= ~part[block].any(axis=1)
    return ~finite | zero


def oversized_rows(rows: Features) -> BoolArray:
    """Return (N,) bool: rows of finite numbers that have a number beyond ±:data:`LARGEST`.

    Args:
        rows: (N, D) float.
    """
    found = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), _ROWS):
        largest = np.abs(rows[start : start + _ROWS]).max(axis=1).astype(np.float64)  # NaN if a number is NaN
        found[start : start + _ROWS] = (largest > LARGEST) & (largest < np.inf)
    return found


def joined_unit_rows(parts: Sequence[Features]) -> npt.NDArray[np.float32]:
    """Join the embeddings of images and mirror images and divide each row by its length.

    Args:
        parts: (B, D) float each.

    Returns:
        (B, D) float32, or (B, 2D) with two parts. A row of zeros, without finite numbers, or longer
        than numbers up to :data:`LARGEST` allow is NaN.
    """
    rows = np.concatenate([np.asarray(part, dtype=np.float32) for part in parts], axis=1)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    norms[~(norms <= LARGEST * rows.shape[1] ** 0.5)] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        rows /= norms.astype(np.float32)[:, None]
    return rows


def split_mirror(features: Features, mirror: str) -> Embeddings:
    """Split the result of ``embed_files``, without a copy.

    Args:
        features: (N, 2D); without mirror images (N, D).
        mirror: ``"join"``, ``"add"`` or ``"none"``.
    """
    if mirror == "none":
        return Embeddings(features)
    half = features.shape[1] // 2
    return Embeddings(features[:, :half], features[:, half:], mirror)
