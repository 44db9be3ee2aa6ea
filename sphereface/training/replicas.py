"""What makes the copies of the network on several processes one network, and their batches one
batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError
from ..losses.head import HeadOutput
from .distributed import World
from .optimizer import gradient_values

_SYNC_BUFFERS = next(  # as torch calls it now, and before
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel.__init__).parameters
)


def replicated(model: nn.Module, world: World, *, pieces: bool) -> DistributedDataParallel | None:
    """What to call in the place of a network, so that its gradients are those of the batch of all
    processes.

    Args:
        model: on its device, fixed parameters fixed. The weights of the first process are copied to
            all.
        world: the processes.
        pieces: a step runs several times forward and backward. What DistributedDataParallel learns
            of the graph in the first step (``static_graph``) does not hold then.

    Returns:
        None where it is to be called itself: one process, or all of it is fixed.
    """
    if world.size == 1 or not any(p.requires_grad for p in model.parameters()):
        return None
    device = next(model.parameters()).device
    options: dict[str, Any] = {_SYNC_BUFFERS: False}  # see average_statistics
    return DistributedDataParallel(
        model,
        device_ids=None if device.type == "cpu" else [device],
        gradient_as_bucket_view=True,
        static_graph=not pieces,
        **options,
    )


def gradients_stay(network: nn.Module) -> AbstractContextManager[None]:
    """Within, what :func:`replicated` gave keeps gradients to itself, to send their sum later."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def check_pieces(micro_batch: int | None, share: int, world: World, *, batch_statistics: bool) -> None:
    """Refuse pieces of a batch that cannot be trained on.

    On several processes they must be alike, since the head takes as many samples each time. With
    batch normalisation none may be a single image.

    Args:
        micro_batch: ``train.micro_batch``.
        share: images of a batch in each process.
        world: the processes.
        batch_statistics: whether the network normalises over a piece.

    Raises:
        UserError: they are not so.
    """
    size = min(micro_batch or share, share)
    if batch_statistics and 1 in (size, share % size):
        got = (
            f"train.micro_batch: got {micro_batch}"
            if micro_batch is not None
            else f"train.batch_size: got {share * world.size}"
        )
        raise UserError(
            f"{got} for {share} images in each process, which leaves a piece of one "
            "image · allowed with batch normalisation: pieces of two images or more · set another train.micro_batch or "
            "train.batch_size"
        )
    if world.size > 1 and micro_batch is not None and micro_batch < share and share % micro_batch:
        raise UserError(
            f"train.micro_batch: got {micro_batch} for the {share} images of each of {world.size} processes · "
            f"allowed there: a divisor of {share}"
        )


@torch.no_grad()
def average_statistics(model: nn.Module, world: World) -> None:
    """Give the normalisation layers of all processes the mean of their running statistics, in one
    message.

    So that between steps the network is the same on all. Layers in evaluation mode, whose
    statistics are fixed, are left out.
    """
    if world.ranks is None:
        return
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    values = [v for layer in layers for v in (layer.running_mean, layer.running_var) if v is not None]
    if values:
        for value, total in zip(values, world.ranks.sum(*values), strict=True):
            value.copy_(total / world.size)


def gradient_norm(parameters: Sequence[Tensor], sharded: Sequence[Tensor], world: World) -> Tensor:
    """L2 norm over all gradients, the same on all processes.

    Args:
        parameters: whose gradients count.
        sharded: those of them of which each process has other rows; the gradients of the rest are
            alike on all.
        world: the processes.
    """
    if world.ranks is None or not sharded:
        return torch.nn.utils.get_total_norm(gradient_values(parameters))
    apart = {id(p) for p in sharded}
    alike = torch.nn.utils.get_total_norm(gradient_values([p for p in parameters if id(p) not in apart]))
    here = torch.nn.utils.get_total_norm(gradient_values(sharded))
    return (world.ranks.sum(here.square())[0] + alike.to(here.device).square()).sqrt()


def figures_of_all(output: HeadOutput, embeddings: Tensor, world: World) -> tuple[HeadOutput, Tensor]:
    """What is reported of a step: of the batch of all processes, and the same on all.

    Args:
        output: of this process's n samples, detached; its loss is that of all, but for rounding.
        embeddings: (n, D) of these.
        world: the processes.

    Returns:
        Output of the R·n samples, and how alike the directions of their embeddings are: ‖mean of
        x/‖x‖‖², which is their mean cosine.
    """
    directions = nn.functional.normalize(embeddings.detach().float())
    if world.size == 1:
        return output, directions.mean(0).square().sum()
    loss, *rest = output
    rows = torch.cat([loss.float()[None], directions.mean(0), *(part.float() for part in rest)])
    rows = world.gather(rows[None])  # (R, 1 + D + 3n), in one message
    means, figures = rows[:, : 1 + embeddings.shape[1]].mean(0), rows[:, 1 + embeddings.shape[1] :]
    whole = [part.flatten().to(old.dtype) for part, old in zip(figures.chunk(len(rest), dim=1), rest, strict=True)]
    return HeadOutput(means[0], *whole), means[1:].square().sum()
