"""SGD against a loop and PyTorch's own."""

from __future__ import annotations

import pytest
import torch

from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin
from sphereface.models import SphereNet
from sphereface.training.optimizer import SGD, Muon
from sphereface.training.orthogonal import orthogonal_steps, orthogonalised
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


@pytest.mark.parametrize("make", ["caffe", "torch", "muon"])
def test_without_momentum(make):
    """mu 0 is allowed; both forms are then w − lr·(g + decay·w). Sampled negatives have sparse gradients."""
    w = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    if make == "muon":
        group = {"params": [w], "lr_mult": 1.0, "decay_mult": 1.0}
        optimizer = Muon([group], lr=0.1, mu=0.0, weight_decay=0.01, muon_lr=0.1, muon_decay=0.0)
    else:
        optimizer = SGD([w], lr=0.1, mu=0.0, weight_decay=0.01, momentum=make)
    expected = w.detach().clone()
    for lr in (0.1, 0.02):
        optimizer.set_lr(lr)
        w.grad = (w.detach() - 3.0).clone()
        optimizer.step()
        expected -= lr * (expected - 3.0 + 0.01 * expected)
        assert torch.allclose(w, expected, rtol=1e-12)
    w.grad = torch.sparse_coo_tensor(
        [[1]], torch.tensor([[5.0, 6.0]], dtype=torch.float64), (2, 2), check_invariants=True
    )
    optimizer.step()
    expected[1] -= 0.02 * (torch.tensor([5.0, 6.0], dtype=torch.float64) + 0.01 * expected[1])
    assert torch.allclose(w, expected, rtol=1e-12)


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


# ---------------------------------------------------------------- Muon


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_orthogonalised_keeps_the_singular_vectors_and_evens_the_values(shape):
    matrix = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ orthogonalised(matrix[None])[0] @ v.T  # diagonal where the vectors are the same
    values = found.diagonal()
    assert s.max() / s.min() > 2
    assert (values > 0.65).all()
    assert (values < 1.15).all()
    torch.testing.assert_close(found, values.diag(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("padded", [False, True])
def test_stacked_matrices_are_orthogonalised_each_by_itself(padded):
    generator = torch.Generator().manual_seed(3)
    shapes = [(6, 3, 2, 2), (4, 2, 3, 3), (6, 1, 2, 2), (6, 3, 2, 2), (6, 5, 3, 3)]
    gradients = [torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes]
    gradients[0] = gradients[0].to(memory_format=torch.channels_last)
    steps = orthogonal_steps(gradients, torch.float64, padded=padded)
    for gradient, step in zip(gradients, steps, strict=True):
        wanted = orthogonalised(gradient.flatten(1)[None])[0].view(gradient.shape)
        torch.testing.assert_close(step, wanted, rtol=0, atol=1e-9)
        assert step.stride() == gradient.stride()


@pytest.mark.parametrize(("rows", "factor"), [(8, 2**0.5), (2, 1.0)])  # taller than wide, and wider
def test_muon_against_singular_values_and_a_loop(rows, factor):
    """Two updates: each singular value of the step is that of the polynomial, five times; written out per value."""
    generator = torch.Generator().manual_seed(2)
    w = torch.randn(rows, 2, 1, 2, dtype=torch.float64, generator=generator).requires_grad_()  # a matrix of 4 columns
    b = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    groups = [{"params": [w, b], "lr_mult": 0.5, "decay_mult": 0.25}]
    optimizer = Muon(groups, lr=0.1, mu=0.9, weight_decay=0.01, muon_lr=0.02, muon_decay=0.3, dtype=torch.float64)
    expected, velocity = w.detach().clone().flatten(1), torch.zeros(rows, 4, dtype=torch.float64)
    other = b.detach().clone().requires_grad_()
    plain = torch.optim.SGD([other], lr=0.05, momentum=0.9, weight_decay=0.25 * 0.01)
    for share in (1.0, 0.25):
        optimizer.set_lr(0.1 * share)
        plain.param_groups[0]["lr"] = 0.05 * share
        w.grad = torch.randn(rows, 2, 1, 2, dtype=torch.float64, generator=generator)
        b.grad = other.grad = torch.tensor([0.7], dtype=torch.float64)
        velocity = 0.9 * velocity + w.grad.flatten(1)
        u, s, v = torch.linalg.svd(w.grad.flatten(1) + 0.9 * velocity, full_matrices=False)
        s = s / s.norm()
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        rate = 0.5 * 0.02 * share
        expected = expected * (1 - 0.25 * 0.3 * rate) - rate * factor * (u * s) @ v
        optimizer.step()
        plain.step()
    torch.testing.assert_close(w.detach().flatten(1), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(b, other)


def test_muon_takes_convolutions_alone():
    net = SphereNet(4, widths=(4, 4, 4, 4), embedding_dim=8, input_size=(32, 32), norm="batch")
    groups = parameter_groups({"model": net}, {})
    optimizer = Muon(groups, lr=0.1, mu=0.9, weight_decay=5e-4, muon_lr=0.02, muon_decay=0.0)
    chosen = {id(p) for group in optimizer.param_groups if group["orthogonal"] for p in group["params"]}
    assert chosen == {id(stage.conv.weight) for stage in net.stages}
