"""The N target logits of a batch: their cosines, what the margin makes of them, where they are."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError
from .last_layer import LastLayer
from .margins import Margin, check_target


class Targets:
    """The N target logits of a batch: their cosines, what the margin makes of them, where they
    stand.

    Args:
        layer: the products.
        labels: (N,) int64 in [0, C).
        margin: gives the target logits.
        lam: λ ≥ 0.
        here: (N,) bool: the sample's class is among the rows of W; None where all are.

    Attributes:
        rows: (N,) int64 the row of W of each sample's class; −1 where another rank has it.
        norms: (N,) ‖x_i‖.
        plain: (N,) z_i = Ŵ_y·q_i + b_y.
        cosines: (N,) cos θ_i in [-1, 1]; 0 where x_i or W_y is zero.
        logits: (N,) what the margin puts for ``plain``, + b_y; 0 + b_y where W_y is zero.
    """

    def __init__(
        self, layer: LastLayer, labels: Tensor, margin: Margin, lam: float, here: Tensor | None = None
    ) -> None:
        check_labels(labels, len(layer.x), len(layer.weight))
        self.labels, self.norms = labels, layer.norms
        self._own = own = layer.targets(labels)
        self.cosines = own.cosines
        self._row_norms = own.lengths if layer.rows == "plain" else None
        lengths = self.norms if self._row_norms is None else self.norms * own.lengths
        target = margin.target(self.cosines.clone(), lengths.clone(), lam)  # a margin may work in place
        check_target(margin, target, self.cosines)
        self._d_plain, self._d_weight = target.d_plain, target.d_weight
        self._d_norm = target.d_norm * own.has_angle  # a zero W_y: logit and gradient 0, whatever the margin
        self.plain = own.along if self._row_norms is None else own.along * own.lengths
        self.logits = target.logit * own.has_angle
        if layer.bias is not None:
            b = layer.bias[labels]
            self.plain, self.logits = self.plain + b, self.logits + b
        lengths = self.norms if layer.scale is None else layer.scale
        self._rounding = 16 * torch.finfo(layer.dtype).eps * lengths  # between two ways to compute one logit
        self.rows = labels if here is None else labels.masked_fill(~here, -1)
        self._blocks, self._here = layer.blocks, here
        self._places = _places_in_blocks(labels, layer.blocks, here) if labels.device.type == "cpu" else None

    def beat(self, best_other: Tensor) -> Tensor:
        """(N,) bool: the plain target logit is above the highest of all others, (N,), by more than
        rounding.

        So a tie is a mistake: where all logits are equal, the accuracy is 0.
        """
        return self.plain - best_other > self._rounding

    def put(self, index: int, block: Tensor, values: Tensor | float) -> None:
        """Set the target entries of the ``index``-th block, (B, N), from N values or one for all.

        A GPU is not waited for: there all N samples are written, most of them with what is in the
        block already.
        """
        classes, samples, here = self._place(index)
        if not len(samples):
            return
        new = values[samples] if isinstance(values, Tensor) else block.new_full((), values)  # a number would wait
        if here is not None:
            new = torch.where(here, new, block[classes, samples])
        block.index_put_((classes, samples), new)

    def _place(self, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
        if self._places is not None:
            return self._places[index]
        block, samples = self._blocks[index], torch.arange(len(self.labels), device=self.labels.device)
        if len(self._blocks) == 1:
            return self.labels, samples, self._here
        rows, last = self.rows - block.start, block.stop - block.start - 1
        return rows.clamp(0, last), samples, (rows >= 0) & (rows <= last)

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
        per_norm = grad * self._d_norm * layer.inv_x_norms  # ∂t/∂‖x‖ · x/‖x‖ = this · x
        if self._row_norms is not None:
            per_norm = per_norm * self._row_norms
        return layer.finish_dx(dquery, self._own, grad * self._d_plain, per_norm)

    def add_to_dweight(self, layer: LastLayer, grad: Tensor, dweight: Tensor) -> None:
        """Add ∂t/∂W_y of the targets to the gradient of W; ``grad`` (N,) dL/dt."""
        slope = grad * (self._d_plain if self._d_weight is None else self._d_weight)
        per_length = None if self._row_norms is None else grad * self._d_norm * self.norms
        layer.add_targets(dweight, self.labels, self._own, slope, per_length)


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


def _places_in_blocks(
    labels: Tensor, blocks: list[slice], here: Tensor | None
) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """(class within the block, sample, whether it is here) of each block's targets, on a CPU."""
    if len(blocks) == 1:
        return [(labels, torch.arange(len(labels)), here)]
    ordered, samples = labels.sort()
    starts = labels.new_tensor([block.start for block in blocks])
    bounds = [*torch.searchsorted(ordered, starts).tolist(), len(samples)]
    spans = zip(blocks, bounds[:-1], bounds[1:], strict=True)
    places = ((ordered[low:high] - block.start, samples[low:high]) for block, low, high in spans)
    return [(classes, own, None if here is None else here[own]) for classes, own in places]
