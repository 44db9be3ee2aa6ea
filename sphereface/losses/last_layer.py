"""The last layer by blocks of classes: its matrix products, and the N target logits among its N×C.

Logits are class-major, (C, N), so that a block of classes is contiguous. All is float32 (float64
where the inputs are), under autocast too, but for the three large products. These then take the
autocast dtype, of rounding u = 2⁻⁹ (bfloat16) or 2⁻¹² (float16): a logit of another class is off by
up to 3u‖x‖ (3us where features are normalised). A target's logit and gradient are not: they take no
part in the products. The gradients of x and W are then off, as a whole, by 0.2 to 2.5 % with
bfloat16, a sixth of that with float16: by about u times the logits that matter, so more where plain
rows are long. In float32 it is some 1e-5.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import UserError
from .margins import Margin, check_target
from .products import add_product, product, put_product

CLASS_BLOCK = 2048
"""Classes per block on a CPU: several operations go over each logit and each row, and find them in the cache; what
a block needs beside the logits stays small beside them. On idle cores 1024 to 4096 are equally fast within 3 %; on
busy ones each operation waits for its slowest thread, so few are better. Other devices take all classes at once."""

_PIECE = 2**25 + 1
"""Bytes. An allocation of so many goes back to the system once it is free (glibc keeps smaller ones)."""

_TINY = 1e-12
"""A shorter vector counts as zero: it has no direction."""


def inverse_norms(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """1/‖row‖ of each row of a matrix, (rows,) in ``dtype``; 0 for a row of no length."""
    return _inverse(torch.linalg.vector_norm(rows, dim=1, dtype=dtype))


def _inverse(norms: Tensor) -> Tensor:
    return norms.reciprocal().masked_fill(norms < _TINY, 0.0)


def _blocks(classes: int, most: int | None, device: str) -> list[slice]:
    size = min(most or classes, CLASS_BLOCK if device == "cpu" else classes)
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
        block_size: classes per block; by default what the device likes best.
    """

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        margin: Margin,
        *,
        bias: Tensor | None = None,
        block_size: int | None = None,
    ) -> None:
        device = x.device.type
        self.dtype = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
        self.low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.dtype
        self.rows, self.scale = margin.rows, margin.scale
        self.x = x.detach().to(self.dtype)
        self.norms = torch.linalg.vector_norm(self.x, dim=1)  # (N,)
        self.inv_x_norms = _inverse(self.norms)
        self.query = self.x if self.scale is None else self.x * (self.scale * self.inv_x_norms)[:, None]
        self.weight = weight.detach()
        self.inv_norms = None if self.rows == "plain" else inverse_norms(self.weight, self.dtype)  # (C,)
        self.bias = None if bias is None else bias.detach().to(self.dtype)
        self.blocks = _blocks(len(weight), block_size, device)
        self._query_low = self.query.to(self.low)

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
        per_piece = _PIECE // (size * len(self.x) * self.x.element_size()) + 1
        for first in range(0, len(self.blocks), per_piece):
            blocks = self.blocks[first : first + per_piece]
            piece = self.room(blocks[-1].stop - blocks[0].start)
            yield from torch.split(piece, size)

    def logits(self, block: slice, room: Tensor) -> Tensor:
        """Z_ji = Ŵ_j·q_i + b_j of the block, (B, N), in the first rows of ``room``."""
        z = room[: block.stop - block.start]
        put_product(self.weight[block].to(self.low), self._query_low.t(), z)
        if self.inv_norms is not None:
            z.mul_(self.inv_norms[block, None])
        if self.bias is not None:
            z.add_(self.bias[block, None])
        return z

    def backward(self, block: slice, grad: Tensor, dquery: Tensor | None, dweight: Tensor | None) -> None:
        """Add a block's share to the gradient of q, and write its rows of the gradient of W.

        dq += gradᵀ Ŵ  and  dW_j = (I − Ŵ_j Ŵ_jᵀ)(grad q)_j / ‖W_j‖, the bracket only for
        ``normalized`` rows, the division not for ``plain`` ones.

        Args:
            block: the classes.
            grad: (B, N) gradient of Z; spent.
            dquery: (N, D), or None if nobody asks.
            dweight: (C, D), or None.
        """
        rows = self.weight[block].to(self.dtype)
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

    def to_dx(self, dquery: Tensor) -> Tensor:
        """The gradient of x, in place of that of q: through s·x/‖x‖ it is s (I − x̂ x̂ᵀ) dq / ‖x‖,
        0 at x = 0.
        """
        if self.scale is None:
            return dquery
        unit = self.x * self.inv_x_norms[:, None]
        along = (dquery * unit).sum(1, keepdim=True)
        return dquery.addcmul_(unit, along, value=-1.0).mul_((self.scale * self.inv_x_norms)[:, None])


class Targets:
    """The N target logits of a batch: their cosines, what the margin makes of them, where they
    stand.

    Attributes:
        norms: (N,) ‖x_i‖.
        plain: (N,) z_i = Ŵ_y·q_i + b_y.
        cosines: (N,) cos θ_i in [-1, 1]; 0 where x_i or W_y is zero.
        logits: (N,) what the margin puts for ``plain``, + b_y; 0 + b_y where W_y is zero.
    """

    def __init__(self, layer: LastLayer, labels: Tensor, margin: Margin, lam: float) -> None:
        check_labels(labels, len(layer.x), len(layer.weight))
        self.labels, self.norms = labels, layer.norms
        rows = layer.weight[labels].to(layer.dtype)
        row_norms = torch.linalg.vector_norm(rows, dim=1)
        self._inv_row_norms = _inverse(row_norms)
        self._unit_rows = rows * self._inv_row_norms[:, None]  # (N, D)
        self._rows = rows if layer.rows == "plain" else self._unit_rows  # as they enter the plain logit
        along = (layer.query * self._unit_rows).sum(1)
        self.cosines = (along * (layer.inv_x_norms if layer.scale is None else 1 / layer.scale)).clamp_(-1.0, 1.0)
        self._row_norms = row_norms if layer.rows == "plain" else None
        lengths = self.norms if self._row_norms is None else self.norms * row_norms
        target = margin.target(self.cosines, lengths, lam)
        check_target(margin, target, self.cosines)
        has_angle = row_norms >= _TINY  # a zero W_y: logit and gradient 0, whatever the margin
        self._d_plain, self._d_weight, self._d_norm = target.d_plain, target.d_weight, target.d_norm * has_angle
        b = 0.0 if layer.bias is None else layer.bias[labels]
        self.plain = (along if self._row_norms is None else along * row_norms) + b
        self.logits = target.logit * has_angle + b
        lengths = self.norms if layer.scale is None else layer.scale
        self._rounding = 16 * torch.finfo(layer.dtype).eps * lengths  # between two ways to compute one logit
        self._places = _places_in_blocks(labels, layer.blocks)

    def beat(self, best_other: Tensor) -> Tensor:
        """(N,) bool: the plain target logit is above the highest of all others, (N,), by more than
        rounding.

        So a tie is a mistake: where all logits are equal, nothing is told apart, and the accuracy
        is 0.
        """
        return self.plain - best_other > self._rounding

    def put(self, index: int, block: Tensor, values: Tensor | float) -> None:
        """Set the target entries of the ``index``-th block, (B, N), from N values or one for
        all.
        """
        classes, samples = self._places[index]
        if len(samples):
            block[classes, samples] = values if isinstance(values, float) else values[samples]

    def own(self, values: Tensor) -> Tensor:
        """(N,) or (N, D) values, 0 where the target class is a row of another rank; here there is
        one rank.
        """
        return values

    def once(self, values: Tensor) -> Tensor:
        """(N,) values whose gradient flows on one rank only, which has the target class."""
        return values

    def highest(self, values: Tensor) -> Tensor:
        """(N,) values → the largest of all ranks'."""
        return values

    def total(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """Sums over this rank's classes → over all; where ranks share them, ``logits`` is whole
        only after this.
        """
        return sums

    def add_to_dx(self, layer: LastLayer, grad: Tensor, dquery: Tensor) -> Tensor:
        """The gradient of x, from that of q by the other classes, and ∂t/∂x of the targets;
        ``grad`` (N,) dL/dt.
        """
        own = layer.to_dx(self._rows * (grad * self._d_plain)[:, None])
        per_norm = grad * self._d_norm * layer.inv_x_norms  # ∂t/∂‖x‖ · x/‖x‖ = this · x
        if self._row_norms is not None:
            per_norm = per_norm * self._row_norms
        return layer.to_dx(dquery).add_(own).addcmul_(layer.x, per_norm[:, None])

    def add_to_dweight(self, layer: LastLayer, grad: Tensor, dweight: Tensor) -> None:
        """Add ∂t/∂W_y of the targets to the gradient of W; ``grad`` (N,) dL/dt."""
        slope = self._d_plain if self._d_weight is None else self._d_weight
        own = layer.query * (grad * slope)[:, None]
        if self._row_norms is None:
            if layer.rows == "normalized":
                own.addcmul_(self._unit_rows, (own * self._unit_rows).sum(1, keepdim=True), value=-1.0)
            own.mul_(self._inv_row_norms[:, None])
        else:
            own.addcmul_(self._unit_rows, (grad * self._d_norm * self.norms)[:, None])
        dweight.index_put_((self.labels,), own, accumulate=True)  # deterministic on every device


def check_labels(labels: Tensor, samples: int, classes: int) -> None:
    """One label for each sample, in [0, classes); the range is checked on a CPU only."""
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
