"""The benchmark of large sets runs at a smaller size, and what it measures does not grow with the number of images."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sphereface.data.sources import RecordSource
from sphereface.data.sources import records as records_source

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_scale", ROOT / "benchmarks" / "bench_scale.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_set_is_read_as_it_was_made(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(records_source, "_FEWEST_BYTES", 0)
    path = bench.make_set(tmp_path, 1000, 7)
    for _ in range(2):
        source = RecordSource(path)
        firsts = [row * 1000 // 7 for row in range(8)]
        assert source.labels.firsts.tolist() == firsts
        assert source.class_names == [str(label) for label in range(7)]
        assert {source.read(row) for row in range(1000)} == {b"face"}
        assert [source.name(row) for row in (0, 999)] == [f"{path}, record 1", f"{path}, record 1000"]
    assert (tmp_path / ".train.rec.index").is_file()


def test_a_process_costs_what_it_costs_for_fewer_images(tmp_path):
    """2 million images: their index is 28 MB, and the arrays of the order before this took 50."""
    rows_file = tmp_path / "rows.json"
    sizes = ["--images", "2000000", "--identities", "50000", "--processes", "3", "--repeats", "1"]
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_scale.py"), *sizes, "--json", str(rows_file)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(rows_file.read_text(encoding="utf-8"))}
    assert list(rows) == ["first opening", "later opening", "3 at once"]
    later = rows["later opening"]
    assert later["own_mb"] < 10
    assert rows["3 at once"]["own_mb"] < 30
    assert later["open_cpu_s"] < rows["first opening"]["open_cpu_s"] / 3
    assert later["new_epoch_s"] < 0.1  # 0.4 ms on a quiet machine, where it was a second
    assert np.isfinite([value for value in later.values() if not isinstance(value, str)]).all()
    assert "2,000,000 images of 50,000 identities" in done.stdout
