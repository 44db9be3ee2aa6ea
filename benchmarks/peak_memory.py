"""Measure how much one step adds to the peak memory of a separate process (Linux)."""

from __future__ import annotations

import multiprocessing
import resource
from pathlib import Path

from rivals import DIM, Row, make_step

_SHARE = 0.8
"""Share of the free memory that a loss may use before it counts as too large."""


def extra_mb(row: Row, n: int, classes: int, dim: int = DIM) -> float | None:
    """Return MB (10⁶ bytes) beyond inputs, weights and their gradients; None if it does not fit."""
    context = multiprocessing.get_context("forkserver")
    # The server imports torch once, and each child is new. The server's path lacks this folder, so
    # it cannot preload "rivals".
    context.set_forkserver_preload(["sphereface.losses.head"])
    with context.Pool(1) as pool:
        return pool.apply(_in_child, (row, n, classes, dim))


def _in_child(row: Row, n: int, classes: int, dim: int) -> float | None:
    make_step(row, 8, 64, dim)()  # libraries, their kernels, thread pools
    free = kib("/proc/meminfo", "MemAvailable:") * 1024
    limit = kib("/proc/self/status", "VmData:") * 1024 + int(_SHARE * free)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        step = make_step(row, n, classes, dim)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the recorded peak
        before = kib("/proc/self/status", "VmHWM:")
        step()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return None
        raise
    gradients = 4 * (n + classes) * dim
    return max(1024 * (kib("/proc/self/status", "VmHWM:") - before) - gradients, 0) / 1e6


def kib(path: str, key: str) -> int:
    """Return the number after a key in one of the kernel's files."""
    return int(Path(path).read_text(encoding="ascii").split(key)[1].split()[0])
