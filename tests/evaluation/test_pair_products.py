import tracemalloc

import numpy as np
import pytest

from sphereface.evaluation import pair_products as module
from sphereface.evaluation.pair_products import pair_products

from .. import ijb_golden as golden


def products_by_loop(rows, left, right):
    rows = rows.astype(np.float64)
    return np.array([float(np.dot(rows[a], rows[b])) for a, b in zip(left, right, strict=True)])


@golden.in_each_mode
def test_scores_equal_insightface(mode, whole):
    values = golden.load(whole)
    rows = golden.rows_of_mode(mode, values["features"], golden.detector_score())
    ids, templates = golden.pool_by_loops(
        rows, golden.column("ijbx_face_tid_mid.txt", 1), golden.column("ijbx_face_tid_mid.txt", 2)
    )
    left, right = (np.searchsorted(ids, golden.column("ijbx_template_pair_label.txt", side)) for side in (0, 1))
    scores = pair_products(templates, left, right)[:: 1 if whole else 8]
    np.testing.assert_allclose(scores, values[f"{mode}.scores"], rtol=0, atol=1e-12)


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(module, "_LEFT", 3)
    monkeypatch.setattr(module, "_RIGHT", 5)
    monkeypatch.setattr(module, "_GATHER", 4)


@pytest.mark.parametrize("dense", [0, 0.3, 2])
@pytest.mark.parametrize(("num_left", "num_right"), [(4, 30), (30, 4), (17, 17), (1, 1)])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_products_by_tile_and_by_pair_equal_a_loop(dense, num_left, num_right, dtype, small_tiles):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((40, 6)).astype(np.float32)
    left = rng.permutation(40)[:num_left][rng.integers(0, num_left, 200)].astype(dtype)
    right = rng.permutation(40)[:num_right][rng.integers(0, num_right, 200)].astype(dtype)
    found = pair_products(rows, left, right, dense=dense)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, products_by_loop(rows, left, right), rtol=0, atol=1e-13)


def test_dense_and_sparse_tiles_in_one_list(small_tiles):
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((60, 6))
    left = np.concatenate([rng.integers(0, 3, 100), rng.integers(3, 60, 30)])
    right = np.concatenate([rng.integers(0, 5, 100), rng.integers(5, 60, 30)])
    order = rng.permutation(130)
    found = pair_products(rows, left[order], right[order], dense=0.5)
    np.testing.assert_allclose(found, products_by_loop(rows, left[order], right[order]), rtol=0, atol=1e-13)


def test_more_tiles_than_16_bits_can_number(monkeypatch):
    monkeypatch.setattr(module, "_LEFT", 1)
    monkeypatch.setattr(module, "_RIGHT", 1)
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((300, 2))
    left, right = rng.permutation(300), rng.permutation(300)
    np.testing.assert_allclose(pair_products(rows, left, right), products_by_loop(rows, left, right), atol=1e-13)


def test_an_undefined_row_spoils_its_own_pairs_only():
    rows = np.ones((4, 2))
    rows[1] = np.nan
    left, right = np.array([0, 0, 1, 2, 3]), np.array([2, 1, 3, 3, 1])
    for dense in (0, 2):
        found = pair_products(rows, left, right, dense=dense)
        np.testing.assert_array_equal(np.isnan(found), [False, True, True, False, True])


def test_no_pairs():
    none = np.array([], dtype=np.int64)
    assert pair_products(np.ones((2, 2)), none, none).shape == (0,)


def test_no_second_float_array_of_all_pairs():
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((300, 8))
    left, right = (rng.integers(0, 300, 2_000_000).astype(np.int32) for _ in range(2))
    tracemalloc.start()
    scores = pair_products(rows, left, right)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(scores[::99991], products_by_loop(rows, left[::99991], right[::99991]), atol=1e-13)
    assert peak < 3 * scores.nbytes  # the order of the pairs comes on top
