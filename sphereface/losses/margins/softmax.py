"""No margin: softmax as it was, and with unit class weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...options import option
from .base import Margin, Target, register

if TYPE_CHECKING:
    from torch import Tensor


@register("softmax")
@dataclass(frozen=True)
class Softmax(Margin):
    """A linear layer with bias and cross entropy: t = W_y·x + b_y, other logits W_j·x + b_j.

    Decision boundary of two classes: (W_1 − W_2)·x + b_1 − b_2 = 0. The baseline of every paper
    here.
    """

    bias: ClassVar[Literal["per class"]] = "per class"

    @property
    def rows(self) -> Literal["plain"]:
        """Not normalised."""
        return "plain"

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:  # noqa: ARG002
        """The plain logit, r = ‖W_y‖‖x‖; the engine adds the bias."""
        return Target(norm * cos, cos.new_ones(cos.shape), cos.new_zeros(cos.shape))


@register("modified-softmax")
@dataclass(frozen=True)
class ModifiedSoftmax(Margin):
    """Unit class weights, no bias, no margin: t = ‖x‖ cos θ_y (CVPR 2017, section 3.1).

    Decision boundary of two classes: ‖x‖(cos θ_1 − cos θ_2) = 0. A-Softmax with m = 1.

    With ``s``: t = s cos θ_y, the features normalised too (Wang et al., NormFace, ACM MM 2017).
    Decision
    boundary: cos θ_1 − cos θ_2 = 0. s must grow with C, for even perfect features have a loss of
    ln(1 + (C − 1) e^(−s C/(C − 1))).
    """

    s: float | None = option(None, above=0)

    @property
    def scale(self) -> float | None:
        """s, if it was given."""
        return self.s

    def target(self, cos: Tensor, norm: Tensor, lam: float) -> Target:  # noqa: ARG002
        """The plain logit: t = r cos θ or s cos θ."""
        length = norm if self.s is None else self.s
        return Target(length * cos, cos.new_ones(cos.shape), cos.new_zeros(cos.shape))
