"""The optimisers: SGD as the original Caffe solver computes it, AdamW, and Muon."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, ParamsT

from ..config import Config
from ..errors import UserError
from .orthogonal import orthogonal_steps
from .parts import parameter_groups

Tensors = list[torch.Tensor]
MomentumForm = Literal["caffe", "torch"]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, in Caffe's form or PyTorch's.

    With g = gradient + weight_decay · w:

    - ``caffe``: v ← mu·v + lr·g, w ← w − v. The velocity contains the learning rate, so after a
      drop of the rate the old velocity keeps its size for some steps. This is the original recipe.
    - ``torch``: v ← mu·v + g, w ← w − lr·v, as :class:`torch.optim.SGD` does.

    Both are the same while the learning rate is constant.

    A parameter with a sparse gradient (sampled negatives) is updated only in the rows of that
    gradient, with their velocity. The other rows have no step, no decay and no momentum in that
    update.

    Args:
        params: parameters or groups; a group may carry ``lr_mult`` and ``decay_mult``, the factors
            of its learning rate and weight decay.
        lr: learning rate; :meth:`set_lr` changes it.
        mu: momentum.
        weight_decay: L2 penalty in the gradient.
        momentum: which form.

    Attributes:
        found_inf: () on the device of the parameters, or None: where it is 1, a step changes
            nothing.
        state_keys: the names of the state of each parameter.
    """

    found_inf: torch.Tensor | None = None
    state_keys: ClassVar[tuple[str, ...]] = ("velocity",)

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
        """Set the learning rate of every group; :meth:`step` applies its ``lr_mult``."""
        for group in self.param_groups:
            group["lr"] = lr

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient. ``closure`` is not supported."""
        assert closure is None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                velocity = self.state[p].get("velocity")
                self.state[p]["velocity"] = torch.zeros_like(p) if velocity is None else _laid_out_as(p, velocity)
            dense = [p for p in params if not p.grad.is_sparse]
            if dense:
                velocities = [self.state[p]["velocity"] for p in dense]
                self._update(dense, velocities, [_laid_out_as(p, p.grad) for p in dense], group)
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

    def _update(self, params: Tensors, velocities: Tensors, gradients: Tensors, group: dict[str, Any]) -> None:
        """Update a group in one pass over memory, with torch's fused kernel.

        g ← g + decay·w, v ← mu·v + (1 − dampening)·g, w ← w − lr·v.
        """
        rate = group["lr"] * group["lr_mult"]
        moving = group["mu"] > 0  # without momentum both forms are the same, and the kernel takes no velocities
        caffe = moving and self.momentum_form == "caffe"
        self._move(
            params,
            gradients,
            velocities if moving else [],
            rate=1.0 if caffe else rate,
            momentum=group["mu"],
            dampening=1.0 - rate if caffe else 0.0,  # puts the learning rate into the velocity
            decay=group["weight_decay"] * group["decay_mult"],
        )

    def _move(
        self, params: Tensors, gradients: Tensors, velocities: Tensors, *, rate: float, momentum: float = 0.0,
        dampening: float = 0.0, decay: float = 0.0,
    ) -> None:  # fmt: skip
        torch._fused_sgd_(
            params, gradients, velocities, weight_decay=decay, momentum=momentum, lr=rate, dampening=dampening,
            nesterov=False, maximize=False, is_first_step=False, found_inf=self.found_inf,
        )  # fmt: skip


class Muon(SGD):
    """Muon (Jordan et al. 2024) for the weights of convolutions, PyTorch's SGD for everything else.

    A convolution's weight is a matrix with one row for each output channel. With g = its gradient,
    v ← mu·v + g, and the update is g + mu·v (Nesterov) with all singular values brought near 1. So
    every direction is learned at the same pace, also the rare ones, while SGD follows the few
    dominant ones. Weight decay is decoupled.

    Args:
        groups: with ``params``, ``lr_mult``, ``decay_mult``.
        lr: learning rate of everything else. :meth:`set_lr` scales the rate of Muon by the same
            factor.
        muon_lr: approximate size of an update of a convolution's weights, in units of the singular
            values.
        muon_decay: share of such a weight that an update at learning rate 1 removes.
        dtype: of the matrix products that find the orthogonal matrix; bfloat16 is exact enough.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        mu: float,
        weight_decay: float,
        muon_lr: float,
        muon_decay: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dtype = dtype
        split = []
        for group in groups:
            kernels = [p for p in group["params"] if p.ndim == 4]
            rest = [p for p in group["params"] if p.ndim != 4]
            if kernels:
                muon = {"lr_mult": group["lr_mult"] * muon_lr / lr, "weight_decay": muon_decay, "orthogonal": True}
                split.append({**group, **muon, "params": kernels})
            if rest:
                split.append({**group, "params": rest, "orthogonal": False})
        super().__init__(split, lr=lr, mu=mu, weight_decay=weight_decay, momentum="torch")

    def _update(self, params: Tensors, velocities: Tensors, gradients: Tensors, group: dict[str, Any]) -> None:
        if not group["orthogonal"]:
            super()._update(params, velocities, gradients, group)
            return
        if group["mu"] > 0:
            self._move(params, gradients, velocities, rate=0.0, momentum=group["mu"])  # v ← mu·v + g alone
            gradients = list(torch._foreach_add(gradients, velocities, alpha=group["mu"]))
        steps = orthogonal_steps(gradients, self.dtype, padded=params[0].device.type != "cpu")
        rate, decay = group["lr"] * group["lr_mult"], group["weight_decay"] * group["decay_mult"]
        factors = [max(1.0, len(p) / p[0].numel()) ** 0.5 for p in params]
        for factor in dict.fromkeys(factors):
            chosen = [number for number, own in enumerate(factors) if own == factor]
            some, theirs = [params[number] for number in chosen], [steps[number] for number in chosen]
            self._move(some, theirs, [], rate=rate * factor, decay=decay / factor)


class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), with :class:`SGD`'s groups.

    Args:
        groups: with ``params``, ``lr_mult``, ``decay_mult``.
        lr: learning rate; :meth:`set_lr` changes it.
        betas: of the two averages.
        weight_decay: share of a weight that an update at learning rate 1 removes.

    Attributes:
        found_inf: as :class:`SGD`'s. Only torch's fused kernel uses it, which runs on CUDA.
        state_keys: as :class:`SGD`'s.
    """

    found_inf: torch.Tensor | None = None
    state_keys: ClassVar[tuple[str, ...]] = ("step", "exp_avg", "exp_avg_sq")

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        decayed = [{**group, "weight_decay": weight_decay * group["decay_mult"]} for group in groups]
        on_cuda = all(p.is_cuda for group in groups for p in group["params"])
        super().__init__(decayed, lr=lr, betas=betas, fused=on_cuda or None)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every group, times its ``lr_mult``."""
        for group in self.param_groups:
            group["lr"] = lr * group["lr_mult"]


def make_optimizer(
    config: Config, parts: Mapping[str, nn.Module], factors: Mapping[str, float], dtype: torch.dtype
) -> SGD | AdamW:
    """Return the optimiser that ``train:`` describes.

    Args:
        config: the resolved configuration.
        parts: the trained parts, by name.
        factors: ``train.lr_mult``, checked.
        dtype: number type in which the network computes.

    Raises:
        UserError: AdamW with sampled negatives.
    """
    train = config.train

    def grouped(usual: float) -> list[dict[str, Any]]:
        rate = usual if train.bias_lr_mult is None else train.bias_lr_mult
        return parameter_groups(parts, factors, bias_rate=rate, decay=train.decay)

    if train.optimizer == "adamw":
        if config.loss.sample_rate < 1:
            raise UserError("train.optimizer: got adamw with loss.sample_rate below 1 · allowed there: sgd, muon")
        groups = grouped(1.0)  # only SGD's recipe doubles the rate of biases
        return AdamW(groups, lr=train.lr, betas=(train.betas[0], train.betas[1]), weight_decay=train.weight_decay)
    groups, sgd = grouped(2.0), {"lr": train.lr, "mu": train.mu, "weight_decay": train.weight_decay}
    if train.optimizer == "muon":
        number = dtype if dtype is torch.bfloat16 else torch.float32
        return Muon(groups, **sgd, muon_lr=train.muon.lr, muon_decay=train.muon.weight_decay, dtype=number)
    return SGD(groups, **sgd, momentum="caffe" if train.momentum == "caffe" else "torch")


def gradient_values(params: Iterable[torch.Tensor]) -> Tensors:
    """Return the values of all gradients, which may be changed in place.

    The values of a sparse gradient are those of its rows.
    """
    values = []
    for p in params:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()
            values.append(p.grad.values())
        elif p.grad is not None:
            values.append(p.grad)
    return values


def _laid_out_as(p: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the same values in the memory order of p.

    The fused kernel reads parameters, gradients and velocities as plain arrays of numbers.
    """
    if values.is_sparse or values.stride() == p.stride():
        return values
    return torch.empty_like(p).copy_(values)
