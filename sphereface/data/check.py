"""Check a training set: decode every image once, then judge the set by identity."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..errors import UserError
from .images import BadImage, decode
from .near_duplicates import perceptual_hash
from .sources import Source
from .sources.selection import other_spellings

_CHUNK = 64  # images per chunk of a worker
_DIGEST_BYTES = 16  # any two of 10⁹ different images agree with a probability of 10⁻²¹


class CheckedImage(NamedTuple):
    """One checked image: its height and width in pixels, or the reason why it is unusable."""

    height: int
    width: int
    grey: bool
    digest: bytes
    reason: str
    hash: tuple[int, ...] = (0, 0)


@dataclass(frozen=True)
class Inspection:
    """All N images of a source. Memory: 41 bytes an image.

    Attributes:
        sizes: (N, 2) int32 height and width in pixels; 0 if unusable.
        grey: (N,) bool, all three channels are equal.
        digests: (N,) bytes, of the pixels: files that differ only in comments have the same digest.
        reasons: index → why an image cannot be decoded.
        hashes: (N, 2) uint64, perceptual, see :mod:`~sphereface.data.near_duplicates`; 0 if
            unusable.
    """

    sizes: npt.NDArray[np.int32]
    grey: npt.NDArray[np.bool_]
    digests: npt.NDArray[np.bytes_]
    reasons: dict[int, str]
    hashes: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Limits:
    """The requirements for a training set.

    Attributes:
        size: (height, width) in pixels; None: the size that most images have.
        min_images, max_images: number of images of an identity.
    """

    size: tuple[int, int] | None = None
    min_images: int = 2
    max_images: int = 1000


@dataclass(frozen=True)
class Findings:
    """The findings in N images of C identities; images by index, identities by label.

    Attributes:
        size: the required (height, width).
        unreadable, truncated: files that are not an image, and only the beginning of one.
        wrong_size: images of another size.
        repeated: groups of images with the same pixels, all of one identity.
        shared: groups of images with the same pixels under two or more identities.
        grey: usable images without colour; they are not a fault.
        spellings: groups of identities whose names are one in several spellings; they are not a
            fault.
        counts: (C,) int64 images of each identity without all of the above, grey images included.
        too_few, too_many: identities whose ``counts`` are outside the limits.
        gaps: numbers between the lowest and the highest label that no image has; training closes
            them.
        keep: (N,) bool, the clean set: without all of the above, except the first image of each
            group in ``repeated``, grey images, and identities with too many.
    """

    size: tuple[int, int]
    unreadable: list[int]
    truncated: list[int]
    wrong_size: list[int]
    repeated: list[list[int]]
    shared: list[list[int]]
    grey: list[int]
    spellings: list[list[int]]
    counts: npt.NDArray[np.int64]
    too_few: list[int]
    too_many: list[int]
    gaps: list[int]
    keep: npt.NDArray[np.bool_]

    @property
    def clean(self) -> bool:
        """Whether the set has no faults. Grey images, gaps and spellings are not faults."""
        wrong = (self.unreadable, self.truncated, self.wrong_size, self.repeated, self.shared, self.too_few)
        return not any((*wrong, self.too_many))


def inspect_image(data: bytes) -> CheckedImage:
    """Decode one image and describe it."""
    try:
        image = decode(data)
    except BadImage as error:
        return CheckedImage(0, 0, False, b"", str(error))
    blue, green, red = cv2.split(image)
    grey = np.array_equal(blue, green) and np.array_equal(green, red)
    width = np.uint64(image.shape[1]).tobytes()
    digest = hashlib.sha256(width + image.data).digest()[:_DIGEST_BYTES]  # faster than BLAKE2 on most processors
    return CheckedImage(image.shape[0], image.shape[1], grey, digest, "", tuple(perceptual_hash(image).tolist()))


def inspect(source: Source, *, workers: int = 2, progress: bool = False) -> Inspection:
    """Read and decode every image of a source.

    Args:
        source: N images.
        workers: number of processes; 0: this one.
        progress: show a progress bar on stderr.
    """
    total = len(source)
    seen = Inspection(
        np.zeros((total, 2), np.int32), np.zeros(total, bool), np.zeros(total, f"S{_DIGEST_BYTES}"), {},
        np.zeros((total, 2), np.uint64),
    )  # fmt: skip
    chunks = [range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]
    loader = DataLoader(
        _Inspector(source),
        batch_size=None,  # the sampler yields whole chunks
        sampler=chunks,
        num_workers=workers,
        collate_fn=_as_is,
        worker_init_fn=_one_thread,
    )
    with tqdm(total=total, desc="checking", unit="img", disable=not progress, leave=False) as bar:
        for chunk, images in zip(chunks, loader, strict=True):
            for index, image in zip(chunk, images, strict=True):
                seen.sizes[index] = image.height, image.width
                seen.grey[index], seen.digests[index] = image.grey, image.digest
                seen.hashes[index] = image.hash
                if image.reason:
                    seen.reasons[index] = image.reason
            bar.update(len(chunk))
    return seen


def judge(source: Source, seen: Inspection, limits: Limits) -> Findings:
    """Find the faults of a source.

    Of images with the same pixels and one identity, the first is kept. If they have several
    identities, the right one is unknown, and none is kept.

    Args:
        source: the source that :func:`inspect` read.
        seen: its result.
        limits: the requirements.

    Raises:
        UserError: no image can be decoded.
    """
    size = limits.size or _commonest(source, seen)
    keep = (seen.sizes == size).all(axis=1)
    wrong_size = np.flatnonzero((seen.sizes[:, 0] > 0) & ~keep).tolist()
    labels = np.asarray(source.labels)
    repeated, shared = _same_pixels(seen.digests, labels, np.flatnonzero(keep))
    keep[[index for group in repeated for index in group[1:]]] = False
    keep[[index for group in shared for index in group]] = False
    counts = np.bincount(labels[keep], minlength=len(source.class_names))
    few = counts < limits.min_images
    return Findings(
        size=size,
        unreadable=[index for index, reason in seen.reasons.items() if "truncated" not in reason],
        truncated=[index for index, reason in seen.reasons.items() if "truncated" in reason],
        wrong_size=wrong_size,
        repeated=repeated,
        shared=shared,
        grey=np.flatnonzero(seen.grey & keep).tolist(),
        spellings=other_spellings(source.class_names) if source.named else [],
        counts=counts,
        too_few=np.flatnonzero(few).tolist(),
        too_many=np.flatnonzero(counts > limits.max_images).tolist(),
        gaps=[] if source.named else _gaps([int(name) for name in source.class_names if name.isdecimal()]),
        keep=keep & ~few[labels],
    )


def _commonest(source: Source, seen: Inspection) -> tuple[int, int]:
    sizes = Counter(map(tuple, seen.sizes[seen.sizes[:, 0] > 0].tolist()))
    if not sizes:
        index, reason = next(iter(seen.reasons.items()))
        raise UserError(
            f"none of {len(source)} images can be decoded, the first: {source.name(index)}: {reason} · "
            "allowed: JPEG, PNG, BMP, WebP, PGM, PPM, HEIC"
        )
    height, width = min(sizes, key=lambda size: (-sizes[size], size))
    return height, width


def _same_pixels(
    digests: npt.NDArray[np.bytes_], labels: npt.NDArray[Any], usable: npt.NDArray[np.int64]
) -> tuple[list[list[int]], list[list[int]]]:
    """Return (groups of one identity, groups of several), each in the order of the source."""
    order = usable[np.argsort(digests[usable], kind="stable")]  # equal digests are adjacent, in the order of the source
    starts = np.flatnonzero(np.append(True, digests[order][1:] != digests[order][:-1]))
    ends = np.append(starts[1:], len(order))
    repeated: list[list[int]] = []
    shared: list[list[int]] = []
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        group = order[start:end].tolist()
        (repeated if len(set(labels[group].tolist())) == 1 else shared).append(group)
    return sorted(repeated), sorted(shared)


def _gaps(numbers: Sequence[int]) -> list[int]:
    """Return the missing numbers between those given: at most as many as are given.

    A label can be any number, so the result must be bounded.
    """
    gaps: list[int] = []
    for low, high in zip(sorted(numbers), sorted(numbers)[1:], strict=False):
        gaps += range(low + 1, min(high, low + 2 + len(numbers) - len(gaps)))
    return gaps


class _Inspector(Dataset[list[CheckedImage]]):
    """Check the images of one chunk; each worker receives the source once."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, chunk: range) -> list[CheckedImage]:
        return [self._look(index) for index in chunk]

    def _look(self, index: int) -> CheckedImage:
        try:
            return inspect_image(self.source.read(index))
        except OSError as error:
            return CheckedImage(0, 0, False, b"", f"cannot be read ({error.strerror or error})")


def _as_is(images: Any) -> Any:
    return images


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)
