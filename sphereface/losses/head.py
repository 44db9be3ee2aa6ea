"""The classification head: class weights and a margin, embeddings and labels in, loss out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import UserError
from .binary_margin import binary_margin
from .chunks import auto_chunk
from .energy import hyperspherical_energy
from .last_layer import inverse_norms
from .margin_softmax import HeadOutput, margin_softmax
from .margins import Margin
from .margins.binary import SphereFace2

__all__ = ["HeadOutput", "MarginHead"]


class MarginHead(nn.Module):
    """Cross entropy over C identities, the target logit changed by a margin.

    ``weight`` (C, D) starts uniform in ±√(3/D), Caffe's xavier. Where the margin's rows are
    ``normalized``, their lengths do not change the loss but divide the gradient: a learning rate of each row.

    ``bias`` is (C,), (1,) or None, as the margin says; running statistics of a margin are buffers, saved with it.

    Args:
        embedding_dim: D ≥ 1.
        num_classes: C ≥ 1.
        margin: see :mod:`sphereface.losses.margins`.
        generator: source of the initial weights; None for torch's own.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        margin: Margin,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if embedding_dim < 1 or num_classes < 1:
            raise UserError(
                f"head: got {num_classes} classes of {embedding_dim} numbers · allowed: at least 1 of each · "
                "is the training set empty?"
            )
        self.margin = margin
        self._auto_chunks: dict[int, int | None] = {}  # by batch size: decided once, when memory is still free
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_dim))
        size = {"none": 0, "shared": 1, "per class": num_classes}[margin.bias]
        self.register_parameter("bias", nn.Parameter(torch.empty(size)) if size else None)
        for name, first in margin.running.items():
            self.register_buffer(name, torch.tensor(first))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew, and set bias and running statistics back."""
        bound = math.sqrt(3.0 / self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        if self.bias is not None:
            nn.init.constant_(self.bias, self.margin.first_bias(len(self.weight)))
        for name, first in self.margin.running.items():
            self.get_buffer(name).fill_(first)

    def forward(self, embeddings: Tensor, labels: Tensor, lam: float = 0.0) -> HeadOutput:
        """Loss of a batch.

        Args:
            embeddings: (N, D), any floating dtype, not normalised.
            labels: (N,) int64 in [0, C).
            lam: λ of this step, ``head.margin.lam(step)``.

        Raises:
            UserError: embeddings of another width, or a label outside [0, C).
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.weight.shape[1]:
            raise UserError(
                f"head: got embeddings of shape {tuple(embeddings.shape)} · "
                f"allowed: (N, {self.weight.shape[1]}) · "
                "give model and head the same embedding_dim"
            )
        if self.training and self.margin.rows == "renormalized":
            self.renormalize()
        output = self._classify(embeddings, labels, lam)
        if self.margin.mhe > 0:
            energy = hyperspherical_energy(self.weight, labels)
            output = output._replace(loss=output.loss + self.margin.mhe * energy)
        return output

    def _classify(self, embeddings: Tensor, labels: Tensor, lam: float) -> HeadOutput:
        margin, chunk = self._margin_of_step(embeddings), self.chunk_size(len(embeddings))
        if isinstance(margin, SphereFace2):
            assert self.bias is not None
            return binary_margin(embeddings, self.weight, self.bias, labels, margin, chunk_size=chunk)
        return margin_softmax(embeddings, self.weight, labels, margin, lam, bias=self.bias, chunk_size=chunk)

    def chunk_size(self, samples: int) -> int | None:
        """The classes whose logits exist at a time in a batch of that size; None for all."""
        wanted = self.margin.chunk_size
        if not isinstance(wanted, str):
            return wanted
        if samples not in self._auto_chunks:
            self._auto_chunks[samples] = auto_chunk(samples, len(self.weight), self.weight.device)
        return self._auto_chunks[samples]

    @torch.no_grad()
    def _margin_of_step(self, embeddings: Tensor) -> Margin:
        """The margin at its running statistics, which a training batch moves first."""
        running = {name: self.get_buffer(name) for name in self.margin.running}
        if running and self.training:
            dtype = next(iter(running.values())).dtype
            norms = torch.linalg.vector_norm(embeddings.to(dtype), dim=1)
            self.margin.observe(self.norms_of_all_ranks(norms), running)
        return self.margin.given(running)

    def norms_of_all_ranks(self, norms: Tensor) -> Tensor:
        """(N,) norms of the batch on this rank → those of the whole batch. Here there is one rank."""
        return norms

    @torch.no_grad()
    def renormalize(self) -> None:
        """Divide each stored row by its length, in place; a zero row stays zero."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        self.weight.mul_(inverse_norms(self.weight, dtype)[:, None])

    def extra_repr(self) -> str:
        """Shown by ``print(head)``."""
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}, {self.margin}"
