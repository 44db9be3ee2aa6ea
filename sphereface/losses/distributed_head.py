"""The head over several processes: its classes in shards, or a copy on each.

Both give each process the loss of the whole batch, and gradients such that everything comes out as
in one process with that batch once DistributedDataParallel has divided the network's gradients by
the number of processes: embeddings get R times the gradient of the mean over all R·n samples, which
is that of the mean over one's own n.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import UserError
from .head import HeadOutput, MarginHead
from .margins import Margin
from .ranks import Ranks, averaged, gathered
from .shards import Shard, Shared
from .targets import check_labels


def make_head(
    embedding_dim: int,
    num_classes: int,
    margin: Margin,
    *,
    generator: torch.Generator | None = None,
    seed: int = 0,
    ranks: Ranks | None = None,
) -> MarginHead:
    """Return the head for the number of processes: whole, sharded or replicated.

    Args:
        embedding_dim: D ≥ 1.
        num_classes: C ≥ 1.
        margin: with more than one process, its ``distributed`` says which of the two it is.
        generator: source of the initial weights, in the same state on all ranks; None for torch's
            own.
        seed: of the sampled negatives.
        ranks: the processes; None for all that torch.distributed was started with.

    Raises:
        UserError: no classes, or fewer than processes.
    """
    if ranks is None and dist.is_available() and dist.is_initialized():
        ranks = Ranks()
    if ranks is None or ranks.size == 1:
        return MarginHead(embedding_dim, num_classes, margin, generator=generator, seed=seed)
    kind = ShardedHead if margin.distributed == "sharded" else ReplicatedHead
    return kind(embedding_dim, num_classes, margin, ranks, generator=generator, seed=seed)


class _DistributedHead(MarginHead):
    """Common base. All ranks call it together, each with the same number of samples."""

    _samples: int | None = None

    def __init__(self, embedding_dim: int, num_classes: int, margin: Margin, ranks: Ranks, **options: Any) -> None:
        super().__init__(embedding_dim, num_classes, margin, shard=self._shard(num_classes, ranks), **options)
        self.ranks = ranks

    @classmethod
    def _shard(cls, num_classes: int, ranks: Ranks) -> Shard | None:  # noqa: ARG003
        """Return the classes that this rank holds; None for all."""
        return None

    def _check_batch(self, embeddings: Tensor, labels: Tensor) -> None:
        """Check shapes, and that all ranks have the same number of samples at every step.

        The first call compares the ranks. Later calls compare with the first.
        """
        self._check_width(embeddings)
        samples = len(embeddings)
        if labels.shape != (samples,):
            raise UserError(f"labels: got shape {tuple(labels.shape)} · allowed: one for each of {samples} images")
        if self._samples is None:
            sizes = self.ranks.gather(torch.tensor([samples], device=embeddings.device)).tolist()
            if len(set(sizes)) > 1:
                raise UserError(f"head: got {sizes} images on the processes · allowed: the same number on each")
            self._samples = samples
        if samples != self._samples:
            raise UserError(
                f"head: got {samples} images on process {self.ranks.rank} after batches of {self._samples} · "
                "allowed: the same number on each process at every step"
            )


class ShardedHead(_DistributedHead):
    """Each of R ranks holds C/R classes; the embeddings of all ranks go to all of them.

    A forward sends: embeddings and labels (all-gather), the largest logit of each sample
    (all-reduce), its sum of exponentials, target logit, plain logit and cosine (one all-reduce); a
    backward: the embeddings' gradient (reduce-scatter). Nothing of size C is sent. See
    docs/scaling.md.

    ``weight``, its gradient and its momentum have this rank's rows;
    :mod:`sphereface.losses.whole_head` makes them whole for a checkpoint, and takes them from one.

    Args:
        ranks: who shares the classes. The others as for :class:`MarginHead`.

    Raises:
        UserError: fewer classes than ranks; batches of different sizes; a label outside [0, C).
    """

    @classmethod
    def _shard(cls, num_classes: int, ranks: Ranks) -> Shard:
        return Shard.of(num_classes, ranks.rank, ranks.size)

    def forward(self, embeddings: Tensor, labels: Tensor, lam: float = 0.0, step: int | None = None) -> HeadOutput:
        """Loss of the samples of all ranks; what comes beside it, of this rank's own. See
        :class:`MarginHead`.
        """
        self._check_batch(embeddings, labels)
        everyone = self.ranks.gather(labels)
        check_labels(everyone, len(embeddings) * self.ranks.size, self.num_classes)
        rows, here = self.shard.locate(everyone)
        shared = Shared(self.ranks, here, self.num_classes)
        loss, *figures = self._loss(gathered(embeddings, self.ranks), rows, lam, step, shared)
        own = slice(self.ranks.rank * len(labels), (self.ranks.rank + 1) * len(labels))
        return HeadOutput(loss, *(figure[own] for figure in figures))


class ReplicatedHead(_DistributedHead):
    """Each rank holds all classes and sees its own samples. It averages the C·D gradients of W.

    Args:
        ranks: who has a copy. The others as for :class:`MarginHead`.
    """

    def forward(self, embeddings: Tensor, labels: Tensor, lam: float = 0.0, step: int | None = None) -> HeadOutput:
        """As :class:`ShardedHead`'s."""
        self._check_batch(embeddings, labels)
        output = self._loss(embeddings, labels, lam, step)
        of_all = self.ranks.sum(output.loss.detach())[0] / self.ranks.size
        return output._replace(loss=output.loss + (of_all - output.loss.detach()))

    def _parameters_of_step(self, rows: Tensor | None) -> tuple[Tensor, Tensor | None]:
        weight, bias = super()._parameters_of_step(rows)
        return averaged(weight, self.ranks), None if bias is None else averaged(bias, self.ranks)

    def norms_of_all_ranks(self, norms: Tensor) -> Tensor:
        """Gather (n,) norms of this rank to (R·n,) of all."""
        return self.ranks.gather(norms)
