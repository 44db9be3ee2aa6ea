"""Approximate search by an index of faiss, which is built once and kept in a file.

Up to a million rows the index is an HNSW graph, which holds the vectors. Above, it is IVF-PQ: rows
in lists around centres, each in a few bytes. The best candidates are compared again with the
gallery's own rows, so cosines are exact.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .errors import first_line
from .evaluation.gallery_folder import FolderRows
from .extras import import_extra
from .files import temporary_name, write_whole
from .gallery import Embeddings, Gallery, RowBlocks
from .options import option
from .search import Rows, check_finite, check_queries, nearest
from .small_files import read_form

log = logging.getLogger(__name__)

LARGEST_GRAPH = 1_000_000  # rows: beyond it, a graph with its vectors takes too much memory
_BLOCK = 32_768
_LINKS, _BREADTH = 32, 128  # HNSW: neighbours of a node; candidates kept while building and searching
_TRAINING_ROWS = 64  # for each centre of IVF
_MOST_BYTES = 64  # of a row in IVF-PQ
_LIST_SHARE = 4  # one in so many lists is searched: recall 0.98 of generated faces; 0.93 with 8, 0.84 with 16
_CANDIDATES, _LEAST_CANDIDATES = 32, 256  # times k, and at least: compared again with the gallery's own rows
_RUN = 256  # neighbouring rows that are read together for a sample
_QUERIES, _TOP = 64, 10  # of the measured recall


@dataclass(frozen=True)
class IndexFacts:
    """What is known of a kept index.

    Attributes:
        kind: ``"HNSW"`` or ``"IVF-PQ"``.
        recall: share of the 10 nearest rows by an exact search that the index finds, in [0, 1].
        queries: rows of the gallery that were the queries of that measurement.
    """

    kind: str = option(choices=["HNSW", "IVF-PQ"])
    recall: float = option(low=0, high=1)
    queries: int = option(low=0)

    def describe(self) -> str:
        """Return one line."""
        return (
            f"{self.kind}, recall {self.recall:.3f}: it finds {self.recall:.1%} of the {_TOP} nearest rows of an exact "
            f"search, for {self.queries} rows of this gallery as queries"
        )


class FaceIndex:
    """An index of a gallery, built or read by :func:`open_index`.

    Args:
        rows: of the gallery.
        index: of faiss.
        facts: about it.
    """

    def __init__(self, rows: RowBlocks, index: Any, facts: IndexFacts) -> None:
        self.facts, self._rows, self._index = facts, rows, index

    def search(self, queries: Embeddings, k: int) -> tuple[Rows, Embeddings]:
        """Search for the k rows with the highest cosines; some of them may be missed.

        Args:
            queries: (Q, D) float32 unit vectors.
            k: rows for each query.

        Returns:
            (Q, K) int64 rows and (Q, K) float32 cosines, the highest first. K is the largest number
            of rows found for one query, at most k. A query with fewer ends in row -1, cosine -inf;
            a single query never does.

        Raises:
            UserError: a query holds NaN or infinity, or has another length than the rows.
        """
        check_queries(self._rows, queries)
        return _search(self._index, self._rows, queries, min(k, len(self._rows)))


def open_index(gallery: Gallery, folder: Path) -> FaceIndex:
    """Return the index that a folder keeps for a gallery. Build it and keep it there if it has none.

    The file is named by a hash of the gallery. An index of another kind, metric or gallery is built
    again. Only give a folder whose files you trust: faiss does not protect against forged files.

    Raises:
        UserError: faiss is not installed, or a row holds NaN or infinity.
    """
    faiss = import_extra("--index faiss", "faiss", "faiss", instead="--index exact")
    rows = gallery.embeddings
    path = folder / f"{_digest(rows)}.faiss"
    index = _kept_index(faiss, path, rows)
    if index is None:
        index = _build(faiss, rows)
        _keep(faiss, index, path)
    facts_path = path.with_suffix(".faiss.json")
    try:
        facts = read_form(facts_path, IndexFacts)
    except (OSError, ValueError):  # not there yet, or damaged
        facts = _measure(index, rows)
        with contextlib.suppress(OSError):  # which _keep has said
            write_whole(facts_path, json.dumps(asdict(facts)) + "\n", durable=False)
    return FaceIndex(rows, index, facts)


def _digest(rows: RowBlocks) -> str:
    sha256 = (
        rows.sha256 if isinstance(rows, FolderRows) else hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()
    )
    return sha256[:16]


def _build(faiss: Any, rows: RowBlocks) -> Any:
    """Build the index that fits the number of rows."""
    num_rows, dim = rows.shape
    if num_rows <= LARGEST_GRAPH:
        index = faiss.IndexHNSWFlat(dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BREADTH
    else:
        lists = 1 << round(math.log2(num_rows) / 2)
        parts = max(part for part in range(1, _MOST_BYTES + 1) if dim % part == 0)
        # np: without polysemous training, an annealing that takes minutes and helps no search of this kind
        index = faiss.index_factory(dim, f"IVF{lists},PQ{parts}np", faiss.METRIC_INNER_PRODUCT)
        index.train(_sample(rows, _TRAINING_ROWS * lists))
    with tqdm(total=num_rows, desc="building the index", unit="row", disable=None, leave=False) as bar:
        for start in range(0, num_rows, _BLOCK):
            block = np.ascontiguousarray(rows[start : start + _BLOCK])
            check_finite(block.sum(axis=1, keepdims=True), "gallery", start)
            index.add(block)
            bar.update(len(block))
    return index


def _sample(rows: RowBlocks, count: int) -> Embeddings:
    """Return about ``count`` rows in runs that are spread evenly over the gallery."""
    starts = np.linspace(0, len(rows) - _RUN, max(1, count // _RUN)).astype(int)
    return np.concatenate([rows[start : start + _RUN] for start in starts.tolist()])


def _search(index: Any, rows: RowBlocks, queries: Embeddings, k: int) -> tuple[Rows, Embeddings]:
    """Search as :meth:`FaceIndex.search`."""
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = max(_BREADTH, 2 * k)
        scores, ids = index.search(queries, k)
    else:
        index.nprobe = max(1, index.nlist // _LIST_SHARE)
        scores, ids = index.search(queries, min(len(rows), max(_LEAST_CANDIDATES, _CANDIDATES * k)))
        scores = _exact_cosines(rows, queries, np.asarray(ids, dtype=np.int64))
    cosines, found = np.array(scores, dtype=np.float32), np.array(ids, dtype=np.int64)
    good = (found >= 0) & (found < len(rows))
    found[~good], cosines[~good] = -1, -np.inf  # faiss fills the places after the last row found with id -1
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(k, int(good.sum(axis=1).max(initial=0)))]
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(cosines, order, axis=1)


def _exact_cosines(rows: RowBlocks, queries: Embeddings, ids: Rows) -> Embeddings:
    """Return the cosines (Q, K) of each query with its candidates (Q, K); of no meaning for id -1."""
    scores = np.zeros(ids.shape, dtype=np.float32)
    for start in range(0, len(queries), _QUERIES):
        part = slice(start, start + _QUERIES)
        wanted, places = np.unique(ids[part], return_inverse=True)  # each row is read once
        wanted = np.clip(wanted, 0, len(rows) - 1)
        some = rows.take(wanted) if isinstance(rows, FolderRows) else np.asarray(rows)[wanted]
        for query, own in enumerate(places.reshape(ids[part].shape), start):
            scores[query] = (some[own] * queries[query].astype(np.float64)).sum(axis=1)
    return scores


def _measure(index: Any, rows: RowBlocks) -> IndexFacts:
    """Compare an index with an exact search: rows of the gallery are the queries, each without
    itself.
    """
    picked = np.unique(np.linspace(0, len(rows) - 1, _QUERIES).astype(int)).tolist()
    queries = np.concatenate([rows[row : row + 1] for row in picked])
    exact, _ = nearest(rows, queries, _TOP + 1)
    found, _ = _search(index, rows, queries, _TOP + 1)
    shares = []
    for row, wanted, got in zip(picked, exact.tolist(), found.tolist(), strict=True):
        others = set(wanted) - {row}
        shares.append(len(others & set(got)) / max(1, len(others)) if others else 1.0)
    kind = "HNSW" if hasattr(index, "hnsw") else "IVF-PQ"
    return IndexFacts(kind, float(np.mean(shares)), len(picked))


def _keep(faiss: Any, index: Any, path: Path) -> None:
    """Write an index whole; a warning says where that cannot be done."""
    part = temporary_name(path)
    try:
        faiss.write_index(index, str(part))
        part.replace(path)
    except (OSError, RuntimeError) as error:  # the second of faiss
        part.unlink(missing_ok=True)
        log.warning("%s: the index cannot be kept there (%s), the next search builds it again", path, first_line(error))


def _kept_index(faiss: Any, path: Path, rows: RowBlocks) -> Any:
    """Return the index of a file; None if there is none, a damaged one, or one of other rows."""
    if not path.is_file():
        return None
    try:
        graph = len(rows) <= LARGEST_GRAPH
        index = faiss.read_index(str(path), 0 if graph else faiss.IO_FLAG_MMAP)
        if _is_graph_of(faiss, index, rows) if graph else _is_ivf_of(faiss, index, rows):
            return index
    except (RuntimeError, MemoryError) as error:  # of faiss
        log.warning("%s: a damaged index (%s), built again", path, first_line(error))
        return None
    log.warning("%s: not the index of this gallery, built again", path)
    return None


def _is_graph_of(faiss: Any, index: Any, rows: RowBlocks) -> bool:
    """Tell whether an index is a graph by cosine that holds exactly these rows."""
    if not isinstance(index, faiss.IndexHNSWFlat) or (index.ntotal, index.d) != rows.shape:
        return False
    if {index.metric_type, index.storage.metric_type} != {faiss.METRIC_INNER_PRODUCT}:
        return False
    blocks = ((start, rows[start : start + _BLOCK]) for start in range(0, len(rows), _BLOCK))
    return all(np.array_equal(index.reconstruct_n(start, len(block)), block) for start, block in blocks)


def _is_ivf_of(faiss: Any, index: Any, rows: RowBlocks) -> bool:
    """Tell whether an index is IVF-PQ by cosine, of so many rows of this length."""
    return (
        isinstance(index, faiss.IndexIVFPQ)
        and (index.ntotal, index.d) == rows.shape
        and index.metric_type == faiss.METRIC_INNER_PRODUCT
    )
