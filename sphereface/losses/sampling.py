"""Sampled negatives, as Partial FC has them: a step sees all classes of its batch and a random part
of the others.

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
    """The rows that a step sees, increasing: a function of its arguments, so a resumed run draws
    the same.

    A GPU is waited for once, for the number of positives.

    Args:
        positives: rows that must be among them, in any order, repeated or not.
        num_rows: of the shard.
        rate: part of the rows, in (0, 1]: ⌈rate · num_rows⌉ in all, or just the positives where
            these are more.
        seed: of the run.
        step: finished updates.
        shard: which of the shards this is.
    """
    name = f"sampled negatives, seed {seed}, step {step}, shard {shard}"
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    generator = torch.Generator(positives.device).manual_seed(number)
    priority = torch.rand(num_rows, generator=generator, device=positives.device)
    priority[positives] = 2.0
    count = max(math.ceil(rate * num_rows), int((priority == 2.0).sum()))
    return priority.topk(count).indices.sort().values


def take_rows(parameter: Tensor, rows: Tensor) -> Tensor:
    """A copy of these rows; the gradient of the parameter is sparse and has them alone.

    Args:
        parameter: (C,) or (C, D).
        rows: (K,) increasing.
    """
    taken: Tensor = _TakeRows.apply(parameter, rows)
    return taken


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
