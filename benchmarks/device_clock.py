"""Time a function on a GPU, or on the CPU for a trial of the benchmarks."""

from __future__ import annotations

import collections
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """Medians over the calls."""

    ms: float
    """Of the device."""
    host_ms: float
    """Until the host has launched all of it. A host that needs as long as the device limits it."""
    extra_mib: float
    """The peak of memory beyond what was in use before the call; 0 on a CPU."""


def clock(function: Callable[[], object], device: torch.device, seconds: float) -> Timing:
    """Call a function for so many seconds, at least five times, after two calls that do not
    count.
    """
    for _ in range(2):
        function()
    before = _restart_peak(device)
    times: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - began < seconds and len(times) < 500):
        times.append(_one(function, device))
    ms, host_ms = (statistics.median(values) for values in zip(*times, strict=True))
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return Timing(ms, host_ms, (peak - before) / 2**20)


def _restart_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _one(function: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Milliseconds of the device and of the host."""
    if device.type != "cuda":
        began = time.perf_counter()
        function()
        ms = 1000 * (time.perf_counter() - began)
        return ms, ms
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began = time.perf_counter()
    first.record()
    function()
    last.record()
    host_ms = 1000 * (time.perf_counter() - began)
    last.synchronize()
    return first.elapsed_time(last), host_ms


def waits(function: Callable[[], object], device: torch.device) -> str:
    """Return the lines of Python at which one call waits for the device."""
    if device.type != "cuda":
        return "-"
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    torch.cuda.set_sync_debug_mode("default")
    places = collections.Counter(
        f"{Path(w.filename).name}:{w.lineno}" for w in caught if "called a synchronizing" in str(w.message)
    )
    return ", ".join(f"{place} × {n}" for place, n in places.items()) or "none"


def products_per_second(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Floating point operations a second of a square product: the ceiling of this device."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / clock(lambda: a @ b, device, 0.3).ms * 1000


def bytes_per_second(device: torch.device, size: int) -> float:
    """Bytes read and written a second by a copy of so many numbers."""
    a = torch.randn(size, device=device)
    b = torch.empty_like(a)
    return 8 * size / clock(lambda: b.copy_(a), device, 0.3).ms * 1000


def name_of(device: torch.device) -> str:
    """Return the name of the device, with the versions of PyTorch, CUDA and cuDNN."""
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{chip}, torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
