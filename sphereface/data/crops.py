"""Read and decode the images of a draw into given memory, and apply the CPU's augmentations."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from ..errors import UserError, count_of
from .images import BadImage, decode_each, decode_into, image_memory
from .read_ahead import encoded
from .sampler import Draw
from .sources import Source
from .sources.base import Encoded

_TRIES = 100  # replacements tried for a bad image before the data counts as unusable
_PROBES = 32
_CHUNK = 32  # images decoded at a time; their bytes stay in the processor's cache


class Filled(NamedTuple):
    """A worker's report on a batch whose images it has decoded.

    Attributes:
        labels: (B,) int64.
        indices: (B,) int64, the images in the batch, replacements of unusable images included.
        bad: (path, reason) of each unusable image.
        failure: why there is no batch at all; a worker cannot raise an error in the training
            process.
    """

    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    bad: list[tuple[str, str]]
    failure: str | None = None


class CropBatches:
    """Read and decode the images of draws. Picklable; it holds no open file."""

    def __init__(self, source: Source, size: Sequence[int]) -> None:
        self.source = source
        self.size = (size[0], size[1])

    def fill(self, draws: Sequence[Draw], batches: Sequence[npt.NDArray[np.uint8]]) -> list[Filled]:
        """Decode the images of draws, and apply the augmentations that are not left to the device.

        Args:
            draws: one for each batch.
            batches: (B, H, W, 3) uint8 each: memory for the images.

        Returns:
            A report on each batch, up to the first that failed.
        """
        indices = np.concatenate([draw.indices for draw in draws]).astype(np.int64)
        labels = self.source.labels[indices].astype(np.int64)
        filled: list[Filled] = []
        try:
            with encoded(self.source, indices.tolist()) as reading:
                for draw, images in zip(draws, batches, strict=True):
                    own = slice(len(filled) * len(images), (len(filled) + 1) * len(images))
                    filled.append(self._fill(draw, images, reading, Filled(labels[own], indices[own], [])))
                    if filled[-1].failure:  # the end of the run
                        break
        except UserError as error:  # of a plugin's source: the labels of the batches before may be wrong, too
            return [Filled(labels, indices, [], failure=str(error))]
        return filled

    def _fill(self, draw: Draw, images: npt.NDArray[np.uint8], reading: Iterator[Encoded], report: Filled) -> Filled:
        for first in range(0, len(images), _CHUNK):
            part = images[first : first + _CHUNK]
            for row, error in decode_each(itertools.islice(reading, len(part)), part).items():
                if failure := self._replace(first + row, error, images, report):
                    return report._replace(failure=failure)
        _augment(images, draw)
        return report

    def _replace(self, row: int, error: Exception, images: npt.NDArray[np.uint8], report: Filled) -> str | None:
        """Put another image into a row; return why there is none."""
        labels, indices, bad, _ = report
        index = int(indices[row])
        bad.append((self.source.name(index), reason(error)))
        used = self._next_good(index, images[row], bad)
        if used is None:
            name, why = bad[-1]
            number = count_of(len(bad), "image is", "images in a row are")
            return f"data.train: {number} unusable, the last: {name}: {why}"
        labels[row], indices[row] = self.source.labels[used], used
        return None

    def load(self, index: int) -> npt.NDArray[np.uint8]:
        """Return one image of the right size, (H, W, 3) uint8. Raises BadImage or OSError."""
        image = image_memory((*self.size, 3))
        decode_into(self.source.read(index), image)
        return image

    def _next_good(self, index: int, image: npt.NDArray[np.uint8], bad: list[tuple[str, str]]) -> int | None:
        """Decode the next usable image of the source, the same in every run; None: all are bad."""
        for step in range(1, min(_TRIES, len(self.source))):
            candidate = (index + step) % len(self.source)
            try:
                decode_into(self.source.read(candidate), image)
            except (BadImage, OSError) as error:
                bad.append((self.source.name(candidate), reason(error)))
            else:
                return candidate
        return None


def unusable(crops: CropBatches, indices: Iterable[int]) -> list[str]:
    """Return a line for each image that cannot be used: its name, and why."""
    lines = []
    for index in indices:
        try:
            crops.load(index)
        except (BadImage, OSError) as error:
            lines.append(f"{crops.source.name(index)}: {reason(error)}")
    return lines


def unusable_sample(crops: CropBatches) -> tuple[list[str], int]:
    """Return :func:`unusable` of a few images spread over the source, and the number of these."""
    indices = np.unique(np.linspace(0, len(crops.source) - 1, _PROBES).astype(np.int64))
    return unusable(crops, indices.tolist()), len(indices)


def check_sample(crops: CropBatches) -> None:
    """Check a few images spread over the source, so that a wrong size fails before training.

    Raises:
        UserError: more than half of them are unusable.
    """
    failures, count = unusable_sample(crops)
    if len(failures) * 2 > count:
        raise UserError(
            f"data.train: {len(failures)} of {count} sampled images are unusable, the first: {failures[0]} · "
            "align the images to this size, or set model.input_size to [height, width] of the images"
        )


def _augment(images: npt.NDArray[np.uint8], draw: Draw) -> None:
    """Apply compression, then the shift, in place."""
    if "jpeg" in draw.augment:
        rows, qualities = draw.augment["jpeg"]
        for row, quality in zip(rows, qualities[:, 0], strict=True):
            decode_into(compressed(images[row], int(quality)), images[row])
    if np.count_nonzero(draw.shift):
        for row in np.flatnonzero(draw.shift.any(axis=1)):
            images[row] = shifted(images[row], *draw.shift[row].tolist())


def compressed(image: npt.NDArray[np.uint8], quality: int) -> bytes:
    """Encode (H, W, 3) uint8 BGR as JPEG, with colour at half resolution as cameras do."""
    data = simplejpeg.encode_jpeg(image, quality, colorspace="BGR", colorsubsampling="420", fastdct=False)
    return bytes(data)


def shifted(image: npt.NDArray[np.uint8], down: int, right: int) -> npt.NDArray[np.uint8]:
    """Shift an image by whole pixels, with a replicated border. (H, W, 3) → (H, W, 3)."""
    height, width = image.shape[:2]
    up, left = max(-down, 0), max(-right, 0)
    wider = cv2.copyMakeBorder(image, max(down, 0), up, max(right, 0), left, cv2.BORDER_REPLICATE)
    return np.asarray(wider, dtype=np.uint8)[up : up + height, left : left + width]


def reason(error: Exception) -> str:
    """Return why an image could not be used, without its path."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
