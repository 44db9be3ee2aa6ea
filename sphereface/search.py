"""Exact search for the rows of a gallery that are most similar to a query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .gallery import Embeddings, RowBlocks

Rows = npt.NDArray[np.int64]
Search = Callable[[int], tuple[Rows, Embeddings]]
"""Function of K that returns the rows and the cosines of the K nearest, (1, ≤ K) each."""

_BLOCK = 32_768  # gallery rows in one matrix product; with fewer rows, threads wait too often on busy cores
_QUERIES = 64  # queries in one matrix product; the scores of a block take at most 8 MiB
_PER_PERSON = 8  # rows to search for each person; each new search multiplies their number by it


def nearest(gallery: RowBlocks, queries: Embeddings, k: int) -> tuple[Rows, Embeddings]:
    """Return the k gallery rows with the highest cosines for each query, exactly.

    A cosine is summed in float64 and rounded to float32. It depends on the two vectors only, not on
    the block, the other queries or the BLAS library, so identical rows have equal cosines.

    Args:
        gallery: (N, D) float32 unit vectors.
        queries: (Q, D) float32 unit vectors.
        k: number of rows per query; N if k is larger.

    Returns:
        (Q, k) int64 rows and (Q, k) float32 cosines. The highest cosine is first. Rows with equal
        cosines are in ascending order.

    Raises:
        UserError: a gallery row or a query holds NaN or infinity, or they have different lengths.
    """
    check_queries(gallery, queries)
    k = min(k, len(gallery))
    rows = np.zeros((len(queries), k), dtype=np.int64)
    cosines = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for start in range(0, len(queries) if k else 0, _QUERIES):
        part = slice(start, start + _QUERIES)
        _scan(gallery, queries[part], rows[part], cosines[part])
    return rows, cosines


def _scan(gallery: RowBlocks, queries: Embeddings, rows: Rows, cosines: Embeddings) -> None:
    """Compare all gallery rows with the queries, and write the best into ``rows`` and ``cosines``.

    Both are (Q, k).
    """
    k = rows.shape[1]
    slack = (gallery.shape[1] + 1) * float(np.finfo(np.float32).eps)  # twice the largest rounding error of a score
    for start in range(0, len(gallery), _BLOCK):
        block = gallery[start : start + _BLOCK]
        scores = block @ queries.T  # (block, Q); faster in BLAS than queries @ block.T
        check_finite(scores, "gallery", start)
        floor = cosines[:, -1] - slack
        for query in np.unique(np.flatnonzero(scores > floor) % len(queries)):  # few after the first blocks
            found = _shortlist(scores[:, query], floor[query], k, slack)
            exact = (block[found] * queries[query].astype(np.float64)).sum(axis=1).astype(np.float32)
            all_rows = np.concatenate([rows[query], start + found])  # ascending where cosines are equal
            all_cosines = np.concatenate([cosines[query], exact])
            order = np.argsort(-all_cosines, kind="stable")[:k]
            rows[query], cosines[query] = all_rows[order], all_cosines[order]


def _shortlist(scores: Embeddings, floor: np.float32, k: int, slack: float) -> Rows:
    """Return the rows with scores over ``floor`` that can be among the best k of the block."""
    found = np.flatnonzero(scores > floor)
    if len(found) > k:
        floor = np.partition(scores[found], -k)[-k] - slack
        found = found[scores[found] >= floor]
    return found


def rows_over(gallery: RowBlocks, query: Embeddings, threshold: float) -> Rows:
    """Return the gallery rows of (N, D) that have a cosine with a query (D,) over a threshold."""
    starts = range(0, len(gallery), _BLOCK)
    found = [start + np.flatnonzero(gallery[start : start + _BLOCK] @ query > threshold) for start in starts]
    return np.concatenate([np.empty(0, dtype=np.int64), *found])


@dataclass(frozen=True)
class Found:
    """A result of a search: an image of a gallery, or a person.

    Attributes:
        row: the row of the image; for a person, the nearest of the person's rows.
        cosine: of that row and the query.
        person: name of the person, or the path of an image that belongs to no person; None in a
            search for images.
    """

    row: int
    cosine: float
    person: str | None = None


def nearest_people(search: Search, name_of: Callable[[int], str], k: int, num_rows: int) -> list[Found]:
    """Return the k people whose nearest rows have the highest cosines, the highest first.

    The search is repeated with more rows until they belong to k people. The result is as exact as
    the search.

    Args:
        search: finds the nearest rows of one query.
        name_of: returns the name of a row, see :meth:`~sphereface.gallery.Gallery.entry`. Rows of
            one name count as one person.
        k: number of people. The result is shorter if the gallery has fewer.
        num_rows: N, rows of the gallery.
    """
    wanted = _PER_PERSON * k
    while True:
        rows, cosines = search(min(wanted, num_rows))
        first: dict[str, int] = {}  # the place of a person's nearest row
        for place in np.argsort(rows[0]).tolist():  # a gallery in a folder reads names fastest in the order of rows
            name = name_of(int(rows[0, place]))
            first[name] = min(place, first.get(name, place))
        if len(first) >= k or wanted >= num_rows or rows.shape[1] < min(wanted, num_rows):
            best = sorted(first.items(), key=lambda each: each[1])[:k]
            return [Found(int(rows[0, place]), float(cosines[0, place]), name) for name, place in best]
        wanted *= _PER_PERSON


def check_queries(gallery: RowBlocks, queries: Embeddings) -> None:
    """Raise a UserError for queries that are not finite or have another width than the gallery."""
    check_finite(queries, "queries")
    if gallery.shape[1:] != queries.shape[1:]:
        raise UserError(
            f"gallery: has embeddings of {gallery.shape[1]} numbers, the query has {queries.shape[1]} · both must come "
            "from one network · embed the gallery again"
        )


def check_finite(values: Embeddings, name: str, first: int = 0) -> None:
    """Raise a UserError that names the first row with NaN or infinity.

    Args:
        values: (N, D).
        name: of the array, for the message.
        first: number of row 0 in the message.
    """
    if not np.isfinite(values).all():
        row = first + int(np.argmin(np.isfinite(values).all(axis=1)))
        raise UserError(f"{name}: row {row} holds NaN or infinity · allowed: unit vectors · embed this image again")
