"""One training batch: images as bytes, and the augmentations that the device applies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch


class Batch(NamedTuple):
    """One training batch, on the CPU.

    Attributes:
        images: (B, H, W, 3) uint8, BGR.
        labels: (B,) int64.
        mirror: (B,) bool: which images the device mirrors.
        bad: (path, reason) of each unusable image; another image replaces it.
        augment: the other augmentations for the device: name → (k,) rows and (k, columns)
            strengths.
        indices: (B,) int64, of the images in the source; None if there is no source.
        teacher: (B, T) float16 or float32, a teacher network's output for these images; None
            without a teacher.
    """

    images: torch.Tensor
    labels: torch.Tensor
    mirror: torch.Tensor
    bad: list[tuple[str, str]]
    augment: Mapping[str, tuple[torch.Tensor, torch.Tensor]] = MappingProxyType({})
    indices: torch.Tensor | None = None
    teacher: torch.Tensor | None = None

    def split(self, size: int) -> list[Batch]:
        """Return pieces of at most ``size`` images, in order."""
        return [self._piece(start, min(start + size, len(self.labels))) for start in range(0, len(self.labels), size)]

    @classmethod
    def joined(cls, pieces: Sequence[Batch]) -> Batch:
        """Return the batch that consists of these pieces."""
        starts = np.cumsum([0, *(len(piece.labels) for piece in pieces)]).tolist()
        augment = {}
        for name in {name for piece in pieces for name in piece.augment}:
            parts = [(start, *p.augment[name]) for start, p in zip(starts, pieces, strict=False) if name in p.augment]
            rows = torch.cat([rows + start for start, rows, _ in parts])
            augment[name] = rows, torch.cat([strengths for _, _, strengths in parts])
        images, labels, mirror = (torch.cat(parts) for parts in zip(*(piece[:3] for piece in pieces), strict=True))
        bad = [bad for piece in pieces for bad in piece.bad]
        indices, teacher = _cat([piece.indices for piece in pieces]), _cat([piece.teacher for piece in pieces])
        return cls(images, labels, mirror, bad, augment, indices, teacher)

    def _piece(self, start: int, stop: int) -> Batch:
        augment = {}
        for name, (rows, strengths) in self.augment.items():
            here = (rows >= start) & (rows < stop)
            if here.any():
                augment[name] = rows[here] - start, strengths[here]
        own = slice(start, stop)
        indices, teacher = (None if part is None else part[own] for part in (self.indices, self.teacher))
        return Batch(self.images[own], self.labels[own], self.mirror[own], [], augment, indices, teacher)


def _cat(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if len(there) == len(parts) else None
