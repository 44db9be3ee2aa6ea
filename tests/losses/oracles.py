"""Every margin once more, as slow plain Python with its paper's θ: what the fast ones are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sphereface.losses.margins import Margin, make_margin

PI = math.pi


def psi(angle: float) -> float:
    """cos up to π, then (−1)^k cos − 2k; 1 below 0."""
    k = max(0, math.floor(angle / PI + 1e-9))
    return (-1) ** k * math.cos(max(angle, 0.0)) - 2 * k


def annealed(theta: float, m: int, lam: float) -> float:
    k = min(math.floor(m * theta / PI + 1e-9), m - 1)
    return (lam * math.cos(theta) + (-1) ** k * math.cos(m * theta) - 2 * k) / (1 + lam)


def clip(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))


@dataclass(frozen=True)
class Example:
    """One setting of a margin, and its target logit by the paper.

    Attributes:
        name, options: what the configuration says.
        target: (θ, norm, λ) → target logit without bias; norm is ‖x‖, times ‖W_y‖ where ``plain_rows``.
        scale: s of the other logits s cos θ; None for ‖x‖ cos θ.
        plain_rows: whether the other logits are W_j·x.
        running: running statistics, if any.
        true_gradient: whether the derivatives are those of ``target``.
        norm: ‖x‖ at which to look at it.
    """

    name: str
    options: dict[str, Any]
    target: Callable[[float, float, float], float]
    scale: float | None = None
    plain_rows: bool = False
    running: dict[str, float] = field(default_factory=dict)
    true_gradient: bool = True
    norm: float = 2.0

    @property
    def margin(self) -> Margin:
        import torch

        running = {key: torch.tensor(value, dtype=torch.float64) for key, value in self.running.items()}
        margin = make_margin(self.name, **self.options)
        return margin.given(running) if running else margin

    def __str__(self) -> str:
        shown = ",".join(f"{key}={value}" for key, value in {**self.options, **self.running}.items())
        return f"{self.name}({shown})"


def plain_examples() -> list[Example]:
    return [
        Example("softmax", {}, lambda a, r, _: r * math.cos(a), plain_rows=True),
        Example("modified-softmax", {}, lambda a, r, _: r * math.cos(a)),
        Example("modified-softmax", {"s": 9.0}, lambda a, r, _: 9 * math.cos(a), scale=9.0),
    ]


def multiplicative_examples() -> list[Example]:
    made = [
        Example(
            "a-softmax",
            {"m": m, "gradient": g},
            lambda a, r, lam, m=m: r * annealed(a, m, lam),
            true_gradient=g == "exact",
        )
        for m in (1, 2, 3, 4)
        for g in ("exact", "caffe")
    ]
    made += [
        Example("l-softmax", {"m": m}, lambda a, r, lam, m=m: r * annealed(a, m, lam), plain_rows=True)
        for m in (2, 3, 4)
    ]
    functions = {"v0": lambda a, m: psi(m * a), "v1": lambda a, m: math.cos(min(m * a, PI))}
    made += [
        Example(
            "sphereface-r",
            {"m": m, "variant": variant, "gradient": g, "s": 8.0},
            lambda a, r, _, m=m, f=f: 8 * f(a, m),
            scale=8.0,
            true_gradient=g == "exact",
        )
        for m in (1.0, 1.5, 2.3, 4.0)
        for variant, f in functions.items()
        for g in ("exact", "detached")
    ]
    return made


def additive_examples() -> list[Example]:
    made = [Example("cosface", {"s": 8.0, "m": 0.35}, lambda a, r, _: 8 * (math.cos(a) - 0.35), scale=8.0)]
    made += [Example("arcface", {"s": 8.0, "m": m}, lambda a, r, _, m=m: 8 * psi(a + m), scale=8.0) for m in (0.5, 1.2)]
    made += [
        Example(
            "combined",
            {"s": 8.0, "m1": m1, "m2": m2, "m3": m3},
            lambda a, r, _, m1=m1, m2=m2, m3=m3: 8 * (psi(m1 * a + m2) - m3),
            scale=8.0,
        )
        for m1, m2, m3 in ((1.0, 0.3, 0.2), (1.7, 0.4, 0.1))
    ]
    return made


def adaptive_examples() -> list[Example]:
    def ada(a, r, mean, std, m=0.4, h=0.333, s=8.0):
        q = clip(h * (clip(r, 1e-3, 100.0) - mean) / (std + 1e-3), -1, 1)
        return s * (psi(a - m * q) - m * (1 + q))

    def mag(a, r, s=8.0, l_a=10, u_a=110, l_m=0.45, u_m=0.8):
        return s * psi(a + l_m + (u_m - l_m) / (u_a - l_a) * (clip(r, l_a, u_a) - l_a))

    made = [
        Example(
            "adaface",
            {"s": 8.0},
            lambda a, r, _, mean=mean, std=std: ada(a, r, mean, std),
            scale=8.0,
            running={"norm_mean": mean, "norm_std": std},
            true_gradient=fixed,
        )
        # a quality of 1, −1 and (nearly) 0, where the norm moves nothing; and one in between
        for mean, std, fixed in ((0.5, 1e-3, True), (90.0, 1e-3, True), (2.0, 1e12, True), (1.0, 0.7, False))
    ]
    made += [Example("magface", {"s": 8.0}, lambda a, r, _: mag(a, r), scale=8.0, norm=norm) for norm in (30.0, 2.0)]
    return made


def binary_examples() -> list[Example]:
    def g(c, t):
        return 2 * ((c + 1) / 2) ** t - 1

    return [
        Example(
            "sphereface2",
            {"r": 8.0, "t": t, "gradient": gradient},
            lambda a, r, _, t=t: 8 * (g(math.cos(a), t) - 0.4),
            scale=1.0,
            true_gradient=gradient == "exact",
        )
        for t in (1.0, 3.0, 2.5)
        for gradient in ("exact", "detached")
    ]


BINARY = binary_examples()
SOFTMAX = [*plain_examples(), *multiplicative_examples(), *additive_examples(), *adaptive_examples()]
EVERY = [*SOFTMAX, *BINARY]


def loop_logits(x, weight, labels, example, lam, bias=None):
    """All logits of a softmax example, by loops over lists."""
    rows = []
    for xi, yi in zip(x, labels, strict=True):
        length, row = math.hypot(*xi), []
        for j, wj in enumerate(weight):
            of_row = math.hypot(*wj)
            cos = clip(sum(a * b for a, b in zip(xi, wj, strict=True)) / (length * of_row), -1.0, 1.0)
            norm = length * of_row if example.plain_rows else length
            plain = (norm if example.scale is None else example.scale) * cos
            logit = example.target(math.acos(cos), norm, lam) if j == yi else plain
            row.append(logit + (bias[j] if bias else 0.0))
        rows.append(row)
    return rows


def loop_losses(x, weight, labels, example, lam, bias=None):
    """−log softmax of each sample."""
    rows = loop_logits(x, weight, labels, example, lam, bias)
    return [math.log(math.fsum(math.exp(z) for z in row)) - row[y] for row, y in zip(rows, labels, strict=True)]
