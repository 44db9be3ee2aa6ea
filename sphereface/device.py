"""The device of a run, and its arithmetic."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import torch

from .choices import DEVICES
from .errors import UserError

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def choose_device(name: str) -> torch.device:
    """Return the device of ``--device``; auto is the first available one of cuda, mps, cpu.

    Raises:
        UserError: the device is not available.
    """
    kind, _, number = name.partition(":")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if kind not in available or name.endswith(":") or (number and not (kind == "cuda" and number.isdigit())):
        raise UserError(f"--device: got {name!r} · allowed: {', '.join(DEVICES)}")
    if not available[kind]:
        raise UserError(f"--device: {kind} is not available here · use --device auto")
    if number and int(number) >= torch.cuda.device_count():
        raise UserError(f"--device: got {name} · allowed: cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    return torch.device(name)


def precision_on(device: torch.device, precision: str) -> torch.dtype:
    """Return the number type of the autocast regions; fp32 means no autocast.

    Raises:
        UserError: fp16 on another device than CUDA. Only there a loss scale prevents underflow.
    """
    if precision == "fp16" and device.type != "cuda":
        raise UserError(f"train.precision: got fp16 on {device.type} · allowed there: fp32, bf16")
    return _TYPES[precision]


def make_deterministic(wanted: bool) -> None:
    """Set whether torch refuses operations whose result depends on the order of threads.

    On a CPU, a run of this project repeats bit for bit without it, with the same number of threads.
    On CUDA it is slower.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs
    torch.use_deterministic_algorithms(wanted)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # finds faults, costs passes
    torch.backends.cudnn.deterministic = wanted


def use_machine(device: torch.device, *, deterministic: bool = False, matmul: str = "fp32") -> None:
    """Set what makes training fast in this process.

    On a CPU, the process uses as many threads as it has processors, and keeps freed memory. The
    next step needs the same memory again, and new pages would cost a tenth of the step. On CUDA,
    this sets the arithmetic of fp32 products. cuDNN also chooses the fastest convolution of each
    shape, by trying all once.

    Args:
        device: where the network runs.
        deterministic: cuDNN tries nothing.
        matmul: fp32, or tf32, which rounds the factors of fp32 products and convolutions to 11
            significant bits on CUDA.
    """
    if device.type == "cpu":
        torch.set_num_threads(min(torch.get_num_threads(), processors()))
        _keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = matmul == "tf32"
        torch.backends.cudnn.allow_tf32 = matmul == "tf32"
        torch.backends.cudnn.benchmark = not deterministic


@functools.cache
def why_no_triton(device: torch.device) -> str | None:
    """Return why Triton cannot compile kernels for a CUDA device; None if it can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if not (os.environ.get("CC") or any(map(shutil.which, ("gcc", "clang", "cc")))):
        return "there is no C compiler"
    major, minor = torch.cuda.get_device_capability(device)
    return None if major >= 7 else f"compute capability {major}.{minor} is below 7.0"


def without_triton(device: torch.device) -> str | None:
    """Return a line for the log if training on this device lacks its Triton kernels; else None."""
    reason = why_no_triton(device) if device.type == "cuda" else None
    return reason and (
        f"training without Triton kernels: {reason} · the loss and the Sphere CNN take more time and memory · "
        "needed: the package triton, a C compiler such as gcc, a GPU of compute capability 7.0 or higher"
    )


def processors(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return the number of processors that this process may use.

    It is smaller than the number of the machine's if the container has a quota of time.

    Args:
        quota: the container's file. It has the microseconds of processor time, or ``max``, and the
            period in microseconds.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        time, period = quota.read_text(encoding="ascii").split()
        return min(allowed, max(1, int(time) // int(period)))
    except (OSError, ValueError):  # no container, or no limit
        return allowed


def _keep_freed_memory() -> None:
    """Make glibc's malloc keep freed memory; on other systems do nothing."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        set_option(_M_MMAP_MAX, 0)
        set_option(_M_TRIM_THRESHOLD, 2**31 - 1)
