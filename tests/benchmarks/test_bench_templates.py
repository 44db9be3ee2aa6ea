"""The benchmark of IJB's protocol runs as its documentation says, at toy sizes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SIZE = ["--images", "600", "--templates", "120", "--pairs", "1500", "--dim", "16"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_templates.py"), *SIZE, "--folder", str(folder)]
    result = subprocess.run([*command, "--json", str(folder / "rows.json")], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return result.stdout, json.loads((folder / "rows.json").read_text()), folder


def test_both_ways_agree(bench):
    printed, rows, folder = bench
    assert [row["name"] for row in rows] == ["sphereface", "field"]
    ours, field = (np.load(folder / f"{row['name']}.npy") for row in rows)
    assert len(ours) == 1500
    np.testing.assert_allclose(ours, field, rtol=0, atol=1e-6)
    assert rows[0]["tpr"] == pytest.approx(rows[1]["tpr"], abs=0.02)
    assert "largest difference of scores" in printed


def test_rows_have_times_and_memory(bench):
    for row in bench[1]:
        assert {"read lists", "read pairs", "pool", "products", "TPR"} <= row["seconds"].keys()
        assert 0 < row["imports_mib"] <= row["peak_mib"]
        assert row["total_s"] > 0
        assert (row["images"], row["templates"], row["pairs"], row["dim"]) == (600, 120, 1500, 16)


def test_the_files_have_the_sizes_and_all_genuine_pairs(bench):
    lines = [line.split() for line in (bench[2] / "ijbc_template_pair_label.txt").read_text().splitlines()]
    assert len({(a, b) for a, b, _ in lines}) == 1500
    assert sum(label == "1" for _, _, label in lines) == 120 - 18
    images = [line.split() for line in (bench[2] / "ijbc_face_tid_mid.txt").read_text().splitlines()]
    assert len(images) == 600
    assert len({template for _, template, _ in images}) == 120
