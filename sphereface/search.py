"""Galleries of embeddings, and who in one is most like somebody: exactly, or by an index where it is too large."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .files import write_whole

Embeddings = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_FORMAT = 1
_BLOCK = 65536  # gallery rows compared at a time: 8 queries × 65,536 scores are 2 MB
_LINKS, _BREADTH = 32, 128  # of the HNSW graph: neighbours of a node, candidates held while building and searching


@dataclass(frozen=True)
class Gallery:
    """Embeddings of one checkpoint with the pictures that they are of. Biometric data: keep it as such.

    Attributes:
        paths: (N,) of the pictures.
        embeddings: (N, D) float32 unit vectors.
        checkpoint_sha256: the checkpoint that made them.
        settings: how pictures became crops: ``"aligned crops"``, or detector, pick and template origin.
    """

    paths: tuple[str, ...]
    embeddings: Embeddings
    checkpoint_sha256: str
    settings: str

    def save(self, path: Path) -> None:
        """Write it as ``.npz``: ``paths``, ``embeddings``, ``checkpoint_sha256``, ``settings``.

        Raises:
            UserError: another suffix, or it cannot be written.
        """
        if path.suffix != ".npz":
            raise UserError(f"{path}: got suffix {path.suffix!r} · allowed: .npz")
        arrays: dict[str, Any] = {
            "paths": np.array(self.paths, dtype=np.str_),
            "embeddings": self.embeddings,
            "checkpoint_sha256": np.array(self.checkpoint_sha256),
            "settings": np.array(self.settings),
            "format": np.array(_FORMAT),
        }
        try:
            write_whole(path, lambda file: np.savez(file, **arrays))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error


def load_gallery(path: Path, *, checkpoint_sha256: str, settings: str) -> Gallery:
    """Read a gallery for queries by the same checkpoint, made into crops alike.

    Raises:
        UserError: missing, damaged, or made otherwise.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["format"]) != _FORMAT:
                raise ValueError("another format")
            embeddings = np.asarray(file["embeddings"], dtype=np.float32)
            paths = tuple(file["paths"].tolist())
            gallery = Gallery(paths, embeddings, str(file["checkpoint_sha256"]), str(file["settings"]))
        if embeddings.ndim != 2 or len(paths) != len(embeddings):
            raise ValueError(f"{len(paths)} paths, embeddings {embeddings.shape}")
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a gallery ({error}) · make one: sphereface embed DIR {path.name}") from error
    if gallery.checkpoint_sha256 != checkpoint_sha256:
        raise UserError(
            f"{path}: made by another checkpoint (SHA-256 {gallery.checkpoint_sha256[:12]}…, this one has "
            f"{checkpoint_sha256[:12]}…) · embed it anew"
        )
    if gallery.settings != settings:
        raise UserError(f"{path}: made of {gallery.settings}, the query of {settings} · give the same options for both")
    return gallery


def nearest(gallery: Embeddings, queries: Embeddings, k: int) -> tuple[Rows, Embeddings]:
    """The k rows of a gallery with the highest cosines, exactly, block by block.

    Args:
        gallery: (N, D) float32 unit vectors.
        queries: (Q, D) float32 unit vectors.
        k: how many; of fewer rows all.

    Returns:
        (Q, k) int64 rows and (Q, k) float32 cosines, the highest first; of equal ones the first row first.
    """
    k = min(k, len(gallery))
    best = np.full((len(queries), 0), 0, dtype=np.int64)
    scores = np.empty((len(queries), 0), dtype=np.float32)
    for start in range(0, len(gallery), _BLOCK):
        block = queries @ gallery[start : start + _BLOCK].T  # (Q, block)
        rows = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        scores, best = np.hstack([scores, block]), np.hstack([best, rows])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, best = np.take_along_axis(scores, order, axis=1), np.take_along_axis(best, order, axis=1)
    return best, scores


def nearest_by_index(gallery: Gallery, queries: Embeddings, k: int, folder: Path) -> tuple[Rows, Embeddings]:
    """As :func:`nearest`, by a graph (faiss, HNSW) that visits few rows and may miss some of the k.

    The graph is built once and kept in ``folder`` under the hash of the embeddings; only give a folder whose files you
    trust, for faiss does not guard against forged ones.

    Raises:
        UserError: faiss is not installed, or the graph cannot be kept.
    """
    faiss = _import_faiss()
    path = folder / f"{hashlib.sha256(gallery.embeddings.tobytes()).hexdigest()[:16]}.faiss"
    if path.is_file():
        index = faiss.read_index(str(path))
    else:
        index = faiss.IndexHNSWFlat(gallery.embeddings.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BREADTH
        index.add(gallery.embeddings)
        try:
            write_whole(path, faiss.serialize_index(index).tobytes(), durable=False)
        except OSError as error:
            raise UserError(f"{path}: the index cannot be kept there ({error.strerror})") from error
    k = min(k, len(gallery.embeddings))
    index.hnsw.efSearch = max(_BREADTH, 2 * k)
    scores, rows = index.search(queries, k)
    return np.asarray(rows, dtype=np.int64), np.asarray(scores, dtype=np.float32)


def _import_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "--index faiss: not installed · pip install '.[faiss]' in this project's folder, or --index exact"
        ) from error
    return faiss
