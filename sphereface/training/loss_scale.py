"""The loss scale of fp16: it multiplies the loss, so that small gradients do not become 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_FIRST = 2.0**16
_GROWTH, _BACKOFF, _INTERVAL = 2.0, 0.5, 2000  # torch.amp.GradScaler's


class LossScale:
    """Scale a loss and unscale its gradients, with :class:`torch.amp.GradScaler`'s rule.

    A step whose gradients overflow is skipped and halves the scale. 2,000 steps without an
    overflow double it. All of this happens on the device, and no step waits for it. The scale is
    the same on all processes, because all of them check the same gradient norm.

    Args:
        device: of the loss.
        enabled: False leaves losses and gradients as they are.
    """

    def __init__(self, device: torch.device, *, enabled: bool) -> None:
        self.enabled = enabled
        self._scale = torch.full((), _FIRST, device=device)
        self._good_steps = torch.zeros((), dtype=torch.int32, device=device)

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss to differentiate: () float32."""
        return loss * self._scale if self.enabled else loss

    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Divide the gradients by the scale, in place."""
        if self.enabled and gradients:
            torch._foreach_mul_(list(gradients), self._scale.reciprocal())

    def update(self, overflow: Tensor | None) -> None:
        """Update the scale after one step.

        Args:
            overflow: () float32 on the device: 1 if the step was skipped, else 0.
        """
        if self.enabled:
            assert overflow is not None
            torch._amp_update_scale_(self._scale, self._good_steps, overflow, _GROWTH, _BACKOFF, _INTERVAL)

    def tensors(self) -> list[Tensor]:
        """Return the tensors that :meth:`update` changes."""
        return [self._scale, self._good_steps] if self.enabled else []

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, as ``GradScaler.state_dict`` does; empty if not enabled."""
        if not self.enabled:
            return {}
        return {
            "scale": float(self._scale),
            "growth_factor": _GROWTH,
            "backoff_factor": _BACKOFF,
            "growth_interval": _INTERVAL,
            "_growth_tracker": int(self._good_steps),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        An empty state is of a run with another precision; then the first scale is used.
        """
        self._scale.fill_(state.get("scale", _FIRST))
        self._good_steps.fill_(state.get("_growth_tracker", 0))
