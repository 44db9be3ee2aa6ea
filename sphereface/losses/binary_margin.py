"""The second engine beside the softmax: one binary classification for each class (SphereFace2).

Every one of the N×C logits is changed, but the loss is a plain sum over them. So its gradient is
known block by block, in the forward already, and nothing of size N×C is ever kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .known_gradients import with_gradients
from .last_layer import LastLayer
from .margin_softmax import HeadOutput
from .margins.binary import SphereFace2
from .shards import Shared, targets_of
from .targets import Targets

BINARY_BLOCK = 1024
"""Classes per block: several operations go over each logit, and find it in the cache."""


def binary_margin(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    margin: SphereFace2,
    *,
    chunk_size: int | None = None,
    shared: Shared | None = None,
) -> HeadOutput:
    """Return the mean binary loss over samples, with each logit's bias.

    The loss is loss_weight/r · (α softplus(−t) + (1 − α) Σ_j≠y softplus(u_j)).

    Gradients flow to ``x``, ``weight`` and ``bias``, once. They are computed with the loss, at
    three products in all; where no gradient is wanted it is one.

    Args:
        x: (N, D) embeddings, any floating dtype.
        weight: (C, D) class weights, of any length.
        bias: (1,), shared by all classes.
        labels: (N,) int64 in [0, C).
        margin: gives the target logits t and the others u.
        chunk_size: the most classes in a block.
        shared: where ``weight`` is this rank's part of the classes, and ``x`` all ranks' samples.
            The gradient of ``x`` is then this rank's part of a sum over ranks.

    Raises:
        UserError: a label outside [0, C); checked on a CPU only.
    """
    inputs = x, weight, bias
    layer = LastLayer(x, weight, margin, block_size=chunk_size, cpu_block=BINARY_BLOCK)
    targets = targets_of(layer, labels, margin, 0.0, shared)
    wanted = [value.requires_grad and torch.is_grad_enabled() for value in inputs]
    with torch.no_grad():
        loss, best_other, gradients = _sum_over_classes(layer, targets, margin, bias.to(layer.dtype), wanted=wanted)
    if any(wanted):
        loss = with_gradients(loss, *zip(inputs, gradients, strict=True))
    return HeadOutput(loss, targets.beat(best_other), targets.cosines, targets.norms)


def _sum_over_classes(
    layer: LastLayer, targets: Targets, margin: SphereFace2, b: Tensor, *, wanted: list[bool]
) -> tuple[Tensor, Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """Return the loss, the highest other cosine (N,), and the gradients of x, W and b."""
    share = margin.loss_weight / (margin.r * len(layer.x))
    positive, negative = share * margin.alpha, share * (1.0 - margin.alpha)
    t = targets.logits + b
    loss = positive * targets.own(F.softplus(-t, threshold=50)).sum()
    on_target = -positive * targets.own(torch.sigmoid(-t))
    dquery = torch.zeros_like(layer.x) if wanted[0] else None
    dweight = layer.x.new_empty(layer.weight.shape) if wanted[1] else None
    dbias = on_target.sum()
    lowest, room = torch.finfo(layer.dtype).min, layer.room_for_block()
    best = torch.full_like(t, lowest)
    for i, block in enumerate(layer.blocks):
        cos = layer.logits(block, room).clamp_(-1.0, 1.0)
        u, slope = margin.others(cos)
        targets.put(i, cos, lowest)
        best = torch.maximum(best, cos.amax(0))
        targets.put(i, u.add_(b), float("-inf"))
        loss += negative * F.softplus(u, threshold=50).sum()
        if any(wanted):
            grad = u.sigmoid_().mul_(negative)
            dbias += grad.sum()
            layer.backward(block, grad.mul_(slope), dquery, dweight)  # 0 at the targets
    dx = None if dquery is None else targets.add_to_dx(layer, on_target, dquery)
    best, (loss, dbias) = targets.highest(best), targets.total(loss, dbias)
    if dweight is not None:
        targets.add_to_dweight(layer, on_target, dweight)
    return loss, best, (dx, dweight, dbias.reshape(1))
