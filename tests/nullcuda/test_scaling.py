"""The formulas of docs/scaling.md against the memory of a step of the head on the null CUDA."""

from __future__ import annotations

import importlib

import pytest

from .process import ROOT

CASES = [  # of the table: classes, devices, sample_rate, precision
    (1_000_000, 8, 1.0, "fp32"),
    (1_000_000, 8, 1.0, "bf16"),
    (1_000_000, 64, 0.1, "fp32"),
    (10_000_000, 8, 1.0, "bf16"),
    (10_000_000, 16, 1.0, "bf16"),
    (10_000_000, 32, 0.1, "bf16"),
]
CUBLAS = 2 * 32 * 2**20
"""Bytes of PyTorch's workspaces for products, of the threads of forward and backward."""


def head_of_many(classes, ranks, rate, precision):
    loss = f"loss={{name: cosface, sample_rate: {rate}}}"
    overrides = ["model={depth: 4, widths: [4, 4, 4, 4]}", f"train.precision={precision}", loss]
    case = {"classes": classes, "batch": 128, "processes": ranks, "part": "head", "overrides": overrides}
    return {"name": f"{classes} {ranks} {rate} {precision}", **case}


HEADS_OF_MANY = [head_of_many(*case) for case in CASES]


def test_a_step_takes_the_memory_of_the_formula(counts, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    held = importlib.import_module("bench_scaling").held
    wanted = []
    for classes, ranks, rate, precision in CASES:
        sizes = held(ranks=ranks, n=128 * ranks, classes=classes, dim=512, rate=rate, precision=precision)
        wanted.append(sizes["weights"] + sizes["step"] + CUBLAS)
    results = counts["heads of many"]
    assert [row["error"] for row in results if "error" in row] == []
    assert [row["peak_bytes"] for row in results] == pytest.approx(wanted, rel=0.03)
