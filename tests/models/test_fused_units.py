"""The fused residual units. Their cases are in fused_units_cases.py: they need Triton's interpreter from its first
import on."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sphereface.models import fused_units
from sphereface.models.spherenet import SphereStage

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no triton here")
def test_all_cases_under_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-W", "ignore::RuntimeWarning", "tests/models/fused_units_cases.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]


def test_a_cpu_has_the_plain_layers(monkeypatch):
    monkeypatch.setattr(fused_units, "_kernels", lambda: pytest.fail("a kernel"))
    stage = SphereStage(3, 4, 1, "none").to(memory_format=torch.channels_last)
    x = torch.ones(2, 3, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    stage(x).sum().backward()
