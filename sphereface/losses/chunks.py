"""The number of classes at a time that ``loss.chunk_size: auto`` chooses."""

from __future__ import annotations

from pathlib import Path

import torch

_SHARE = 0.25
"""Of the free memory, what the logits may take."""
_SMALLEST = 1024
"""Smaller chunks only cost time."""


def auto_chunk(samples: int, classes: int, device: torch.device, logit_bytes: int) -> int | None:
    """Return how many classes fill a quarter of the free memory with logits; None if all C fit.

    Args:
        samples: N.
        classes: C.
        device: of the logits.
        logit_bytes: the size of one logit.
    """
    free = free_bytes(device)
    if free is None:
        return None
    fits = int(_SHARE * free) // (logit_bytes * samples)
    return None if fits >= classes else max(fits, _SMALLEST)


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory in bytes; None if the system does not report it."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
