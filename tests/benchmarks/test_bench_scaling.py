"""The table of docs/scaling.md is the one that the benchmark prints."""

import importlib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_of_the_docs(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    assert importlib.import_module("bench_scaling").main(["--table"]) == 0
    assert capsys.readouterr().out in (ROOT / "docs/scaling.md").read_text(encoding="utf-8")


def test_bytes_on_a_gpu_in_numbers(monkeypatch):
    """D = 512, N = 1024, a million classes on eight devices: 125,000 rows each."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    on_gpu = importlib.import_module("bench_scaling").on_gpu
    parts = 2 * 4 * 1024 * 125_000 / 256 + 4 * 125_000
    logits = 2 * 1024 * 125_000  # less than 256 MiB: one block
    assert on_gpu(125_000, 1024, 512, "bf16") == (logits, logits + 2 * 512 * 125_000 + parts)
    logits *= 2  # two blocks, and rows longer than those of W
    assert on_gpu(125_000, 1024, 512, "fp32") == (logits, logits + 4 * 512 * 62_500 + parts)
    parts, logits = 8 * parts, 2 * 1024 * 1_000_000  # eight blocks, seven of them in the memory of the gradient
    assert on_gpu(1_000_000, 1024, 512, "bf16") == (logits, logits / 8 + 2 * 512 * 125_000 + parts)
