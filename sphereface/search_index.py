"""Search a gallery approximately, by an index of faiss that is built once and kept in a file.

For up to a million rows the index is an HNSW graph, which holds the vectors. For more rows it is
IVF-PQ, which keeps rows in lists around centres and compresses each row to a few bytes. The query
is then compared with the best candidates' own rows, so the cosines are exact.
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

LARGEST_GRAPH = 1_000_000  # rows; for more, a graph with its vectors takes too much memory
_BLOCK = 32_768
_LINKS, _BREADTH = 32, 128  # HNSW: neighbours of a node; candidates kept while building and searching
_TRAINING_ROWS = 64  # rows for each centre of IVF
_MOST_BYTES = 64  # of a row in IVF-PQ
_LIST_SHARE = 4  # search one in 4 lists: recall 0.98 on generated faces; 0.93 for one in 8, 0.84 for one in 16
_CANDIDATES, _LEAST_CANDIDATES = 32, 256  # compare 32 k candidates, at least 256, with the gallery's own rows
_RUN = 256  # neighbouring rows that are read together for a sample
_QUERIES, _TOP = 64, 10  # number of queries, and of rows for each, when the recall is measured


@dataclass(frozen=True)
class IndexFacts:
    """Kind and recall of an index.

    Attributes:
        kind: ``"HNSW"`` or ``"IVF-PQ"``.
        recall: share of the 10 nearest rows by an exact search that the index finds, in [0, 1].
        queries: number of rows of the gallery that served as queries to measure the recall.
    """

    kind: str = option(choices=["HNSW", "IVF-PQ"])
    recall: float = option(low=0, high=1)
    queries: int = option(low=0)

    def describe(self) -> str:
        """Return the facts as one line."""
        return (
            f"{self.kind}, recall {self.recall:.3f}: it finds {self.recall:.1%} of the {_TOP} nearest rows of an exact "
            f"search, for {self.queries} rows of this gallery as queries"
        )


class FaceIndex:
    """An index of a gallery; :func:`open_index` builds or reads it.

    Args:
        rows: of the gallery.
        index: the index of faiss.
        facts: about the index.
    """

    def __init__(self, rows: RowBlocks, index: Any, facts: IndexFacts) -> None:
        self.facts, self._rows, self._index = facts, rows, index

    def search(self, queries: Embeddings, k: int) -> tuple[Rows, Embeddings]:
        """Search for the k rows with the highest cosines. The index may miss some of them.

        Args:
            queries: (Q, D) float32 unit vectors.
            k: number of rows for each query.

        Returns:
            (Q, K) int64 rows and (Q, K) float32 cosines, the highest first. K is the largest number
            of rows found for one query, at most k. If a query has fewer results, its last entries
            are row -1 and cosine -inf. This never happens to a single query.

        Raises:
            UserError: a query holds NaN or infinity, or has another length than the rows.
        """
        check_queries(self._rows, queries)
        return _search(self._index, self._rows, queries, min(k, len(self._rows)))


def open_index(gallery: Gallery, folder: Path) -> FaceIndex:
    """Return the index that a folder keeps for a gallery; build and keep one if there is none.

    A hash of the gallery is the name of the file. An index of another kind, metric or gallery is
    built again. Only give a folder whose files you trust: faiss does not protect against forged
    files.

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
    except (OSError, ValueError):  # absent or damaged
        facts = _measure(index, rows)
        with contextlib.suppress(OSError):  # _keep has logged a warning
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
        # np: no polysemous training. That is an annealing of minutes, which does not help here
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
    found[~good], cosines[~good] = -1, -np.inf  # faiss returns id -1 after the last row that it found
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(k, int(good.sum(axis=1).max(initial=0)))]
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(cosines, order, axis=1)


def _exact_cosines(rows: RowBlocks, queries: Embeddings, ids: Rows) -> Embeddings:
    """Return the cosines (Q, K) of the queries with their candidates (Q, K).

    The cosine of an id -1 has no meaning.
    """
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
    """Measure the recall of an index by an exact search.

    The queries are rows of the gallery. The results of a query do not count the row itself.
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
    """Write an index whole, or log a warning if that fails."""
    part = temporary_name(path)
    try:
        faiss.write_index(index, str(part))
        part.replace(path)
    except (OSError, RuntimeError) as error:  # faiss raises RuntimeError
        part.unlink(missing_ok=True)
        log.warning(
            "%s: the index cannot be written there (%s), so the next search builds it again", path, first_line(error)
        )


def _kept_index(faiss: Any, path: Path, rows: RowBlocks) -> Any:
    """Return the index in a file; None if it is missing, damaged, or made from other rows."""
    if not path.is_file():
        return None
    try:
        graph = len(rows) <= LARGEST_GRAPH
        index = faiss.read_index(str(path), 0 if graph else faiss.IO_FLAG_MMAP)
        if _is_graph_of(faiss, index, rows) if graph else _is_ivf_of(faiss, index, rows):
            return index
    except (RuntimeError, MemoryError) as error:  # from faiss
        log.warning("%s: the index is damaged (%s) and is built again", path, first_line(error))
        return None
    log.warning("%s: the index belongs to another gallery and is built again", path)
    return None


def _is_graph_of(faiss: Any, index: Any, rows: RowBlocks) -> bool:
    """Return whether an index is an HNSW graph by cosine that holds exactly these rows."""
    if not isinstance(index, faiss.IndexHNSWFlat) or (index.ntotal, index.d) != rows.shape:
        return False
    if {index.metric_type, index.storage.metric_type} != {faiss.METRIC_INNER_PRODUCT}:
        return False
    blocks = ((start, rows[start : start + _BLOCK]) for start in range(0, len(rows), _BLOCK))
    return all(np.array_equal(index.reconstruct_n(start, len(block)), block) for start, block in blocks)


def _is_ivf_of(faiss: Any, index: Any, rows: RowBlocks) -> bool:
    """Return whether an index is IVF-PQ by cosine and has the shape of these rows."""
    return (
        isinstance(index, faiss.IndexIVFPQ)
        and (index.ntotal, index.d) == rows.shape
        and index.metric_type == faiss.METRIC_INNER_PRODUCT
    )
