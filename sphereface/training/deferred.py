"""Stop a step whose loss, gradient or ‖x‖ is not finite, without waiting for the device.

On CUDA, the device drops such a step and all steps after it, until the host reads the number of
dropped steps. The weights are then those before the first dropped step. The trainer repeats that
step and waits for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..losses.head import MarginHead


class NotFinite(ArithmeticError):
    """Loss, gradient or ‖x‖ of a step is not finite; nothing was updated."""


def reads_late(device: torch.device) -> bool:
    """Return whether the host checks only now and then, because each read waits for the device."""
    return device.type == "cuda"


class FiniteCheck:
    """Check the loss, the gradient and ‖x‖ of every step before any weight changes.

    The head divides by an infinite ‖x‖, so loss and gradient stay finite, and nothing is learned.

    Args:
        device: of the network.
        optimizer: receives :attr:`skip` as its ``found_inf``, as torch's fused optimisers do.
        head: receives :attr:`tripped` as its ``held``.
        late: the host reads :meth:`lost_steps` now and then; else it waits for every step.
        overflow: infinite gradients are normal (fp16): the optimiser skips only that step.

    Attributes:
        tripped: () float32 on the device: 1 from the first bad step until the host has read it and
            repeats that step, else 0. None if not ``late``.
        skip: () float32 on the device: 1 if the optimiser does not move in this step. None if not
            ``late``.
    """

    def __init__(
        self, device: torch.device, optimizer: Any, head: MarginHead, *, late: bool, overflow: bool = False
    ) -> None:
        self.late, self._overflow = late, overflow
        self.tripped: Tensor | None = None
        self.skip: Tensor | None = None
        self._before: list[tuple[list[Tensor], Tensor]] = []
        if late:
            self.tripped, self._lost, self._one = (torch.full((), value, device=device) for value in (0.0, 0.0, 1.0))
            self.skip = torch.zeros((), device=device) if overflow else self.tripped
            optimizer.found_inf, head.held = self.skip, self.tripped

    @torch.no_grad()
    def keep(self, values: Iterable[Tensor]) -> None:
        """Copy what a step changes besides weights, such as running statistics.

        :meth:`put_back` restores the copy. There is one copy for each number type, so that few
        kernel launches are needed.
        """
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for value in values:
            kinds.setdefault(value.dtype, []).append(value)
        self._before = [(group, _joined(group)) for group in kinds.values()]

    def look(self, loss: Tensor, norm: Tensor, lengths: Tensor, *, at_once: bool = False) -> None:
        """Check the figures of one step.

        Args:
            loss: () float32.
            norm: of its gradient, () float32.
            lengths: (N,) float32, ‖x‖ of the embeddings.
            at_once: wait for the device even if ``late``. This step counts, whatever happened
                before.

        Raises:
            NotFinite: a figure is not finite, and the host waited. The values that :meth:`keep`
                copied are restored.
        """
        if at_once and self.tripped is not None:
            self.tripped.zero_()
        if at_once or not self.late:
            self._look_now(float(loss), float(norm), float(lengths.max()))
        if self.tripped is None or self.skip is None:
            return
        if self._overflow:
            self._mark(self.tripped, loss, lengths)
            self.skip.copy_(self.tripped)
            self._mark(self.skip, norm)
        else:
            self._mark(self.tripped, loss, norm, lengths)
        self._lost.add_(self.tripped)

    def _look_now(self, loss: float, norm: float, length: float) -> None:
        figures = {"the loss": loss, "the largest ‖x‖": length, "the gradient's norm": 0.0 if self._overflow else norm}
        bad = next((name for name, value in figures.items() if not math.isfinite(value)), None)
        if bad is None:
            return
        for values, old in self._before:
            _fill(values, old)
        raise NotFinite(f"{bad} is {figures[bad]}")

    def _mark(self, flag: Tensor, *figures: Tensor) -> None:
        """Set the flag to 1 if a figure is not finite, in one kernel launch.

        The kernel also multiplies the figures, here by 1.
        """
        torch._amp_foreach_non_finite_check_and_unscale_(list(figures), flag, self._one)

    @torch.no_grad()
    def put_back(self) -> None:
        """Restore the values that :meth:`keep` copied, if this step does not count."""
        if self.tripped is None:
            return
        for values, old in self._before:
            _fill(values, torch.where(self.tripped > 0, old, _joined(values)))

    def lost_steps(self) -> int:
        """Return how many steps changed nothing: the first bad one and all after it.

        This waits for the device.
        """
        if not self.late:
            return 0
        lost = int(self._lost)
        self._lost.zero_()
        return lost


def _joined(values: list[Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in values])


def _fill(values: list[Tensor], joined: Tensor) -> None:
    parts = torch.split(joined, [value.numel() for value in values])
    torch._foreach_copy_(values, [part.view_as(value) for part, value in zip(parts, values, strict=True)])
