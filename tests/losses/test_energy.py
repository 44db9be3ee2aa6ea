"""The hyperspherical energy against loops, and that it spreads the class weights."""

import math

import pytest
import torch
import torch.nn.functional as F

from sphereface.losses import energy
from sphereface.losses.energy import hyperspherical_energy
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin

from .test_margin_softmax import BigStorages, gradients, random_batch


def loop_energy(weight, labels):
    """1/(N (C − 1)) Σ 1/(‖Ŵ_y − Ŵ_j‖² + 0.001)."""
    unit = [[value / math.hypot(*row) for value in row] for row in weight]
    total = sum(
        1.0 / (sum((a - b) ** 2 for a, b in zip(unit[y], row, strict=True)) + 1e-3)
        for y in labels
        for j, row in enumerate(unit)
        if j != y
    )
    return total / (len(labels) * (len(weight) - 1))


@pytest.mark.parametrize("block", [3, 1024])
def test_value_and_gradient(block, monkeypatch):
    monkeypatch.setattr(energy, "ENERGY_BLOCK", block)
    _, weight, labels = random_batch()
    value = hyperspherical_energy(weight, labels)
    assert value.item() == pytest.approx(loop_energy(weight.tolist(), labels.tolist()), rel=1e-12)
    assert torch.autograd.gradcheck(lambda w: hyperspherical_energy(w, labels), (weight,), atol=1e-7)


def test_three_classes_on_the_circle_move_apart():
    weight = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.9, -0.3]], dtype=torch.float64, requires_grad=True)
    for _ in range(2000):
        (grad,) = gradients(hyperspherical_energy(weight, torch.arange(3)), weight)
        with torch.no_grad():
            weight.copy_(F.normalize(weight - 0.1 * grad))
    cosines = F.normalize(weight) @ F.normalize(weight).t()
    assert cosines[~torch.eye(3, dtype=torch.bool)].max() < -0.49


def test_never_all_pairs():
    weight, labels = torch.randn(5000, 2).requires_grad_(), torch.arange(8)
    with BigStorages(4 * 8 * 2000) as big:
        hyperspherical_energy(weight, labels).backward()
    assert big.count() == 0


@pytest.mark.parametrize("name", ["a-softmax", "softmax", "sphereface2"])
def test_the_head_adds_it_by_its_weight(name):
    x, _, labels = random_batch(dtype=torch.float32)
    without, with_it = (
        MarginHead(6, 11, make_margin(name, mhe=mhe), generator=torch.Generator().manual_seed(0)) for mhe in (0, 2.5)
    )
    difference = with_it(x, labels, 5.0).loss - without(x, labels, 5.0).loss
    assert difference.item() == pytest.approx(2.5 * hyperspherical_energy(without.weight, labels).item(), rel=1e-4)


def test_equal_rows_zero_rows_and_one_class_are_finite():
    weight = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0], [-1.0, -2.0]], requires_grad=True)
    value = hyperspherical_energy(weight, torch.tensor([0, 1, 2, 3]))
    (grad,) = gradients(value, weight)
    assert value.isfinite()
    assert grad.isfinite().all()
    assert (grad[2] == 0).all()
    assert hyperspherical_energy(weight[:1], torch.tensor([0])).item() == 0
