"""From a source and an order to batches of uint8 pixels, decoded ahead of the network."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from .images import BadImage, decode
from .sampler import BatchOrder, Draw
from .sources import Source

_TRIES = 100  # pictures tried in the place of a bad one before the data is called unusable
_PROBES = 32
_GRACE_SECONDS = 20  # that a worker lives on after a SIGTERM
_FIRST_JUDGED = 1000  # pictures seen before the share of bad ones is judged


class Batch(NamedTuple):
    """One training batch, on the CPU.

    Attributes:
        images: (B, H, W, 3) uint8, BGR.
        labels: (B,) int64.
        mirror: (B,) bool: which pictures the device is to mirror.
        bad: (path, reason) of each picture that could not be used; another one stands in its place.
        failure: why there is no batch at all: an error that a worker process cannot raise in this one.
    """

    images: torch.Tensor
    labels: torch.Tensor
    mirror: torch.Tensor
    bad: list[tuple[str, str]]
    failure: str | None = None

    def split(self, size: int) -> list[Batch]:
        """Pieces of at most ``size`` pictures, in order."""
        places = [slice(at, at + size) for at in range(0, len(self.labels), size)]
        return [Batch(self.images[here], self.labels[here], self.mirror[here], []) for here in places]


class CropBatches(Dataset[Batch]):
    """Reads and decodes the pictures of one draw. Picklable, and holds no open file."""

    def __init__(self, source: Source, size: Sequence[int]) -> None:
        self.source = source
        self.size = (size[0], size[1])

    def __getitem__(self, draw: Draw) -> Batch:
        images = np.empty((len(draw.indices), *self.size, 3), dtype=np.uint8)
        labels = np.empty(len(draw.indices), dtype=np.int64)
        bad: list[tuple[str, str]] = []
        for row, index in enumerate(draw.indices):
            found = self._first_good(int(index), bad)
            if found is None:
                name, why = bad[-1]
                failure = f"data.train: {len(bad)} pictures in a row are unusable, the last: {name}: {why}"
                return Batch(torch.empty(0), torch.empty(0), torch.empty(0), bad, failure)
            image, used = found
            images[row] = shifted(image, *draw.shift[row])
            labels[row] = self.source.labels[used]
        return Batch(torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(draw.mirror.copy()), bad)

    def load(self, index: int) -> npt.NDArray[np.uint8]:
        """One picture of the right size, (H, W, 3) uint8. Raises BadImage or OSError."""
        image = decode(self.source.read(index))
        if image.shape[:2] != self.size:
            raise BadImage(
                f"{image.shape[1]}×{image.shape[0]} pixels (width×height) where "
                f"{self.size[1]}×{self.size[0]} are wanted"
            )
        return image

    def _first_good(self, index: int, bad: list[tuple[str, str]]) -> tuple[npt.NDArray[np.uint8], int] | None:
        """The picture, or the next one of the source that is whole: the same one in every run. None: all were bad."""
        for step in range(min(_TRIES, len(self.source))):
            candidate = (index + step) % len(self.source)
            try:
                return self.load(candidate), candidate
            except (BadImage, OSError) as error:
                bad.append((self.source.name(candidate), reason(error)))
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


def batches(crops: CropBatches, order: BatchOrder, *, workers: int, pin_memory: bool) -> Generator[Batch]:
    """The endless stream of batches; the order of pictures does not depend on ``workers``. Close it when done.

    Raises:
        UserError: in the place of a batch for which no picture could be read.
    """
    loader = DataLoader(
        crops,
        batch_size=None,  # the sampler yields whole batches
        sampler=order,
        num_workers=workers,
        collate_fn=_as_is,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_start_worker,
    )
    for batch in loader:
        if batch.failure:
            raise UserError(batch.failure)
        yield batch


def shifted(image: npt.NDArray[np.uint8], down: int, right: int) -> npt.NDArray[np.uint8]:
    """The picture moved by whole pixels, its border replicated. (H, W, 3) → (H, W, 3)."""
    if not down and not right:
        return image
    height, width = image.shape[:2]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return image[rows[:, None], columns]


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
