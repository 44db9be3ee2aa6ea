"""One session of a run, in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from sphereface.training.run import run_training


def train(config: str) -> None:
    """Resume the newest unfinished run of a configuration, to its end."""
    torch.set_num_threads(1)
    sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 -- until the process ends
    run_training(config, resume="auto", device="cpu")
