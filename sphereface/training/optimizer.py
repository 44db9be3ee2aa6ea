"""SGD as the original Caffe solver computes it, and the per-parameter multipliers of the recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, ParamsT

MomentumForm = Literal["caffe", "torch"]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, in Caffe's form or PyTorch's.

    With g = gradient + weight_decay · w:

    - ``caffe``: v ← mu·v + lr·g, w ← w − v. The rate is inside the velocity, so after a rate drop the old
      velocity keeps its size for some steps. This is the original recipe.
    - ``torch``: v ← mu·v + g, w ← w − lr·v, as :class:`torch.optim.SGD` does.

    Both are the same while the rate is constant.

    Of a parameter with a sparse gradient (sampled negatives) only the rows that it holds are moved, and only
    their velocity: the others have no step, no decay, no momentum, as if that update had not been.

    Args:
        params: parameters or groups; a group may carry ``lr_mult`` and ``decay_mult``, its share of both.
        lr: learning rate; :meth:`set_lr` changes it.
        mu: momentum.
        weight_decay: L2 penalty in the gradient.
        momentum: which form.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float,
        mu: float = 0.9,
        weight_decay: float = 0.0,
        momentum: MomentumForm = "caffe",
    ) -> None:
        self.momentum_form = momentum
        defaults = {"lr": lr, "mu": mu, "weight_decay": weight_decay, "lr_mult": 1.0, "decay_mult": 1.0}
        super().__init__(params, defaults)

    def set_lr(self, lr: float) -> None:
        """Set the rate of every group; its ``lr_mult`` is applied in :meth:`step`."""
        for group in self.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient. ``closure`` is not supported."""
        assert closure is None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if "velocity" not in self.state[p]:
                    self.state[p]["velocity"] = torch.zeros_like(p)
            dense = [p for p in params if not p.grad.is_sparse]
            if dense:
                velocities = [self.state[p]["velocity"] for p in dense]
                self._update(dense, velocities, [p.grad for p in dense], group)
            for p in params:
                if p.grad.is_sparse:
                    self._update_rows(p, group)

    def _update_rows(self, p: torch.Tensor, group: dict[str, Any]) -> None:
        assert p.grad is not None
        gradient, velocity = p.grad.coalesce(), self.state[p]["velocity"]
        rows = gradient.indices()[0]
        some, moving = p[rows], velocity[rows]
        self._update([some], [moving], [gradient.values()], group)
        p.index_copy_(0, rows, some)
        velocity.index_copy_(0, rows, moving)

    def _update(
        self,
        params: list[torch.Tensor],
        velocities: list[torch.Tensor],
        gradients: list[torch.Tensor],
        group: dict[str, Any],
    ) -> None:
        rate = group["lr"] * group["lr_mult"]
        decay = group["weight_decay"] * group["decay_mult"]
        gradient_share = rate if self.momentum_form == "caffe" else 1.0
        torch._foreach_mul_(velocities, group["mu"])
        torch._foreach_add_(velocities, gradients, alpha=gradient_share)
        if decay:
            torch._foreach_add_(velocities, params, alpha=gradient_share * decay)
        torch._foreach_add_(params, velocities, alpha=-1.0 if self.momentum_form == "caffe" else -rate)


def gradient_values(params: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The numbers of all gradients there are, which may be changed in place; of a sparse one, those of its rows."""
    values = []
    for p in params:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()
            values.append(p.grad.values())
        elif p.grad is not None:
            values.append(p.grad)
    return values


def parameter_groups(modules: Iterable[nn.Module]) -> list[dict[str, Any]]:
    """Trainable parameters with the recipe's multipliers.

    Biases of convolutions and linear layers learn at twice the rate, without decay. All weights and the slopes of
    PReLU have rate and decay 1. Scale and shift of a batch normalisation (not in the recipe) are not decayed.
    Fixed parameters are left out.

    Returns:
        Optimiser groups with ``params``, ``lr_mult``, ``decay_mult``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in modules:
        for parameter, multipliers in _multipliers(module):
            if parameter.requires_grad:
                groups.setdefault(multipliers, []).append(parameter)
    return [
        {"params": params, "lr_mult": lr_mult, "decay_mult": decay_mult}
        for (lr_mult, decay_mult), params in groups.items()
    ]


def _multipliers(module: nn.Module) -> Iterator[tuple[nn.Parameter, tuple[float, float]]]:
    for layer in module.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                yield parameter, (1.0, 0.0)
            elif name == "bias":
                yield parameter, (2.0, 0.0)
            else:
                yield parameter, (1.0, 1.0)
