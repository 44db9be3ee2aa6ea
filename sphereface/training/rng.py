"""The states of torch's random generators, as a checkpoint has them."""

from __future__ import annotations

from typing import Any

import torch


def rng_states(device: torch.device) -> dict[str, Any]:
    """Those of the CPU and of a CUDA device."""
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_rng(states: dict[str, Any], device: torch.device) -> None:
    """Continue from them; where they are of another kind of device, from those that are there."""
    torch.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
