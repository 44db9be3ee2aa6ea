"""From a source and an order to batches of uint8 pixels, decoded ahead of the network."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from .augment import ON_DEVICE
from .batch import Batch
from .images import BadImage, decode_into
from .sampler import BatchOrder, Draw
from .sources import Source

_TRIES = 100  # pictures tried in the place of a bad one before the data is called unusable
_PROBES = 32
_GRACE_SECONDS = 20  # that a worker lives on after a SIGTERM
_FIRST_JUDGED = 1000  # pictures seen before the share of bad ones is judged
_PREFETCH = 2  # tasks ahead of training, each worker
_TASK_PICTURES = 512  # of all batches of a task, at least: messages between processes cost half a millisecond each
_MOST_TOGETHER = 8
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- looked at for its size alone


class Filled(NamedTuple):
    """What a worker says of a batch whose pictures it has put in their place.

    Attributes:
        labels: (B,) int64.
        bad: (path, reason) of each picture that could not be used.
        failure: why there is no batch at all: an error that a worker cannot raise in the training process.
    """

    labels: npt.NDArray[np.int64]
    bad: list[tuple[str, str]]
    failure: str | None = None


class CropBatches:
    """Reads and decodes the pictures of one draw. Picklable, and holds no open file."""

    def __init__(self, source: Source, size: Sequence[int]) -> None:
        self.source = source
        self.size = (size[0], size[1])

    def fill(self, draw: Draw, images: npt.NDArray[np.uint8]) -> Filled:
        """Decode the pictures of a draw, and do to them what is not left to the device.

        Args:
            draw: which.
            images: (B, H, W, 3) uint8: where they go.
        """
        labels = self.source.labels[draw.indices].astype(np.int64)
        bad: list[tuple[str, str]] = []
        for row, (index, image) in enumerate(zip(draw.indices.tolist(), images, strict=True)):
            try:
                decode_into(self.source.read(index), image)
            except (BadImage, OSError) as error:
                bad.append((self.source.name(index), reason(error)))
                used = self._next_good(index, image, bad)
                if used is None:
                    name, why = bad[-1]
                    failure = f"data.train: {len(bad)} pictures in a row are unusable, the last: {name}: {why}"
                    return Filled(labels, bad, failure)
                labels[row] = self.source.labels[used]
        _augment(images, draw)
        return Filled(labels, bad)

    def load(self, index: int) -> npt.NDArray[np.uint8]:
        """One picture of the right size, (H, W, 3) uint8. Raises BadImage or OSError."""
        image = np.empty((*self.size, 3), dtype=np.uint8)
        decode_into(self.source.read(index), image)
        return image

    def _next_good(self, index: int, image: npt.NDArray[np.uint8], bad: list[tuple[str, str]]) -> int | None:
        """Put the next whole picture of the source there: the same one in every run. None: all were bad."""
        for step in range(1, min(_TRIES, len(self.source))):
            candidate = (index + step) % len(self.source)
            try:
                decode_into(self.source.read(candidate), image)
            except (BadImage, OSError) as error:
                bad.append((self.source.name(candidate), reason(error)))
            else:
                return candidate
        return None


class BadImages:
    """Counts unusable pictures and ends the run where they are too many.

    Args:
        num_images: pictures in the source.
        max_share: ``data.max_bad_share``.
    """

    def __init__(self, num_images: int, max_share: float) -> None:
        self.num_images = num_images
        self.max_share = max_share
        self.reasons: dict[str, str] = {}

    def add(self, bad: Sequence[tuple[str, str]], images_seen: int) -> list[str]:
        """Count those of one batch.

        Args:
            bad: (path, reason) each.
            images_seen: pictures tried since the start of this process.

        Returns:
            One line for each path that was not known yet.

        Raises:
            UserError: the share of bad pictures among those tried is above the maximum.
        """
        new = {path: why for path, why in bad if path not in self.reasons}
        self.reasons.update(new)
        tried = min(images_seen, self.num_images)
        judged = max(tried, min(_FIRST_JUDGED, self.num_images))
        if len(self.reasons) > self.max_share * judged:
            path, why = next(iter(self.reasons.items()))
            raise UserError(
                f"data.max_bad_share: {len(self.reasons)} of {tried} pictures are unusable, more than "
                f"{self.max_share:.2%}, the first: {path}: {why} · mend the data, or raise data.max_bad_share"
            )
        return [f"unusable picture {path}: {why} (another one takes its place)" for path, why in new.items()]


def check_sample(crops: CropBatches) -> None:
    """Read a few pictures spread over the source, so that a set of another size ends at once and not in training.

    Raises:
        UserError: more than half of them are unusable.
    """
    indices = np.unique(np.linspace(0, len(crops.source) - 1, _PROBES).astype(np.int64))
    failures = []
    for index in indices:
        try:
            crops.load(int(index))
        except (BadImage, OSError) as error:
            failures.append(f"{crops.source.name(int(index))}: {reason(error)}")
    if len(failures) * 2 > len(indices):
        raise UserError(
            f"data.train: {len(failures)} of {len(indices)} sampled pictures are unusable, the first: {failures[0]} · "
            "align the pictures to this size, or set model.input_size to [height, width] of the pictures"
        )


_Task = list[tuple[int, Draw]]  # batches in a row, each with its slot


class _Slots(Dataset[list[Filled]]):
    """Decodes each batch of a task into its slot of memory that all processes share: no picture goes through a pipe.

    Args:
        crops: the pictures.
        images: (S, B, H, W, 3) uint8, the S slots.
    """

    def __init__(self, crops: CropBatches, images: torch.Tensor) -> None:
        self.crops = crops
        self.images = images

    def __getitem__(self, task: _Task) -> list[Filled]:
        return [self.crops.fill(draw, self.images[slot].numpy()) for slot, draw in task]


def batches(crops: CropBatches, order: BatchOrder, *, workers: int, pin_memory: bool) -> Generator[Batch]:
    """The endless stream of batches; the order of pictures does not depend on ``workers``. Close it when done.

    Pictures are decoded into a ring of slots: unless ``pin_memory`` copies them out, ``images`` of a batch are
    overwritten once the next but one is asked for.

    Raises:
        UserError: in the place of a batch for which no picture could be read; too little shared memory.
    """
    shape = (order.share, *crops.size, 3)
    together = _batches_a_task(workers, shape)
    num_slots = _num_slots(workers, together)
    images = _slots((num_slots, *shape), shared=workers > 0)
    tasks: deque[_Task] = deque()
    loader = DataLoader(
        _Slots(crops, images),
        batch_size=None,  # a task is whole batches
        sampler=_tasks(order, num_slots, together, tasks),
        num_workers=workers,
        collate_fn=_as_is,
        persistent_workers=workers > 0,
        prefetch_factor=_PREFETCH if workers else None,
        worker_init_fn=_start_worker,
    )
    for done in loader:
        for filled, (slot, draw) in zip(done, tasks.popleft(), strict=True):
            if filled.failure:
                raise UserError(filled.failure)
            yield _batch(images[slot].pin_memory() if pin_memory else images[slot], filled, draw)


def _tasks(order: BatchOrder, num_slots: int, together: int, tasks: deque[_Task]) -> Iterator[_Task]:
    """What the workers are told; ``tasks`` keeps it for when they have done it, which is in the same order."""
    slots = itertools.cycle(range(num_slots))
    draws = zip(slots, order, strict=False)
    while task := list(itertools.islice(draws, together)):
        tasks.append(task)
        yield task


def _batches_a_task(workers: int, shape: tuple[int, ...]) -> int:
    """As many batches as make a task worth its messages; a single one where shared memory is too small for more."""
    together = min(-(-_TASK_PICTURES // shape[0]), _MOST_TOGETHER) if workers else 1
    fits = math.prod((_num_slots(workers, together), *shape)) <= _free_shared_memory()
    return together if fits else 1


def _num_slots(workers: int, together: int) -> int:
    """Batches decoded ahead and being handed out, and the one before, which is being trained on."""
    return (workers * _PREFETCH + 1) * together + 1


def _batch(images: torch.Tensor, filled: Filled, draw: Draw) -> Batch:
    selected = {
        name: (torch.from_numpy(rows), torch.from_numpy(strengths))
        for name, (rows, strengths) in draw.augment.items()
        if name in ON_DEVICE
    }
    return Batch(images, torch.from_numpy(filled.labels), torch.from_numpy(draw.mirror), filled.bad, selected)


def _slots(shape: tuple[int, ...], *, shared: bool) -> torch.Tensor:
    """Memory for pictures. Raises UserError where the system would end a process that writes to it."""
    if not shared:
        return torch.empty(shape, dtype=torch.uint8)
    wanted, free = math.prod(shape), _free_shared_memory()
    if wanted > free:
        raise UserError(
            f"data.workers: {shape[0]} batches decoded ahead take {wanted / 2**20:,.0f} MiB of shared memory, "
            f"{_SHARED_MEMORY} has {free / 2**20:,.0f} · enlarge it (docker run --shm-size=1g), or set fewer "
            "data.workers, or a smaller train.batch_size"
        )
    images = torch.empty(shape, dtype=torch.uint8)
    return images.share_memory_()  # type: ignore[no-any-return, no-untyped-call]


def _free_shared_memory() -> float:
    """Bytes; a container often has 64 MiB in all. Without a limit where there is no such folder (not Linux)."""
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else math.inf


def _augment(images: npt.NDArray[np.uint8], draw: Draw) -> None:
    """What is done where pictures are decoded: compression, then the shift. In place."""
    if "jpeg" in draw.augment:
        rows, qualities = draw.augment["jpeg"]
        for row, quality in zip(rows, qualities[:, 0], strict=True):
            decode_into(compressed(images[row], int(quality)), images[row])
    for row in np.flatnonzero(draw.shift.any(axis=1)):
        images[row] = shifted(images[row], *draw.shift[row].tolist())


def compressed(image: npt.NDArray[np.uint8], quality: int) -> bytes:
    """(H, W, 3) uint8 BGR as JPEG, colours at half the resolution as cameras and web sites do."""
    data = simplejpeg.encode_jpeg(image, quality, colorspace="BGR", colorsubsampling="420", fastdct=False)
    return bytes(data)


def shifted(image: npt.NDArray[np.uint8], down: int, right: int) -> npt.NDArray[np.uint8]:
    """The picture moved by whole pixels, its border replicated. (H, W, 3) → (H, W, 3)."""
    height, width = image.shape[:2]
    up, left = max(-down, 0), max(-right, 0)
    wider = cv2.copyMakeBorder(image, max(down, 0), up, max(right, 0), left, cv2.BORDER_REPLICATE)
    return np.asarray(wider, dtype=np.uint8)[up : up + height, left : left + width]


def reason(error: Exception) -> str:
    """Why a picture could not be used, without its path."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _as_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    if os.name != "posix":
        return
    # signals to a run reach its whole process group; the trainer decides when its workers go
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS))
