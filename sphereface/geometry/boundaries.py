"""Compute decision regions with a margin: where an image counts as class j with its logit lowered.

A point lies in the region of a class if its target logit, margin included, is above the other
classes' logits. There the loss of an image of that class is small. The margin lies between the
regions of two classes. Angles are radians; θ_12 is the angle between the weights of two classes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..losses.margin_softmax import margin_logits
from ..losses.margins import Margin, make_margin

TWO_CLASSES = 2 + math.sqrt(3)
"""Two classes: the smallest m that keeps points of a class nearer than points of two classes."""
MANY_CLASSES = 3.0
"""The same for classes that are spread evenly over the circle."""


class Extent(NamedTuple):
    """The extent of classes.

    Attributes:
        intra: the largest angle between two points of one class.
        inter: the smallest angle between points of two classes.
    """

    intra: float
    inter: float


def region_edges(m: float, theta12: float) -> tuple[float, float]:
    """Return how far A-Softmax's region of class 1 of two reaches from W_1: towards W_2, and away.

    mθ_1 = θ_2 is the edge. Towards W_2, θ_1 + θ_2 = θ_12. Away from it θ_2 = θ_12 + θ_1, or, where
    the way around the circle is shorter, 2π − θ_12 − θ_1.

    Args:
        m: > 1; 1 only towards W_2, where the edge is the bisector.
        theta12: in (0, π].
    """
    towards = theta12 / (m + 1)
    around = (2 * math.pi - theta12) / (m + 1)
    away = theta12 / (m - 1) if theta12 <= (m - 1) / m * math.pi else around
    return towards, away


def two_class_extent(m: float, theta12: float) -> Extent:
    """Return the extent of two classes, with the margin (m − 1)/(m + 1) · θ_12 (CVPR 2017, 3.4)."""
    return Extent(sum(region_edges(m, theta12)), (m - 1) / (m + 1) * theta12)


def many_class_extent(m: float, spacing: float) -> Extent:
    """Return the extent of classes ``spacing`` apart, each with a neighbour on either side."""
    return Extent(2 * spacing / (m + 1), (m - 1) / (m + 1) * spacing)


def swept_extent(m: float, centres: NDArray[np.float64], *, points: int = 7200) -> Extent:
    """Return the extent without a formula: find the region of every point of the circle.

    Args:
        m: any real m ≥ 1; the target is SphereFace's ψ(mθ), by the margin ``sphereface-r`` of
            variant v0.
        centres: (C,) directions of the class weights.
        points: on the circle; the result is right to two of their spacings.
    """
    angles = np.arange(points) * (2 * math.pi / points)
    inside = decision_regions(on_circle(angles), on_circle(centres), make_margin("sphereface-r", m=m, variant="v0"))
    ends = []
    for centre, region in zip(centres, inside.numpy(), strict=True):
        offsets = np.remainder(angles[region] - centre + math.pi, 2 * math.pi) - math.pi
        ends.append((centre + offsets.min(), centre + offsets.max()))
    apart = [a - b for i, one in enumerate(ends) for other in ends[:i] for a in one for b in other]
    gap = min(abs(math.remainder(angle, 2 * math.pi)) for angle in apart)
    return Extent(max(high - low for low, high in ends), gap)


def decision_regions(x: Tensor, weight: Tensor, margin: Margin, *, bias: Tensor | None = None) -> Tensor:
    """Return which points lie in which region, by the engine's own logits at λ = 0.

    Args:
        x: (N, D) points.
        weight: (C, D).
        bias: (C,), for a margin with one.

    Returns:
        (C, N) bool; a point lies in one region at most.
    """
    inside = []
    for number in range(len(weight)):
        labels = torch.full((len(x),), number)
        logits = margin_logits(x, weight, labels, margin, bias=bias)
        own = logits[:, number].clone()
        logits[:, number] = float("-inf")
        inside.append(own > logits.amax(1))
    return torch.stack(inside)


def on_circle(angles: NDArray[Any]) -> Tensor:
    """Return unit vectors: (N,) radians → (N, 2) float64."""
    return torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], axis=1))
