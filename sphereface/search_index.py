"""Search a large gallery approximately, by an index of faiss that is built once and kept in a file.

The index is IVF-PQ. It keeps rows in lists around centres and compresses each row to a few bytes. A
search visits the lists with the nearest centres, and compares the query with the best candidates'
own rows, so the cosines are exact.

A graph (HNSW) is not used. A group of near-copies can trap its search, so that it never reaches the
right person. Up to :data:`LARGEST_EXACT` rows, reading a graph also takes longer than an exact
search.
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

LARGEST_EXACT = 1_000_000
"""Rows of a gallery for which an exact search is fast enough, so that it needs no index."""

LEAST_RECALL = 0.95
"""Recall that an index must reach, see :attr:`IndexFacts.is_good`."""

_BLOCK = 32_768
_TRAINING_ROWS = 64  # rows for each centre of IVF
_MOST_BYTES = 64  # of a row in IVF-PQ
_LIST_SHARE = 4  # search one in 4 lists: recall 0.98 on generated faces; 0.93 for one in 8, 0.84 for one in 16
_CANDIDATES, _LEAST_CANDIDATES = 32, 256  # compare 32 k candidates, at least 256, with the gallery's own rows
_RUN = 256  # neighbouring rows that are read together for a sample
_QUERIES, _TOP = 64, 10  # number of queries, and of rows for each, when the recall is measured
_MOST_LISTS = 4096  # lists whose rows may become queries
_NEAR_COPY = 0.9  # cosine from which only one of two rows becomes a query


@dataclass(frozen=True)
class IndexFacts:
    """Recall of an index.

    Attributes:
        recall: share of the 10 nearest rows by an exact search that the index finds, in [0, 1]. A
            row with the same cosine counts as the same row.
        queries: number of rows of the gallery that served as queries to measure the recall. They
            come from different lists, and no two of them are near-copies. There are 64, or fewer in
            a gallery that consists of near-copies.
        lists: number of lists that a search visits.
    """

    recall: float = option(low=0, high=1)
    queries: int = option(low=0)
    lists: int = option(low=1, high=1 << 24)

    @property
    def is_good(self) -> bool:
        """Whether the recall is high enough, and was measured on enough different rows."""
        return self.recall >= LEAST_RECALL and self.queries == _QUERIES

    def describe(self) -> str:
        """Return the facts as one line."""
        return (
            f"IVF-PQ, recall {self.recall:.3f}: it finds {self.recall:.1%} of the {_TOP} nearest rows of an exact "
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
        index.nprobe = facts.lists

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

    A hash of the gallery is the name of the file. An index of another kind, metric or shape is
    built again. Use it only if its facts say :attr:`~IndexFacts.is_good`. Only give a folder whose
    files you trust: faiss does not protect against forged files.

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
    if isinstance(rows, FolderRows):
        return rows.sha256[:16]
    return hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()[:16]


def _build(faiss: Any, rows: RowBlocks) -> Any:
    """Build an index with about one list for each √N rows."""
    num_rows, dim = rows.shape
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
    runs = [(start, rows[start : start + _RUN]) for start in starts.tolist()]
    for start, run in runs:  # faiss raises RuntimeError
        check_finite(run, "gallery", start)
    return np.concatenate([run for _, run in runs])


def _search(index: Any, rows: RowBlocks, queries: Embeddings, k: int) -> tuple[Rows, Embeddings]:
    """Search as :meth:`FaceIndex.search`."""
    _, ids = index.search(queries, min(len(rows), max(_LEAST_CANDIDATES, _CANDIDATES * k)))
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
        some = _take(rows, wanted)
        for query, own in enumerate(places.reshape(ids[part].shape), start):
            scores[query] = (some[own] * queries[query].astype(np.float64)).sum(axis=1)
    return scores


def _take(rows: RowBlocks, wanted: Rows) -> Embeddings:
    """Return some rows (K, D) by their numbers."""
    return rows.take(wanted) if isinstance(rows, FolderRows) else np.asarray(rows)[wanted]


def _measure(index: Any, rows: RowBlocks) -> IndexFacts:
    """Measure the recall by an exact search; visit more lists until it is high enough."""
    picked = _pick_queries(index, rows)
    queries = _take(rows, picked)
    exact = nearest(rows, queries, _TOP + 1)
    lists = max(1, index.nlist // _LIST_SHARE)
    while True:
        index.nprobe = lists
        recall = _recall(picked, exact, _search(index, rows, queries, min(_TOP + 1, len(rows))))
        if recall >= LEAST_RECALL or lists >= index.nlist:
            return IndexFacts(recall, len(picked), lists)
        lists = min(2 * lists, index.nlist)


def _pick_queries(index: Any, rows: RowBlocks) -> Rows:
    """Return up to 64 rows from lists that are spread evenly; of near-copies, only one.

    Rows that are spread evenly over the gallery would all be near-copies of one image, if most of
    the gallery is.
    """
    filled = [number for number in range(index.nlist) if index.invlists.list_size(number)]
    some = [filled[place] for place in _spread(len(filled), _MOST_LISTS)]
    firsts = np.array([index.invlists.get_single_id(number, 0) for number in some], dtype=np.int64)
    vectors = _take(rows, firsts)
    kept: list[int] = []
    for place in _spread(len(firsts), _QUERIES) + list(range(len(firsts))):
        if len(kept) < _QUERIES and (vectors[kept] @ vectors[place] < _NEAR_COPY).all():
            kept.append(place)
    return np.sort(firsts[kept])


def _spread(length: int, count: int) -> list[int]:
    """Return up to ``count`` places of a sequence, spread evenly."""
    places: list[int] = np.unique(np.linspace(0, length - 1, count).astype(int)).tolist()
    return places


def _recall(picked: Rows, exact: tuple[Rows, Embeddings], found: tuple[Rows, Embeddings]) -> float:
    """Return the mean share of the nearest rows that are found. A query does not count itself.

    Args:
        picked: (Q,) the rows that are the queries.
        exact, found: rows and cosines of each query, as :func:`nearest` returns them.
    """
    shares = []
    for row, rows, cosines, got, scores in zip(picked, *exact, *found, strict=True):
        wanted = _without(row, rows, cosines)
        count = (_without(row, got, scores) >= wanted.min(initial=1)).sum()
        shares.append(min(1.0, count / len(wanted)) if len(wanted) else 1.0)
    return float(np.mean(shares))


def _without(row: int, rows: Rows, cosines: Embeddings) -> Embeddings:
    """Return the ten highest cosines of other rows."""
    others: Embeddings = cosines[rows != row]
    return others[:_TOP]


def _keep(faiss: Any, index: Any, path: Path) -> None:
    """Write an index whole, or log a warning if that fails."""
    part = temporary_name(path)
    try:
        faiss.write_index(index, str(part))
        part.replace(path)
    except (OSError, RuntimeError) as error:  # faiss raises RuntimeError
        part.unlink(missing_ok=True)
        log.warning("%s: the index cannot be written there (%s), so each search builds it", path, first_line(error))


def _kept_index(faiss: Any, path: Path, rows: RowBlocks) -> Any:
    """Return the index in a file; None if it is missing, damaged, or made from other rows."""
    if not path.is_file():
        return None
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        if _fits(faiss, index, rows):
            return index
    except (RuntimeError, MemoryError) as error:  # from faiss
        log.warning("%s: the index is damaged (%s) and is built again", path, first_line(error))
        return None
    log.warning("%s: the index belongs to another gallery and is built again", path)
    return None


def _fits(faiss: Any, index: Any, rows: RowBlocks) -> bool:
    """Return whether an index is IVF-PQ by cosine and has the shape of these rows."""
    by_cosine = isinstance(index, faiss.IndexIVFPQ) and index.metric_type == faiss.METRIC_INNER_PRODUCT
    return by_cosine and (index.ntotal, index.d) == rows.shape
