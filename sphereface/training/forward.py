"""The result of a forward pass, of a batch or of a piece of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..losses.head import HeadOutput


class Forward(NamedTuple):
    """The result of one batch, or of one piece of it.

    Attributes:
        total: () the loss to minimise.
        output: of the head, for this process's samples.
        embeddings: (B, D).
        teacher: () the weighted losses that compare the embeddings with the teacher's; None
            without a teacher.
    """

    total: torch.Tensor
    output: HeadOutput
    embeddings: torch.Tensor
    teacher: torch.Tensor | None

    def detached(self, share: float) -> Forward:
        """Return this piece, detached and scaled by its ``share`` of the batch's images."""

        def of_batch(figure: torch.Tensor) -> torch.Tensor:
            return figure.detach() if share == 1 else figure.detach() * share

        output = HeadOutput(of_batch(self.output.loss), *(part.detach() for part in self.output[1:]))
        teacher = None if self.teacher is None else of_batch(self.teacher)
        return Forward(of_batch(self.total), output, self.embeddings.detach(), teacher)

    @staticmethod
    def joined(pieces: Sequence[Forward]) -> Forward:
        """Join the results of the pieces of one batch."""
        if len(pieces) == 1:
            return pieces[0]
        loss = torch.stack([piece.output.loss for piece in pieces]).sum()
        rest = (torch.cat(parts) for parts in zip(*(piece.output[1:] for piece in pieces), strict=True))
        taught = [piece.teacher for piece in pieces if piece.teacher is not None]
        return Forward(
            torch.stack([piece.total for piece in pieces]).sum(),
            HeadOutput(loss, *rest),
            torch.cat([piece.embeddings for piece in pieces]),
            torch.stack(taught).sum() if taught else None,
        )
