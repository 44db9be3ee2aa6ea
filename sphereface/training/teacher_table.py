"""Compute a teacher's embeddings of all training images once, and keep them in a file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ..archives import DAMAGED
from ..data.crops import CropBatches, unusable_sample
from ..data.images import BadImage
from ..data.sources import Source
from ..errors import UserError, first_line, listed
from ..evaluation.embed import embed_batch
from ..evaluation.embedder import Embedder
from ..files import locked_in_turn, temporary_name, write_whole
from .distributed import World

log = logging.getLogger(__name__)

_BLOCK = 1024  # images per block; each finished block is marked
_BATCH = 64
_READ = 20_000  # images whose bytes determine the file's name
_FOLDER = "teachers"
_KEY = 20  # hexadecimal digits of a file's name
_DIGEST = 16  # bytes
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Rows = npt.NDArray[np.float32]


def kept_embeddings(embedder: Embedder, source: Source, runs_dir: Path, world: World) -> tuple[Rows, Path]:
    """Return a teacher's embeddings of a training set, from a file that is made if necessary.

    The file is ``runs_dir/teachers/….npy``. Its name depends on the teacher, its use, and the
    content of the images. A second file has a digest of each finished block of images. A block that
    does not match its digest is computed again. Several processes share the blocks. After a kill,
    the next run continues.

    Args:
        embedder: the teacher; the embeddings of image and mirrored image are added if it uses both.
        source: N images. One that cannot be decoded gets NaN: training does not use it either.
        runs_dir: the same folder for all processes.
        world: the processes, which call this together.

    Returns:
        (N, T) float32, read-only and mapped from the file, and the path of the file.

    Raises:
        UserError: images of another size than the teacher reads, or a folder that cannot be
            written.
    """
    crops = CropBatches(source, embedder.model.input_spec.size)
    _check_crops(crops, embedder.path)
    path, marks = _files(embedder, source, runs_dir)
    try:
        if world.first:
            with locked_in_turn(path.with_suffix(".lock")):  # else a run could fill a file that another replaced
                _make(path, marks, len(source), embedder.model.embedding_dim)
        world.all_reduce_sum(0.0)  # all wait for the file
        rows, done = np.load(path, mmap_mode="r+"), _marks(marks, "r+")
    except (OSError, *DAMAGED) as error:
        raise UserError(
            f"train.teacher: {path}: cannot be used ({first_line(error)}) · delete it, or set another runs_dir"
        ) from None
    missing = world.broadcast(_missing(rows, done, path) if world.first else np.empty(0, np.int64))
    if len(missing):
        log.info("teacher: %s embeds %s images, kept in %s", embedder.path, f"{len(source):,}", path)
        _fill(embedder, crops, rows, done, missing[world.rank :: world.size], path, show=world.first)
    world.all_reduce_sum(0.0)
    if not _marks(marks, "r").any(axis=1).all():
        raise UserError(
            f"runs_dir: {runs_dir} is not the same folder for all processes · allowed with train.teacher: a shared one"
        )
    return np.load(path, mmap_mode="r"), path


def left_to_embed(embedder: Embedder, source: Source, runs_dir: Path, world: World) -> tuple[int, float]:
    """Return how many images :func:`kept_embeddings` would embed, and about how long it takes.

    The time is in seconds. Nothing is written. Two batches are embedded, and the second is timed.

    Raises:
        UserError: images of another size than the teacher reads.
    """
    crops = CropBatches(source, embedder.model.input_spec.size)
    _check_crops(crops, embedder.path)
    path, marks = _files(embedder, source, runs_dir)
    left = images = len(source)
    sizes = np.diff([*range(0, images, _BLOCK), images])
    with contextlib.suppress(OSError, *DAMAGED):  # such as digests of another number of blocks
        if _shape_of(path) == (images, embedder.model.embedding_dim):
            left = int(sizes[~_marks(marks, "r").any(axis=1)].sum())
    if not left:
        return 0, 0.0
    batch, seconds = range(min(_BATCH, images)), 0.0
    with _decoding() as pool, torch.inference_mode():
        embedder.model.eval()
        for _ in range(2):
            start = time.perf_counter()
            _embedded(embedder, crops, batch, pool)
            seconds = time.perf_counter() - start
    return left, seconds * left / len(batch) / world.size


def _files(embedder: Embedder, source: Source, runs_dir: Path) -> tuple[Path, Path]:
    """Return the paths of the embeddings and of the digests."""
    path = runs_dir / _FOLDER / f"{embedder.path.stem[:40]}-{_key(embedder, source)}.npy"
    return path, path.with_suffix(".done")


def _decoding() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="decode")


def _marks(path: Path, mode: Literal["r", "r+"]) -> npt.NDArray[np.uint8]:
    """Map the (blocks, _DIGEST) uint8 digests; an unfinished block has zeros."""
    return np.memmap(path, dtype=np.uint8, mode=mode).reshape(-1, _DIGEST)


def _missing(rows: Rows, done: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.int64]:
    """Return the unfinished blocks, and those that differ from their digests, and unmark these."""
    marked = np.flatnonzero(done.any(axis=1))
    wrong = [block for block in marked.tolist() if done[block].tobytes() != _digest(rows, block, path)]
    if wrong:
        log.warning(
            "teacher: %s: %d of %d blocks of embeddings were changed after they were computed: they are embedded again",
            *(path, len(wrong), len(done)),
        )
        done[wrong] = 0
    return np.flatnonzero(~done.any(axis=1))


def _digest(rows: Rows, block: int, path: Path) -> bytes:
    """Return the digest of a block, with the key in the file's name as the key of the hash."""
    key = path.stem[-_KEY:].encode()
    part = rows[block * _BLOCK : (block + 1) * _BLOCK]
    return hashlib.blake2b(part.data, digest_size=_DIGEST, key=key).digest()


def _make(path: Path, marks: Path, num_images: int, dim: int) -> None:
    """Create both files if they do not exist, the digests last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if _shape_of(path) != (num_images, dim):
        marks.unlink(missing_ok=True)
        part = temporary_name(path)
        try:
            np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=(num_images, dim)).flush()
            _reserve(part)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    size = -(-num_images // _BLOCK) * _DIGEST
    if not marks.exists() or marks.stat().st_size != size:
        write_whole(marks, bytes(size))


def _reserve(path: Path) -> None:
    """Reserve the disk space of a file.

    Writing to a mapped file on a full disk would kill the process (SIGBUS).
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:  # some file systems cannot reserve
        if error.errno in _FULL:
            raise


def _shape_of(path: Path) -> tuple[int, ...] | None:
    """Return the shape of the float32 array in a file; None if it is missing or damaged."""
    try:
        kept = np.load(path, mmap_mode="r")
    except (OSError, *DAMAGED):
        return None
    return kept.shape if kept.dtype == np.float32 and kept.flags.c_contiguous else None


def _fill(
    embedder: Embedder,
    crops: CropBatches,
    rows: Rows,
    done: npt.NDArray[np.uint8],
    blocks: npt.NDArray[np.int64],
    path: Path,
    *,
    show: bool,
) -> None:
    """Embed blocks of images, and mark each one after its rows are on the disk."""
    with (
        _decoding() as pool,
        torch.inference_mode(),
        tqdm(total=len(blocks) * _BLOCK, desc="teacher", unit="img", disable=None if show else True) as bar,
    ):
        embedder.model.eval()
        for block in blocks.tolist():
            start, stop = block * _BLOCK, min((block + 1) * _BLOCK, len(crops.source))
            for first in range(start, stop, _BATCH):
                last = min(first + _BATCH, stop)
                rows[first:last] = _embedded(embedder, crops, range(first, last), pool)
                bar.update(last - first)
            rows.flush()  # type: ignore[attr-defined]
            done[block] = np.frombuffer(_digest(rows, block, path), dtype=np.uint8)


def _embedded(embedder: Embedder, crops: CropBatches, indices: range, pool: ThreadPoolExecutor) -> Rows:
    """Return (n, T) embeddings, with NaN for images that cannot be decoded."""
    images = np.zeros((len(indices), *crops.size, 3), dtype=np.uint8)
    usable = np.array(list(pool.map(lambda place: _load(crops, indices[place], images[place]), range(len(indices)))))
    found = embed_batch(embedder.model, images, embedder.device, embedder.flip)
    if embedder.flip:
        found = found[:, : found.shape[1] // 2] + found[:, found.shape[1] // 2 :]
    found[~usable] = np.nan
    return found


def _load(crops: CropBatches, index: int, image: npt.NDArray[np.uint8]) -> bool:
    try:
        image[:] = crops.load(index)
    except (BadImage, OSError):
        return False
    return True


def _check_crops(crops: CropBatches, path: Path) -> None:
    """Check on a sample that the teacher can read the images."""
    failures, count = unusable_sample(crops)
    if len(failures) * 2 > count:
        height, width = crops.size
        raise UserError(
            f"train.teacher: {path} reads crops of {height}×{width}, {len(failures)} of {count} sampled images "
            "of data.train are unusable for it · align the images to the teacher's crops (model.input_size may be "
            f"smaller in one direction), or give train.teacher.embeddings:{listed(failures[:3])}"
        )


def _key(embedder: Embedder, source: Source) -> str:
    """Return a digest of the teacher, its use, the number of images, and up to 20,000 images."""
    digest = hashlib.sha256(f"{embedder.sha256} {embedder.variant} {embedder.flip} {len(source)}".encode())
    for index in _spread(len(source)):
        try:
            digest.update(hashlib.blake2b(source.read(index), digest_size=16).digest())
        except (BadImage, OSError):
            digest.update(b"cannot be read")
    return digest.hexdigest()[:_KEY]


def _spread(number: int) -> Iterator[int]:
    count = min(number, _READ)
    return (index * number // count for index in range(count))
