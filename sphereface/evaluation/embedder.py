"""Embeddings of one checkpoint, each image embedded once: what was embedded before comes from a
file.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..data.images import EncodedImage, read_encoded
from ..errors import UserError, first_line
from ..files import DAMAGED, write_whole
from ..models import Backbone, load_model
from .embed import embed_files
from .embeddings import Embeddings, oversized_rows, split_mirror
from .images import Images
from .mapped_array import map_array
from .source import Source

log = logging.getLogger(__name__)

_DIGEST_BYTES = 16
_FORMAT = 1  # raise it when images are decoded, cut or normalised in another way

Digests = npt.NDArray[np.uint8]


class Embedder(Source):
    """A network that embeds images; see :func:`embed_files` for the arguments not named here.

    Embeddings are kept in one file for each network (by the SHA-256 of its file), kind of device,
    precision and flip, and found there by the content of the image (its BLAKE2b), so a moved or
    renamed crop is known and a changed one is not. They are biometric data of the people on the
    images: the folder is the user's, to keep or delete.

    Args:
        path: file of the network.
        model: the network, on its device.
        sha256: of the file that ``model`` was read from.
        about: facts of it for table and JSON.
        fusion: how image and mirror image are put together, see
            :data:`~sphereface.evaluation.embeddings.FUSIONS`.
        cache: folder of the kept embeddings; None keeps none.
        variant: names what else the embeddings depend on, besides the file and the options; part of
            the cache's name.
    """

    def __init__(
        self,
        path: Path,
        model: Backbone,
        *,
        sha256: str,
        device: torch.device,
        about: Mapping[str, Any] | None = None,
        flip: bool = True,
        fusion: str = "join",
        precision: str = "fp32",
        batch_size: int = 64,
        cache: Path | None = None,
        progress: str | None = None,
        variant: str = "",
    ) -> None:
        super().__init__(path, sha256)
        self.model, self.flip, self.fusion, self.precision = model, flip, fusion, precision
        self.device, self.variant = device, variant
        self._about = about or {}
        self._options: dict[str, Any] = {
            "device": device, "flip": flip,
            "precision": precision, "batch_size": batch_size, "progress": progress,
        }  # fmt: skip
        self._file = None
        if cache is not None:
            flipped = "flip" if flip else "plain"
            parts = [self.sha256[:16], device.type, precision, flipped, *([variant] if variant else []), f"v{_FORMAT}"]
            self._file = cache / f"{'-'.join(parts)}.npz"

    @classmethod
    def of_checkpoint(cls, path: Path, *, device: torch.device, **options: Any) -> Embedder:
        """Load a checkpoint. ``options`` are those of the class.

        Raises:
            BadCheckpoint: see :func:`load_model`.
        """
        loaded = load_model(path, device)
        about = {"step": loaded.meta.get("step"), "run": loaded.meta.get("run"), "config": loaded.meta.get("config")}
        return cls(path, loaded.model, sha256=loaded.sha256, device=device, about=about, **options)

    def about(self) -> Mapping[str, Any]:
        """The file, its SHA-256, and what it says of itself."""
        return {
            "checkpoint": str(self.path),
            "checkpoint_sha256": self.sha256,
            "precision": self.precision,
            **self._about,
        }

    def embeddings(self, images: Images, set_name: str) -> Embeddings:  # noqa: ARG002 - tables need the name
        """Embed the images of a set."""
        return split_mirror(self.embed(images.found()), self.flip, self.fusion)

    def embed(self, files: Sequence[EncodedImage]) -> npt.NDArray[np.float32]:
        """(N, D) or with flip (N, 2D) float32, a row for each image; not normalised.

        Raises:
            UserError: images that cannot be used, or a damaged file of kept embeddings.
        """
        if self._file is None:
            return embed_files(self.model, files, **self._options)
        digests = [_digest(file) for file in files]
        known = self._read()
        new = {digest: file for digest, file in zip(digests, files, strict=True) if digest not in known}
        if new:
            features = embed_files(self.model, list(new.values()), num_files=len(files), **self._options)
            known.update(zip(new, features, strict=True))
            self._write(known)
        return np.stack([known[digest] for digest in digests])

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
            log.warning("%s: %d of %d embeddings are out of range: computed again", self._file, wrong, many)
        return {row.tobytes(): feature for row, feature in zip(digests[good], features[good], strict=True)}

    def _write(self, known: dict[bytes, npt.NDArray[np.float32]]) -> None:
        assert self._file is not None
        digests = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(-1, _DIGEST_BYTES)
        features = np.stack(list(known.values()))
        try:
            write_whole(self._file, lambda file: np.savez(file, digests=digests, features=features), durable=False)
        except OSError as error:  # they are still in memory, and the evaluation continues
            log.warning(
                "%s: embeddings cannot be kept there (%s) · --no-cache does not try", self._file, error.strerror
            )


def _digest(file: EncodedImage) -> bytes:
    """A file that cannot be read has its name's digest: :func:`embed_files` then lists it with the
    others.
    """
    try:
        data = read_encoded(file)
    except OSError:
        data = b"unreadable: " + str(file).encode()
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
