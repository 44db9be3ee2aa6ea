"""Margins: what each paper does to the N target cosines of a batch, and nothing else.

A margin is a frozen dataclass. Its fields are its keys in YAML (``loss: {name: a-softmax, m: 4}``) with
default and allowed range; its :meth:`Margin.target` is a pure function of N cosines, N norms and λ that
returns the N target logits with their derivatives. The engine in :mod:`sphereface.losses.margin_softmax`
does all the rest. To add a margin is to write one such class here.

Importing this module does not import torch: a configuration can be checked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

from ..errors import UserError
from ..options import option, parse_options, suggest
from ..schedules import annealed_lambda

if TYPE_CHECKING:
    from torch import Tensor

MARGINS: dict[str, type[Margin]] = {}
"""Every margin by its name in the configuration."""

M = TypeVar("M", bound="Margin")


class Target(NamedTuple):
    """N target logits t and how they move; (N,) tensors in the dtype of the cosines.

    t is seen as a function of z = r cos θ, the plain target logit, and of r = ‖x‖:
    ∂t/∂x = d_plain · Ŵ_y + d_norm · x/‖x‖  and  ∂t/∂Ŵ_y = d_plain · x.
    So written all stays finite at x = 0, where the engine passes cos θ = 0 and takes x/‖x‖ for 0.
    """

    logit: Tensor
    """t."""
    d_plain: Tensor
    """∂t/∂z at fixed r."""
    d_norm: Tensor
    """∂t/∂r at fixed z."""
    d_weight: Tensor | None = None
    """What stands for d_plain in the gradient of W_y; None, as in every true gradient: d_plain itself."""


@dataclass(frozen=True)
class Margin:
    """Base of every margin. Make one by :func:`make_margin`, which checks the options."""

    name: ClassVar[str]

    @property
    def rows(self) -> Literal["normalized", "renormalized"]:
        """How the class weights W_j become the unit rows Ŵ_j.

        ``normalized``: W_j/‖W_j‖ in the logits, and the gradient goes through that division.
        ``renormalized``: each forward in training first divides the stored rows by their length; the
        gradient knows nothing of it.
        """
        return "normalized"

    def lam(self, step: float) -> float:  # noqa: ARG002
        """λ of a training step, counted from 1 (finished optimiser updates + 1); 0 where there is none."""
        return 0.0

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:
        """The target logits and their derivatives.

        Args:
            cos: (N,) cosine of the angle between x_i and W_y, float32 or float64 in [-1, 1]; 0 where x_i = 0.
            norm: (N,) ‖x_i‖, same dtype.
            lam: λ ≥ 0 of this step.
        """
        raise NotImplementedError


def register(name: str) -> Callable[[type[M]], type[M]]:
    """Give a margin its name in the configuration."""

    def enter(cls: type[M]) -> type[M]:
        cls.name = name
        MARGINS[name] = cls
        return cls

    return enter


def check_options(name: str, options: Mapping[str, object]) -> list[str]:
    """Everything that is wrong with ``loss: {name: …, **options}``, a line for each; [] if nothing is."""
    return _parse(name, options)[1]


def make_margin(name: str, **options: object) -> Margin:
    """The margin of that name.

    Raises:
        UserError: an unknown name or option, or a value out of range; every problem on its own line.
    """
    margin, problems = _parse(name, options)
    if margin is None:
        raise UserError("\n".join(problems))
    return margin


def _parse(name: str, options: Mapping[str, object]) -> tuple[Margin | None, list[str]]:
    if name not in MARGINS:
        return None, [f"loss.name: got {name!r}{suggest(str(name), MARGINS)}"]
    problems: list[str] = []
    margin: Any = parse_options(MARGINS[name], options, prefix="loss", problems=problems)
    return margin, problems


@register("modified-softmax")
@dataclass(frozen=True)
class ModifiedSoftmax(Margin):
    """Unit class weights, no bias, no margin: t = ‖x‖ cos θ_y (CVPR 2017, section 3.1).

    Decision boundary of two classes: ‖x‖(cos θ_1 − cos θ_2) = 0. A-Softmax with m = 1.
    """

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:  # noqa: ARG002
        """The plain logit: t = r cos θ."""
        return Target(norm * cos, cos.new_ones(cos.shape), cos.new_zeros(cos.shape))


@dataclass(frozen=True)
class AnnealedMargin(Margin):
    """A margin φ = (λ cos θ + ψ)/(1 + λ) whose weight against the plain logit grows with the step.

    λ(t) = max(lambda_min, lambda_base · (1 + lambda_gamma · t)^(−lambda_power)); by default, as in the
    released Caffe layer, from 892.9 at the first step down to 5 from step 1659 on.
    """

    lambda_base: float = option(1000.0, low=0)
    lambda_gamma: float = option(0.12, low=0)
    lambda_power: float = option(1.0, low=0)
    lambda_min: float = option(5.0, low=0)

    def lam(self, step: float) -> float:
        """λ(step), see the class."""
        return annealed_lambda(
            step,
            base=self.lambda_base,
            gamma=self.lambda_gamma,
            power=self.lambda_power,
            minimum=self.lambda_min,
        )


@register("a-softmax")
@dataclass(frozen=True)
class ASoftmax(AnnealedMargin):
    """SphereFace: t = ‖x‖ (λ cos θ_y + ψ(θ_y)) / (1 + λ), ψ(θ) = (−1)^k cos(mθ) − 2k (CVPR 2017, equation 7).

    Decision boundary towards class 1 of two: ‖x‖(cos mθ_1 − cos θ_2) = 0.

    ``gradient: exact`` is the derivative of that. ``gradient: caffe`` is what the released code does, and
    what its published accuracies were trained with: see :meth:`_caffe`.
    """

    m: int = option(4, low=1, high=4)
    gradient: str = option("exact", choices=["exact", "caffe"])

    @property
    def rows(self) -> Literal["normalized", "renormalized"]:
        """The released code re-normalises W in place at each forward."""
        return "renormalized" if self.gradient == "caffe" else "normalized"

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:
        """With φ(c) = (λ c + ψ(c))/(1 + λ): t = r φ, ∂t/∂z = φ', ∂t/∂r = φ − c φ' = (ψ − c ψ')/(1 + λ)."""
        psi, slope = multiple_angle(cos, self.m)
        share = 1.0 / (1.0 + lam)
        logit = norm * ((lam * cos + psi) * share)
        if self.gradient == "caffe" and self.m > 1:  # m = 1 is plain there too
            return self._caffe(logit, norm, slope, psi - cos * slope, lam)
        return Target(logit, (lam + slope) * share, (psi - cos * slope) * share)

    @staticmethod
    def _caffe(logit: Tensor, norm: Tensor, slope: Tensor, rest: Tensor, lam: float) -> Target:
        """The released code's pseudo-gradient, "normalised and projected" as its authors call it.

        With a = ψ' and b = (ψ − cψ')/r, so that a·Ŵ_y + b·x is the derivative of r ψ, it gives
        x:  [(a·Ŵ_y + b·x)/√(a² + b²) + λ·Ŵ_y]/(1 + λ)  (the pair (a, b) gets unit length, not the vector),
        W_y:  x, without any of it.
        Here r·a and r·b stand for a and b: no division by 0. At r = 0, where the original is NaN, a vanishes
        against b. ``rest`` = ψ − cψ' = r·b is not 0 where ψ' is: there it is ψ, an odd number.
        """
        share = 1.0 / (1.0 + lam)
        length = (norm * slope).hypot(rest)  # r √(a² + b²)
        d_plain = (norm * slope / length + lam) * share
        return Target(logit, d_plain, norm * rest / length * share, logit.new_ones(logit.shape))


def multiple_angle(cos: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """ψ and dψ/dcos as polynomials in cos θ, so that no arccos and no k is needed.

    ψ(θ) = (−1)^k cos(mθ) − 2k for θ in [kπ/m, (k+1)π/m] falls from 1 at θ = 0 to 1 − 2m at θ = π. Its
    slope in cos θ is continuous: 0 on every inner segment border. There sign(0) = 0 gives the right value,
    as in the released code, whose forms these are.

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
        s3 = s0 * (2 * square - 1).sign()
        return s3 * (8 * square * (square - 1) + 1) + 2 * s0 + s3 - 3, s3 * (32 * square - 16) * c
    raise UserError(f"loss.m: got {m!r} · allowed: an integer from 1 to 4")
