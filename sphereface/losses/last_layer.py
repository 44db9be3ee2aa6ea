"""The last layer by blocks of classes: its matrix products.

Logits are class-major, (C, N), so that a block of classes is contiguous. All is float32 (float64
where the inputs are), under autocast too, but for the three large products. These then take the
autocast dtype, of rounding u = 2⁻⁹ (bfloat16) or 2⁻¹² (float16): a logit of another class is off by
up to 3u‖x‖ (3us where features are normalised). A target's logit and gradient are not: they take no
part in the products. The gradients of x and W are then off, as a whole, by 0.2 to 2.5 % with
bfloat16, a sixth of that with float16: by about u times the logits that matter, so more where plain
rows are long. In float32 it is some 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .margins import Margin
from .products import add_product, product, put_product
from .softmax_passes import EagerSoftmax

if TYPE_CHECKING:
    from .targets import Targets

CLASS_BLOCK = 2048
"""Classes per block on a CPU: several operations go over each logit and each row, and find them in
the cache; what a block needs beside the logits stays small beside them. On idle cores 1024 to 4096
are equally fast within 3 %; on busy ones each operation waits for its slowest thread, so few are
better."""

BLOCK_BYTES = 2**28
"""Bytes of logits per block on other devices, at most: enough to keep the device busy, small beside
the rest."""

_PIECE = 2**25 + 1
"""Bytes. An allocation of so many goes back to the system once it is free. glibc keeps smaller
ones."""

TINY = 1e-12
"""A vector that is not longer counts as zero: it has no direction."""


def inverse_norms(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """1/‖row‖ of each row of a matrix, (rows,) in ``dtype``; 0 for a row of no length."""
    return inverse_of(torch.linalg.vector_norm(rows, dim=1, dtype=dtype))


def inverse_of(norms: Tensor) -> Tensor:
    return F.threshold(norms, TINY, math.inf).reciprocal()


class TargetRows(NamedTuple):
    """The rows W_y of a batch's classes, in the type of :attr:`LastLayer.dtype`."""

    rows: Tensor
    """(N, D) as they enter the plain logit: Ŵ_y, or W_y of plain rows."""
    unit: Tensor
    """(N, D) Ŵ_y; 0 where W_y is zero."""
    lengths: Tensor
    """(N,) ‖W_y‖."""
    inverse: Tensor
    """(N,) 1/‖W_y‖; 0 where W_y is zero."""
    has_angle: Tensor
    """(N,) 1; 0 where W_y is zero."""
    along: Tensor
    """(N,) Ŵ_y·q_i."""
    cosines: Tensor
    """(N,) cos θ_i in [-1, 1]; 0 where x_i or W_y is zero."""


def _blocks(classes: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, classes)) for start in range(0, classes, size)]


class LastLayer:
    """Plain logits Z = Ŵ qᵀ + b and their gradients. All large products are here.

    The queries q are x itself, or s·x/‖x‖ where the margin has a scale. Ŵ are the unit rows of W,
    or W itself where the margin's rows are plain.

    Args:
        x: (N, D) embeddings.
        weight: (C, D) class weights W of any length.
        margin: says how x and W enter.
        bias: (C,) b, or None.
        block_size: the most classes in a block; None for as many as are fastest.
        cpu_block: the most classes in a block on a CPU; None for :data:`CLASS_BLOCK`.
    """

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        margin: Margin,
        *,
        bias: Tensor | None = None,
        block_size: int | None = None,
        cpu_block: int | None = None,
    ) -> None:
        device = x.device.type
        self.dtype = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
        self.low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.dtype
        self.rows, self.scale = margin.rows, margin.scale
        self.x = x.detach().to(self.dtype)
        self.norms = torch.linalg.vector_norm(self.x, dim=1)  # (N,)
        self.inv_x_norms = inverse_of(self.norms)
        self.query = self.x if self.scale is None else self.x * (self.scale * self.inv_x_norms)[:, None]
        self.weight = weight.detach()
        self.inv_norms = None if self.rows == "plain" else self._inverse_norms()  # (C,)
        self.bias = None if bias is None else bias.detach().to(self.dtype)
        same = self.scale is None and x.dtype == self.low
        self._query_low = x.detach() if same else self.query.to(self.low)
        fastest = self._block_by_bytes() if device != "cpu" else cpu_block or CLASS_BLOCK
        self.blocks = _blocks(len(weight), min(block_size or len(weight), fastest))

    def softmax(self, targets: Targets) -> EagerSoftmax:
        """The two passes over the logits."""
        return EagerSoftmax(self, targets)

    def _inverse_norms(self) -> Tensor:
        return inverse_norms(self.weight, self.dtype)

    def _block_by_bytes(self) -> int:
        most = max(BLOCK_BYTES // self.room(1).nbytes, 1)
        count = math.ceil(len(self.weight) / most)
        return math.ceil(len(self.weight) / count)  # blocks of one size

    def room(self, classes: int) -> Tensor:
        """Room for the logits of that many classes, (classes, N)."""
        return self.x.new_empty(classes, len(self.x))

    def room_for_block(self) -> Tensor:
        """Room for the logits of any one block."""
        return self.room(self.blocks[0].stop)

    def rooms(self) -> Iterator[Tensor]:
        """Room for each block in turn, in pieces that are freed one by one as their blocks are let
        go.
        """
        size = self.blocks[0].stop
        per_piece = _PIECE // self.room(1).nbytes // size + 1
        for first in range(0, len(self.blocks), per_piece):
            blocks = self.blocks[first : first + per_piece]
            piece = self.room(blocks[-1].stop - blocks[0].start)
            yield from torch.split(piece, size)

    def room_for_dquery(self) -> Tensor:
        """Room for the gradient of q, (N, D), to which :meth:`backward` adds."""
        return torch.zeros_like(self.x)

    def room_for_dweight(self) -> Tensor:
        """Room for the gradient of W, (C, D)."""
        return self.x.new_empty(self.weight.shape)

    def logits(self, block: slice, room: Tensor) -> Tensor:
        """Z_ji = Ŵ_j·q_i + b_j of the block, (B, N), in the first rows of ``room``."""
        z = room[: block.stop - block.start]
        put_product(self.weight[block].to(self.low), self._query_low.t(), z)
        if self.inv_norms is not None:
            z.mul_(self.inv_norms[block, None])
        if self.bias is not None:
            z.add_(self.bias[block, None])
        return z

    def targets(self, labels: Tensor) -> TargetRows:
        """The rows of W of the samples' classes, (N,), and their products with the queries."""
        rows = self.weight[labels].to(self.dtype)
        lengths = torch.linalg.vector_norm(rows, dim=1)
        inverse = inverse_of(lengths)
        unit = rows * inverse[:, None]
        along = (self.query * unit).sum(1)
        cosines = (along * (self.inv_x_norms if self.scale is None else 1 / self.scale)).clamp_(-1.0, 1.0)
        entering = rows if self.rows == "plain" else unit
        return TargetRows(entering, unit, lengths, inverse, lengths > TINY, along, cosines)

    def add_targets(
        self, dweight: Tensor, labels: Tensor, own: TargetRows, slope: Tensor, per_length: Tensor | None
    ) -> None:
        """Add to the rows of the gradient of W what their targets give.

        Args:
            dweight: (C, D), complete but for the targets.
            labels: (N,) int64 the rows.
            own: of these labels.
            slope: (N,) dL/d(plain logit).
            per_length: (N,) dL/d‖W_y‖; only for plain rows.
        """
        share = self.query * slope[:, None]
        if per_length is not None:
            share.addcmul_(own.unit, per_length[:, None])
        else:
            if self.rows == "normalized":
                share.addcmul_(own.unit, (share * own.unit).sum(1, keepdim=True), value=-1.0)
            share.mul_(own.inverse[:, None])
        dweight.index_put_((labels,), share, accumulate=True)  # deterministic on every device

    def backward(
        self, block: slice, grad: Tensor, dquery: Tensor | None, dweight: Tensor | None, unit: Tensor | None = None
    ) -> None:
        """Add a block's share to the gradient of q, and write its rows of the gradient of W.

        dq += gradᵀ Ŵ  and  dW_j = (I − Ŵ_j Ŵ_jᵀ)(grad q)_j / ‖W_j‖, the bracket only for
        ``normalized`` rows, the division not for ``plain`` ones.

        Args:
            block: the classes.
            grad: (B, N) gradient of Z; spent.
            dquery: (N, D), or None if it is not needed.
            dweight: (C, D), or None.
            unit: () what ``grad`` is to be multiplied by; None for 1.
        """
        rows = self.weight[block].to(self.dtype)
        if unit is not None:
            grad.mul_(unit)
        if self.inv_norms is not None:
            grad.mul_(self.inv_norms[block, None])  # the division by ‖W_j‖, for both products
        low, unit = self._lowered(grad)
        if dquery is not None:
            add_product(low.t(), rows.to(self.low), dquery, unit)
        if dweight is not None:
            full = product(low, self._query_low).to(self.dtype)
            self._put_dweight(full if unit is None else full.mul_(unit), rows, block, dweight[block])

    def _lowered(self, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradient in the products' type, and its unit: float16 has no numbers below 6e-8,
        where softmax has.
        """
        if self.low != torch.float16:
            return grad.to(self.low), None
        unit = grad.abs().amax().clamp_(min=torch.finfo(self.dtype).tiny)
        return (grad / unit).to(self.low), unit

    def _put_dweight(self, full: Tensor, rows: Tensor, block: slice, own: Tensor) -> None:
        if self.inv_norms is None or self.rows != "normalized":
            own.copy_(full)
            return
        along = torch.mul(full, rows, out=own).sum(1, keepdim=True)  # own is room enough
        along.mul_(self.inv_norms[block, None] ** 2)
        torch.addcmul(full, rows, along, value=-1.0, out=own)

    def finish_dx(self, dquery: Tensor, own: TargetRows, slope: Tensor, per_norm: Tensor) -> Tensor:
        """The gradient of x, from that of q by the other classes, and what the targets give.

        Args:
            dquery: (N, D); spent.
            own: the rows of the targets.
            slope: (N,) dL/d(plain logit) of the targets.
            per_norm: (N,) what the gradient of x has along x.
        """
        share = self.to_dx(own.rows * slope[:, None])
        return self.to_dx(dquery).add_(share).addcmul_(self.x, per_norm[:, None])

    def to_dx(self, dquery: Tensor) -> Tensor:
        """The gradient of x, in place of that of q: through s·x/‖x‖ it is s (I − x̂ x̂ᵀ) dq / ‖x‖,
        0 at x = 0.
        """
        if self.scale is None:
            return dquery
        unit = self.x * self.inv_x_norms[:, None]
        along = (dquery * unit).sum(1, keepdim=True)
        return dquery.addcmul_(unit, along, value=-1.0).mul_((self.scale * self.inv_x_norms)[:, None])
