"""The classification head: class weights and a margin, embeddings and labels in, loss out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import UserError
from .last_layer import inverse_norms
from .margin_softmax import HeadOutput, margin_softmax
from .margins import Margin

__all__ = ["HeadOutput", "MarginHead"]


class MarginHead(nn.Module):
    """Cross entropy over C identities, the target logit changed by a margin.

    ``weight`` (C, D) starts uniform in ±√(3/D), Caffe's xavier. Where the margin's rows are
    ``normalized``, their lengths do not change the loss but divide the gradient: a learning rate of each row.

    Args:
        embedding_dim: D ≥ 1.
        num_classes: C ≥ 1.
        margin: see :mod:`sphereface.losses.margins`.
        generator: source of the initial weights; None for torch's own.
    """

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
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_dim))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew."""
        bound = math.sqrt(3.0 / self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)

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
        return margin_softmax(embeddings, self.weight, labels, self.margin, lam)

    @torch.no_grad()
    def renormalize(self) -> None:
        """Divide each stored row by its length, in place; a zero row stays zero."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        self.weight.mul_(inverse_norms(self.weight, dtype)[:, None])

    def extra_repr(self) -> str:
        """Shown by ``print(head)``."""
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}, {self.margin}"
