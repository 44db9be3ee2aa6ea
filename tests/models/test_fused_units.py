"""The fused residual units. Their cases are in fused_units_cases.py: they need Triton's interpreter from its first
import on."""

from __future__ import annotations

import pytest
import torch

from sphereface.models import fused_units
from sphereface.models.spherenet import SphereStage

from ..interpreter import run_under_interpreter


def test_all_cases_under_the_interpreter():
    run_under_interpreter("tests/models/fused_units_cases.py")


def test_a_cpu_has_the_plain_layers(monkeypatch):
    monkeypatch.setattr(fused_units, "_kernels", lambda: pytest.fail("a kernel"))
    stage = SphereStage(3, 4, 1, "none").to(memory_format=torch.channels_last)
    x = torch.ones(2, 3, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    stage(x).sum().backward()
