"""The benchmark of the loss runs as its documentation says, at toy sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sphereface.losses.margins import MARGINS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "rows.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_loss.py"), "--tiny", "--json", str(path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # one thread waits for no other
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text(encoding="utf-8"))


def test_rows_have_exactly_these_keys(bench):
    _, rows = bench
    assert {tuple(row) for row in rows} == {("name", "n", "classes", "dim", "dtype", "ms", "ratio_to_bare", "extra_mb")}
    assert all(row["ms"] > 0 and row["ratio_to_bare"] > 0 and row["extra_mb"] >= 0 for row in rows if row["ms"])
    assert {row["name"]: row["ratio_to_bare"] for row in rows}["bare"] == 1


def test_every_margin_and_every_rival_has_a_row(bench):
    printed, rows = bench
    names = {row["name"] for row in rows}
    assert names >= set(MARGINS) - {"a-softmax"} | {"a-softmax exact", "a-softmax caffe", "a-softmax exact, mhe"}
    assert names >= {"bare", "textbook a-softmax", "pml SphereFaceLoss", "pml ArcFaceLoss", "a-softmax exact, chunked"}
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16"}
    missing = [row["name"] for row in rows if row["ms"] is None]
    assert all(name.startswith("pml") for name in missing)
    assert printed.count("not installed") == len(missing)
