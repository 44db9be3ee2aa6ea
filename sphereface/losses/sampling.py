"""Sampled negatives as in Partial FC: a step sees the classes of its batch and random others.

An et al., "Partial FC: Training 10 Million Identities on a Single Machine", ICCVW 2021, and CVPR
2022. A class that a step does not see has no gradient in it, not even one of zeros: gradients of W
and b hold the sampled rows alone (sparse tensors), and the optimiser moves neither the other rows
nor their momentum.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def sampled_rows(positives: Tensor, num_rows: int, rate: float, *, seed: int, step: int, shard: int) -> Tensor:
    """Draw the rows that a step sees, in increasing order.

    They are a function of the arguments, so a resumed run draws the same. How many there are
    depends on shapes alone, so no device is waited for: ⌈rate · num_rows⌉, but at least N, for all
    N positives may differ, and at most all rows.

    Args:
        positives: (N,) rows that must be among them, in any order, repeated or not; ``num_rows``
            for none.
        num_rows: of the shard.
        rate: part of the rows, in (0, 1].
        seed: of the run.
        step: finished updates.
        shard: which of the shards this is.
    """
    name = f"sampled negatives, seed {seed}, step {step}, shard {shard}"
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    generator = torch.Generator(positives.device).manual_seed(number)
    priority = torch.empty(num_rows + 1, device=positives.device)
    torch.rand(num_rows, generator=generator, out=priority[:num_rows])
    priority.index_fill_(0, positives, 2.0)
    count = max(math.ceil(rate * num_rows), min(len(positives), num_rows))
    return priority[:num_rows].topk(count).indices.sort().values


def take_rows(parameter: Tensor, rows: Tensor) -> Tensor:
    """Return a copy of these rows. The gradient of the parameter is sparse and has only them.

    Args:
        parameter: (C,) or (C, D).
        rows: (K,) increasing.
    """
    taken: Tensor = _TakeRows.apply(parameter, rows)
    return taken


def mark_distinct_rows(parameter: Tensor, drawn: int) -> None:
    """Mark the gradient of one backward as coalesced. Coalescing it would wait for the GPU.

    Args:
        parameter: with its gradient, a sum over one or more backward passes.
        drawn: K of the last one. A sum has more rows, some of them twice, and is left as it is.
    """
    grad = parameter.grad
    if grad is not None and grad.is_sparse and grad._nnz() == drawn:
        grad._coalesced_(True)


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = parameter.shape
        return parameter.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return torch.sparse_coo_tensor(rows[None], grad, ctx.shape, is_coalesced=True, check_invariants=False), None
