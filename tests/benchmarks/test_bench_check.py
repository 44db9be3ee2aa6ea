"""The benchmark of ``check`` runs on a small folder and prints a row for each way."""

import re
import runpy
from pathlib import Path

from ..images import make_training_set

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "bench_check.py"))


def test_a_row_for_each_way(tmp_path, capsys):
    make_training_set(tmp_path / "faces")
    assert BENCH["main"]([str(tmp_path / "faces"), "--rounds", "1", "--groups", "400"]) == 0
    *rows, groups = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows] == ["bare decoding", "decoding", "check"]
    assert all(re.search(r"\d+\.\d µs an image +\d+\.\d\d × bare decoding$", row) for row in rows)
    assert groups.startswith("near-duplicates among 400 hashes: ")
