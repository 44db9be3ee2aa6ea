"""Galleries of embeddings, and search for the rows most similar to a query: exact, or approximate
by an index.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UserError, first_line, shown_key
from .evaluation.table_file import NotATable, read_table
from .extras import import_extra
from .files import write_whole

log = logging.getLogger(__name__)

Embeddings = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_FORMATS = (1, 2)
_ROWS = 4096  # normalised at a time
_UNIT = 1e-3  # how far the length of a unit vector may be from 1
_BLOCK = 32_768  # gallery rows in one matrix product; with fewer, threads wait for each other too often on busy cores
_QUERIES = 64  # queries in one matrix product; the scores of a block take at most 8 MiB
_LINKS, _BREADTH = 32, 128  # HNSW: neighbours of a node; candidates kept while building and searching


@dataclass(frozen=True)
class Gallery:
    """Embeddings of one checkpoint and the paths of their images. This is biometric data: protect
    it.

    Attributes:
        paths: (N,) paths of the images.
        embeddings: (N, D) float32 unit vectors.
        checkpoint_sha256: the checkpoint that computed the embeddings.
        settings: how images became crops: ``"aligned crops"``, or detector, pick and template
            origin.
    """

    paths: tuple[str, ...]
    embeddings: Embeddings
    checkpoint_sha256: str
    settings: str


def make_gallery(
    root: str,
    names: Sequence[str],
    image: Embeddings,
    mirror: Embeddings | None,
    *,
    checkpoint_sha256: str,
    settings: str,
) -> Gallery:
    """Join the embeddings of images and mirror images and divide them by their lengths.

    Args:
        root: folder of the images.
        names: N, relative to ``root``.
        image, mirror: (N, D) float32 each, as the network gives them.
        checkpoint_sha256, settings: see :class:`Gallery`.
    """
    parts = [image] if mirror is None else [image, mirror]
    units = np.empty((len(names), sum(part.shape[1] for part in parts)), dtype=np.float32)
    for start in range(0, len(units), _ROWS):
        rows = np.concatenate([part[start : start + _ROWS] for part in parts], axis=1)
        with np.errstate(invalid="ignore"):  # a row of zeros becomes NaN, which the search names
            units[start : start + _ROWS] = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    paths = tuple(os.path.join(root, name) for name in names)  # noqa: PTH118 -- Path costs 20 times as much
    return Gallery(paths, units, checkpoint_sha256, settings)


def load_gallery(path: Path, *, checkpoint_sha256: str, settings: str) -> Gallery:
    """Read a gallery for queries that use the same checkpoint and the same settings.

    Raises:
        UserError: the file is missing or damaged, or its checkpoint or settings differ.
    """
    try:
        table = _checked(read_table(path))
        if table["checkpoint_sha256"] != checkpoint_sha256:
            raise UserError(
                f"{path}: made by another checkpoint (SHA-256 {shown_key(table['checkpoint_sha256'][:12])}…, this one "
                f"has {checkpoint_sha256[:12]}…) · embed it anew"
            )
        if table["settings"] != settings:
            raise UserError(
                f"{path}: made of {shown_key(table['settings'])}, the query of {settings} · give the same options for "
                "both"
            )
        return _gallery_of(table)
    except (NotATable, ValueError) as error:
        reason = error.reason if isinstance(error, NotATable) else str(error)
        raise UserError(f"{path}: not a gallery ({reason}) · make one: sphereface embed DIR {path.name}") from error


def _checked(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a table of a known format.

    Raises:
        ValueError: it lacks something, or is of another format.
    """
    missing = [key for key in ("format", "checkpoint_sha256", "settings") if key not in table]
    if missing or table["format"] not in _FORMATS:
        raise ValueError(
            f"has no array {missing[0]}" if missing else f"format {table['format']}, a newer version wrote it"
        )
    return table


def _gallery_of(table: Mapping[str, Any]) -> Gallery:
    """Return the gallery of format 1, unit vectors with the whole paths, or 2, the table that
    evaluations read too.

    Raises:
        ValueError: a row of format 1 is no unit vector.
    """
    with np.errstate(over="ignore"):  # beside an infinite number, which the search names
        image, mirror = (
            None if key not in table else np.asarray(table[key], dtype=np.float32) for key in ("embeddings", "mirror")
        )
    assert image is not None
    about = {key: table[key] for key in ("checkpoint_sha256", "settings")}
    if table["format"] == 1:
        off = np.abs(np.linalg.norm(image.astype(np.float64), axis=1) - 1)
        if not (off <= _UNIT).all():  # nor NaN
            raise ValueError(f"row {int(np.argmin(off <= _UNIT))} is no unit vector")
        return Gallery(tuple(table["names"]), image, **about)
    return make_gallery(table.get("root", "."), table["names"], image, mirror, **about)


def nearest(gallery: Embeddings, queries: Embeddings, k: int) -> tuple[Rows, Embeddings]:
    """Return the k gallery rows with the highest cosines for each query, exactly.

    A cosine is summed in float64 and rounded to float32. It depends on the two vectors only, not on
    the block, the other queries or the BLAS library, so identical rows have equal cosines.

    Args:
        gallery: (N, D) float32 unit vectors.
        queries: (Q, D) float32 unit vectors.
        k: number of rows per query; N if k is larger.

    Returns:
        (Q, k) int64 rows and (Q, k) float32 cosines. The highest cosine is first; of equal cosines
        the lower row.

    Raises:
        UserError: a gallery row or a query holds NaN or infinity, or they have different lengths.
    """
    _check_queries(gallery, queries)
    k = min(k, len(gallery))
    rows = np.zeros((len(queries), k), dtype=np.int64)
    cosines = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for start in range(0, len(queries) if k else 0, _QUERIES):
        part = slice(start, start + _QUERIES)
        _scan(gallery, queries[part], rows[part], cosines[part])
    return rows, cosines


def _scan(gallery: Embeddings, queries: Embeddings, rows: Rows, cosines: Embeddings) -> None:
    """Compare all gallery rows with the queries; write the best into ``rows`` and ``cosines``, both
    (Q, k).
    """
    k = rows.shape[1]
    slack = (gallery.shape[1] + 1) * float(np.finfo(np.float32).eps)  # twice the largest rounding error of a score
    for start in range(0, len(gallery), _BLOCK):
        block = gallery[start : start + _BLOCK]
        scores = block @ queries.T  # (block, Q): BLAS is faster this way round than with queries @ block.T
        _check_finite(scores, "gallery", start)
        floor = cosines[:, -1] - slack
        for query in np.unique(np.flatnonzero(scores > floor) % len(queries)):  # few after the first blocks
            found = _shortlist(scores[:, query], floor[query], k, slack)
            exact = (block[found] * queries[query].astype(np.float64)).sum(axis=1).astype(np.float32)
            all_rows = np.concatenate([rows[query], start + found])  # ascending where cosines are equal
            all_cosines = np.concatenate([cosines[query], exact])
            order = np.argsort(-all_cosines, kind="stable")[:k]
            rows[query], cosines[query] = all_rows[order], all_cosines[order]


def _shortlist(scores: Embeddings, floor: np.float32, k: int, slack: float) -> Rows:
    """Return the rows over ``floor`` that can be among the best k of the block."""
    found = np.flatnonzero(scores > floor)
    if len(found) > k:
        floor = np.partition(scores[found], -k)[-k] - slack
        found = found[scores[found] >= floor]
    return found


def count_over(gallery: Embeddings, query: Embeddings, threshold: float) -> int:
    """Return how many rows of a gallery (N, D) have a cosine with a query (D,) above a
    threshold.
    """
    blocks = (gallery[start : start + _BLOCK] for start in range(0, len(gallery), _BLOCK))
    return sum(int((block @ query > threshold).sum()) for block in blocks)


def _check_queries(gallery: Embeddings, queries: Embeddings) -> None:
    _check_finite(queries, "queries")
    if gallery.shape[1:] != queries.shape[1:]:
        raise UserError(
            f"gallery: has embeddings of {gallery.shape[1]} numbers, the query of {queries.shape[1]} · both must come "
            "from one network · embed the gallery again"
        )


def _check_finite(values: Embeddings, name: str, first: int = 0) -> None:
    """Raise a UserError that names the first row with NaN or infinity; ``first`` is the number of
    row 0.
    """
    if not np.isfinite(values).all():
        row = first + int(np.argmin(np.isfinite(values).all(axis=1)))
        raise UserError(f"{name}: row {row} holds NaN or infinity · allowed: unit vectors · embed this image again")


def nearest_by_index(gallery: Gallery, queries: Embeddings, k: int, folder: Path) -> tuple[Rows, Embeddings]:
    """Search like :func:`nearest`, with an HNSW graph (faiss) that visits few rows and may miss
    some of the k.

    The graph is built once and kept in ``folder`` under the hash of the embeddings. A kept graph of
    another kind, metric or gallery is built again. Only give a folder whose files you trust: faiss
    does not protect against forged files.

    Returns:
        (Q, K) int64 rows and (Q, K) float32 cosines, the highest first. K is the largest number of
        rows found for one query, at most k. A query with fewer ends in row -1, cosine -inf; a
        single query never does.

    Raises:
        UserError: faiss is not installed, a vector holds NaN or infinity, or gallery and queries
            differ in length.
    """
    faiss = import_extra("--index faiss", "faiss", "faiss", instead="--index exact")
    _check_queries(gallery.embeddings, queries)
    embeddings = np.ascontiguousarray(gallery.embeddings)
    index = _index(faiss, embeddings, folder)
    k = min(k, len(embeddings))
    index.hnsw.efSearch = max(_BREADTH, 2 * k)
    scores, ids = index.search(queries, k)
    cosines, rows = np.asarray(scores, dtype=np.float32), np.asarray(ids, dtype=np.int64)
    found = (rows >= 0) & (rows < len(embeddings))
    rows[~found], cosines[~found] = -1, -np.inf  # faiss fills the places after the last row found with id -1
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : int(found.sum(axis=1).max(initial=0))]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(cosines, order, axis=1)


def _index(faiss: Any, embeddings: Embeddings, folder: Path) -> Any:
    """Return the graph that ``folder`` keeps for these embeddings, or build it and keep it
    there.
    """
    path = folder / f"{hashlib.sha256(embeddings.data).hexdigest()[:16]}.faiss"
    kept = _kept_index(faiss, path, embeddings)
    if kept is not None:
        return kept
    _check_finite(embeddings.sum(axis=1, keepdims=True), "gallery")
    index = faiss.IndexHNSWFlat(embeddings.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _BREADTH
    index.add(embeddings)
    try:
        write_whole(path, faiss.serialize_index(index).tobytes(), durable=False)
    except OSError as error:
        log.warning("%s: the index cannot be kept there (%s), the next search builds it again", path, error.strerror)
    return index


def _kept_index(faiss: Any, path: Path, embeddings: Embeddings) -> Any:
    """Return the graph of a file; None where there is none, a damaged one, or one of other
    embeddings.
    """
    if not path.is_file():
        return None
    try:
        index = faiss.read_index(str(path))
        if _is_graph_of(faiss, index, embeddings):
            return index
    except (RuntimeError, MemoryError) as error:  # of faiss
        log.warning("%s: a damaged index (%s), built again", path, first_line(error))
        return None
    log.warning("%s: not the index of this gallery, built again", path)
    return None


def _is_graph_of(faiss: Any, index: Any, embeddings: Embeddings) -> bool:
    """Tell whether an index is a graph by cosine that holds exactly these rows."""
    if not isinstance(index, faiss.IndexHNSWFlat) or (index.ntotal, index.d) != embeddings.shape:
        return False
    if {index.metric_type, index.storage.metric_type} != {faiss.METRIC_INNER_PRODUCT}:
        return False
    blocks = ((start, embeddings[start : start + _BLOCK]) for start in range(0, len(embeddings), _BLOCK))
    return all(np.array_equal(index.reconstruct_n(start, len(block)), block) for start, block in blocks)
