"""Embed images by one checkpoint, and keep the embeddings so that each image is embedded once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..archives import DAMAGED
from ..data.images import EncodedImage, read_encoded
from ..errors import UserError, first_line
from ..files import write_whole
from ..models import Backbone, load_model
from ..plugins import code_of
from .copies import content_of
from .embed import embed_files
from .embeddings import Embeddings, oversized_rows, split_mirror
from .images import Images
from .mapped_array import map_array
from .source import Source

log = logging.getLogger(__name__)

_DIGEST_BYTES = 16
_PEOPLE = ("class_names", "numbered", "more_people", "num_images", "num_identities")  # keys of ``meta``
_FORMAT = 1  # increase it when the decoding, cutting or normalisation of images changes

Digests = npt.NDArray[np.uint8]


class Embedder(Source):
    """A network that embeds images.

    The cache has one file for each network (by the SHA-256 of its file), kind of device, precision
    and flip. The key of an embedding is the BLAKE2b hash of the image's content. So a moved or
    renamed crop is found, and a changed crop is embedded again. Embeddings are biometric data of
    the people on the images. The user decides whether to keep or delete the folder.

    Args:
        path: file of the network.
        model: the network, on its device.
        sha256: of the file of ``model``.
        device, precision, batch_size, progress: see :func:`embed_files`.
        about: facts about the network for the table and the JSON file.
        mirror: how to combine the embeddings of image and mirror image: ``"join"``, ``"add"``, or
            ``"none"`` for the image alone.
        cache: folder of the kept embeddings; None keeps none.
        variant: text that changes with anything else that the embeddings depend on, besides the
            file and the options. It is a part of the cache's file name.
    """

    def __init__(
        self,
        path: Path,
        model: Backbone,
        *,
        sha256: str,
        device: torch.device,
        about: Mapping[str, Any] | None = None,
        mirror: str = "join",
        precision: str = "fp32",
        batch_size: int = 64,
        cache: Path | None = None,
        progress: str | None = None,
        variant: str = "",
    ) -> None:
        super().__init__(path, sha256)
        self.model, self.mirror, self.flip, self.precision = model, mirror, mirror != "none", precision
        self.code = code_of(model.modules())
        variant = "-".join(part for part in (variant, self.code) if part)
        self.device, self.variant = device, variant
        self._about = {"precision": precision, **(about or {})}
        self._options: dict[str, Any] = {
            "device": device, "flip": self.flip,
            "precision": precision, "batch_size": batch_size, "progress": progress,
        }  # fmt: skip
        self._file = None
        if cache is not None:
            flipped = "flip" if self.flip else "plain"
            parts = [self.sha256[:16], device.type, precision, flipped, *([variant] if variant else []), f"v{_FORMAT}"]
            self._file = cache / f"{'-'.join(parts)}.npz"

    @classmethod
    def of_checkpoint(cls, path: Path, *, device: torch.device, **options: Any) -> Embedder:
        """Load a checkpoint. ``options`` are arguments of the class.

        Raises:
            BadCheckpoint: see :func:`load_model`.
        """
        loaded = load_model(path, device)
        about = {"step": loaded.meta.get("step"), "run": loaded.meta.get("run"), "config": loaded.meta.get("config")}
        embedder = cls(path, loaded.model, sha256=loaded.sha256, device=device, about=about, **options)
        embedder.trained_on = {key: loaded.meta[key] for key in _PEOPLE if key in loaded.meta}
        embedder.template, embedder.input_size = loaded.meta.get("template"), loaded.input_size
        return embedder

    def about(self) -> Mapping[str, Any]:
        """Return the file of the network, its SHA-256, and its facts."""
        return {"checkpoint": str(self.path), "checkpoint_sha256": self.sha256, **self._about}

    def embeddings(self, images: Images, set_name: str) -> Embeddings:  # noqa: ARG002 - tables need the name
        """Embed the images of a set."""
        features, digests = self._embed(images.found())
        return replace(split_mirror(features, self.mirror), content=content_of(digests))

    def embed(self, files: Sequence[EncodedImage]) -> npt.NDArray[np.float32]:
        """Embed image files, or read their kept embeddings.

        Returns:
            (N, D) float32, or (N, 2D) with flip; a row for each image, not normalised.

        Raises:
            UserError: images cannot be used, or the file of kept embeddings is damaged.
        """
        return self._embed(files)[0]

    def _embed(self, files: Sequence[EncodedImage]) -> tuple[npt.NDArray[np.float32], list[bytes]]:
        """Return the embeddings, and the digest of each image."""
        if self._file is None:
            read = [_Read(file) for file in files]
            return embed_files(self.model, read, **self._options), [file.digest for file in read]
        digests = [_digest(file) for file in files]
        known = self._read()
        new = {digest: file for digest, file in zip(digests, files, strict=True) if digest not in known}
        if new:
            features = embed_files(self.model, list(new.values()), num_files=len(files), **self._options)
            known.update(zip(new, features, strict=True))
            self._write(known)
        return np.stack([known[digest] for digest in digests]), digests

    def _read(self) -> dict[bytes, npt.NDArray[np.float32]]:
        assert self._file is not None
        if not self._file.exists():
            return {}
        try:
            digests, features = (np.array(map_array(self._file, key)) for key in ("digests", "features"))
            if digests.shape[1:] != (_DIGEST_BYTES,) or digests.dtype != np.uint8:
                raise ValueError(f"digests: got {digests.dtype} of shape {digests.shape}")
            wanted = (len(digests), self.model.embedding_dim * (2 if self.flip else 1))
            if features.shape != wanted or features.dtype != np.float32:
                raise ValueError(f"features: got {features.dtype} of shape {features.shape}, not float32 of {wanted}")
            good = np.isfinite(features).all(axis=1) & ~oversized_rows(features)
        except (OSError, MemoryError, *DAMAGED) as error:
            raise UserError(
                f"{self._file}: damaged file of kept embeddings ({first_line(error)}) · delete it, or use --no-cache"
            ) from None
        if not good.all():
            wrong, many = np.count_nonzero(~good), len(good)
            log.warning("%s: %d of %d embeddings are out of range and are computed again", self._file, wrong, many)
        return {row.tobytes(): feature for row, feature in zip(digests[good], features[good], strict=True)}

    def _write(self, known: dict[bytes, npt.NDArray[np.float32]]) -> None:
        assert self._file is not None
        digests = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(-1, _DIGEST_BYTES)
        features = np.stack(list(known.values()))
        try:
            write_whole(self._file, lambda file: np.savez(file, digests=digests, features=features), durable=False)
        except OSError as error:  # the embeddings are in memory, so the evaluation continues
            log.warning("%s: the embeddings cannot be written there (%s) · use --no-cache", self._file, error.strerror)


def _digest(file: EncodedImage) -> bytes:
    """Return the digest of an image, or of its name if it cannot be read.

    :func:`embed_files` then reports the unreadable files together.
    """
    try:
        data = read_encoded(file)
    except OSError:
        data = b"unreadable: " + str(file).encode()
    return _hash(data)


class _Read:
    """An image that keeps its digest when it is read."""

    __slots__ = ("digest", "file")

    def __init__(self, file: EncodedImage) -> None:
        self.file, self.digest = file, b""

    def read_bytes(self) -> bytes:
        """Return the encoded image. Raises OSError if it cannot be read."""
        data = read_encoded(self.file)
        self.digest = _hash(data)
        return data

    def __str__(self) -> str:
        return str(self.file)


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
