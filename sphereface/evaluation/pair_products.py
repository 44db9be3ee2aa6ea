"""Compute the inner products of many pairs of rows.

A protocol such as IJB-C's compares millions of pairs of a few thousand templates. A matrix product
of a tile of left rows and a tile of right rows is then faster than a copy of two rows for each
pair. For tiles with few pairs, the pairs are computed one by one.
"""

from __future__ import annotations

import numpy as np

from ..metrics import BoolArray, FloatArray, Ids, IntArray, Vectors

_LEFT, _RIGHT = 1024, 4096  # rows on the two sides of a tile: 32 MB of products
_GATHER = 256  # pairs whose rows are copied at a time: they fit into the processor's cache
_PICK = 2**18  # pairs picked from a tile at a time
_DENSE = 1 / 32  # one pair alone costs as much as 32 products of a matrix product (512 numbers, 2 cores)


def pair_products(rows: Vectors, left: Ids, right: Ids, *, dense: float = _DENSE) -> FloatArray:
    """Compute the inner product of each pair of rows in float64.

    Args:
        rows: (T, d) float.
        left, right: (P,) integers in [0, T).
        dense: a tile becomes a matrix product if the list needs at least this share of its pairs.
            The value affects only the time and the last bits of the products.

    Returns:
        (P,) float64; NaN if one of the two rows has a NaN.
    """
    vectors: FloatArray = np.ascontiguousarray(rows, dtype=np.float64)
    products = np.empty(len(left))
    if not len(left):
        return products
    sides = _Side(left, len(rows), _LEFT), _Side(right, len(rows), _RIGHT)
    num_tiles = sides[0].num_tiles * sides[1].num_tiles
    tile = _tile_of_pair(*sides, num_tiles)
    counts = np.bincount(tile, minlength=num_tiles)
    sizes = np.outer(sides[0].tile_sizes, sides[1].tile_sizes).ravel()
    is_dense = counts >= dense * sizes
    order = np.argsort(tile, kind="stable")  # a radix sort for 16 bits
    del tile
    ends = np.cumsum(counts)
    for at in np.flatnonzero(is_dense & (counts > 0)):
        pairs = order[ends[at] - counts[at] : ends[at]]
        _products_of_tile(vectors, sides, divmod(int(at), sides[1].num_tiles), pairs, products)
    if not is_dense[counts > 0].all():
        _gathered(vectors, left, right, order[np.repeat(~is_dense, counts)], products)
    return products


class _Side:
    """One side of all pairs: the rows that occur there, numbered from 0 and divided into tiles."""

    def __init__(self, ids: Ids, num_rows: int, tile: int) -> None:
        used: BoolArray = np.zeros(num_rows, dtype=bool)
        used[ids] = True
        self.ids = ids
        self.rows: IntArray = np.flatnonzero(used)
        self.place = (np.cumsum(used) - 1).astype(np.int32)  # by row
        self.tile = tile
        self.num_tiles = -(-len(self.rows) // tile)

    @property
    def tile_sizes(self) -> IntArray:
        return np.bincount(np.arange(len(self.rows)) // self.tile)

    def of_tile(self, number: int) -> IntArray:
        return self.rows[number * self.tile : (number + 1) * self.tile]


def _tile_of_pair(left: _Side, right: _Side, num_tiles: int) -> Ids:
    """Return (P,) the number of the tile of each pair."""
    dtype = np.uint16 if num_tiles <= 2**16 else np.int64
    row, column = left.place // left.tile * right.num_tiles, right.place // right.tile
    tile = row.astype(dtype)[left.ids]
    tile += column.astype(dtype)[right.ids]
    return tile


def _products_of_tile(
    rows: FloatArray, sides: tuple[_Side, _Side], numbers: tuple[int, int], pairs: IntArray, products: FloatArray
) -> None:
    left, right = sides
    across = right.of_tile(numbers[1])
    matrix = rows[left.of_tile(numbers[0])] @ rows[across].T  # (left rows, right rows)
    for start in range(0, len(pairs), _PICK):
        block = pairs[start : start + _PICK]
        cell = left.place[left.ids[block]].astype(np.int64) - numbers[0] * left.tile
        cell *= len(across)
        cell += right.place[right.ids[block]]
        cell -= numbers[1] * right.tile
        products[block] = matrix.ravel()[cell]


def _gathered(rows: FloatArray, left: Ids, right: Ids, pairs: IntArray, products: FloatArray) -> None:
    for start in range(0, len(pairs), _GATHER):
        block = pairs[start : start + _GATHER]
        products[block] = np.einsum("ij,ij->i", rows[left[block]], rows[right[block]])
