"""Batches of uint8 pixels from a source and an order, decoded ahead of the network."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from .augment import ON_DEVICE
from .batch import Batch
from .crops import CropBatches, Filled
from .images import OFF_ALIGNMENT
from .prefetch import pinned
from .sampler import BatchOrder, Draw

_GRACE_SECONDS = 20  # a worker ends this long after a SIGTERM
_FIRST_JUDGED = 1000  # images seen before the share of bad ones is judged
_PREFETCH = 2  # tasks ahead of training, each worker
_TASK_IMAGES = 512  # least number in all batches of a task: messages between processes and starting to read take time
_MOST_TOGETHER = 8
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- only its size is read


class BadImages:
    """Count unusable images, and end the run if there are too many.

    Args:
        num_images: images in the source.
        max_share: ``data.max_bad_share``.
    """

    def __init__(self, num_images: int, max_share: float) -> None:
        self.num_images = num_images
        self.max_share = max_share
        self.reasons: dict[str, str] = {}

    def add(self, bad: Sequence[tuple[str, str]], images_seen: int) -> list[str]:
        """Count the unusable images of one batch.

        Args:
            bad: (path, reason) each.
            images_seen: images tried since the start of this process.

        Returns:
            One line for each new path.

        Raises:
            UserError: the share of bad images among those tried is above the maximum.
        """
        new = {path: why for path, why in bad if path not in self.reasons}
        self.reasons.update(new)
        tried = min(images_seen, self.num_images)
        judged = max(tried, min(_FIRST_JUDGED, self.num_images))
        if len(self.reasons) > self.max_share * judged:
            path, why = next(iter(self.reasons.items()))
            raise UserError(
                f"data.max_bad_share: {len(self.reasons)} of {tried} images are unusable, more than "
                f"{self.max_share:.2%}, the first: {path}: {why} · repair the data, or raise data.max_bad_share"
            )
        return [f"unusable image {path}: {why} (another one takes its place)" for path, why in new.items()]


_Task = list[tuple[int, Draw]]  # batches in a row, each with its slot


class _Slots(Dataset[list[Filled]]):
    """Decode each batch of a task into its slot of shared memory, so that no image uses a pipe.

    Args:
        crops: the images.
        images: (S, B, H, W, 3) uint8, the S slots.
    """

    def __init__(self, crops: CropBatches, images: torch.Tensor) -> None:
        self.crops = crops
        self.images = images

    def __getitem__(self, task: _Task) -> list[Filled]:
        return self.crops.fill([draw for _, draw in task], [self.images[slot].numpy() for slot, _ in task])


def batches(crops: CropBatches, order: BatchOrder, *, workers: int, pin_memory: bool) -> Generator[Batch]:
    """Yield the endless batches, in an order that does not depend on ``workers``.

    Close the generator when done. Images are decoded into a ring of slots. The ``images`` of a
    batch are overwritten after the next batch but one is requested. With ``pin_memory``, a CUDA
    device reads the slots directly (:func:`~sphereface.data.prefetch.pinned`). The caller must
    close the stream only after all copies from it have ended.

    Raises:
        UserError: no image of a batch could be read, or there is too little shared memory.
    """
    shape = (order.share, *crops.size, 3)
    together = _batches_a_task(workers, shape)
    num_slots = _num_slots(workers, together)
    images = _slots((num_slots, *shape), shared=workers > 0)
    tasks: deque[_Task] = deque()
    running = _running(_Slots(crops, images), _tasks(order, num_slots, together, tasks), workers)
    with pinned(images) if pin_memory else nullcontext():
        for done in running:
            for filled, (slot, draw) in zip(done, tasks.popleft(), strict=False):  # a failure comes last
                if filled.failure:
                    raise UserError(filled.failure)
                yield _batch(images[slot], filled, draw)


def _running(slots: _Slots, tasks: Iterator[_Task], workers: int) -> Iterator[list[Filled]]:
    """Start the workers, before the memory is locked, and return an iterator over their results."""
    if workers == 0:  # a loader takes 0.1 ms a batch, since decoding empties the processor's caches
        torch.empty((), dtype=torch.int64).random_()  # as the loader draws it from torch's generator
        return map(slots.__getitem__, tasks)
    loader = DataLoader(
        slots,
        batch_size=None,  # a task is whole batches
        sampler=tasks,
        num_workers=workers,
        collate_fn=_as_is,
        persistent_workers=True,
        prefetch_factor=_PREFETCH,
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if sys.platform == "linux" else None,  # a source may share memory
    )
    return iter(loader)


def _tasks(order: BatchOrder, num_slots: int, together: int, tasks: deque[_Task]) -> Iterator[_Task]:
    """Yield the tasks of the workers; ``tasks`` keeps each until its result arrives, in order."""
    slots = itertools.cycle(range(num_slots))
    draws = zip(slots, order, strict=False)
    while task := list(itertools.islice(draws, together)):
        tasks.append(task)
        yield task


def _batches_a_task(workers: int, shape: tuple[int, ...]) -> int:
    """Return how many batches make a task worth its start; 1 if there is too little memory."""
    together = min(-(-_TASK_IMAGES // shape[0]), _MOST_TOGETHER)
    fits = workers == 0 or math.prod((_num_slots(workers, together), *shape)) <= _free_shared_memory()
    return together if fits else 1


def _num_slots(workers: int, together: int) -> int:
    """Return the number of batches ahead and being handed out, plus the one being trained on."""
    return (workers * _PREFETCH + 1) * together + 1


def _batch(images: torch.Tensor, filled: Filled, draw: Draw) -> Batch:
    selected = {
        name: (torch.from_numpy(rows), torch.from_numpy(strengths))
        for name, (rows, strengths) in draw.augment.items()
        if name in ON_DEVICE
    }
    labels, indices = torch.from_numpy(filled.labels), torch.from_numpy(filled.indices)
    return Batch(images, labels, torch.from_numpy(draw.mirror), filled.bad, selected, indices)


def _slots(shape: tuple[int, ...], *, shared: bool) -> torch.Tensor:
    """Allocate memory for images. Raise UserError if writing to it would kill a process."""
    wanted, free = math.prod(shape), _free_shared_memory()
    if shared and wanted > free:
        raise UserError(
            f"data.workers: {shape[0]} batches decoded ahead take {wanted / 2**20:,.0f} MiB of shared memory, "
            f"{_SHARED_MEMORY} has {free / 2**20:,.0f} · enlarge it (docker run --shm-size=1g), or set fewer "
            "data.workers, or a smaller train.batch_size"
        )
    memory = torch.empty(wanted + OFF_ALIGNMENT, dtype=torch.uint8)
    if shared:
        memory.share_memory_()  # type: ignore[no-untyped-call]
    return memory[OFF_ALIGNMENT:].view(shape)


def _free_shared_memory() -> float:
    """Return the free bytes of shared memory; a container often has 64 MiB in all.

    There is no limit without such a folder (not Linux).
    """
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else math.inf


def _as_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    if os.name != "posix":
        return
    # the whole process group of a run receives its signals; the trainer decides when workers end
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS))
