"""Minimum hyperspherical energy, which spreads class weights over the sphere (SphereFace+)."""

from __future__ import annotations

import torch
from torch import Tensor

from .known_gradients import with_gradients
from .last_layer import LastLayer
from .margins import make_margin
from .shards import Shared, targets_of

ENERGY_BLOCK = 1024
"""Classes per block: several operations go over each pair, and find it in the cache."""

_COSINES = make_margin("modified-softmax", s=1.0)
"""Makes the last layer's logits cosines."""

_SOFT = 1e-3
"""Added to every squared distance: two equal rows have a finite energy."""


def hyperspherical_energy(weight: Tensor, labels: Tensor, shared: Shared | None = None) -> Tensor:
    """Return 1/(N (C − 1)) Σ_i Σ_j≠y_i 1/‖Ŵ_yi − Ŵ_j‖².

    This is the form of SphereFace+ with s = 2 (Liu et al., NeurIPS 2018).

    Only the classes of the batch repel all others: N×C pairs, in blocks, and never C×C. The
    gradient is computed along, at three products in all, and kept: one more buffer of the size of
    W.

    Args:
        weight: (C, D) class weights of any length; a zero row has no force and feels none.
        labels: (N,) the classes of the batch.
        shared: where ``weight`` is this rank's part of the classes. The N rows of the batch and
            their gradient are then summed over ranks: two messages of N·D numbers.
    """
    own = weight.detach()[labels]
    if shared is not None:
        own = shared.sum_rows(own)
    layer = LastLayer(own, weight, _COSINES, cpu_block=ENERGY_BLOCK)
    targets = targets_of(layer, labels, _COSINES, 0.0, shared)
    wanted = weight.requires_grad and torch.is_grad_enabled()
    classes = len(weight) if shared is None else shared.num_classes
    share = 1.0 / (len(labels) * max(classes - 1, 1))
    dquery = torch.zeros_like(layer.x)
    dweight = layer.x.new_empty(weight.shape)
    total, room = layer.x.new_zeros(()), layer.room_for_block()
    with torch.no_grad():
        for i, block in enumerate(layer.blocks):
            cos = layer.logits(block, room)
            energies = cos.clamp_(-1.0, 1.0).mul_(-2.0).add_(2.0 + _SOFT).reciprocal_()  # 1/‖Ŵ_y − Ŵ_j‖²
            targets.put(i, energies, 0.0)
            total += energies.sum()
            if wanted:  # d(1/(2 − 2c))/dc = 2/(2 − 2c)²
                layer.backward(block, energies.square_().mul_(2.0 * share), dquery, dweight)
        total, dquery = targets.total(total, dquery)
        if wanted:
            dweight.index_add_(0, labels, targets.own(layer.to_dx(dquery)))
    return with_gradients(total * share, (weight, dweight)) if wanted else total * share
