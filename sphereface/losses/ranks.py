"""Communication of the head between processes. No other loss module calls torch.distributed."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

# as torch calls them now, and before
_all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
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
        """All-gather (n, …) to (R·n, …), in the order of the ranks."""
        everything = rows.new_empty(self.size * len(rows), *rows.shape[1:])
        _all_gather(everything, rows.contiguous(), group=self.group)
        return everything

    def scatter_sum(self, rows: Tensor) -> Tensor:
        """Reduce-scatter: (R·n, …) on all ranks to this rank's (n, …) of their sum."""
        own = rows.new_empty(len(rows) // self.size, *rows.shape[1:])
        _reduce_scatter(own, rows.contiguous(), group=self.group)
        return own

    def max_(self, values: Tensor) -> Tensor:
        """All-reduce to the maximum, in place."""
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self.group)
        return values

    def sum(self, *values: Tensor) -> list[Tensor]:
        """All-reduce tensors of one dtype to their sums, in a single message."""
        packed = torch.cat([value.reshape(-1) for value in values])
        dist.all_reduce(packed, group=self.group)
        parts = torch.split(packed, [value.numel() for value in values])
        return [part.view(value.shape) for part, value in zip(parts, values, strict=True)]

    def send(self, rows: Tensor, to: int) -> None:
        """Send to one rank, which calls :meth:`receive` with a tensor of the same shape."""
        dist.send(rows.contiguous(), dist.get_global_rank(self.group, to), group=self.group)

    def receive(self, room: Tensor, source: int) -> Tensor:
        """Receive what another rank sends, in ``room``."""
        dist.recv(room, dist.get_global_rank(self.group, source), group=self.group)
        return room


def gathered(x: Tensor, ranks: Ranks) -> Tensor:
    """All-gather (n, D) to (R·n, D). The gradient is R times the sum of the gradients of all ranks.

    Embeddings travel in their own type, gradients in float32 (float64 for float64), in which they
    are summed. R times, because DistributedDataParallel divides the gradients of the network by R
    afterwards. A loss that is the mean over all R·n samples then has the gradient that one process
    with R·n samples has.
    """
    everything: Tensor = _Gathered.apply(x, ranks)
    return everything


def together(x: Tensor, ranks: Ranks) -> Tensor:
    """All-gather (n, D) to (R·n, D), for a loss that each rank computes on all samples.

    The gradient of a rank's own rows is R times the loss's, because DistributedDataParallel divides
    by R afterwards.
    Nothing is sent back: compare :func:`gathered`, for ranks that each compute a part of the loss.
    """
    everything: Tensor = _Together.apply(x, ranks)
    return everything


def averaged(parameter: Tensor, ranks: Ranks) -> Tensor:
    """Return a replicated parameter whose gradient is averaged over the ranks."""
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
