"""Copy batches to a CUDA device while it computes, from memory that it reads directly."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress

import torch

from .batch import Batch

log = logging.getLogger(__name__)


@contextmanager
def pinned(memory: torch.Tensor) -> Iterator[None]:
    """Lock the pages of a tensor, so that batches need no copy into locked memory.

    If the system refuses, one warning is logged, and each batch is copied.

    Args:
        memory: in main memory; other processes may share it. Its whole storage is locked, because
            torch asks CUDA about the start of the storage. It must outlive this context.
    """
    cuda = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    whole = memory.untyped_storage()
    error = int(cuda.cudaHostRegister(whole.data_ptr(), whole.nbytes(), 0))
    if error:
        log.warning(
            "data.workers: CUDA cannot lock the %d MiB into which batches are decoded (error %d); each batch is copied "
            "once more · set fewer data.workers",
            whole.nbytes() >> 20,
            error,
        )
        with suppress(RuntimeError):  # CUDA repeats the error at the next launch, once
            torch.zeros((), device="cuda")
    try:
        yield
    finally:
        if not error:
            cuda.cudaHostUnregister(whole.data_ptr())


def in_pinned_memory(part: torch.Tensor) -> torch.Tensor:
    """Return a tensor of main memory in locked memory, without a copy if it is there already."""
    return part if part.device.type != "cpu" or part.is_pinned() else part.pin_memory()


def moved(batch: Batch, device: torch.device | str) -> Batch:
    """Return the batch on a device; on CUDA the host does not wait for the copies."""
    to_cuda = torch.device(device).type == "cuda"

    def there(part: torch.Tensor) -> torch.Tensor:
        return (in_pinned_memory(part) if to_cuda else part).to(device, non_blocking=to_cuda)

    augment = {name: (there(rows), there(strengths)) for name, (rows, strengths) in batch.augment.items()}
    teacher = None if batch.teacher is None else there(batch.teacher)
    return Batch(
        there(batch.images), there(batch.labels), there(batch.mirror), batch.bad, augment, batch.indices, teacher
    )


def prefetched(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    """Yield the same batches on a device. On CUDA, they are copied while the device computes.

    On other devices the batches stay where they are. The generator reads a batch when the host has
    launched the step before it, not when the device has finished that step. The copy runs on a
    stream of its own during that step, and the next step waits for it on the device. So no batch is
    read too early, and an error of ``batches`` is raised at its batch. The rows in ``augment`` stay
    in main memory, because the host splits a batch by these few numbers.

    Args:
        batches: the images of a batch may be overwritten after the next batch but one is read,
            because their copy has ended by then. Closed with this generator, after all copies.
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
                        part.record_stream(computing)  # else a later copy would overwrite it while it is in use
                yield there._replace(augment=batch.augment)
                if before is not None:
                    before.synchronize()  # a copy that was launched a whole step ago
                before = copied
        finally:
            aside.synchronize()
