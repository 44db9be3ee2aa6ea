"""Devices and number types."""

from __future__ import annotations

import pytest
import torch

from sphereface.device import choose_device, precision_on
from sphereface.errors import UserError


def test_auto_takes_the_best_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


def test_a_numbered_device_has_to_exist(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match="--device: got cuda:2 · allowed: cuda:0 to cuda:1"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cpu:", "cpu:1", "cuda:x", ""])
def test_what_is_no_device(name):
    with pytest.raises(UserError, match="--device: got .* allowed: auto, cuda, mps, cpu"):
        choose_device(name)


def test_a_device_that_is_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device: cuda is not available here"):
        choose_device("cuda")


def test_half_precision_where_it_works():
    assert precision_on(torch.device("cpu"), "bf16") is torch.bfloat16
    assert precision_on(torch.device("cuda"), "fp16") is torch.float16
    for device in ("cpu", "mps"):
        with pytest.raises(UserError, match=f"train.precision: got fp16 on {device}"):
            precision_on(torch.device(device), "fp16")
