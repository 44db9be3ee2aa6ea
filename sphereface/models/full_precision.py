"""Compute an embedding head in the precision of its weights, also where autocast is on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def full_precision(head: Callable[[Tensor], Tensor], maps: Tensor, weight: Tensor) -> Tensor:
    """Apply ``head`` to feature maps in the number type of its ``weight``.

    Under autocast an embedding in bfloat16 would have 8 significant bits, and so would its batch
    statistics. The head is a small share of the work, so full precision costs little.
    """
    if not torch.is_autocast_enabled(maps.device.type):
        return head(maps)
    with torch.autocast(maps.device.type, enabled=False):
        return head(maps.to(weight.dtype))
