"""Margins that depend on the norm of the feature, a measure of image quality: AdaFace, MagFace."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import UserError
from ...options import option
from .base import ScaledMargin, Target, falling_cosine, register

if TYPE_CHECKING:
    from torch import Tensor


@register("adaface")
@dataclass(frozen=True)
class AdaFace(ScaledMargin):
    """AdaFace: t = s (cos(θ_y − m q) − m (1 + q)) (Kim et al., CVPR 2022).

    The quality of an image is q = clip(h (‖x‖ − μ)/σ, −1, 1), with running mean μ and standard
    deviation σ of the norms in training; no gradient goes through q. At q = −1 it is ArcFace's
    cos(θ + m), at 0 CosFace's cos θ − m, at 1 cos(θ − m) − 2m. Decision boundary towards class 1 of
    two: cos(θ_1 − m q) − m (1 + q) − cos θ_2 = 0.

    θ − m q < 0 counts as 0, as in the released code; beyond π the cosine falls on as ψ. μ and σ
    move by ``momentum`` towards those of each batch: μ ← (1 − momentum) μ + momentum · mean. They
    start from 20 and 100, and norms count as within [0.001, 100].
    """

    running: ClassVar[Mapping[str, float]] = {"norm_mean": 20.0, "norm_std": 100.0}

    m: float = option(0.4, low=0, high=math.pi / 2)
    h: float = option(0.333, above=0)
    momentum: float = option(0.01, above=0, high=1)

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:  # noqa: ARG002
        """See the class."""
        quality = self._quality(norm)
        psi, slope, _ = falling_cosine(cos, addend=-self.m * quality)
        return Target(self.s * (psi - self.m * (1 + quality)), slope, cos.new_zeros(cos.shape))

    def _quality(self, norm: Tensor) -> Tensor:
        running: Mapping[str, Any] = self.running
        distance = norm.detach().clamp(1e-3, 100.0) - running["norm_mean"]
        quality: Tensor = self.h * distance / (running["norm_std"] + 1e-3)
        return quality.clamp(-1.0, 1.0)

    def observe(self, norm: Tensor, running: Mapping[str, Tensor]) -> None:
        """One step of the running mean and standard deviation; one norm alone has no deviation."""
        norm = norm.clamp(1e-3, 100.0)
        running["norm_mean"].lerp_(norm.mean(), self.momentum)
        if len(norm) > 1:
            running["norm_std"].lerp_(norm.std(), self.momentum)

    def given(self, running: Mapping[str, Tensor]) -> AdaFace:
        """Return the same margin, whose ``running`` are these statistics."""
        bound = copy.copy(self)
        vars(bound)["running"] = running
        return bound


@register("magface")
@dataclass(frozen=True)
class MagFace(ScaledMargin):
    """MagFace: t = s cos(θ_y + m(a)), loss + lambda_g · g(a) (Meng et al., CVPR 2021).

    a = ‖x‖ clipped to [l_a, u_a]; m(a) grows linearly from l_m to u_m; g(a) = 1/a + a/u_a² falls:
    good images are pulled to longer features and nearer to their class. Gradients flow through
    both, inside of the range. Beyond π the cosine falls on as ψ. Decision boundary towards class 1
    of two: cos(θ_1 + m(a)) − cos θ_2 = 0. The paper proves convergence for lambda_g ≥ s K u_a² l_a²
    / (u_a² − l_a²), K = (u_m − l_m)/(u_a − l_a).
    """

    l_a: float = option(10.0, above=0)
    u_a: float = option(110.0, above=0)
    l_m: float = option(0.45, low=0, high=math.pi)
    u_m: float = option(0.8, low=0, high=math.pi)
    lambda_g: float = option(35.0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.l_a < self.u_a and self.l_m <= self.u_m):
            raise UserError(
                f"got l_a {self.l_a:g}, u_a {self.u_a:g}, l_m {self.l_m:g}, u_m {self.u_m:g} · "
                "allowed: l_a below u_a, l_m at most u_m"
            )

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:  # noqa: ARG002
        """∂t/∂r = s ψ'(θ + m(r)) m'(r) at fixed θ."""
        growth = (self.u_m - self.l_m) / (self.u_a - self.l_a)
        inside = (norm >= self.l_a) & (norm <= self.u_a)
        m = self.l_m + growth * (norm.clamp(self.l_a, self.u_a) - self.l_a)
        psi, slope, by_angle = falling_cosine(cos, addend=m)
        return Target(self.s * psi, slope, self.s * growth * by_angle * inside)

    def norm_term(self, norm: Tensor) -> Tensor:
        """lambda_g · g(a)."""
        a = norm.clamp(self.l_a, self.u_a)
        return self.lambda_g * (a / self.u_a**2 + 1 / a)
