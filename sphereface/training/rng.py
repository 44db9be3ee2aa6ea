"""The states of torch's random generators, as a checkpoint holds them."""

from __future__ import annotations

from typing import Any

import torch


def rng_states(device: torch.device) -> dict[str, Any]:
    """Return the states of the CPU and of a CUDA device."""
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_rng(states: dict[str, Any], device: torch.device) -> None:
    """Restore the states; a generator without a saved state keeps its own."""
    torch.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
