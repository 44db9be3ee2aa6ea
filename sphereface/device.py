"""Which device a run uses, and in which arithmetic."""

from __future__ import annotations

import torch

from .errors import UserError

DEVICES = ("auto", "cuda", "mps", "cpu")
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The device that ``--device`` means: auto takes the first of cuda, mps, cpu that is there.

    Raises:
        UserError: the device asked for is not available.
    """
    kind, _, number = name.partition(":")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if kind not in available or (number and not number.isdigit()):
        raise UserError(f"--device: got {name!r} · allowed: {', '.join(DEVICES)}")
    if not available[kind]:
        raise UserError(f"--device: {kind} is not available here · use --device auto")
    return torch.device(name)


def precision_on(device: torch.device, precision: str) -> torch.dtype:
    """Number type of the autocast regions; fp32 means no autocast.

    Raises:
        UserError: fp16 on a CPU, whose kernels would be slower than fp32 and overflow unscaled.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError("train.precision: got fp16 on a CPU · allowed there: fp32, bf16")
    return _TYPES[precision]
