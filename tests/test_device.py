"""Devices and number types."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sphereface.device import choose_device, precision_on, processors, use_machine
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


@pytest.mark.parametrize(
    ("quota", "wanted"),
    [("max 100000", 64), ("200000 100000", 2), ("50000 100000", 1), ("9900000 100000", 64), ("", 64)],
)
def test_processors_are_those_allowed_or_the_containers_quota(tmp_path, monkeypatch, quota, wanted):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    (tmp_path / "cpu.max").write_text(quota, encoding="ascii")
    assert processors(tmp_path / "cpu.max") == wanted
    assert processors(tmp_path / "missing") == 64


def test_a_cpu_gets_no_more_threads_than_processors(monkeypatch):
    before = torch.get_num_threads()
    try:
        for processors_there, wanted in ((1, 1), (before + 5, before)):
            torch.set_num_threads(before)
            monkeypatch.setattr("sphereface.device.processors", lambda there=processors_there: there)
            use_machine(torch.device("cpu"))
            assert torch.get_num_threads() == wanted
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("deterministic", [False, True])
def test_cuda_gets_tf32_and_tries_convolutions_out_unless_deterministic(monkeypatch, deterministic):
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    try:
        use_machine(torch.device("cuda"), deterministic=deterministic)
        assert (cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark) == (True, True, not deterministic)
    finally:
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_what_is_freed_is_kept():
    code = (
        "import resource, torch\n"
        "from sphereface.device import use_machine\n"
        "use_machine(torch.device('cpu'))\n"
        "for _ in range(5): torch.ones(50_000_000)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "torch.ones(50_000_000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # of 48,829 pages
