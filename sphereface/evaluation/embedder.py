"""Embeddings of one checkpoint, each picture embedded once: what was embedded before comes from a file."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..checkpoint import sha256_of
from ..data.images import Picture
from ..errors import UserError
from ..files import write_whole
from ..models import LoadedModel, load_model
from .embed import embed_files

_DIGEST_BYTES = 16
_FORMAT = 1  # raise it when pictures are decoded, cut or normalised in another way

Digests = npt.NDArray[np.uint8]


class Embedder:
    """A checkpoint that embeds pictures; see :func:`embed_files` for the arguments not named here.

    Embeddings are kept in one file for each checkpoint (by its SHA-256), kind of device, precision and flip, and found
    there by the content of the picture (its BLAKE2b), so a moved or renamed crop is known and a changed one is not.
    They are biometric data of the people on the pictures: the folder is the user's, to keep or delete.

    Args:
        checkpoint: ``….pt``.
        cache: folder of the kept embeddings; None keeps none.

    Raises:
        BadCheckpoint: see :func:`load_model`.
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        device: torch.device,
        flip: bool = True,
        precision: str = "fp32",
        batch_size: int = 64,
        cache: Path | None = None,
        progress: str | None = None,
    ) -> None:
        self.checkpoint, self.flip, self.precision = checkpoint, flip, precision
        self.loaded: LoadedModel = load_model(checkpoint, device)
        self._options: dict[str, Any] = {
            "device": device, "flip": flip,
            "precision": precision, "batch_size": batch_size, "progress": progress,
        }  # fmt: skip
        self._file = None
        if cache is not None:
            flipped = "flip" if flip else "plain"
            name = f"{sha256_of(checkpoint)[:16]}-{device.type}-{precision}-{flipped}-v{_FORMAT}.npz"
            self._file = cache / name

    def embed(self, files: Sequence[Picture]) -> npt.NDArray[np.float32]:
        """(N, D) or with flip (N, 2D) float32, a row for each picture; not normalised.

        Raises:
            UserError: pictures that cannot be used, or a damaged file of kept embeddings.
        """
        if self._file is None:
            return embed_files(self.loaded.model, files, **self._options)
        digests = [_digest(file) for file in files]
        known = self._read()
        new = {digest: file for digest, file in zip(digests, files, strict=True) if digest not in known}
        if new:
            features = embed_files(self.loaded.model, list(new.values()), **self._options)
            known.update(zip(new, features, strict=True))
            self._write(known)
        return np.stack([known[digest] for digest in digests])

    def _read(self) -> dict[bytes, npt.NDArray[np.float32]]:
        assert self._file is not None
        if not self._file.exists():
            return {}
        try:
            with np.load(self._file, allow_pickle=False) as kept:
                digests, features = kept["digests"], kept["features"]
            return {row.tobytes(): feature for row, feature in zip(digests, features, strict=True)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{self._file}: damaged file of kept embeddings ({error}) · delete it, or use --no-cache"
            ) from None

    def _write(self, known: dict[bytes, npt.NDArray[np.float32]]) -> None:
        assert self._file is not None
        digests = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(-1, _DIGEST_BYTES)
        features = np.stack(list(known.values()))
        try:
            write_whole(self._file, lambda file: np.savez(file, digests=digests, features=features), durable=False)
        except OSError as error:
            raise UserError(
                f"{self._file}: embeddings cannot be kept there ({error.strerror}) · use --no-cache"
            ) from error


def _digest(file: Picture) -> bytes:
    """A file that cannot be read has its name's digest: :func:`embed_files` then lists it with the others."""
    try:
        data = file.read_bytes()
    except OSError:
        data = b"unreadable: " + str(file).encode()
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
