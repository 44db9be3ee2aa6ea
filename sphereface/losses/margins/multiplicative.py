"""Multiplicative margins: ψ(mθ) in place of cos θ, from L-Softmax over A-Softmax to SphereFace
Revived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ...errors import UserError
from ...options import option
from ...schedules import annealed_lambda
from .base import Margin, ScaledMargin, Target, falling_cosine, register

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AnnealedMargin(Margin):
    """Base of A- and L-Softmax: t = r (λ cos θ + ψ(θ))/(1 + λ), ψ(θ) = (−1)^k cos(mθ) − 2k.

    The weight of ψ against the plain logit grows with the step: λ(t) = max(lambda_min, lambda_base
    · (1 + lambda_gamma · t)^(−lambda_power)); by default, as in the released Caffe layer, from
    892.9 at the first step down to 5 from step 1659 on.
    """

    lambda_base: float = option(1000.0, low=0)
    lambda_gamma: float = option(0.12, low=0)
    lambda_power: float = option(1.0, low=0)
    lambda_min: float = option(5.0, low=0)
    m: int = option(4, low=1, high=4)

    def lam(self, step: float) -> float:
        """λ(step), see the class."""
        return annealed_lambda(
            step, base=self.lambda_base, gamma=self.lambda_gamma, power=self.lambda_power, minimum=self.lambda_min
        )

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:
        """With φ(c) = (λ c + ψ(c))/(1 + λ): t = r φ, ∂t/∂z = φ', ∂t/∂r = φ − c φ' = (ψ − c ψ')/(1 +
        λ).
        """
        psi, slope = multiple_angle(cos, self.m)
        share = 1.0 / (1.0 + lam)
        return Target(norm * ((lam * cos + psi) * share), (lam + slope) * share, (psi - cos * slope) * share)


@register("a-softmax")
@dataclass(frozen=True)
class ASoftmax(AnnealedMargin):
    """SphereFace: t = ‖x‖ (λ cos θ_y + ψ(θ_y)) / (1 + λ) (CVPR 2017, equation 7).

    ψ(θ) = (−1)^k cos(mθ) − 2k.

    Decision boundary towards class 1 of two: ‖x‖(cos mθ_1 − cos θ_2) = 0.

    ``gradient: exact`` is the derivative of that. ``gradient: caffe`` is what the released code
    does, and what its published accuracies were trained with: see :meth:`_caffe`.
    """

    gradient: str = option("exact", choices=["exact", "caffe"])

    @property
    def rows(self) -> Literal["normalized", "renormalized"]:
        """The released code re-normalises W in place at each forward."""
        return "renormalized" if self.gradient == "caffe" else "normalized"

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:
        """The true derivatives, or :meth:`_caffe`'s; with m = 1 these are the same."""
        target = self._caffe if self.gradient == "caffe" and self.m > 1 else super().target
        return target(cos, norm, lam)

    def _caffe(self, cos: Tensor, norm: Tensor, lam: float) -> Target:
        """The released code's pseudo-gradient, "normalised and projected" as its authors call it.

        With a = ψ' and b = (ψ − cψ')/r, so that a·Ŵ_y + b·x is the derivative of r ψ, it gives
        x:  [(a·Ŵ_y + b·x)/√(a² + b²) + λ·Ŵ_y]/(1 + λ)  (the pair (a, b) gets unit length, not the
        vector),
        W_y:  x, without any of it. Here r·a and r·b replace a and b: no division by 0. At r = 0,
        where the original is NaN, a vanishes against b. ``rest`` = ψ − cψ' = r·b is not 0 where ψ'
        is: there it is ψ, an odd number.
        """
        psi, slope = multiple_angle(cos, self.m)
        rest = psi - cos * slope
        share = 1.0 / (1.0 + lam)
        logit = norm * ((lam * cos + psi) * share)
        along = norm * slope
        length = along.hypot(rest)  # r √(a² + b²)
        d_plain = (along / length + lam) * share
        return Target(logit, d_plain, norm * rest / length * share, logit.new_ones(logit.shape))


@register("l-softmax")
@dataclass(frozen=True)
class LSoftmax(AnnealedMargin):
    """L-Softmax: t = ‖W_y‖‖x‖ (λ cos θ_y + ψ(θ_y)) / (1 + λ) (ICML 2016, equations 4 and 6).

    The other logits are W_j·x.

    ψ is A-Softmax's, which grew out of this one; here the lengths of the rows may tell classes
    apart as well.
    Decision boundary towards class 1 of two: ‖x‖(‖W_1‖ cos mθ_1 − ‖W_2‖ cos θ_2) = 0.
    """

    m: int = option(4, low=2, high=4)

    @property
    def rows(self) -> Literal["plain"]:
        """Not normalised: r is ‖W_y‖‖x‖."""
        return "plain"


@register("sphereface-r")
@dataclass(frozen=True)
class SphereFaceR(ScaledMargin):
    """SphereFace Revived: normalised features and a real m ≥ 1 (Liu et al., TPAMI 2022).

    ``variant: v0`` is t = s ψ(mθ_y), SphereFace's own function; ``v1`` is t = s cos(min(mθ_y, π)),
    which does not fall further beyond π/m. (The paper's v2 leaves the target alone and replaces the
    other N×C logits by
    s cos(θ_j/m): no margin on the target, so not here.)
    Decision boundary towards class 1 of two: cos mθ_1 − cos θ_2 = 0, while mθ_1 < π.

    ``gradient: detached`` is the paper's "characteristic gradient detachment": the margin changes
    the value of the target logit, its derivative stays that of s cos θ. ``exact`` is the true
    derivative.
    """

    s: float = option(30.0, above=0)
    m: float = option(1.5, low=1, high=16)
    variant: str = option("v1", choices=["v0", "v1"])
    gradient: str = option("detached", choices=["detached", "exact"])

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:  # noqa: ARG002
        """See the class."""
        psi, slope, _ = falling_cosine(cos, self.m)
        if self.variant == "v1":
            slope = slope * (psi > -1.0)
            psi = psi.clamp(min=-1.0)
        if self.gradient == "detached":
            slope = cos.new_ones(cos.shape)
        return Target(self.s * psi, slope, cos.new_zeros(cos.shape))


def multiple_angle(cos: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """ψ and dψ/dcos as polynomials in cos θ, so that no arccos and no k is needed.

    ψ(θ) = (−1)^k cos(mθ) − 2k for θ in [kπ/m, (k+1)π/m] falls from 1 at θ = 0 to 1 − 2m at θ = π.
    Its
    slope in cos θ is continuous: 0 on every inner segment border. There sign(0) = 0 gives the right
    value, as in the released code, whose forms these are.

    Args:
        cos: cosines of any shape, in [-1, 1].
        m: 1, 2, 3 or 4.
    """
    c, square, s0 = cos, cos * cos, cos.sign()
    if m == 1:
        return c, c.new_ones(c.shape)
    if m == 2:
        return 2 * s0 * square - 1, 4 * s0 * c
    if m == 3:
        s1 = (c.abs() - 0.5).sign()
        return s1 * (4 * square - 3) * c + s0 * (1 + s1) - 2, s1 * (12 * square - 3)
    if m == 4:
        half = square - 0.5
        s3 = s0 * half.sign()
        psi = (s3 * (8 * square * (square - 1) + 1)).add(s0, alpha=2) + s3 - 3
        return psi, 32 * (s3 * half) * c
    raise UserError(f"loss.m: got {m!r} · allowed: an integer from 1 to 4")
