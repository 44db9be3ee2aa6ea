"""Batches copied to a CUDA device while it computes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch

from .batch import Batch


def moved(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with all that the network needs on a device; the host waits for nothing that is in
    pinned memory.
    """

    def there(part: torch.Tensor) -> torch.Tensor:
        return part.to(device, non_blocking=torch.device(device).type == "cuda")

    augment = {name: (there(rows), there(strengths)) for name, (rows, strengths) in batch.augment.items()}
    teacher = None if batch.teacher is None else there(batch.teacher)
    return Batch(
        there(batch.images), there(batch.labels), there(batch.mirror), batch.bad, augment, batch.indices, teacher
    )


def prefetched(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    """The same batches on a device. On CUDA they travel beside the computing, elsewhere they stay
    where they are.

    A batch is asked for when the step before it has been handed to the device, not when that is
    done with it: a copy on a stream of its own runs during that step, and the next one waits for it
    there. So no batch is taken from the feed before its time, and what the feed raises comes at its
    batch. What ``augment`` selects stays in main memory: a few numbers, by which the host splits a
    batch.

    Args:
        batches: in pinned memory. Closed with this.
        device: of the network.
    """
    if device.type != "cuda":
        yield from batches
        return
    aside, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)  # type: ignore[no-untyped-call]
    with closing(batches):
        for batch in batches:
            with torch.cuda.stream(aside):
                there = moved(batch._replace(augment={}), device)
            computing.wait_stream(aside)
            for part in (there.images, there.labels, there.mirror, there.teacher):
                if part is not None:
                    part.record_stream(computing)  # or a later copy would be given its memory while it is in use
            yield there._replace(augment=batch.augment)
