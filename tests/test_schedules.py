"""λ and rates against literal numbers."""

from __future__ import annotations

import pytest
import torch

from sphereface.schedules import (
    annealed_lambda,
    cosine_rate,
    linear_rate,
    one_cycle_rate,
    step_rate,
    warmup_factor,
)

RECIPE = {"base": 1000.0, "gamma": 0.12, "power": 1.0, "minimum": 5.0}


@pytest.mark.parametrize(
    ("t", "expected"), [(1, 1000 / 1.12), (100, 1000 / 13), (1658, 1000 / 199.96), (1659, 5.0), (28000, 5.0)]
)
def test_lambda_of_the_recipe(t, expected):
    assert annealed_lambda(t, **RECIPE) == pytest.approx(expected, rel=1e-12)


def test_lambda_reaches_its_floor_at_1659():
    assert annealed_lambda(1658, **RECIPE) > 5.0
    assert annealed_lambda(1659, **RECIPE) == 5.0


def test_lambda_with_another_power():
    assert annealed_lambda(3, base=8, gamma=1, power=2, minimum=0.1) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("position", "rate"),
    [(0, 0.1), (15999, 0.1), (16000, 0.01), (23999, 0.01), (24000, 0.001), (27999, 0.001)],
)
def test_step_rate_of_the_recipe(position, rate):
    assert step_rate(position, lr=0.1, milestones=(16000, 24000), decay=0.1) == pytest.approx(rate)


@pytest.mark.parametrize(("position", "rate"), [(0, 0.4), (25, 0.34142135623), (50, 0.2), (100, 0.0), (130, 0.0)])
def test_cosine_rate(position, rate):
    assert cosine_rate(position, lr=0.4, steps=100) == pytest.approx(rate, abs=1e-10)


def test_cosine_ends_at_its_final_share():
    assert cosine_rate(100, lr=0.4, steps=100, final=0.1) == pytest.approx(0.04)


@pytest.mark.parametrize(("position", "factor"), [(0, 0.2), (3, 0.8), (4, 1.0), (99, 1.0)])
def test_warmup(position, factor):
    assert warmup_factor(position, 4) == pytest.approx(factor)


def test_no_warmup():
    assert warmup_factor(0, 0) == 1.0


def test_linear():
    assert [linear_rate(position, lr=2.0, steps=4) for position in range(6)] == [2.0, 1.5, 1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("steps", [10, 57, 1000])
def test_one_cycle_is_torchs_own(steps):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, total_steps=steps)
    for position in range(steps):
        assert one_cycle_rate(position, lr=0.4, steps=steps) == pytest.approx(theirs.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        if position < steps - 1:
            theirs.step()
