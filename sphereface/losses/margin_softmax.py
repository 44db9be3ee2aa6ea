"""The engine of the margin losses: softmax cross entropy with N changed logits, at the price of a
plain one.

A margin changes only the N target logits of the N×C. So the plain product runs in blocks of
classes, the targets are left out of the sum of exponentials and join it at its end, and the
backward, written by hand, turns these exponentials into gradients in place, and frees them, block
by block.

What a block of logits is, and how its gradient reaches x and W, is in
:mod:`sphereface.losses.last_layer`; the two autograd functions here say what is done with the
logits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fused_layer import last_layer
from .last_layer import LastLayer
from .margins import Margin
from .shards import Shared, targets_of
from .targets import Targets


class HeadOutput(NamedTuple):
    """Loss of a batch, with what comes for free beside it; all but the loss without gradient."""

    loss: Tensor
    """() mean cross entropy, float32 (float64 for float64 inputs)."""
    correct: Tensor
    """(N,) bool: the plain target logit, without margin, is above all others. A tie is wrong."""
    cosines: Tensor
    """(N,) cos θ between x_i and W_y, in [-1, 1]; 0 where either is zero."""
    norms: Tensor
    """(N,) ‖x_i‖."""


def margin_softmax(
    x: Tensor,
    weight: Tensor,
    labels: Tensor,
    margin: Margin,
    lam: float = 0.0,
    *,
    bias: Tensor | None = None,
    chunk_size: int | None = None,
    shared: Shared | None = None,
) -> HeadOutput:
    """Mean of −log softmax(M)_y, M the plain logits but for the targets, which ``margin`` gives.

    The plain logits are ‖x_i‖ cos θ_ij, s cos θ_ij or W_j·x_i + b_j, as the margin says. Gradients
    flow to ``x``, ``weight`` and ``bias``, once (there is no double backward). Between forward and
    backward N×C numbers are alive; a second backward through the same graph finds them spent and
    computes the logits again. With a ``chunk_size`` below C they are never there: the backward
    computes them again, chunk by chunk.

    Args:
        x: (N, D) embeddings, any floating dtype.
        weight: (C, D) class weights, of any length; a zero row has logit and gradient 0, unless
            rows are plain.
        labels: (N,) int64 in [0, C).
        margin: what becomes of the target logits.
        lam: λ ≥ 0, ``margin.lam(step)``.
        bias: (C,), for a margin with one.
        chunk_size: classes whose logits exist at a time; None for all.
        shared: where ``weight`` and ``bias`` are this rank's part of the classes, and ``x`` all
            ranks' samples. The gradient of ``x`` is then this rank's part of a sum over ranks.

    Raises:
        UserError: a label outside [0, C); checked on a CPU only.
    """
    layer = last_layer(x, weight, margin, bias=bias, block_size=chunk_size)
    targets = targets_of(layer, labels, margin, lam, shared)
    wanted = any(value is not None and value.requires_grad for value in (x, weight, bias))
    keep = torch.is_grad_enabled() and wanted and (chunk_size or len(weight)) >= len(weight)
    loss, best_other = _MarginSoftmax.apply(x, weight, bias, layer, targets, keep)
    if type(margin).norm_term is not Margin.norm_term:
        term = margin.norm_term(torch.linalg.vector_norm(x.to(layer.dtype), dim=1))
        loss = loss if term is None else loss + targets.once(term).mean()
    return HeadOutput(loss, targets.beat(best_other), targets.cosines, targets.norms)


def margin_logits(
    x: Tensor, weight: Tensor, labels: Tensor, margin: Margin, lam: float = 0.0, *, bias: Tensor | None = None
) -> Tensor:
    """The (N, C) logits M that :func:`margin_softmax` takes the cross entropy of, with the same
    gradients.

    For looking at them, and for other losses on them. Arguments as there.
    """
    layer = LastLayer(x, weight, margin, bias=bias)
    logits: Tensor = _MarginLogits.apply(x, weight, bias, layer, Targets(layer, labels, margin, lam))
    return logits


class _MarginSoftmax(torch.autograd.Function):
    """(x, W, b) → mean cross entropy () and the highest logit of the other classes (N,)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: LastLayer, targets: Targets, keep: bool
    ) -> tuple[Tensor, Tensor]:
        """Reduce all blocks of Z. With ``keep`` they stay as the pass left them."""
        rooms = layer.rooms() if keep else itertools.repeat(layer.room_for_block())
        kept: list[Tensor | None] = []
        passes = layer.softmax(targets)
        for i, (block, room) in enumerate(zip(layer.blocks, rooms, strict=False)):
            z = layer.logits(block, room)
            kept.append(z if keep else None)
            passes.reduce(i, z)
        best_other, total = passes.totals()
        (total,) = targets.total(total)
        others = total.log_() + best_other
        ctx.gap = others - targets.logits  # holds what a difference of log_sum and logits near p = 1 would lose
        ctx.save_for_backward(x, weight, bias)  # autograd then checks that they were not changed meanwhile
        ctx.layer, ctx.targets, ctx.passes = layer, targets, passes
        ctx.log_sum = torch.logaddexp(others, targets.logits)
        ctx.kept = kept if keep else None
        ctx.mark_non_differentiable(best_other)
        return F.softplus(ctx.gap, threshold=50).mean(), best_other

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """dL/dM = (softmax(M) − onehot)/N, block by block into the gradients of x, W and b."""
        layer, passes = ctx.layer, ctx.passes
        kept, ctx.kept = ctx.kept, None
        scale = grad_loss / len(ctx.log_sum)
        passes.begin_backward(ctx.log_sum, scale)
        room = layer.room_for_block() if kept is None else None

        def gradient(i: int, block: slice) -> Tensor:
            if room is None:
                part, kept[i] = kept[i], None  # freed as soon as spent, while the gradient of W grows
            else:
                part = layer.logits(block, room)
                passes.reduce_again(i, part)
            passes.to_gradient(i, part)
            return part  # type: ignore[no-any-return]

        on_target = ctx.targets.own(torch.sigmoid(ctx.gap).mul_(-scale))  # p − 1
        return *_backward(ctx, gradient, on_target, passes.unit), None, None, None


class _MarginLogits(torch.autograd.Function):
    """(x, W, b) → the logits themselves, (N, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: LastLayer, targets: Targets) -> Tensor:
        """The products, with the targets put in their places."""
        room = layer.room(len(weight))
        for i, block in enumerate(layer.blocks):
            targets.put(i, layer.logits(block, room[block]), targets.logits)
        ctx.save_for_backward(x, weight, bias)
        ctx.layer, ctx.targets = layer, targets
        return room.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """From any dL/dM, (N, C)."""
        room = ctx.layer.room_for_block()

        def gradient(i: int, block: slice) -> Tensor:
            part = room[: block.stop - block.start].copy_(grad[:, block].t())
            ctx.targets.put(i, part, 0.0)
            return part  # type: ignore[no-any-return]

        on_target = grad.gather(1, ctx.targets.labels[:, None])[:, 0]
        return *_backward(ctx, gradient, on_target), None, None


def _backward(
    ctx: Any, gradient: Callable[[int, slice], Tensor], on_target: Tensor, unit: Tensor | None = None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, W and b; None for one that is not needed.

    Args:
        ctx: of either function.
        gradient: (index, classes) of a block → its dL/dM, (B, N), 0 at the targets; to be spent.
        on_target: (N,) dL/dM of the targets.
        unit: () what the gradients of blocks are to be multiplied by; None for 1.
    """
    x, weight, bias = ctx.saved_tensors
    layer, targets = ctx.layer, ctx.targets
    dx = layer.room_for_dquery() if ctx.needs_input_grad[0] else None
    dweight = layer.room_for_dweight() if ctx.needs_input_grad[1] else None
    dbias = layer.x.new_empty(bias.shape) if ctx.needs_input_grad[2] else None
    for i, block in enumerate(layer.blocks):
        part = gradient(i, block)
        if dbias is not None:
            torch.sum(part, 1, dtype=dbias.dtype, out=dbias[block])
        layer.backward(block, part, dx, dweight, unit)
    if dbias is not None and unit is not None:
        dbias.mul_(unit)
    if dx is not None:
        dx = targets.add_to_dx(layer, on_target, dx).to(x.dtype)
    if dweight is not None:
        targets.add_to_dweight(layer, on_target, dweight)
        dweight = dweight.to(weight.dtype)
    if dbias is not None:
        dbias.index_put_((targets.labels,), on_target, accumulate=True)
    return dx, dweight, None if dbias is None else dbias.to(bias.dtype)
