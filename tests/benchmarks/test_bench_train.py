"""The benchmark of a training step runs as its documentation says, at toy sizes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..shared import made_once

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["sphere20", "mobilefacenet"])
def bench(tmp_path_factory, request):
    def measure(folder: Path) -> None:
        command = [sys.executable, str(ROOT / "benchmarks" / "bench_train.py"), "--tiny", "--model", request.param]
        command += ["--json", str(folder / "rows.json")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (folder / "printed.txt").write_text(done.stdout, encoding="utf-8")

    folder = made_once(tmp_path_factory, f"bench-{request.param}", measure)
    return (folder / "printed.txt").read_text(encoding="utf-8"), json.loads((folder / "rows.json").read_text())


def test_rows(bench):
    printed, rows = bench
    keys = ("model", "name", "dtype", "batch", "images_per_s", "ratio_to_port", "share_of_peak")
    assert {tuple(row) for row in rows} == {keys}
    both = {(name, kind) for name in ("sphereface", "backbone", "peak") for kind in ("fp32", "bf16")}
    assert {(row["name"], row["dtype"]) for row in rows} == {("plain port", "fp32"), *both}
    assert all(row["images_per_s"] > 0 and row["batch"] == 4 for row in rows)
    assert "around the backbone, bf16" in printed


def test_ratios_are_to_the_port_and_to_the_peak_of_the_same_type(bench):
    rows = {(row["name"], row["dtype"]): row for row in bench[1]}
    port, peak = (
        rows["plain port", "fp32"]["images_per_s"],
        {k: rows["peak", k]["images_per_s"] for k in ("fp32", "bf16")},
    )
    for (_, kind), row in rows.items():  # one round, so the median of ratios is the ratio of medians
        assert row["ratio_to_port"] == pytest.approx(row["images_per_s"] / port)
        assert row["share_of_peak"] == pytest.approx(row["images_per_s"] / peak[kind])


def test_the_plain_port_has_the_networks_size(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from plain_port import plain_form
    from torch import nn

    from sphereface.models import BACKBONES, build_model

    for options in (BACKBONES["spherenet"](), BACKBONES["mobilefacenet"]()):
        plain, own = plain_form(options), build_model(options)
        sizes = [sum(p.numel() for p in net.parameters()) for net in (plain, own)]
        assert sizes[0] == sizes[1]
        assert {type(layer) for layer in plain.modules() if isinstance(layer, nn.PReLU)} == {nn.PReLU}
