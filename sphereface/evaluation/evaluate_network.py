"""A network on one set: its images are embedded, and their embeddings evaluated."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..models import Backbone
from .embed import embed_files
from .embeddings import Features, split_mirror
from .protocols import EvaluationSet, Rule
from .result import Result


def evaluate(
    model: Backbone,
    evaluation_set: EvaluationSet,
    *,
    device: torch.device | str,
    flip: bool = True,
    subtract_mean: bool = True,
    batch_size: int = 64,
    precision: str = "fp32",
    workers: int | None = None,
    progress: str | None = None,
    embed: Callable[..., Features] = embed_files,
) -> Result:
    """Embed the images of a set with a network, and evaluate them.

    ``subtract_mean`` is that of :class:`Rule`, ``embed`` is :func:`embed_files` or what shares its
    work out over processes, every other argument that of :func:`embed_files`.
    """
    features = embed(
        model,
        evaluation_set.images.found(),
        device=device,
        flip=flip,
        batch_size=batch_size,
        precision=precision,
        workers=workers,
        progress=progress,
    )
    return evaluation_set.evaluate(split_mirror(features, flip), Rule(subtract_mean=subtract_mean))
