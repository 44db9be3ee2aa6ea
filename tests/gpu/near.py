"""Compare values of a GPU with those of the CPU."""

from __future__ import annotations

import pytest
import torch


def has_values() -> bool:
    """Return whether values mean something: on the null CUDA (tests/nullcuda) they do not."""
    return not torch.cuda.is_available() or torch.cuda.get_device_name() != "null"


def near(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    """Assert that ‖found − wanted‖ ≤ tolerance · ‖wanted‖, and that the shapes are equal."""
    assert found.shape == wanted.shape
    a, b = found.detach().double().cpu(), wanted.detach().double().cpu()
    difference, length = float((a - b).norm()), float(b.norm())
    assert not has_values() or difference <= tolerance * length + 1e-12, difference / length


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Assert that two tensors are equal to the bit."""
    assert found.shape == wanted.shape
    assert not has_values() or torch.equal(found.cpu(), wanted.cpu())


def needs_values() -> None:
    """Skip the rest of a test where values mean nothing."""
    if not has_values():
        pytest.skip("the null CUDA has no values")
