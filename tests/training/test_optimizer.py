"""SGD against a loop, PyTorch's own, and thirty steps of the original solver."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin
from sphereface.models import SphereNet
from sphereface.schedules import step_rate
from sphereface.training.optimizer import SGD, parameter_groups

GOLDEN = Path(__file__).parents[1] / "golden"


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


def test_multipliers_of_every_kind_of_parameter():
    net = SphereNet(10, widths=(4, 4, 4, 4), embedding_dim=8, norm="batch")
    head = MarginHead(8, 3, make_margin("a-softmax"))
    of = {id(p): (g["lr_mult"], g["decay_mult"]) for g in parameter_groups([net, head]) for p in g["params"]}
    stage = net.stages[1]
    assert of[id(stage.conv.weight)] == (1, 1)
    assert of[id(stage.conv.bias)] == (2, 0)
    assert of[id(stage.relu.weight)] == (1, 1)
    assert of[id(stage.norm.weight)] == of[id(stage.norm.bias)] == (1, 0)
    assert of[id(stage.units[0].conv_a.weight)] == (1, 1)
    assert id(stage.units[0].conv_a.bias) not in of
    assert of[id(net.fc5.bias)] == (2, 0)
    assert of[id(head.weight)] == (1, 1)


@pytest.mark.parametrize("run", ["std", "fast"])
def test_thirty_steps_equal_the_original_solver(run):
    with np.load(GOLDEN / "sgd_steps.npz", allow_pickle=False) as file:
        golden = {key[len(run) + 1 :]: value for key, value in file.items() if key.startswith(f"{run}.")}
    about = json.loads((GOLDEN / "sgd_steps.json").read_text())["runs"][run]
    settings, solver = about["lambda"], about["solver"]
    margin = make_margin(
        "a-softmax",
        m=4,
        gradient="caffe",
        lambda_base=settings["base"],
        lambda_gamma=settings["gamma"],
        lambda_power=settings["power"],
        lambda_min=settings["lambda_min"],
    )
    net = SphereNet(units=(1,), widths=(8,), embedding_dim=16, input_size=(28, 24))
    head = MarginHead(16, 10, margin)
    parameters = {"fc6.weight": head.weight}
    for name, layer in net.named_layers():
        parameters[f"{name}.slope" if name.startswith("relu") else f"{name}.weight"] = layer.weight
        if not name.startswith("relu"):
            parameters[f"{name}.bias"] = layer.bias
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(golden[f"init.{name}"]).reshape(parameter.shape))
    optimizer = SGD(
        parameter_groups([net, head]),
        lr=solver["base_lr"],
        mu=solver["momentum"],
        weight_decay=solver["weight_decay"],
        momentum="caffe",
    )
    images, labels = torch.from_numpy(golden["input"]), torch.from_numpy(golden["label"])
    losses = []
    for step in range(about["iterations"]):
        rate = step_rate(step, lr=solver["base_lr"], milestones=solver["stepvalues"], decay=solver["lr_gamma"])
        lam = margin.lam(step + 1)
        assert rate == pytest.approx(float(golden["lr"][step]), rel=1e-6)
        assert lam == pytest.approx(float(golden["lambda"][step]), rel=1e-6)
        optimizer.set_lr(rate)
        optimizer.zero_grad()
        embeddings = net(images)
        embeddings.retain_grad()
        loss = head(embeddings, labels, lam).loss
        loss.backward()
        if step == 0:
            np.testing.assert_allclose(embeddings.detach().numpy(), golden["iter1.fc5"], rtol=0, atol=1e-5)
            np.testing.assert_allclose(embeddings.grad.numpy(), golden["iter1.d_fc5"], rtol=0, atol=1e-5)
        optimizer.step()
        losses.append(loss.item())
        if step == 0:
            for name, parameter in parameters.items():
                expected = golden[f"after1.{name}"].reshape(parameter.shape)
                np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(losses, golden["loss"], rtol=5e-5)
    for name, parameter in parameters.items():
        expected = golden[f"final.{name}"].reshape(parameter.shape)
        atol = 3e-5 * np.abs(expected).max()
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=atol, err_msg=name)
