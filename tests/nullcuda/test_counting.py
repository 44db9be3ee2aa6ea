"""The null CUDA counts what is known beforehand, and refuses what a GPU refuses."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

from . import build
from .process import HERE, run

KNOWN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
import torch.nn.functional as F
from counting import count

a, b = torch.ones(64, 32, device="cuda"), torch.ones(32, 16, device="cuda")
x = torch.ones(2, 3, 8, 8, device="cuda", requires_grad=True)
w, bias = torch.ones(4, 3, 3, 3, device="cuda", requires_grad=True), torch.ones(4, device="cuda", requires_grad=True)
pinned, here = torch.ones(64, 32).pin_memory(), torch.ones(64, 32)

def keep_a_megabyte():
    global kept
    kept = torch.empty(2**20, dtype=torch.uint8, device="cuda")

def convolve():
    F.conv2d(x, w, bias, padding=1).sum().backward()

found = {name: count(function).to_dict() for name, function in {
    "nothing": lambda: None,
    "memory": keep_a_megabyte,
    "two sums": lambda: a + a + a,
    "product": lambda: a @ b,
    "item": lambda: a[0, 0].item(),
    "copy": lambda: a.copy_(here),
    "copy of pinned": lambda: a.copy_(pinned, non_blocking=True),
    "synchronize": torch.cuda.synchronize,
    "convolution": convolve,
}.items()}
for name, function in {"devices": lambda: a + torch.ones(64, 32), "types": lambda: F.conv2d(x, w.half())}.items():
    try:
        function()
        found[name] = ""
    except (RuntimeError, AssertionError) as error:
        found[name] = str(error)
json.dump(found, sys.stdout)
"""


def test_known_counts(environment):
    found = json.loads(run(environment, "-c", KNOWN, str(HERE)))
    nothing = {"waits": {}, "launches": 0, "convolutions": 0, "copies": {}}
    base = found["nothing"].pop("peak_bytes")
    assert found.pop("nothing") == {**nothing, "kernels": {}}
    assert "same device" in found.pop("devices")
    assert "float16" in found.pop("types")
    assert found["memory"]["peak_bytes"] == base + 2 * 2**20  # the first call's is still there during the second
    assert {name: row["launches"] for name, row in found.items()} == {
        "two sums": 2, "product": 1, "item": 0, "copy": 0, "copy of pinned": 0, "synchronize": 0, "memory": 0,
        "convolution": 5,  # the sum, a copy of its expanded gradient, and three gradients added to the first call's
    }  # fmt: skip
    assert found["convolution"]["convolutions"] == 2 + 3
    assert found["product"]["kernels"] == {"product fp32->fp32": 1}
    waiting = {name: sorted(place.partition(":")[0] for place in row["waits"]) for name, row in found.items()}
    here = ["<string>"]  # the lines of KNOWN
    expected = {"item": here, "copy": here, "synchronize": ["cudaDeviceSynchronize"]}
    assert {name: places for name, places in waiting.items() if places} == expected
    assert found["copy of pinned"]["copies"] == {"copy pinned->device": 1}


def test_why_it_cannot_be_built(monkeypatch):
    monkeypatch.setattr(build.torch, "version", SimpleNamespace(cuda=None))
    assert "needs PyTorch for CUDA 13" in build.why_not()
    monkeypatch.setattr(build.torch, "version", SimpleNamespace(cuda="13.0"))
    monkeypatch.setattr(build.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(build.shutil, "which", lambda tool: None)
    assert build.why_not() in ("the null CUDA needs gcc", f"the null CUDA needs Linux, not {sys.platform}")
    monkeypatch.setattr(sys, "platform", "win32")
    assert build.why_not() == "the null CUDA needs Linux, not win32"
