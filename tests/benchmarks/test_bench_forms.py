"""The files that the benchmark of forms writes hold the images and labels of their source."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sphereface.data.sources import open_path

from ..images import make_training_set


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield __import__("bench_forms")
    for name in ("bench_forms", "bench_data"):
        sys.modules.pop(name, None)


def test_every_form_holds_the_source(tmp_path, bench, monkeypatch):
    monkeypatch.setattr(bench, "SHARDS", 3)
    make_training_set(tmp_path / "faces", 4, 5)
    source = open_path(tmp_path / "faces")
    for place in (
        bench.write_tars(source, tmp_path / "tar"),
        bench.write_parquet(source, tmp_path / "parquet"),
        bench.write_lmdb(source, tmp_path / "faces.lmdb"),
    ):
        found = open_path(place)
        assert [found.read(row) for row in range(20)] == [source.read(row) for row in range(20)]
        np.testing.assert_array_equal(np.asarray(found.labels), np.asarray(source.labels))
    assert len(list((tmp_path / "tar").glob("*.tar"))) >= 3
    assert len(list((tmp_path / "parquet").glob("*.parquet"))) == 3
