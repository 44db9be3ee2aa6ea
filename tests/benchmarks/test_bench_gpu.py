"""The GPU benchmarks run through on a CPU at toy sizes, and say in a line that they need a GPU."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TRIAL = ("--device", "cpu", "--tiny")


@pytest.fixture
def program(monkeypatch):
    """Return a benchmark's main function."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return lambda name: importlib.import_module(name).main


def test_step(program, tmp_path, capsys):
    rows = ["bf16", "arcface_torch iresnet50", "fp16"]
    assert program("bench_step_gpu")([*TRIAL, "--only", *rows, "--out", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(rows)
    *figures, failed = json.loads((tmp_path / "step.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in figures] == rows[:2]
    assert all(row["images_per_s"] == pytest.approx(4000 / row["ms"]) and row["of_peak"] > 0 for row in figures)
    assert "got fp16 on cpu" in failed["error"]  # one row fails, the others are there


def test_loss(program, tmp_path, capsys):
    path = tmp_path / "loss.json"
    assert program("bench_loss_gpu")([*TRIAL, "--no-compile", "--json", str(path)]) == 0
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert [row for row in rows if "error" in row] == []
    assert {row["kind"] for row in rows} == {"bf16", "fp32"}
    assert [row["name"] for row in rows[:3]] == ["bare", "partial fc", "cosface"]
    assert len(rows) == 2 * 8
    assert "to partial fc" in capsys.readouterr().out


def test_partial_fc_is_cosface(program):
    program("bench_loss_gpu")
    from gpu_rivals import partial_fc

    from sphereface.losses.head import MarginHead
    from sphereface.losses.margins import make_margin

    torch.manual_seed(0)
    x, labels = torch.randn(6, 8, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 2, 3, 4, 4])
    head = MarginHead(8, 5, make_margin("cosface", s=8, m=0.2)).double()
    loss = partial_fc(x, head.weight, labels, 8.0, 0.2)  # its logits are float32
    loss.backward()
    found = x.grad.clone(), head.weight.grad.clone()
    x.grad = head.weight.grad = None
    wanted = head(x, labels).loss
    wanted.backward()
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-5)
    for ours, exact in zip(found, (x.grad, head.weight.grad), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["bench_step_gpu", "bench_loss_gpu"])
def test_without_a_gpu(program, name, capsys):
    assert program(name)([]) == 2
    assert capsys.readouterr().err == (
        "error: --device: cuda is not available here · for a trial: --device cpu --tiny\n"
    )


@pytest.mark.skipif(torch.cuda.is_available() or sys.platform == "win32", reason="there is a GPU, or no bash")
def test_make_gpu_without_a_gpu(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path / "out")}
    done = subprocess.run(["bash", str(ROOT / "benchmarks/gpu.sh")], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: make gpu: PyTorch finds no GPU here · ")
    assert done.stderr.count("\n") == 1
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no bash")
def test_a_part_that_fails_or_takes_too_long_costs_itself_alone(tmp_path):
    """With a program in the place of ``timeout`` that runs nothing."""
    stand_in = tmp_path / "bin" / "timeout"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/bash\necho "ran $3"\ncase $* in *tests/gpu*) exit 124 ;; *loss*) exit 137 ;; *demo) exit 3 ;; esac\n'
    )
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHON": sys.executable, "OUT": str(tmp_path / "out"), "DEVICE": "cpu"}
    done = subprocess.run(["bash", str(ROOT / "benchmarks/gpu.sh")], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    parts = ["machine", "tests", "step", "loss", "feed", "demo", "profile"]
    assert [line.split()[1] for line in done.stdout.splitlines() if "(limit" in line] == parts
    assert all((tmp_path / "out" / f"{part}.txt").read_text().startswith("ran ") for part in parts)
    failed = ["tests: out of time after 1020 s", "loss: out of time after 480 s", "demo: exit code 3"]
    *_, count, first, second, third = done.stdout.splitlines()
    assert count.endswith("parts that failed: 3")
    assert [line.removeprefix("=== ") for line in (first, second, third)] == failed
    assert all(f"=== {line}\n\n=== " in done.stdout for line in failed)  # also where it happened


def test_made_rec(program, tmp_path):
    from sphereface.data.sources import open_source

    assert program("make_rec")([str(tmp_path), "--people", "3", "--each", "2"]) == 0
    source = open_source(tmp_path / "train.rec")
    assert (len(source), len(source.class_names)) == (6, 3)
    sizes = [len(source.read(k)) for k in range(6)]
    assert 2000 < sum(sizes) / 6 < 8000
