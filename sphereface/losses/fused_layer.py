"""The last layer on CUDA, with two passes over the logits in place of eight.

Logits are in the type of the products: bfloat16 or float16 under autocast, else float32. They are
written by one product, read by one kernel, turned into their gradient in place by another, and read
by two products: 12 bytes a logit in all for the 2-byte types, 24 for float32. Where a
``chunk_size`` makes the backward compute them again, it is 14 and 28.
:class:`~sphereface.losses.last_layer.LastLayer` moves 66 under autocast.

1/‖W‖ is part of the cast of W to that type, and of the rows of dW. The gradient of W is written in
float32 by its product, and completed in one pass.

Rounding is as :mod:`sphereface.losses.last_layer` states. Arithmetic on logits is float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..device import why_no_triton
from .last_layer import TINY, LastLayer, TargetRows, inverse_norms
from .margins import Margin
from .products import add_product, put_product
from .softmax_passes import EagerSoftmax
from .targets import Targets

_ALIGNED = 256
"""Bytes. Products and kernels are fastest on rows that begin at multiples of it."""


def last_layer(
    x: Tensor, weight: Tensor, margin: Margin, *, bias: Tensor | None = None, block_size: int | None = None
) -> LastLayer:
    """Return the fastest last layer on the device of ``x``. Arguments as for :class:`LastLayer`."""
    kind = FusedLayer if _fuses(x, weight) else LastLayer
    return kind(x, weight.contiguous(), margin, bias=bias, block_size=block_size)


def logit_bytes(weight: Tensor) -> int:
    """Return the size of a logit in the last layer of these weights, in bytes."""
    device = weight.device.type
    if _fuses(weight, weight) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device).itemsize
    return torch.promote_types(weight.dtype, torch.float32).itemsize


def renormalize_(weight: Tensor, held: Tensor | None = None) -> None:
    """Divide each row of W, (C, D), by its length, in place; a zero row stays zero.

    Args:
        weight: any floating dtype.
        held: () on the device of W: where it is above 0, W stays as it is; or None.
    """
    if _fuses(weight, weight) and weight.is_contiguous():
        _kernels().unit_rows(weight, weight, TINY, held=held)
        return
    factors = inverse_norms(weight, torch.promote_types(weight.dtype, torch.float32))
    weight.mul_((factors if held is None else torch.where(held > 0, 1.0, factors))[:, None])


def _fuses(x: Tensor, weight: Tensor) -> bool:
    half_or_fp32 = torch.float64 not in (x.dtype, weight.dtype)
    return x.device.type == "cuda" and half_or_fp32 and why_no_triton(x.device) is None


class FusedLayer(LastLayer):
    """The same logits and gradients as :class:`LastLayer`, with logits in the type of the products.

    Logits are without the bias, which the kernels add. Where they stay until the backward and are
    no longer than the rows of W, the gradient of W is written over those of spent blocks.
    """

    def __init__(self, x: Tensor, weight: Tensor, margin: Margin, **options: Any) -> None:
        super().__init__(x.contiguous(), weight, margin, **options)
        self._type_of_x = x.dtype
        self._has_dweight = weight.requires_grad
        self._memory: Tensor | None = None

    def softmax(self, targets: Targets) -> FusedSoftmax:
        """The two passes over the logits."""
        return FusedSoftmax(self, targets)

    def room(self, classes: int) -> Tensor:
        """Room for the logits of that many classes, (classes, N)."""
        return self._query_low.new_empty(classes, len(self.x))

    def rooms(self) -> Iterator[Tensor]:
        """As :meth:`LastLayer.rooms`. All blocks but the last lie where the backward writes the
        gradient of W: each at the rows of the next block.
        """
        size, width, length = self.blocks[0].stop, self.weight.shape[1] * self.x.element_size(), self.room(1).nbytes
        aligned = length <= width and size * width % _ALIGNED == 0
        if not (self._has_dweight and aligned):
            yield from super().rooms()
            return
        total = max(len(self.weight) * width, self.blocks[-1].start * width + size * length)
        self._memory = memory = torch.empty(total, dtype=torch.uint8, device=self.x.device)
        for block in self.blocks[:-1]:
            first = block.stop * width
            yield memory[first : first + size * length].view(self.low).view(size, -1)
        yield self.room(self.blocks[-1].stop - self.blocks[-1].start)

    def room_for_dquery(self) -> Tensor:
        """As :meth:`LastLayer.room_for_dquery`. The first block's product is written there."""
        return torch.empty_like(self.x)

    def room_for_dweight(self) -> Tensor:
        """As :meth:`LastLayer.room_for_dweight`. The rows of a block lie before its logits."""
        memory, self._memory = self._memory, None
        if memory is None:
            return super().room_for_dweight()
        return memory[: self.weight.numel() * self.x.element_size()].view(self.dtype).view(self.weight.shape)

    def _inverse_norms(self) -> Tensor:
        return self.x.new_empty(len(self.weight))  # the cast of W computes them

    def logits(self, block: slice, room: Tensor) -> Tensor:
        """Z_ji = Ŵ_j·q_i of the block, (B, N), in the first rows of ``room``."""
        z = room[: block.stop - block.start]
        put_product(self._low_rows(block), self._query_low.t(), z)
        return z

    def _low_rows(self, block: slice) -> Tensor:
        """(B, D) Ŵ in the type of the products."""
        if self.inv_norms is None:
            return self.weight[block].to(self.low)
        low = torch.empty_like(self.weight[block], dtype=self.low)
        return _kernels().unit_rows(self.weight[block], low, TINY, inverse=self.inv_norms[block])  # type: ignore[no-any-return]

    def targets(self, labels: Tensor) -> TargetRows:
        """As :meth:`LastLayer.targets`, by one kernel."""
        rows = self.weight[labels]  # indexing asserts that all labels are in range
        factor = self.inv_x_norms if self.scale is None else 1 / self.scale
        unit, *figures = _target_kernels().target_rows(rows, self.query, factor, TINY)
        return TargetRows(rows.to(self.dtype) if self.rows == "plain" else unit, unit, *figures)

    def add_targets(
        self, dweight: Tensor, labels: Tensor, own: TargetRows, slope: Tensor, per_length: Tensor | None
    ) -> None:
        """As :meth:`LastLayer.add_targets`, by one kernel, and as deterministic."""
        inverse = None if self.rows == "plain" else own.inverse
        options = {"inverse": inverse, "per_length": per_length, "project": self.rows == "normalized"}
        _target_kernels().add_targets_(dweight, labels, self.query, slope, own.unit, **options)

    def finish_dx(self, dquery: Tensor, own: TargetRows, slope: Tensor, per_norm: Tensor) -> Tensor:
        """As :meth:`LastLayer.finish_dx`, by one kernel, in the type in which x was given."""
        dx = torch.empty_like(dquery, dtype=self._type_of_x)
        inverse = None if self.scale is None else self.inv_x_norms
        _target_kernels().finish_dx(dquery, own.rows, slope, self.x, per_norm, inverse, self.scale or 1.0, dx)
        return dx

    def backward(
        self, block: slice, grad: Tensor, dquery: Tensor | None, dweight: Tensor | None, unit: Tensor | None = None
    ) -> None:
        """As :meth:`LastLayer.backward`. ``grad`` is in the products' type and in ``unit``."""
        if dquery is not None and block.start > 0:
            add_product(grad.t(), self._low_rows(block), dquery, unit)
        elif dquery is not None:
            put_product(grad.t(), self._low_rows(block), dquery)
            if unit is not None:
                dquery.mul_(unit)
        if dweight is not None:
            own, inverse = dweight[block], None if self.inv_norms is None else self.inv_norms[block]
            put_product(grad, self._query_low, own)
            if inverse is not None or unit is not None:
                project = self.rows == "normalized"
                _kernels().finish_rows_(own, self.weight[block], inverse, unit, project=project)


class FusedSoftmax(EagerSoftmax):
    """The same by two kernels. A block keeps its logits until the backward."""

    def __init__(self, layer: LastLayer, targets: Targets) -> None:
        self.layer, self.targets = layer, targets
        self.parts = -(-layer.blocks[0].stop // _kernels().PART)
        whole, rest = divmod(len(layer.weight), layer.blocks[0].stop)
        parts = whole * self.parts + -(-rest // _kernels().PART)
        self.maxima = layer.x.new_empty(parts, len(layer.x))
        self.sums = torch.empty_like(self.maxima)

    def reduce(self, index: int, z: Tensor) -> None:
        """Read the logits of a block once."""
        parts = slice(index * self.parts, (index + 1) * self.parts)
        _kernels().sum_exponentials(z, *self._places(index), self.maxima[parts], self.sums[parts])

    def reduce_again(self, index: int, z: Tensor) -> None:
        """Do nothing: the logits were not changed."""

    def totals(self) -> tuple[Tensor, Tensor]:
        """As :meth:`EagerSoftmax.totals`, by one kernel."""
        own, total = _kernels().totals(self.maxima, self.sums)
        best = self.targets.highest(own)
        return best, total if best is own else total * (own - best).exp_()

    def begin_backward(self, log_sum: Tensor, scale: Tensor) -> None:
        """Set shift and gain. In float16, without numbers below 6e-8, the largest gradient is 1."""
        self.shift, self.gain = log_sum, scale
        if self.layer.low == torch.float16:
            most = (self.maxima.amax(0) - log_sum).amax()
            self.shift, self.gain, self.unit = log_sum + most, torch.ones_like(scale), scale * most.exp()

    def to_gradient(self, index: int, z: Tensor) -> None:
        """Read and write the logits of a block once."""
        _kernels().gradient_(z, *self._places(index), self.shift, self.gain)

    def _places(self, index: int) -> tuple[Tensor, int, Tensor | None]:
        block, bias = self.layer.blocks[index], self.layer.bias
        return self.targets.rows, block.start, None if bias is None else bias[block]


def _kernels() -> Any:
    from . import triton_kernels  # needs triton, which not every machine with torch has

    return triton_kernels


def _target_kernels() -> Any:
    from . import target_kernels

    return target_kernels
