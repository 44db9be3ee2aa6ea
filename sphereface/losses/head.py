"""The classification head: class weights and a margin turn embeddings and labels into a loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .binary_margin import binary_margin
from .chunks import auto_chunk
from .energy import hyperspherical_energy
from .fused_layer import logit_bytes, renormalize_
from .margin_softmax import HeadOutput, margin_softmax
from .margins import Margin
from .margins.binary import SphereFace2
from .sampling import mark_distinct_rows, sampled_rows, take_rows
from .shards import Shard, Shared
from .targets import check_labels

__all__ = ["HeadOutput", "MarginHead"]

_DRAWN_AT_ONCE = 65536
"""Classes whose initial weights are drawn in one go."""


class MarginHead(nn.Module):
    """Cross entropy over C identities with a margin on the target logit.

    ``weight`` (C, D) starts uniform in ±√(3/D), Caffe's xavier. Where the margin's rows are
    ``normalized``, their lengths do not change the loss but divide the gradient: a learning rate of
    each row.

    ``bias`` is (C,), (1,) or None, as the margin says; running statistics of a margin are buffers,
    saved with it.

    Args:
        embedding_dim: D ≥ 1.
        num_classes: C ≥ 1.
        margin: see :mod:`sphereface.losses.margins`.
        generator: source of the initial weights; None for torch's own.
        seed: of the sampled negatives, where the margin has a ``sample_rate`` below 1.
        shard: the classes that this head holds; None for all. ``weight`` has their rows alone, with
            the values that they have in the whole.
    """

    num_classes: int
    """C, those of other shards included."""
    bias: nn.Parameter | None
    held: Tensor | None = None
    """() on the device of the weights: while it is 1, a forward pass leaves the stored rows as they
    are.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        margin: Margin,
        *,
        generator: torch.Generator | None = None,
        seed: int = 0,
        shard: Shard | None = None,
    ) -> None:
        super().__init__()
        if embedding_dim < 1 or num_classes < 1:
            raise UserError(
                f"head: got {num_classes} classes of {embedding_dim} numbers · allowed: at least 1 of each · "
                "is the training set empty?"
            )
        self.margin, self.num_classes, self.seed = margin, num_classes, seed
        self.shard = shard or Shard.of(num_classes)
        self._auto_chunks: dict[int, int | None] = {}  # by batch size: decided once, when memory is still free
        self.weight = nn.Parameter(torch.empty(len(self.shard), embedding_dim))
        size = {"none": 0, "shared": 1, "per class": len(self.shard)}[margin.bias]
        self.register_parameter("bias", nn.Parameter(torch.empty(size)) if size else None)
        self._num_drawn = drawn = [0]  # a hook that knew the head would keep it in memory for ever
        if margin.sample_rate < 1:
            for parameter in self.parameters():
                hook: Any = parameter.register_post_accumulate_grad_hook
                hook(lambda p: mark_distinct_rows(p, drawn[0]))
        for name, first in margin.running.items():
            self.register_buffer(name, torch.tensor(first))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights and reset the bias and the running statistics."""
        self._draw_weight(generator)
        if self.bias is not None:
            nn.init.constant_(self.bias, self.margin.first_bias(self.num_classes))
        for name, first in self.margin.running.items():
            self.get_buffer(name).fill_(first)

    @torch.no_grad()
    def _draw_weight(self, generator: torch.Generator | None) -> None:
        """Draw the rows of all classes by blocks. Each shard keeps its part of the same numbers."""
        bound = math.sqrt(3.0 / self.weight.shape[1])
        for first in range(0, self.num_classes, _DRAWN_AT_ONCE):
            last = min(first + _DRAWN_AT_ONCE, self.num_classes)
            drawn = self.weight.new_empty(last - first, self.weight.shape[1])
            nn.init.uniform_(drawn, -bound, bound, generator=generator)
            start, stop = max(first, self.shard.start), min(last, self.shard.stop)
            if start < stop:
                own = slice(start - self.shard.start, stop - self.shard.start)
                self.weight[own] = drawn[start - first : stop - first]

    def forward(self, embeddings: Tensor, labels: Tensor, lam: float = 0.0, step: int | None = None) -> HeadOutput:
        """Return the loss of a batch.

        Args:
            embeddings: (N, D), any floating dtype, not normalised.
            labels: (N,) int64 in [0, C).
            lam: λ of this step, ``head.margin.lam(step)``.
            step: finished updates; needed in training where negatives are sampled, which depend on
                it.

        Raises:
            UserError: embeddings of another width, or a label outside [0, C).
        """
        self._check_width(embeddings)
        return self._loss(embeddings, labels, lam, step)

    def _check_width(self, embeddings: Tensor) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.weight.shape[1]:
            raise UserError(
                f"head: got embeddings of shape {tuple(embeddings.shape)} · allowed: (N, {self.weight.shape[1]}) · "
                "give model and head the same embedding_dim"
            )

    def _loss(
        self, embeddings: Tensor, labels: Tensor, lam: float, step: int | None, shared: Shared | None = None
    ) -> HeadOutput:
        """Return the loss of all samples that this head sees; ``labels`` are rows of ``weight``."""
        rows = None
        if self.training and self.margin.sample_rate < 1:
            check_labels(labels, len(embeddings), len(self.weight))
            positives = labels if shared is None else labels.masked_fill(~shared.here, len(self.weight))
            rows = self._rows_of_step(positives, step)
            labels, self._num_drawn[0] = torch.searchsorted(rows, labels), len(rows)
        if self.training and self.margin.rows == "renormalized":
            self.renormalize(rows)
        weight, bias = self._parameters_of_step(rows)
        output = self._classify(embeddings, labels, lam, weight, bias, shared)
        if self.margin.mhe > 0:
            energy = hyperspherical_energy(weight, labels, shared)
            output = output._replace(loss=output.loss + self.margin.mhe * energy)
        return output

    def _rows_of_step(self, positives: Tensor, step: int | None) -> Tensor:
        if step is None:
            raise UserError("head: got no step · allowed with loss.sample_rate below 1: finished updates · pass step=")
        rate, first = self.margin.sample_rate, self.shard.start
        return sampled_rows(positives, len(self.weight), rate, seed=self.seed, step=step, shard=first)

    def _parameters_of_step(self, rows: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the weights and the bias of the loss: all rows or the sampled ones."""
        if rows is None:
            return self.weight, self.bias
        return take_rows(self.weight, rows), None if self.bias is None else take_rows(self.bias, rows)

    def _classify(
        self, embeddings: Tensor, labels: Tensor, lam: float, weight: Tensor, bias: Tensor | None, shared: Shared | None
    ) -> HeadOutput:
        margin, chunk = self._margin_of_step(embeddings), self.chunk_size(len(embeddings))
        if isinstance(margin, SphereFace2):
            assert bias is not None
            return binary_margin(embeddings, weight, bias, labels, margin, chunk_size=chunk, shared=shared)
        return margin_softmax(embeddings, weight, labels, margin, lam, bias=bias, chunk_size=chunk, shared=shared)

    def chunk_size(self, samples: int) -> int | None:
        """Return the number of classes at a time for a batch of that size; None for all."""
        wanted = self.margin.chunk_size
        if not isinstance(wanted, str):
            return wanted
        if samples not in self._auto_chunks:
            size = logit_bytes(self.weight)
            self._auto_chunks[samples] = auto_chunk(samples, len(self.weight), self.weight.device, size)
        return self._auto_chunks[samples]

    @torch.no_grad()
    def _margin_of_step(self, embeddings: Tensor) -> Margin:
        """Return the margin at its running statistics, which a training batch updates first."""
        running = {name: self.get_buffer(name) for name in self.margin.running}
        if running and self.training:
            dtype = next(iter(running.values())).dtype
            norms = torch.linalg.vector_norm(embeddings.to(dtype), dim=1)
            self.margin.observe(self.norms_of_all_ranks(norms), running)
        return self.margin.given(running)

    def norms_of_all_ranks(self, norms: Tensor) -> Tensor:
        """Return the (N,) norms of the whole batch. Here this rank has all of it."""
        return norms

    @torch.no_grad()
    def renormalize(self, rows: Tensor | None = None) -> None:
        """Divide each stored row, or these, by its length, in place; a zero row stays zero."""
        if rows is None:
            renormalize_(self.weight, self.held)
            return
        own = self.weight[rows]
        renormalize_(own, self.held)
        self.weight[rows] = own

    def extra_repr(self) -> str:
        """Shown by ``print(head)``."""
        return f"{self.weight.shape[1]} -> {self.num_classes}, {self.margin}"
