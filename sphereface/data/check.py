"""What is wrong with a training set: every image read and decoded once, then judged by identity."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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

_CHUNK = 64  # images handed to a worker at a time
_DIGEST_BYTES = 16  # of pixels: two of 10⁹ different images agree with a chance of 10⁻²¹


class CheckedImage(NamedTuple):
    """One image as it was found: height and width in pixels, or the reason why there are none."""

    height: int
    width: int
    grey: bool
    digest: bytes
    reason: str
    hash: tuple[int, ...] = (0, 0)


@dataclass(frozen=True)
class Seen:
    """All N images of a source. Memory: 41 bytes an image.

    Attributes:
        sizes: (N, 2) int32 height and width in pixels; 0 where unusable.
        grey: (N,) bool, all three channels alike.
        digests: (N,) bytes, of the pixels: files that differ in their comments alone have the same.
        reasons: index → why an image cannot be decoded.
        hashes: (N, 2) uint64, perceptual, see :mod:`~sphereface.data.near_duplicates`; 0 where
            unusable.
    """

    sizes: npt.NDArray[np.int32]
    grey: npt.NDArray[np.bool_]
    digests: npt.NDArray[np.bytes_]
    reasons: dict[int, str]
    hashes: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Limits:
    """What is asked of a training set.

    Attributes:
        size: (height, width) in pixels; None: the size that most images have.
        min_images, max_images: of an identity.
    """

    size: tuple[int, int] | None = None
    min_images: int = 2
    max_images: int = 1000


@dataclass(frozen=True)
class Findings:
    """What was found in N images of C identities; images by index, identities by label.

    Attributes:
        size: (height, width) that was asked for.
        unreadable, truncated: no image, and only the beginning of one.
        wrong_size: images of another size.
        repeated: groups of images with the same pixels, all of one identity.
        shared: groups of images with the same pixels under two or more identities.
        grey: usable images without colour; nothing wrong with them.
        counts: (C,) int64 images of each identity that are left when all of the above but grey ones
            go.
        too_few, too_many: identities whose ``counts`` are outside the limits.
        gaps: numbers between the lowest and the highest label that no image has; training closes
            them.
        keep: (N,) bool, the clean set: without all of the above but the first of each group in
            ``repeated``, grey images and identities with too many.
    """

    size: tuple[int, int]
    unreadable: list[int]
    truncated: list[int]
    wrong_size: list[int]
    repeated: list[list[int]]
    shared: list[list[int]]
    grey: list[int]
    counts: npt.NDArray[np.int64]
    too_few: list[int]
    too_many: list[int]
    gaps: list[int]
    keep: npt.NDArray[np.bool_]

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong. Grey images and gaps between labels are not."""
        wrong = (self.unreadable, self.truncated, self.wrong_size, self.repeated, self.shared, self.too_few)
        return not any((*wrong, self.too_many))


def look(data: bytes) -> CheckedImage:
    """Decode one image and say what it is."""
    try:
        image = decode(data)
    except BadImage as error:
        return CheckedImage(0, 0, False, b"", str(error))
    blue, green, red = cv2.split(image)
    grey = np.array_equal(blue, green) and np.array_equal(green, red)
    digest = hashlib.blake2b(image.data, digest_size=_DIGEST_BYTES, salt=np.uint64(image.shape[1]).tobytes()).digest()
    return CheckedImage(image.shape[0], image.shape[1], grey, digest, "", tuple(perceptual_hash(image).tolist()))


def inspect(source: Source, *, workers: int = 2, progress: bool = False) -> Seen:
    """Read and decode every image of a source.

    Args:
        source: N images.
        workers: processes; 0: this one.
        progress: draw a bar on stderr.
    """
    total = len(source)
    seen = Seen(
        np.zeros((total, 2), np.int32), np.zeros(total, bool), np.zeros(total, f"S{_DIGEST_BYTES}"), {},
        np.zeros((total, 2), np.uint64),
    )  # fmt: skip
    chunks = [range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]
    with tqdm(total=total, desc="checking", unit="img", disable=not progress, leave=False) as bar:
        for chunk, images in zip(chunks, _look_at_all(source, chunks, workers), strict=True):
            for index, image in zip(chunk, images, strict=True):
                seen.sizes[index] = image.height, image.width
                seen.grey[index], seen.digests[index] = image.grey, image.digest
                seen.hashes[index] = image.hash
                if image.reason:
                    seen.reasons[index] = image.reason
            bar.update(len(chunk))
    return seen


def judge(source: Source, seen: Seen, limits: Limits) -> Findings:
    """Say what is wrong with a source.

    Of images with the same pixels, the first stays if all are of one identity; if they are of
    several, nobody knows whose it is, and all go.

    Args:
        source: as :func:`inspect` saw it.
        seen: what it saw.
        limits: what is asked for.

    Raises:
        UserError: not one image can be decoded.
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
        counts=counts,
        too_few=np.flatnonzero(few).tolist(),
        too_many=np.flatnonzero(counts > limits.max_images).tolist(),
        gaps=[] if source.named else _gaps([int(name) for name in source.class_names if name.isdecimal()]),
        keep=keep & ~few[labels],
    )


def _commonest(source: Source, seen: Seen) -> tuple[int, int]:
    sizes = Counter(map(tuple, seen.sizes[seen.sizes[:, 0] > 0].tolist()))
    if not sizes:
        index, reason = next(iter(seen.reasons.items()))
        raise UserError(
            f"none of {len(source)} images can be decoded, the first: {source.name(index)}: {reason} · "
            "allowed: JPEG, PNG, BMP, WebP, PGM, PPM"
        )
    height, width = min(sizes, key=lambda size: (-sizes[size], size))
    return height, width


def _same_pixels(
    digests: npt.NDArray[np.bytes_], labels: npt.NDArray[Any], usable: npt.NDArray[np.int64]
) -> tuple[list[list[int]], list[list[int]]]:
    """(groups of one identity, groups of several), each in the order of the source."""
    order = usable[np.argsort(digests[usable], kind="stable")]  # equal ones side by side, the first in front
    starts = np.flatnonzero(np.append(True, digests[order][1:] != digests[order][:-1]))
    ends = np.append(starts[1:], len(order))
    repeated: list[list[int]] = []
    shared: list[list[int]] = []
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        group = order[start:end].tolist()
        (repeated if len(set(labels[group].tolist())) == 1 else shared).append(group)
    return sorted(repeated), sorted(shared)


def _gaps(numbers: Sequence[int]) -> list[int]:
    """The numbers that lie between those given: at most as many as are given, for a label may be
    anything.
    """
    gaps: list[int] = []
    for low, high in zip(sorted(numbers), sorted(numbers)[1:], strict=False):
        gaps += range(low + 1, min(high, low + 2 + len(numbers) - len(gaps)))
    return gaps


class _Inspector(Dataset[list[CheckedImage]]):
    """Looks at the images of one chunk; a source travels to each worker once."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, chunk: range) -> list[CheckedImage]:
        return [self._look(index) for index in chunk]

    def _look(self, index: int) -> CheckedImage:
        try:
            return look(self.source.read(index))
        except OSError as error:
            return CheckedImage(0, 0, False, b"", f"cannot be read ({error.strerror or error})")


def _look_at_all(source: Source, chunks: list[range], workers: int) -> Iterator[list[CheckedImage]]:
    as_is: Callable[[Any], Any] = _as_is
    loader = DataLoader(
        _Inspector(source),
        batch_size=None,  # the sampler yields whole chunks
        sampler=chunks,
        num_workers=workers,
        collate_fn=as_is,
        worker_init_fn=_one_thread,
    )
    yield from loader


def _as_is(images: Any) -> Any:
    return images


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)
