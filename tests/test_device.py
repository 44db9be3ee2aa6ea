"""Devices and number types."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sphereface import device as own
from sphereface.device import choose_device, make_deterministic, precision_on, processors, use_machine, without_triton
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


@pytest.mark.parametrize(("deterministic", "matmul"), [(False, "fp32"), (True, "tf32")])
def test_cuda_gets_the_arithmetic_it_was_given_and_tries_convolutions_out_unless_deterministic(deterministic, matmul):
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    try:
        use_machine(torch.device("cuda"), deterministic=deterministic, matmul=matmul)
        tf32 = matmul == "tf32"
        assert (cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark) == (tf32, tf32, not deterministic)
        use_machine(torch.device("cuda"))
        assert (cuda.allow_tf32, cudnn.allow_tf32) == (False, False)
    finally:
        cuda.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def test_a_deterministic_run_does_not_fill_memory():
    filled = torch.utils.deterministic.fill_uninitialized_memory
    try:
        torch.utils.deterministic.fill_uninitialized_memory = True
        make_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        make_deterministic(False)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def test_malloc_is_told_to_keep_what_is_freed(monkeypatch):
    told = []
    libc = SimpleNamespace(mallopt=lambda option, value: told.append((option, value)))
    monkeypatch.setattr("sphereface.device.sys.platform", "linux")
    monkeypatch.setattr("sphereface.device.ctypes.CDLL", lambda name: libc)
    use_machine(torch.device("cpu"))
    assert told == [(-4, 0), (-1, 2**31 - 1)]  # M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's malloc.h


def test_a_system_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr("sphereface.device.ctypes.CDLL", lambda name: SimpleNamespace())
    use_machine(torch.device("cpu"))


@pytest.mark.parametrize(
    ("tool", "installed", "capability", "reason"),
    [
        ("clang", True, (7, 0), None),
        (None, True, (9, 0), "there is no C compiler"),
        ("gcc", False, (9, 0), "the package triton is not installed"),
        ("cc", True, (6, 1), "compute capability 6.1 is below 7.0"),
    ],
)
def test_why_triton_cannot_run(monkeypatch, tool, installed, capability, reason):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(own.shutil, "which", lambda name: name if name == tool else None)
    monkeypatch.setattr(own.importlib.util, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(own, "why_no_triton", own.why_no_triton.__wrapped__)
    assert own.why_no_triton(torch.device("cuda")) == reason
    line = without_triton(torch.device("cuda"))
    assert (line is None) if reason is None else line.startswith(f"training without Triton kernels: {reason} · ")
    assert without_triton(torch.device("cpu")) is None


def test_a_compiler_named_by_cc_serves(monkeypatch):
    monkeypatch.setenv("CC", "/opt/bin/icx")
    monkeypatch.setattr(own.shutil, "which", lambda name: None)
    monkeypatch.setattr(own.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert own.why_no_triton.__wrapped__(torch.device("cuda")) is None
