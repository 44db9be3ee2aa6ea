"""The last layer by blocks of classes: its matrix products, and the N target logits among its N×C.

Logits are class-major, (C, N), so that a block of classes is contiguous. All is float32 (float64 where the
inputs are), under autocast too, but for the three large products. These then take the autocast dtype, of
rounding u = 2⁻⁹ (bfloat16) or 2⁻¹² (float16): a logit of another class is off by up to 3u‖x‖, a target logit
is not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError
from .margins import Margin

CLASS_BLOCK = 16384
"""Classes per block on a CPU. On idle cores every size from 512 on is as fast as the others within 5 %; on busy
ones each operation waits for its slowest thread, so few large blocks win. Other devices take all at once."""

_TINY = 1e-12
"""A shorter vector counts as zero: it has no direction."""


def inverse_norms(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """1/‖row‖ of each row of a matrix, (rows,) in ``dtype``; 0 for a row of no length."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=dtype)
    return norms.reciprocal().masked_fill(norms < _TINY, 0.0)


class LastLayer:
    """Plain logits Z = Ŵ xᵀ and their gradients. All large products are here.

    Args:
        x: (N, D) embeddings.
        weight: (C, D) class weights W of any length; Ŵ are their unit rows.
        project: whether the gradient of W goes through the division by ‖W_j‖, or takes it for a constant.
    """

    def __init__(self, x: Tensor, weight: Tensor, *, project: bool) -> None:
        device = x.device.type
        self.dtype = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
        self.low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.dtype
        self.project = project
        self.x = x.detach().to(self.dtype)
        self.weight = weight.detach()
        self.inv_norms = inverse_norms(self.weight, self.dtype)  # (C,)
        size = CLASS_BLOCK if device == "cpu" else len(weight)
        starts = range(0, len(weight), size)
        self.blocks = [slice(start, min(start + size, len(weight))) for start in starts]
        self._x_low = self.x.to(self.low)

    def room(self, classes: int) -> Tensor:
        """Room for the logits of that many classes, (classes, N)."""
        return self.x.new_empty(classes, len(self.x))

    def room_for_block(self) -> Tensor:
        """Room for the logits of any one block."""
        return self.room(self.blocks[0].stop)

    def unit_rows(self, labels: Tensor) -> Tensor:
        """Ŵ_y, (N, D)."""
        return self.weight[labels].to(self.dtype) * self.inv_norms[labels, None]

    def logits(self, block: slice, room: Tensor) -> Tensor:
        """Z_ji = Ŵ_j·x_i of the block, (B, N), in the first rows of ``room``."""
        z = room[: block.stop - block.start]
        self._product(self.weight[block], self._x_low.t(), z)
        z.mul_(self.inv_norms[block, None])
        return z

    def backward(self, block: slice, grad: Tensor, dx: Tensor | None, dweight: Tensor | None) -> None:
        """Add a block's share to the gradient of x, and write its rows of the gradient of W.

        dx += gradᵀ Ŵ  and  dW_j = (I − Ŵ_j Ŵ_jᵀ)(grad x)_j / ‖W_j‖, the bracket only with ``project``.

        Args:
            block: the classes.
            grad: (B, N) gradient of Z; spent.
            dx: (N, D), or None if nobody asks.
            dweight: (C, D), or None.
        """
        rows, inverse = self.weight[block].to(self.dtype), self.inv_norms[block, None]
        grad.mul_(inverse)  # the division by ‖W_j‖, for both products
        if dx is not None:
            self._add_product(grad.t(), rows, dx)
        if dweight is not None:
            own = dweight[block]
            self._product(grad, self._x_low, own)
            if self.project:
                along = (own * rows).sum(1, keepdim=True) * inverse * inverse
                own.addcmul_(rows, along, value=-1.0)

    def _product(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        if self.low == self.dtype:
            torch.mm(a.to(self.dtype), b, out=out)
        else:
            out.copy_(torch.mm(a.to(self.low), b.to(self.low)))

    def _add_product(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        if self.low == self.dtype:
            out.addmm_(a, b)
        else:
            out.add_(torch.mm(a.to(self.low), b.to(self.low)))


class Targets:
    """The N target logits of a batch: their cosines, what the margin makes of them, where they stand.

    Attributes:
        norms: (N,) ‖x_i‖.
        plain: (N,) z_i = Ŵ_y·x_i.
        cosines: (N,) cos θ_i in [-1, 1]; 0 where x_i or W_y is zero.
        logits: (N,) what the margin puts for ``plain``; 0 where W_y is zero.
    """

    def __init__(self, layer: LastLayer, labels: Tensor, margin: Margin, lam: float) -> None:
        _check_labels(labels, len(layer.x), len(layer.weight))
        self.labels = labels
        self.norms = torch.linalg.vector_norm(layer.x, dim=1)
        self.plain = (layer.x * layer.unit_rows(labels)).sum(1)
        inv_norms = inverse_norms(layer.x, layer.dtype)
        self.cosines = (self.plain * inv_norms).clamp(-1.0, 1.0)
        target = margin.target(self.cosines, self.norms, lam)
        has_angle = layer.inv_norms[labels] > 0  # a zero W_y: logit and gradient 0, whatever the margin
        self.logits = target.logit * has_angle
        self._d_plain, self._d_weight = target.d_plain, target.d_weight
        self._per_x = target.d_norm * inv_norms * has_angle  # ∂t/∂r · x/‖x‖ = this · x
        self._places = _places_in_blocks(labels, layer.blocks)

    def put(self, index: int, block: Tensor, values: Tensor | float) -> None:
        """Set the target entries of the ``index``-th block, (B, N), from N values or one for all."""
        classes, samples = self._places[index]
        if len(samples):
            block[classes, samples] = values if isinstance(values, float) else values[samples]

    def entries(self, grad: Tensor) -> Tensor:
        """What the target places of dL/dZ hold, from dL/d``logits``; both (N,)."""
        return grad * (self._d_plain if self._d_weight is None else self._d_weight)

    def add_to_dx(self, layer: LastLayer, grad: Tensor, dx: Tensor) -> None:
        """Add to dx, (N, D), the part of ∂t/∂x that the product with :meth:`entries` leaves out."""
        dx.addcmul_(layer.x, (grad * self._per_x)[:, None])
        if self._d_weight is not None:
            dx.addcmul_(layer.unit_rows(self.labels), (grad * (self._d_plain - self._d_weight))[:, None])


def _check_labels(labels: Tensor, samples: int, classes: int) -> None:
    if labels.shape != (samples,) or samples == 0:
        raise UserError(f"labels: got shape {tuple(labels.shape)} · allowed: one for each of {samples} images")
    if labels.device.type == "cpu":  # elsewhere it would wait for the device, and indexing asserts anyway
        low, high = (int(value) for value in labels.aminmax())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise UserError(
                f"labels: got {wrong} with {classes} classes · allowed: 0 to {classes - 1} · "
                "the head needs as many classes as the data has identities"
            )


def _places_in_blocks(labels: Tensor, blocks: list[slice]) -> list[tuple[Tensor, Tensor]]:
    """(class within the block, sample) of the targets that fall into each block."""
    if len(blocks) == 1:  # also keeps other devices from waiting for the bounds
        return [(labels, torch.arange(len(labels), device=labels.device))]
    ordered, samples = labels.sort()
    starts = labels.new_tensor([block.start for block in blocks])
    bounds = [*torch.searchsorted(ordered, starts).tolist(), len(samples)]
    spans = zip(blocks, bounds[:-1], bounds[1:], strict=True)
    return [(ordered[low:high] - block.start, samples[low:high]) for block, low, high in spans]
