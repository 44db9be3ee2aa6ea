"""Whether an operation runs now, or is recorded."""

import torch


def is_followed() -> bool:
    """Return whether torch.compile or a tracer records the operations."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
