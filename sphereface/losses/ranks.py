"""All that the head sends between processes. No other module of the losses calls
torch.distributed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

_all_gather: Any = (
    getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
)  # as torch calls it now, and before
_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class Ranks:
    """The R processes that share one head.

    Args:
        group: of torch.distributed; None for all processes.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        whole = dist.group.WORLD if group is None else group
        assert whole is not None, "torch.distributed was not started"
        self.group = whole
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)

    def gather(self, rows: Tensor) -> Tensor:
        """(n, …) of each rank → (R·n, …) in order of ranks, on all."""
        everything = rows.new_empty(self.size * len(rows), *rows.shape[1:])
        _all_gather(everything, rows.contiguous(), group=self.group)
        return everything

    def scatter_sum(self, rows: Tensor) -> Tensor:
        """(R·n, …) on all → this rank's (n, …) of their sum."""
        own = rows.new_empty(len(rows) // self.size, *rows.shape[1:])
        _reduce_scatter(own, rows.contiguous(), group=self.group)
        return own

    def max_(self, values: Tensor) -> Tensor:
        """The largest over ranks, in place."""
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self.group)
        return values

    def sum(self, *values: Tensor) -> list[Tensor]:
        """Sums over ranks of tensors of one dtype, in a single message."""
        packed = torch.cat([value.reshape(-1) for value in values])
        dist.all_reduce(packed, group=self.group)
        parts = torch.split(packed, [value.numel() for value in values])
        return [part.view(value.shape) for part, value in zip(parts, values, strict=True)]

    def send(self, rows: Tensor, to: int) -> None:
        """To one rank, which calls :meth:`receive` with as much room."""
        dist.send(rows.contiguous(), dist.get_global_rank(self.group, to), group=self.group)

    def receive(self, room: Tensor, source: int) -> Tensor:
        """What that rank sends, in ``room``."""
        dist.recv(room, dist.get_global_rank(self.group, source), group=self.group)
        return room


def gathered(x: Tensor, ranks: Ranks) -> Tensor:
    """(n, D) of each rank → (R·n, D) on all; the gradient is R times what all ranks together send
    back.

    Embeddings travel in their own type, gradients in float32 (float64 for float64), in which they
    are summed. R times, because DistributedDataParallel divides the gradients of the network by R
    afterwards. A loss that is the mean over all R·n samples then has the gradient that one process
    with R·n samples has.
    """
    everything: Tensor = _Gathered.apply(x, ranks)
    return everything


def together(x: Tensor, ranks: Ranks) -> Tensor:
    """(n, D) of each rank → (R·n, D) on all, where each computes the same loss of all of them.

    The gradient of a rank's own rows is R times the loss's, because DistributedDataParallel divides
    by R afterwards.
    Nothing is sent back: compare :func:`gathered`, for ranks that each compute a part of the loss.
    """
    everything: Tensor = _Together.apply(x, ranks)
    return everything


def averaged(parameter: Tensor, ranks: Ranks) -> Tensor:
    """A parameter that each rank holds whole; its gradient is the mean of all ranks', as the
    network's is.
    """
    same: Tensor = _Averaged.apply(parameter, ranks)
    return same


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.dtype = ranks, x.dtype
        return ranks.gather(x).to(torch.promote_types(x.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.scatter_sum(grad).mul_(ctx.ranks.size).to(ctx.dtype), None


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.own = ranks, slice(ranks.rank * len(x), (ranks.rank + 1) * len(x))
        return ranks.gather(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad[ctx.own] * ctx.ranks.size, None


class _Averaged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return parameter.view_as(parameter)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.sum(grad)[0].div_(ctx.ranks.size), None
