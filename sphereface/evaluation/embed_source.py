"""Embed images of a training set in parts, which are kept so that a killed run can resume."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..data.images import BadImage, centre_crop, decode
from ..data.sources import Source
from ..errors import UserError, first_line
from ..files import read_plain, write_whole
from .embedder import Embedder

log = logging.getLogger(__name__)

_PART = 4096  # images in a part
_DIGEST_BYTES = 16
_TRIED = 100  # images to try until one can be decoded


class SourceImage:
    """One image of a source. It is read when it is needed."""

    def __init__(self, source: Source, index: int) -> None:
        self.source, self.index = source, index

    def read_bytes(self) -> bytes:
        """Return the encoded image. Raises OSError if it cannot be read."""
        return self.source.read(self.index)

    def __str__(self) -> str:
        return self.source.name(self.index)


def check_size(source: Source, embedder: Embedder) -> None:
    """Check that a network can read the first image of a source that can be decoded.

    Raises:
        UserError: the image has another size.
    """
    for index in range(min(_TRIED, len(source))):
        try:
            image = decode(source.read(index))
        except (BadImage, OSError):
            continue
        try:
            centre_crop(image, embedder.model.input_spec.size)
        except BadImage as error:
            raise UserError(
                f"--ckpt: {source.name(index)}: {first_line(error)} · allowed: aligned crops of the network's size · "
                "make them with sphereface align, or omit --ckpt"
            ) from None
        return


def embed_source(
    embedder: Embedder, source: Source, rows: npt.NDArray[np.int64], digests: npt.NDArray[np.bytes_], kept: Path
) -> npt.NDArray[np.float32]:
    """Embed some images of a source; read the parts that an earlier run embedded.

    Args:
        embedder: without a cache and without mirror images.
        source: N images.
        rows: (K,) numbers of the images to embed, which have the size that the network reads.
        digests: (K,) bytes that change with the content of the images.
        kept: folder of the parts, which are biometric data. A damaged file is replaced.

    Returns:
        (K, D) float32, as the network returns them.

    Raises:
        UserError: images cannot be used any more.
    """
    found = np.empty((len(rows), embedder.model.embedding_dim), np.float32)
    with tqdm(total=len(rows), desc="embedding", unit="img", disable=None, leave=False) as bar:
        for start in range(0, len(rows), _PART):
            part = slice(start, start + _PART)
            key = f"{embedder.sha256} {embedder.device.type} {len(digests[part])} ".encode() + digests[part].tobytes()
            file = kept / f"{hashlib.blake2b(key, digest_size=_DIGEST_BYTES).hexdigest()}.part"
            if not _read(file, found[part]):
                found[part] = embedder.embed([SourceImage(source, row) for row in rows[part].tolist()])
                _write(file, found[part])
            bar.update(len(found[part]))
    return found


def _read(file: Path, out: npt.NDArray[np.float32]) -> bool:
    """Read a part, numbers and digest, into ``out``; return False if it is missing or damaged."""
    try:
        data = read_plain(file)
    except OSError:
        return False
    numbers = data[:-_DIGEST_BYTES]
    if len(numbers) != out.nbytes or _digest(numbers) != data[-_DIGEST_BYTES:]:
        log.warning("%s: the file is damaged, so its images are embedded again", file)
        return False
    out[...] = np.frombuffer(numbers, np.float32).reshape(out.shape)
    return True


def _write(file: Path, rows: npt.NDArray[np.float32]) -> None:
    try:
        write_whole(file, rows.tobytes() + _digest(rows.tobytes()), durable=False)
    except OSError as error:  # the embeddings are in memory, and the check can finish
        log.warning("%s: the embeddings cannot be written there (%s)", file, error.strerror)


def _digest(numbers: bytes) -> bytes:
    return hashlib.blake2b(numbers, digest_size=_DIGEST_BYTES).digest()
