"""Golden embeddings of the field's own networks: numbers in tests/golden/backbones, weights by a recipe.

Each file was made by the publisher's network code on a CPU in float32 and evaluation mode.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent.parent / "golden" / "backbones"


@dataclass(frozen=True)
class Golden:
    """One published network's answer.

    Attributes:
        state: its state dict, in the publisher's order.
        embedding: (2, 512) float32, of :func:`images`.
        norm: (2, 1): the lengths, where the network returns unit vectors; else None.
        float32_error: largest difference between the publisher's network in float32 and in float64.
    """

    state: dict[str, torch.Tensor]
    embedding: torch.Tensor
    norm: torch.Tensor | None
    float32_error: float


@cache
def golden(name: str) -> Golden:
    """Return a network's answer; all tests share it, for its millions of random numbers take a second."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        state = {entry["key"]: made(entry) for entry in json.loads(str(file["recipe"]))}
        norm = torch.tensor(file["norm"]) if "norm" in file else None
        return Golden(state, torch.tensor(file["embedding"]), norm, float(file["float32_error"]))


def made(entry: dict) -> torch.Tensor:
    """One tensor by its recipe, with the sum that the recipe gives."""
    shape = entry["shape"]
    value = np.random.RandomState(entry["seed"]).standard_normal(shape) if shape else np.zeros(())
    if entry["kind"] == "one_plus_abs":
        value = np.abs(value)
    if entry["kind"] != "zero":
        value = entry["offset"] + entry["scale"] * value
    value = value.astype(entry["dtype"])
    np.testing.assert_allclose(value.sum(dtype=np.float64), entry["sum"], rtol=1e-5, atol=1e-3)
    return torch.tensor(value)


def images() -> torch.Tensor:
    """(2, 3, 112, 112) float32 in [−1, 1]: what each golden network read."""
    values = np.random.RandomState(7).uniform(-1, 1, (2, 3, 112, 112))
    return torch.tensor(values.astype(np.float32))
