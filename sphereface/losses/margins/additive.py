"""Additive margins on normalised features: CosFace, ArcFace, and their combination."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...options import option
from .base import ScaledMargin, Target, falling_cosine, register

if TYPE_CHECKING:
    from torch import Tensor


@register("cosface")
@dataclass(frozen=True)
class CosFace(ScaledMargin):
    """CosFace or AM-Softmax: t = s (cos θ_y − m), others s cos θ_j (Wang et al., CVPR 2018, eq. 4).

    Decision boundary towards class 1 of two: cos θ_1 − m − cos θ_2 = 0.
    """

    m: float = option(0.35, low=0, high=2)

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:  # noqa: ARG002
        """The plain logit, lowered by s m."""
        return Target(self.s * (cos - self.m), cos.new_ones(cos.shape), cos.new_zeros(cos.shape))


@register("arcface")
@dataclass(frozen=True)
class ArcFace(ScaledMargin):
    """ArcFace: t = s cos(θ_y + m), other logits s cos θ_j (Deng et al., CVPR 2019, equation 3).

    Decision boundary towards class 1 of two: cos(θ_1 + m) − cos θ_2 = 0.

    Beyond θ = π − m, where cos(θ + m) would rise again, t falls further as s ψ(θ + m) = s (−cos(θ
    + m) − 2), without a jump in value or slope. Of the released code's two ways neither is so: its
    default continues with s (cos θ − m sin m), which falls, but after a step down; and its
    ``easy_margin`` leaves out the margin for θ > 90°, so that there the target logit jumps *up* by
    s sin m. That is no option here.
    """

    m: float = option(0.5, low=0, high=math.pi)

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:  # noqa: ARG002
        """See the class."""
        psi, slope, _ = falling_cosine(cos, addend=self.m)
        return Target(self.s * psi, slope, cos.new_zeros(cos.shape))


@register("combined")
@dataclass(frozen=True)
class Combined(ScaledMargin):
    """The three margins in one: t = s (ψ(m1 θ_y + m2) − m3) (Deng et al., CVPR 2019, equation 4).

    ψ is cos up to π, and falls on from there (the released code leaves that region to rise again,
    or jumps).
    Decision boundary towards class 1 of two: cos(m1 θ_1 + m2) − m3 − cos θ_2 = 0. The defaults are
    the paper's best; (1, m, 0) is ArcFace, (1, 0, m) CosFace, (m, 0, 0) SphereFace on normalised
    features.
    """

    m1: float = option(1.0, low=1, high=16)
    m2: float = option(0.3, low=0, high=math.pi)
    m3: float = option(0.2, low=0, high=2)

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:  # noqa: ARG002
        """See the class."""
        psi, slope, _ = falling_cosine(cos, self.m1, self.m2)
        return Target(self.s * (psi - self.m3), slope, cos.new_zeros(cos.shape))
