"""The benchmark of galleries runs at a toy size."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_finds_the_right_people_and_deletes_its_folder(tmp_path):
    command = [sys.executable, "benchmarks/bench_gallery.py", "--rows", "9000", "--dim", "32", "--queries", "3"]
    done = subprocess.run([*command, "--folder", tmp_path / "g"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, opened, exact = done.stdout.splitlines()
    assert first.startswith("9,000 rows of 32, float16, 0.00 GB")
    assert json.loads(opened[opened.index("{") : opened.index("}") + 1])["rows"] == 9000
    assert json.loads(exact[exact.index("{") : exact.index("}") + 1])["person first"] == 1.0
    assert not (tmp_path / "g").exists()
