"""The interface between the papers' margins and the engine, the registry, and shared helpers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeVar

from ...errors import UserError, shown
from ...options import option, parse_options, suggest

if TYPE_CHECKING:
    from torch import Tensor

MARGINS: dict[str, type[Margin]] = {}
"""Every margin by its name in the configuration."""

M = TypeVar("M", bound="Margin")


class Target(NamedTuple):
    """N target logits t and how they move; (N,) tensors in the dtype of the cosines.

    t is seen as a function of z, the plain target logit, and of the norm r that
    :meth:`Margin.target` got: ∂t/∂x = d_plain · ∂z/∂x + d_norm · ∂r/∂x, and likewise for W_y. Where
    features are not normalised, z = r cos θ. So written all stays finite at x = 0, where the engine
    passes cos θ = 0 and takes x/‖x‖ for 0.
    """

    logit: Tensor
    """t."""
    d_plain: Tensor
    """∂t/∂z at fixed r."""
    d_norm: Tensor
    """∂t/∂r at fixed z."""
    d_weight: Tensor | None = None
    """What the gradient of W_y has in place of d_plain; None, as in every true gradient: d_plain
    itself.
    """


@dataclass(frozen=True)
class Margin:
    """Base of every margin. :func:`make_margin` makes one and checks the options.

    Properties and class attributes tell the engine all that it must know beside :meth:`target`.
    Four options
    are common to all, for the head: ``chunk_size``, the classes whose logits exist at a time
    (``auto``: as many as fit into the free memory; null: all); ``mhe``, the weight of the class
    weights' hyperspherical energy in the loss (:mod:`sphereface.losses.energy`; with A-Softmax it
    makes SphereFace+); ``distributed``, whether several processes share the classes or each holds
    all; ``sample_rate``, the part of the classes that a step sees
    (:mod:`sphereface.losses.sampling`).
    """

    name: ClassVar[str]
    bias: ClassVar[Literal["none", "per class", "shared"]] = "none"
    """Whether the head learns a bias: a number for each class, or one for all."""
    running: ClassVar[Mapping[str, float]] = {}
    """Running statistics with their first values; the head keeps, saves and gives them, see
    :meth:`observe`.
    """

    chunk_size: int | str | None = option("auto", low=1, words=["auto"])
    mhe: float = option(0.0, low=0)
    distributed: str = option("sharded", choices=["sharded", "replicated"])
    sample_rate: float = option(1.0, above=0, high=1)

    def __post_init__(self) -> None:
        if self.sample_rate < 1 and self.mhe > 0:
            raise UserError(
                f"got sample_rate {self.sample_rate:g} with mhe {self.mhe:g} · allowed: one of them · "
                "the energy is of all classes: set sample_rate 1, or mhe 0"
            )
        if self.sample_rate < 1 and self.distributed == "replicated":
            raise UserError(
                f"got sample_rate {self.sample_rate:g} with distributed replicated · allowed there: 1 · "
                "set distributed sharded: each process then samples its own classes"
            )

    @property
    def rows(self) -> Literal["normalized", "renormalized", "plain"]:
        """Return how the class weights W_j become the rows of the logits.

        ``normalized``: W_j/‖W_j‖ in the logits, and the gradient goes through that division.
        ``renormalized``: each forward in training first divides the stored rows by their length;
        the gradient knows nothing of it.
        ``plain``: W_j as it is.
        """
        return "normalized"

    @property
    def scale(self) -> float | None:
        """The s of logits s cos θ, where features are normalised; None where x enters as it is."""
        return None

    def lam(self, step: float) -> float:  # noqa: ARG002
        """Return λ of a training step, counted from 1 (finished updates + 1); 0 without λ."""
        return 0.0

    def first_bias(self, num_classes: int) -> float:  # noqa: ARG002
        """Return the initial value of each bias."""
        return 0.0

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:
        """Return the target logits and their derivatives.

        Args:
            cos: (N,) cosine of the angle between x_i and W_y, float32 or float64 in [-1, 1]; 0
                where x_i = 0.
            norm: (N,) ‖x_i‖, or ‖x_i‖‖W_y‖ with ``plain`` rows, same dtype.
            lam: λ ≥ 0 of this step.
        """
        raise NotImplementedError

    def norm_term(self, norm: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return the (N,) differentiable addition of ‖x‖ to each sample's loss; None for none."""
        return None

    def observe(self, norm: Tensor, running: Mapping[str, Tensor]) -> None:
        """Update the running statistics in place from the (N,) norms of the batch of all ranks."""

    def given(self: M, running: Mapping[str, Tensor]) -> M:  # noqa: ARG002
        """Return the same margin at these running statistics."""
        return self


@dataclass(frozen=True)
class ScaledMargin(Margin):
    """Base of the margins on normalised features. The plain logits are s cos θ for any ‖x‖."""

    s: float = option(64.0, above=0)

    @property
    def scale(self) -> float:
        """The radius of the sphere."""
        return self.s


def check_target(margin: Margin, target: object, cos: Tensor) -> None:
    """Refuse a margin that does not return a :class:`Target` of N numbers each.

    Raises:
        UserError: it does not.
    """
    if isinstance(target, Target) and all(part is None or part.shape == cos.shape for part in target):
        return
    got = [None if part is None else tuple(part.shape) for part in target] if isinstance(target, Target) else target
    raise UserError(
        f"loss.name: {margin.name!r}: target() returned {got} · allowed: a Target whose logit, d_plain and d_norm are "
        f"tensors of the shape of cos, {tuple(cos.shape)}"
    )


def falling_cosine(cos: Tensor, multiplier: float = 1.0, addend: Tensor | float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return ψ(φ) with φ = multiplier · θ + addend, a cosine that keeps falling.

    It falls where cos φ would turn and rise.

    ψ(φ) = (−1)^k cos φ − 2k for φ in [kπ, (k+1)π], k ≥ 0, and 1 for φ < 0. Value and slope are
    continuous. The slope in cos θ has no bound at θ = 0 if the addend is not 0: there it is that of
    a nearby angle.

    Args:
        cos: (N,) cos θ in [-1, 1].
        multiplier: > 0.
        addend: radians; one number or (N,).

    Returns:
        ψ, dψ/dcos θ, dψ/dφ; all (N,).
    """
    smallest = 4e-4 if cos.element_size() < 8 else 2e-8  # √ε: what an arccos near 1 can tell apart
    theta = cos.acos()
    phase = (multiplier * theta + addend).clamp(min=0.0)
    half_turns = (phase / math.pi).floor()
    value = (1.0 - 2.0 * half_turns.remainder(2.0)) * phase.cos() - 2.0 * half_turns
    inside = theta.clamp(smallest, math.pi - smallest)
    fall = (multiplier * inside + addend).clamp(min=0.0).sin().abs()
    return value, multiplier * fall / inside.sin(), -fall


def register(name: str) -> Callable[[type[M]], type[M]]:
    """Give a margin its name in the configuration."""

    def enter(cls: type[M]) -> type[M]:
        if name in MARGINS:
            raise ValueError(f"a margin named {name!r} is registered already · give yours another name")
        cls.name = name
        MARGINS[name] = cls
        return cls

    return enter


def make_margin(name: str, **options: object) -> Margin:
    """Return the margin of that name.

    Raises:
        UserError: an unknown name or option, or a value out of range; every problem on its own
            line.
    """
    if name not in MARGINS:
        raise UserError(f"loss.name: got {shown(name)}{suggest(str(name), MARGINS)}")
    problems: list[str] = []
    margin: Margin | None = parse_options(MARGINS[name], options, prefix="loss", problems=problems)
    if margin is None:
        raise UserError("\n".join(problems))
    return margin
