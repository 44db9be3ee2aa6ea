"""Compute the margins' target logits over the angle, by the margins' own code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ..losses.margins import MARGINS, Margin, make_margin
from ..losses.margins.binary import SphereFace2

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Variant:
    """One setting of a margin to draw.

    Attributes:
        label: its name in the legend.
        options: as in the configuration; defaults for the rest.
        norm: ‖x‖.
        lam: λ.
        running: running statistics, for a margin that has some.
    """

    label: str
    options: Mapping[str, object] = field(default_factory=dict)
    norm: float = 1.0
    lam: float = 0.0
    running: Mapping[str, float] = field(default_factory=dict)

    def margin(self, name: str) -> Margin:
        """Return the margin in this setting."""
        margin = make_margin(name, **self.options)
        running = {key: torch.tensor(value, dtype=torch.float64) for key, value in self.running.items()}
        return margin.given(running) if running else margin


_NORMS = {"norm_mean": 20.0, "norm_std": 1.0}  # of which 1, 20 and 100 have the qualities −1, 0 and 1

VARIANTS: dict[str, list[Variant]] = {
    "a-softmax": [*(Variant(f"m = {m}", {"m": m}) for m in (1, 2, 3, 4)), Variant("m = 4, λ = 5", lam=5.0)],
    "l-softmax": [*(Variant(f"m = {m}", {"m": m}) for m in (2, 3, 4)), Variant("m = 4, λ = 5", lam=5.0)],
    "sphereface-r": [
        Variant("v1, m = 1.5", {"gradient": "exact"}),
        Variant("v0, m = 1.5", {"variant": "v0", "gradient": "exact"}),
    ],
    "cosface": [Variant(f"m = {m:g}", {"m": m}) for m in (0.2, 0.35)],
    "arcface": [Variant(f"m = {m:g}", {"m": m}) for m in (0.3, 0.5)],
    "combined": [Variant("m1, m2, m3 = 1, 0.3, 0.2"), Variant("1.2, 0.4, 0.1", {"m1": 1.2, "m2": 0.4, "m3": 0.1})],
    "adaface": [
        Variant(f"quality {quality}", norm=norm, running=_NORMS)
        for quality, norm in (("−1", 1.0), ("0", 20.0), ("1", 100.0))
    ],
    "magface": [Variant(f"‖x‖ = {norm:g}", norm=norm) for norm in (10.0, 110.0)],
    "sphereface2": [Variant(f"t = {t:g}", {"t": t}) for t in (1.0, 3.0)],
}
"""Curves to draw of each margin; a margin without an entry is drawn at its defaults."""


@dataclass(frozen=True)
class Curve:
    """A target logit over the angle, in units of the scale.

    The scale is s, r, or ‖x‖ where features are not normalised.

    Attributes:
        label: the variant's.
        theta: (A,) radians from 0 to π.
        logit: (A,) t/scale, without bias.
        slope: (A,) dt/dθ/scale, per radian.
        other: (A,) the logit of another class at that angle, /scale.
    """

    label: str
    theta: Array
    logit: Array
    slope: Array
    other: Array


def margin_curves(name: str, *, points: int = 721) -> list[Curve]:
    """Return the curves of every variant of a margin, by its own :meth:`Margin.target` in float64.

    Args:
        name: a name of the registry.
        points: A ≥ 2 equally spaced angles.
    """
    return [_curve(name, variant, points) for variant in VARIANTS.get(name, [Variant("default")])]


def every_curve(*, points: int = 721) -> dict[str, list[Curve]]:
    """Return the curves of every margin of the registry, in its order."""
    return {name: margin_curves(name, points=points) for name in MARGINS}


def _curve(name: str, variant: Variant, points: int) -> Curve:
    margin = variant.margin(name)
    theta = torch.linspace(0.0, math.pi, points, dtype=torch.float64)
    inside = theta.clamp(1e-6, math.pi - 1e-6)  # at both ends the slope in cos θ has no bound, and sin θ is 0
    norm = torch.full_like(theta, variant.norm)
    plain = variant.norm if margin.scale is None else margin.scale
    unit = margin.r if isinstance(margin, SphereFace2) else plain
    logit = margin.target(theta.cos(), norm, variant.lam).logit / unit
    slope = -margin.target(inside.cos(), norm, variant.lam).d_plain * inside.sin() * plain / unit
    other = margin.others(theta.cos())[0] / unit if isinstance(margin, SphereFace2) else theta.cos()
    return Curve(variant.label, theta.numpy(), logit.numpy(), slope.numpy(), other.numpy())
