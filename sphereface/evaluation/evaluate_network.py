"""Evaluate a network on one set."""

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
    """Embed the images of a set with a network, and evaluate the embeddings.

    Args:
        model: the network.
        evaluation_set: the set, loaded with its images.
        subtract_mean: as in :class:`Rule`.
        embed: :func:`embed_files`, or a function that distributes its work over processes.
        device, flip, batch_size, precision, workers, progress: arguments of :func:`embed_files`.
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
    embeddings = split_mirror(features, "join" if flip else "none")
    return evaluation_set.evaluate(embeddings, Rule(subtract_mean=subtract_mean))
