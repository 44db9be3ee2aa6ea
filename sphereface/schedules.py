"""Values that change with the step, as pure functions: λ of the margin, learning rate. No torch."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence


def annealed_lambda(t: float, *, base: float, gamma: float, power: float, minimum: float) -> float:
    """Return λ of the annealed target logit ‖x‖(λ cos θ + ψ(θ)) / (1 + λ).

    λ(t) = max(minimum, base · (1 + gamma·t)^(−power)), as in the released Caffe layer.

    Args:
        t: 1-based count of forward passes; here finished optimiser updates + 1, so that it
            continues after resuming.
        base, gamma, power, minimum: 1000, 0.12, 1 and 5 in the released recipe: λ(1) = 892.9,
            λ(1659) = 5.

    Returns:
        λ ≥ ``minimum``; a larger λ brings the target logit nearer to ‖x‖ cos θ.
    """
    return max(minimum, base * math.pow(1.0 + gamma * t, -power))


def warmup_factor(position: float, warmup_steps: int) -> float:
    """Return the linear warm-up (position + 1) / (warmup_steps + 1), 1 from ``warmup_steps``."""
    if position >= warmup_steps:
        return 1.0
    return (position + 1.0) / (warmup_steps + 1.0)


def step_rate(position: float, *, lr: float, milestones: Sequence[int], decay: float) -> float:
    """Multiply the learning rate by ``decay`` at each milestone (Caffe's ``multistep``).

    Args:
        position: finished optimiser updates. A milestone of 16000 takes effect at update 16001.
    """
    return lr * float(decay ** bisect_right(milestones, position))


def cosine_rate(position: float, *, lr: float, steps: int, final: float = 0.0) -> float:
    """Return half a cosine from ``lr`` at position 0 to ``lr · final`` at ``steps``."""
    share = min(max(position / steps, 0.0), 1.0)
    return lr * (final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * share)))


def linear_rate(position: float, *, lr: float, steps: int) -> float:
    """Return a straight line from ``lr`` at position 0 to 0 at ``steps``."""
    return lr * (1.0 - min(max(position / steps, 0.0), 1.0))


def one_cycle_rate(position: float, *, lr: float, steps: int) -> float:
    """Return one cycle (Smith and Topin 2018): half a cosine up for 30 % of the steps, one down.

    It starts at lr/25, peaks at ``lr``, and ends at lr/250000, like the defaults of
    :class:`torch.optim.lr_scheduler.OneCycleLR`.

    Args:
        position: 0 … ``steps`` − 1; the last has the smallest learning rate.
    """
    top, end = 0.3 * steps - 1.0, steps - 1.0
    first, last = lr / 25.0, lr / 25.0e4
    if position <= top:
        return first + (lr - first) * 0.5 * (1.0 - math.cos(math.pi * position / top))
    share = min((position - top) / max(end - top, 1e-9), 1.0)
    return last + (lr - last) * 0.5 * (1.0 + math.cos(math.pi * share))
