"""Gather a sharded head and its optimiser state into one, and load it on any number of ranks.

What is saved is what :class:`~sphereface.losses.head.MarginHead` on one device has: parameters and
running statistics by name, the optimiser's entries by parameter name. So a checkpoint does not say
on how many ranks it was made, and any other number can resume it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .distributed_head import ShardedHead
from .head import MarginHead
from .ranks import Ranks
from .shards import Shard

CLASSES_PER_MESSAGE = 65536
"""Rows that a rank sends at a time: 128 MiB of 512 float32 each."""

State = dict[str, Any]
OptimizerState = Mapping[Any, Mapping[str, Any]]  # by parameter


def gather_head(head: MarginHead, optimizer: OptimizerState) -> tuple[State, dict[str, State]] | None:
    """Return the whole head on rank 0. All ranks call it together.

    Only rank 0 ever holds more than its shard, in main memory: 2·C·D numbers with a momentum. A
    rank sends its rows in blocks.

    Args:
        head: any; of a replicated one, rank 0's copy is taken.
        optimizer: ``optimizer.state``.

    Returns:
        ``(state of the head, {parameter name: its optimiser entries})`` on rank 0 and where there
        is one process; None on the others.
    """
    ranks: Ranks | None = getattr(head, "ranks", None)
    sharded = head.ranks if isinstance(head, ShardedHead) else None

    def whole(name: str, value: Any) -> Any:
        if sharded is None or not _has_class_rows(head, name, value):
            return value
        return _gather_rows(value, head.shard, sharded)

    state = {name: whole(name, value) for name, value in head.state_dict().items()}
    entries = {
        name: {key: whole(name, value) for key, value in optimizer[parameter].items()}
        for name, parameter in _trained(head)
        if parameter in optimizer
    }
    return (state, entries) if ranks is None or ranks.rank == 0 else None


def scatter_head(head: MarginHead, optimizer: dict[Any, Any], state: State, entries: Mapping[str, State]) -> None:
    """Load a whole head; each rank takes its rows, and nothing is sent.

    To read no more than those from the file, load it with ``torch.load(…, mmap=True)`` on the CPU.

    Args:
        head: what to fill.
        optimizer: ``optimizer.state``, to be filled.
        state: of the whole head, as :func:`gather_head` gives it.
        entries: of the optimiser.

    Raises:
        RuntimeError: names or sizes do not fit, as ``load_state_dict`` has it.
    """

    def own(name: str, value: Any) -> Any:
        whole_rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == head.num_classes
        return head.shard.of_whole(value) if whole_rows and name in _class_names(head) else value

    head.load_state_dict({name: own(name, value) for name, value in state.items()})
    for name, parameter in _trained(head):
        if name in entries:
            moved = {key: own(name, value) for key, value in entries[name].items()}
            optimizer[parameter] = own_copies(moved, parameter.device)


def own_copies(entries: Mapping[str, Any], device: torch.device) -> State:
    """Return copies of a checkpoint's tensors that may be changed; other values as they are."""
    return {k: v.to(device, copy=True) if isinstance(v, Tensor) else v for k, v in entries.items()}


@torch.no_grad()
def take_known(head: MarginHead, state: Mapping[str, Tensor], rows: Tensor) -> list[str]:
    """Fill the rows of the identities that another whole head knows. Each rank fills its own rows.

    A shared bias and the running statistics of a margin are taken whole.

    Args:
        head: what to fill.
        state: of the other head, with ``weight`` (C', D).
        rows: (C,) int64, for each class of ``head`` its row there, or −1 to leave the class as it
            is.

    Returns:
        Names of what the other head does not have, which is left as it is.
    """
    own = rows[head.shard.start : head.shard.stop]
    known = (own >= 0).nonzero().flatten()
    left = []
    for name, value in head.state_dict(keep_vars=True).items():
        theirs = state.get(name)
        per_class = name in _class_names(head)
        shape = (len(state["weight"]), *value.shape[1:]) if per_class else tuple(value.shape)
        if not isinstance(theirs, Tensor) or tuple(theirs.shape) != shape:
            left.append(name)
        elif per_class:
            value[known.to(value.device)] = theirs[own[known].to(theirs.device)].to(value)
        else:
            value.copy_(theirs)
    return left


def whole_shapes(head: MarginHead) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the ``state`` that :func:`scatter_head` takes."""
    per_class = _class_names(head)
    return {
        name: (head.num_classes, *value.shape[1:]) if name in per_class else tuple(value.shape)
        for name, value in head.state_dict().items()
    }


def sharded_parameters(head: MarginHead) -> list[nn.Parameter]:
    """Return the parameters of which each rank holds only some rows, with their gradients."""
    if not isinstance(head, ShardedHead):
        return []
    return [p for name, p in _trained(head) if name in _class_names(head)]


def _trained(head: MarginHead) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in head.named_parameters() if p.requires_grad)


def _class_names(head: MarginHead) -> set[str]:
    """Return the names of the parameters with one row or number for each class."""
    return {"weight", "bias"} if head.margin.bias == "per class" else {"weight"}


def _has_class_rows(head: MarginHead, name: str, value: Any) -> bool:
    return name in _class_names(head) and isinstance(value, Tensor) and value.shape[:1] == (len(head.shard),)


@torch.no_grad()
def _gather_rows(rows: Tensor, shard: Shard, ranks: Ranks) -> Tensor | None:
    """Gather the rows of all ranks: (C, …) in main memory on rank 0, None on the others."""
    if ranks.rank:
        for block in rows.split(CLASSES_PER_MESSAGE):  # type: ignore[no-untyped-call]
            ranks.send(block, 0)
        return None
    whole = torch.empty(shard.num_classes, *rows.shape[1:], dtype=rows.dtype)
    whole[: len(shard)] = rows
    for source in range(1, ranks.size):
        theirs = Shard.of(shard.num_classes, source, ranks.size)
        for start in range(theirs.start, theirs.stop, CLASSES_PER_MESSAGE):
            room = whole[start : min(start + CLASSES_PER_MESSAGE, theirs.stop)]
            room.copy_(ranks.receive(torch.empty_like(room, device=rows.device), source))
    return whole
