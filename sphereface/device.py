"""Which device a run uses, and in which arithmetic."""

from __future__ import annotations

import os

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
    if kind not in available or name.endswith(":") or (number and not (kind == "cuda" and number.isdigit())):
        raise UserError(f"--device: got {name!r} · allowed: {', '.join(DEVICES)}")
    if not available[kind]:
        raise UserError(f"--device: {kind} is not available here · use --device auto")
    if number and int(number) >= torch.cuda.device_count():
        raise UserError(f"--device: got {name} · allowed: cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    return torch.device(name)


def precision_on(device: torch.device, precision: str) -> torch.dtype:
    """Number type of the autocast regions; fp32 means no autocast.

    Raises:
        UserError: fp16 elsewhere than on CUDA, where nothing scales the loss against its narrow range.
    """
    if precision == "fp16" and device.type != "cuda":
        raise UserError(f"train.precision: got fp16 on {device.type} · allowed there: fp32, bf16")
    return _TYPES[precision]


def make_deterministic(wanted: bool) -> None:
    """Whether torch refuses operations whose result depends on the order of threads.

    On a CPU a run of this project repeats bit for bit without it, given as many threads. On CUDA it costs speed.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.deterministic = wanted
