"""Losses that compare a network's embeddings with those of its teacher for the same images.

With x the (N, D) embeddings of the student, t the (N, T) of the teacher, P a (T, D) projection that
is trained with the student and dropped afterwards, and â = a/‖a‖:

- ``cosine``: mean of 1 − cos(Px, t)
- ``l2``: mean of ½‖Px̂ − t‖² (Romero et al., FitNets, ICLR 2015, equation 3)
- ``rkd-distance``: Huber distance of ‖x̂_i − x̂_j‖/μ to the teacher's (Park et al., CVPR 2019,
  equations 5 to 7)
- ``rkd-angle``: Huber distance of the angles between three samples (the same, equations 8 to 11)
- ``similarity``: squared distance of the rows of X̂X̂ᵀ, each of length 1 (Tung & Mori, ICCV 2019,
  equation 4)
- ``correlation``: mean squared difference of cos(x_i, x_j) and cos(t_i, t_j) (Peng et al., ICCV
  2019, equation 6)
- ``queue``: cross entropy of the student's softmax over a queue of earlier teacher embeddings, with
  the teacher's as its target (Fang et al., SEED, ICLR 2021, equations 4 to 6)

``rkd-distance``, ``rkd-angle``, ``similarity`` and ``correlation`` compare the embeddings
themselves, which are what is used later. The others compare their projection. Where a paper takes
embeddings as they are, directions are compared here, because directions are all that face
verification looks at. Everything is float32, under autocast too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize, smooth_l1_loss
from torch.utils.checkpoint import checkpoint

from .ranks import Ranks, averaged, together

_SMALLEST = 1e-6  # squared distance of two directions: nearer ones count as this far
_MOST_ANGLES = 2**24  # at a time

Loss = Callable[[Tensor, Tensor], Tensor]


class TeacherOptions(Protocol):
    """The part of ``train.teacher`` that the losses use."""

    @property
    def losses(self) -> Mapping[str, float]:
        """Weight of each loss."""

    @property
    def queue_size(self) -> int:
        """Teacher embeddings in the queue."""

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Of the student's softmax over the queue, and of the teacher's."""


def cosine(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 − cos over samples. Both (N, T)."""
    return 1.0 - (normalize(projected) * normalize(teacher)).sum(1).mean()


def l2(projected: Tensor, teacher: Tensor) -> Tensor:
    """Mean over samples of half the squared distance. Both (N, T)."""
    return 0.5 * (projected - teacher).square().sum(1).mean()


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare the distances of all pairs by a Huber loss (RKD-D).

    Each set of distances is divided by its mean. (N, D) and (N, T); 0 for N = 1.
    """
    if len(student) == 1:
        return 0.0 * student.sum()  # no pair
    ours, theirs = (_distances(normalize(rows)) for rows in (student, teacher))
    pairs = len(student) * (len(student) - 1)
    return smooth_l1_loss(ours / (ours.sum() / pairs), theirs / (theirs.sum() / pairs), reduction="sum") / pairs


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean Huber distance over triples between the cosines of the angles at their middle samples.

    N² numbers for each of N samples are computed, some at a time, and again in the backward pass.

    Args:
        student: (N, D).
        teacher: (N, T).
    """
    ours, theirs = normalize(student), normalize(teacher)
    size = max(_MOST_ANGLES // len(student) ** 2, 1)
    total = student.new_zeros(())
    for first in range(0, len(student), size):
        middle = slice(first, first + size)
        total = total + checkpoint(_angle_difference, ours, theirs, middle, use_reentrant=False)
    return total / len(student) ** 3


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 1/N² of the squared Frobenius distance between two matrices of cosines.

    The rows of both have length 1. (N, D) and (N, T).
    """
    ours, theirs = (normalize(_cosines(rows)) for rows in (student, teacher))
    return (ours - theirs).square().mean()


def correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference between the cosines of all pairs. (N, D) and (N, T)."""
    return (_cosines(student) - _cosines(teacher)).square().mean()


def over_queue(projected: Tensor, teacher: Tensor, queue: Tensor, temperatures: tuple[float, ...]) -> Tensor:
    """Return the cross entropy between two softmaxes over the queue and the sample's own embedding.

    Args:
        projected, teacher: (N, T).
        queue: (K, T), unit rows; rows of zeros are empty places.
        temperatures: of the student's softmax, and of the teacher's.
    """
    ours, theirs = normalize(projected), normalize(teacher)
    empty = ~queue.any(dim=1)
    logits = []
    for rows, temperature in zip((ours, theirs), temperatures, strict=True):
        own = (rows * theirs).sum(1, keepdim=True)
        logits.append(torch.cat([own, (rows @ queue.T).masked_fill(empty, float("-inf"))], dim=1) / temperature)
    return cross_entropy(logits[0].clamp(min=torch.finfo(torch.float32).min), logits[1].softmax(dim=1))


OF_PROJECTION: Mapping[str, Loss] = {"cosine": cosine, "l2": l2}
OF_EMBEDDINGS: Mapping[str, Loss] = {
    "rkd-distance": rkd_distance,
    "rkd-angle": rkd_angle,
    "similarity": similarity,
    "correlation": correlation,
}
QUEUE = "queue"
LEAST_IMAGES: Mapping[str, int] = {"rkd-distance": 3, "rkd-angle": 3, "similarity": 2, "correlation": 2}
"""Of these losses that compare images with each other: of fewer they are 0. One distance, divided
by itself, is 1.
"""


class TeacherHead(nn.Module):
    """What a student needs beside its network to learn from a teacher: projection and queue.

    Args:
        embedding_dim: D, of the student.
        teacher_dim: T.
        options: which losses, with what weights.
        seed: of the projection's first weights.
        ranks: the processes that train together; all see the samples of all. None for one.
    """

    queue: Tensor | None
    """(K, T) unit rows, the newest first; rows of zeros are empty places. None where no loss uses
    it.
    """

    def __init__(
        self, embedding_dim: int, teacher_dim: int, options: TeacherOptions, *, seed: int, ranks: Ranks | None = None
    ) -> None:
        super().__init__()
        self.options, self.ranks, self.teacher_dim = options, ranks, teacher_dim
        self.weight: nn.Parameter | None = None
        if {QUEUE, *OF_PROJECTION} & options.losses.keys():
            self.weight = nn.Parameter(torch.empty(teacher_dim, embedding_dim))
            nn.init.xavier_uniform_(self.weight, generator=torch.Generator().manual_seed(seed))
        in_use = QUEUE in options.losses
        self.register_buffer("queue", torch.zeros(options.queue_size, teacher_dim) if in_use else None)

    def forward(self, embeddings: Tensor, teacher: Tensor) -> Tensor:
        """Return the weighted sum of the losses, (), of the samples of all processes.

        Args:
            embeddings: (n, D), of this process.
            teacher: (n, T), of the same images.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            x, t = embeddings.float(), teacher.float()
            if self.ranks is not None:
                x, t = together(x, self.ranks), self.ranks.gather(t)
            return self._loss(x, t)

    def _loss(self, x: Tensor, teacher: Tensor) -> Tensor:
        loss = x.new_zeros(())
        projected = self._projected(x)
        for name, weight in self.options.losses.items():
            if name == QUEUE:
                assert projected is not None
                assert self.queue is not None
                term = over_queue(projected, teacher, self.queue, self.options.temperatures)
                if self.training:
                    self._enqueue(teacher)
            elif name in OF_PROJECTION:
                assert projected is not None
                rows = projected / _lengths(x) if name == "l2" else projected
                term = OF_PROJECTION[name](rows, teacher)
            else:
                term = OF_EMBEDDINGS[name](x, teacher)
            loss = loss + weight * term
        return loss

    def _projected(self, x: Tensor) -> Tensor | None:
        if self.weight is None:
            return None
        return linear(x, self.weight if self.ranks is None else averaged(self.weight, self.ranks))

    @torch.no_grad()
    def _enqueue(self, teacher: Tensor) -> None:
        assert self.queue is not None
        newest = normalize(teacher)[: len(self.queue)]
        self.queue = torch.cat([newest, self.queue[: len(self.queue) - len(newest)]])  # no view: it is saved whole

    def extra_repr(self) -> str:
        """Shown by ``print(head)``."""
        return ", ".join(f"{weight:g} {name}" for name, weight in self.options.losses.items())


def _lengths(rows: Tensor) -> Tensor:
    """(N, 1), as :func:`normalize` divides by them."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return lengths.clamp(min=1e-12)


def _cosines(rows: Tensor) -> Tensor:
    unit = normalize(rows)
    return unit @ unit.T


def _distances(unit: Tensor) -> Tensor:
    """(N, N) distances between unit rows, 0 on the diagonal."""
    same = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    squares = (2.0 - 2.0 * unit @ unit.T).clamp(min=_SMALLEST)
    return squares.masked_fill(same, 1.0).sqrt().masked_fill(same, 0.0)


def _angle_difference(ours: Tensor, theirs: Tensor, middle: slice) -> Tensor:
    """Sum of the Huber distances over the triples with these samples in the middle."""
    return smooth_l1_loss(_angles(ours, middle), _angles(theirs, middle), reduction="sum")


def _angles(unit: Tensor, middle: slice) -> Tensor:
    """(M, N, N) cosines of the angle at j between i and k; 0 where i or k is j."""
    products = unit @ unit.T
    here = products[middle]  # (M, N)
    inverse = _distances(unit)[middle]
    inverse = torch.where(inverse > 0, inverse.clamp(min=_SMALLEST).reciprocal(), 0.0)
    angles = products - here[:, :, None] - here[:, None, :] + 1.0
    return angles * inverse[:, :, None] * inverse[:, None, :]
