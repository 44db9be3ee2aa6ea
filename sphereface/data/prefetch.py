"""Batches copied to a CUDA device while it computes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch

from .batch import Batch
from .pinned import in_pinned_memory


def moved(batch: Batch, device: torch.device | str) -> Batch:
    """Return the batch with all that the network needs on a device; on CUDA the host does not wait
    for the copies.
    """
    to_cuda = torch.device(device).type == "cuda"

    def there(part: torch.Tensor) -> torch.Tensor:
        return (in_pinned_memory(part) if to_cuda else part).to(device, non_blocking=to_cuda)

    augment = {name: (there(rows), there(strengths)) for name, (rows, strengths) in batch.augment.items()}
    teacher = None if batch.teacher is None else there(batch.teacher)
    return Batch(
        there(batch.images), there(batch.labels), there(batch.mirror), batch.bad, augment, batch.indices, teacher
    )


def prefetched(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    """Yield the same batches on a device. On CUDA they travel beside the computing, elsewhere they
    stay where they are.

    The generator reads a batch when the host has launched the step before it, not when the device
    has done that step. The copy runs on a stream of its own during that step, and the next step
    waits for it on the device. So no batch is read before its time, and what ``batches`` raises
    comes at its batch. What ``augment`` selects stays in main memory: a few numbers, by which the
    host splits a batch.

    Args:
        batches: the images of a batch may be overwritten once the next but one is read; their copy
            is over by then. Closed with this, after all copies.
        device: of the network.
    """
    if device.type != "cuda":
        yield from batches
        return
    aside, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)  # type: ignore[no-untyped-call]
    before: torch.cuda.Event | None = None
    with closing(batches):
        try:
            for batch in batches:
                with torch.cuda.stream(aside):
                    there = moved(batch._replace(augment={}), device)
                copied = aside.record_event()
                computing.wait_event(copied)
                for part in (there.images, there.labels, there.mirror, there.teacher):
                    if part is not None:
                        part.record_stream(computing)  # or a later copy would get its memory while it is in use
                yield there._replace(augment=batch.augment)
                if before is not None:
                    before.synchronize()  # of a copy that was launched a whole step ago
                before = copied
        finally:
            aside.synchronize()
