"""The binary loss SphereFace2. Its engine is :mod:`sphereface.losses.binary_margin`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...errors import UserError
from ...options import option
from .base import Margin, Target, register

if TYPE_CHECKING:
    from torch import Tensor


@register("sphereface2")
@dataclass(frozen=True)
class SphereFace2(Margin):
    """SphereFace2: C binary classifications in place of a softmax (Wen et al., ICLR 2022, type C).

    L = α/r · softplus(−t) + (1 − α)/r · Σ_j≠y softplus(u_j). Here t = r (g(cos θ_y) − m) + b and
    u_j = r (g(cos θ_j) + m) + b. g(z) = 2 ((z + 1)/2)^t − 1 spreads the cosines, crowded near 0,
    more evenly. Decision boundary of class j, the same for all samples: r (g(cos θ_j) ∓ m) + b = 0.

    α balances the one positive against the C − 1 negatives (the paper's λ); b is learned.
    ``loss_weight`` multiplies the whole, as in the released code: 1/r makes the loss small against
    the weight decay.
    ``gradient: detached``, also as there, takes 1 for g', so that only the probabilities know of g
    and m.
    """

    bias: ClassVar[Literal["shared"]] = "shared"

    r: float = option(40.0, above=0)
    m: float = option(0.4, low=0, high=2)
    t: float = option(3.0, low=1, high=16)
    alpha: float = option(0.7, above=0, high=0.9999)
    loss_weight: float = option(50.0, above=0)
    gradient: str = option("exact", choices=["exact", "detached"])

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample_rate < 1:
            raise UserError(
                f"got sample_rate {self.sample_rate:g} · allowed for sphereface2: 1 · "
                "alpha balances each positive against all negatives, and the bias is learned from that balance"
            )

    @property
    def scale(self) -> float:
        """The engine gets cosines."""
        return 1.0

    def first_bias(self, num_classes: int) -> float:
        """Return the b at which positive and negatives pull equally if all angles are 90°.

        α σ(−p − b) = (1 − α)(C − 1) σ(q + b), p = r (g(0) − m), q = r (g(0) + m), is quadratic in
        e^b.
        """
        if num_classes < 2:
            return 0.0
        g = 2.0 * math.pow(0.5, self.t) - 1.0
        p, q = self.r * (g - self.m), self.r * (g + self.m)
        z = self.alpha / ((1.0 - self.alpha) * (num_classes - 1.0))
        root = math.sqrt((1.0 - z) ** 2 + 4.0 * z * math.exp(max(p - q, -700.0)))
        if z > 1.0:  # of two equal forms the one that does not subtract equal numbers
            return math.log(z - 1.0 + root) - math.log(2.0) - p
        return math.log(2.0 * z) - math.log(1.0 - z + root) - q

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:  # noqa: ARG002
        """Gives r (g(cos θ) − m); the engine adds b."""
        g, slope = self._spread(cos)
        return Target(self.r * (g - self.m), slope, cos.new_zeros(cos.shape))

    def others(self, cos: Tensor) -> tuple[Tensor, Tensor]:
        """Logits r (g(cos θ) + m) and their slope in cos θ, of any shape."""
        g, slope = self._spread(cos)
        return g.add_(self.m).mul_(self.r), slope

    def _spread(self, cos: Tensor) -> tuple[Tensor, Tensor]:
        half = (cos + 1.0) * 0.5
        power = half.pow(self.t - 1.0)
        g = power.mul(half).mul_(2.0).sub_(1.0)
        return g, power.mul_(self.r * self.t) if self.gradient == "exact" else power.fill_(self.r)
