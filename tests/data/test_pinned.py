"""Memory that a CUDA device reads by itself. CUDA's functions are acted; tests/nullcuda and tests/gpu call them."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from sphereface.data.prefetch import in_pinned_memory, pinned


@pytest.mark.parametrize("error", [0, 2])
def test_pages_are_locked_and_released_or_a_warning_says_why_not(monkeypatch, caplog, error):
    calls = []
    cuda = SimpleNamespace(
        cudaHostRegister=lambda *of: calls.append(of) or error, cudaHostUnregister=lambda of: calls.append(of)
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda)
    monkeypatch.setattr(torch, "zeros", lambda *size, device: (_ for _ in ()).throw(RuntimeError("said again")))
    memory = torch.empty(3 << 20, dtype=torch.uint8)

    def broken_off() -> None:
        with pinned(memory[16:]):
            assert calls == [(memory.data_ptr(), 3 << 20, 0)]
            raise KeyError

    with caplog.at_level(logging.WARNING), pytest.raises(KeyError):
        broken_off()
    assert calls[1:] == ([] if error else [memory.data_ptr()])
    assert ("CUDA cannot lock the 3 MiB" in caplog.text) == bool(error)


def test_what_lies_in_locked_memory_is_not_copied(monkeypatch):
    part = torch.ones(2)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    for there in (False, True):
        monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self, there=there: there)
        assert (in_pinned_memory(part) is part) == there
    meta = torch.ones(2, device="meta")
    assert in_pinned_memory(meta) is meta
