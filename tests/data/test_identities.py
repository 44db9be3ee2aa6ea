"""Labels and rows that are kept by identity are those of arrays."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from sphereface.data.identities import Labels, Runs, places

COUNTS = [3, 1, 4, 1, 5]
ARRAY = np.repeat(np.arange(5, dtype=np.int32), COUNTS)


@pytest.mark.parametrize("labels", [Labels.of_counts(COUNTS), Labels.of(ARRAY), Labels(np.array([0, 3, 4, 8, 9, 14]))])
def test_labels_are_those_of_the_array(labels):
    assert labels.firsts.tolist() == [0, 3, 4, 8, 9, 14]
    assert labels.counts.tolist() == COUNTS
    assert (len(labels), labels.dtype) == (14, np.int32)
    assert labels.tolist() == list(labels) == ARRAY.tolist()
    assert Labels.of(labels) is labels
    assert pickle.loads(pickle.dumps(labels)).tolist() == ARRAY.tolist()
    np.testing.assert_array_equal(labels, ARRAY)
    assert np.asarray(labels).dtype == np.int32
    assert np.asarray(labels, dtype=np.int64).dtype == np.int64


@pytest.mark.parametrize("index", [
    *(0, 13, -1, np.int64(7), slice(2, 9), slice(None, None, -3), [3, 4], ARRAY > 2),
    *(np.array([13, 0, 7, 7]), np.array([-1, 2]), np.array([], np.int64)),
])  # fmt: skip
def test_any_index_gives_what_the_array_gives(index):
    found = Labels.of_counts(COUNTS)[index]
    np.testing.assert_array_equal(found, ARRAY[index])
    assert found.dtype == np.int32


@pytest.mark.parametrize("index", [14, -15, np.array([0, 14])])
def test_an_index_outside_is_an_error(index):
    with pytest.raises(IndexError, match="of 14$|out of bounds"):
        Labels.of_counts(COUNTS)[index]


def test_no_images_have_no_labels():
    assert (len(Labels.of(ARRAY[:0])), Labels.of(ARRAY[:0]).tolist()) == (0, [])


def test_runs_are_rows_of_the_whole():
    runs = Runs(np.array([20, 0, 7]), np.array([2, 3, 1]))
    assert (len(runs), [runs[row] for row in range(6)]) == (6, [20, 21, 0, 1, 2, 7])
    assert len(Runs(np.empty(0, np.int64), np.empty(0, np.int64))) == 0


def test_places_are_searchsorted():
    values = np.random.default_rng(0).integers(-2, 16, 100)
    edges = np.array([0, 3, 3, 4, 8, 9, 14])
    np.testing.assert_array_equal(places(edges, values), np.searchsorted(edges, values, side="right"))
