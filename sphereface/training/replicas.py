"""Replicas of the network on several processes: one network, one batch, one gradient."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError, count_of
from ..losses.head import HeadOutput
from .distributed import World
from .optimizer import gradient_values

_OPTIONS = inspect.signature(DistributedDataParallel.__init__).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers"  # the older name


def replicated(model: nn.Module, world: World, *, pieces: bool) -> DistributedDataParallel | None:
    """Return a replica of a network, whose gradients are those of the batch of all processes.

    Args:
        model: on its device, with frozen parameters. All processes receive the weights of the
            first.
        world: the processes.
        pieces: a step runs several times forward and backward. Then DistributedDataParallel cannot
            reuse what it learned of the graph in the first step (``static_graph``).

    Returns:
        None if the network itself is to be called: there is one process, or all parameters are
        frozen.
    """
    if world.size == 1 or not any(p.requires_grad for p in model.parameters()):
        return None
    device = next(model.parameters()).device
    place = None if device.type == "cpu" else [device]
    # for the buffers, see average_statistics
    options: dict[str, Any] = {_SYNC_BUFFERS: False, "gradient_as_bucket_view": True, "static_graph": not pieces}
    return DistributedDataParallel(model, device_ids=place, **options)


def gradients_stay(network: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which a replica keeps its gradients, to send their sum later."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def check_pieces(micro_batch: int | None, share: int, world: World, *, batch_statistics: bool) -> None:
    """Refuse pieces of a batch that cannot be trained on.

    On several processes they must have the same size, because the head takes the same number of
    samples each time. With batch normalisation a piece must not be a single image.

    Args:
        micro_batch: ``train.micro_batch``.
        share: images of a batch in each process.
        world: the processes.
        batch_statistics: whether the network normalises over a piece.

    Raises:
        UserError: the pieces cannot be trained on.
    """
    size = min(micro_batch or share, share)
    if batch_statistics and 1 in (size, share % size):
        key, got = ("batch_size", share * world.size) if micro_batch is None else ("micro_batch", micro_batch)
        raise UserError(
            f"train.{key}: got {got} for {count_of(share, 'image', 'images')} in each process, which leaves a piece of "
            "one image · allowed with batch normalisation: pieces of two images or more · set another "
            "train.micro_batch or train.batch_size"
        )
    if world.size > 1 and micro_batch is not None and micro_batch < share and share % micro_batch:
        raise UserError(
            f"train.micro_batch: got {micro_batch} for the {share} images of each of {world.size} processes · "
            f"allowed there: a divisor of {share}"
        )


@torch.no_grad()
def average_statistics(model: nn.Module, world: World) -> None:
    """Average the running statistics of normalisation layers over all processes, in one message.

    So the network is the same on all processes between steps. Layers in evaluation mode, whose
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
    """Return the L2 norm over all gradients, the same on all processes.

    Args:
        parameters: their gradients count.
        sharded: those parameters of which each process has other rows. The gradients of the others
            are the same on all processes.
        world: the processes.
    """
    if world.ranks is None or not sharded:
        return torch.nn.utils.get_total_norm(gradient_values(parameters))
    apart = {id(p) for p in sharded}
    alike = torch.nn.utils.get_total_norm(gradient_values([p for p in parameters if id(p) not in apart]))
    here = torch.nn.utils.get_total_norm(gradient_values(sharded))
    return (world.ranks.sum(here.square())[0] + alike.to(here.device).square()).sqrt()


def figures_of_all(output: HeadOutput, embeddings: Tensor, world: World) -> tuple[HeadOutput, Tensor]:
    """Return the figures of a step, of the batch of all processes and the same on all.

    Args:
        output: of this process's n samples, detached; its loss is that of all, except for rounding.
        embeddings: (n, D) of these samples.
        world: the processes.

    Returns:
        The output of the R·n samples, and the similarity of their embeddings: ‖mean of x/‖x‖‖²,
        which is their mean cosine.
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
