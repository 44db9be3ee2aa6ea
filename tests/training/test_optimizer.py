"""SGD against a loop and PyTorch's own."""

from __future__ import annotations

import pytest
import torch

from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin
from sphereface.models import SphereNet
from sphereface.training.optimizer import SGD
from sphereface.training.parts import parameter_groups


def descend(momentum: str, rates: list[float], *, decay: float = 0.01) -> list[float]:
    """The weight of f(w) = (w − 3)² / 2 after each step, by the formula, in Python floats."""
    w, v, trace = 1.0, 0.0, []
    for lr in rates:
        g = (w - 3.0) + decay * w
        if momentum == "caffe":
            v = 0.9 * v + lr * g
            w = w - v
        else:
            v = 0.9 * v + g
            w = w - lr * v
        trace.append(w)
    return trace


@pytest.mark.parametrize("momentum", ["caffe", "torch"])
def test_both_forms_against_a_loop_through_a_rate_drop(momentum):
    rates = [0.1] * 5 + [0.01] * 5
    w = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = SGD([w], lr=0.1, mu=0.9, weight_decay=0.01, momentum=momentum)
    trace = []
    for lr in rates:
        optimizer.set_lr(lr)
        optimizer.zero_grad()
        ((w - 3.0) ** 2 / 2).sum().backward()
        optimizer.step()
        trace.append(w.item())
    assert trace == pytest.approx(descend(momentum, rates), rel=1e-12)
    other = "torch" if momentum == "caffe" else "caffe"
    assert trace[-1] != pytest.approx(descend(other, rates)[-1], rel=1e-3)


def test_torch_form_is_torch_optim_sgd():
    torch.manual_seed(0)
    ours = [torch.rand(4, 3, requires_grad=True), torch.rand(5, requires_grad=True)]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    a = SGD(ours, lr=0.1, mu=0.9, weight_decay=1e-2, momentum="torch")
    b = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, weight_decay=1e-2)
    for lr in (0.1, 0.1, 0.02, 0.02):
        a.set_lr(lr)
        b.param_groups[0]["lr"] = lr
        for params, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            (params[0].pow(2).sum() + params[1].sin().sum()).backward()
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("of", ["gradient", "velocity"])
@pytest.mark.parametrize("momentum", ["caffe", "torch"])
def test_memory_order_of_gradient_and_velocity_does_not_matter(momentum, of):
    torch.manual_seed(0)
    values, gradient = torch.randn(4, 3, 2, 5), torch.randn(4, 3, 2, 5)
    last = torch.channels_last
    plain, other = values.clone().requires_grad_(), values.contiguous(memory_format=last).requires_grad_()
    for p in (plain, other):
        optimizer = SGD([p], lr=0.1, mu=0.9, weight_decay=0.01, momentum=momentum)
        for _ in range(3):
            p.grad = gradient.clone().contiguous() if of == "gradient" else torch.empty_like(p).copy_(gradient)
            optimizer.step()
            if of == "velocity":  # as one that comes from a checkpoint
                optimizer.state[p]["velocity"] = optimizer.state[p]["velocity"].contiguous()
    torch.testing.assert_close(other, plain, rtol=0, atol=0)
    assert other.is_contiguous(memory_format=last)


def test_a_step_leaves_the_gradient_as_it_was():
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.tensor([1.0, 2.0, 3.0])
    SGD([p], lr=0.5, weight_decay=0.1).step()
    assert p.grad.tolist() == [1.0, 2.0, 3.0]


def test_multipliers_of_every_kind_of_parameter():
    net = SphereNet(10, widths=(4, 4, 4, 4), embedding_dim=8, norm="batch")
    head = MarginHead(8, 3, make_margin("a-softmax"))
    of = {
        id(p): (g["lr_mult"], g["decay_mult"])
        for g in parameter_groups({"model": net, "head": head}, {})
        for p in g["params"]
    }
    stage = net.stages[1]
    assert of[id(stage.conv.weight)] == (1, 1)
    assert of[id(stage.conv.bias)] == (2, 0)
    assert of[id(stage.relu.weight)] == (1, 1)
    assert of[id(stage.norm.weight)] == of[id(stage.norm.bias)] == (1, 0)
    assert of[id(stage.units[0].conv_a.weight)] == (1, 1)
    assert id(stage.units[0].conv_a.bias) not in of
    assert of[id(net.fc5.bias)] == (2, 0)
    assert of[id(head.weight)] == (1, 1)
