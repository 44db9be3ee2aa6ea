"""Main memory that a CUDA device reads directly, without the host."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

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
        with contextlib.suppress(RuntimeError):  # CUDA repeats the error at the next launch, once
            torch.zeros((), device="cuda")
    try:
        yield
    finally:
        if not error:
            cuda.cudaHostUnregister(whole.data_ptr())


def in_pinned_memory(part: torch.Tensor) -> torch.Tensor:
    """Return a tensor of main memory in locked memory, without a copy if it is there already."""
    return part if part.device.type != "cpu" or part.is_pinned() else part.pin_memory()
