"""Training steps on a GPU: the losses of the CPU, no waits, and nothing moves in a bad step."""

from __future__ import annotations

import math

import pytest
import torch

from .conftest import no_waits
from .near import has_values, near, same

ADAMW = ["train.optimizer=adamw", "train.lr=0.001"]
OPTIMIZERS = {"sgd": [], "adamw": ADAMW, "muon": ["train.optimizer=muon"]}
HEADS = [
    "a-softmax",
    "a-softmax, chunk_size: 10",
    "a-softmax, mhe: 1",
    "sphereface2",
    "adaface",
    "cosface, sample_rate: 0.5",
]
EXTRAS = [
    [],
    ["train.ema=0.9", "train.clip_grad_norm=1"],
    ["model.norm=none", "train.micro_batch=4"],
    ["train.recompute=true"],
    ["deterministic=true"],
]


def only_on(device, precision):
    if precision == "fp16" and device.type == "cpu":
        pytest.skip("fp16 needs a GPU")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_five_steps_are_those_of_the_cpu(device, training, optimizer, extra):
    overrides = [*OPTIMIZERS[optimizer], *extra]
    wanted = training(torch.device("cpu"), *overrides).losses(5)
    found = training(device, *overrides).losses(5)
    assert len(found) == 5
    assert not has_values() or found == pytest.approx(wanted, rel=2e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_five_steps_of_the_demo_are_those_of_the_cpu(training):
    devices = torch.device("cpu"), torch.device("cuda")
    wanted, found = (training(device, small=False).losses(5) for device in devices)
    assert not has_values() or found == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_five_steps_in_half_precision_follow_those_in_fp32(device, training, precision):
    only_on(device, precision)
    wanted = training(torch.device("cpu")).losses(5)
    found = training(device, f"train.precision={precision}").losses(5)
    assert not has_values() or found == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_waits_for_nothing(device, training, optimizer, head, precision):
    only_on(device, precision)
    if optimizer == "adamw" and "sample_rate" in head:
        pytest.skip("AdamW refuses sampled negatives")
    loss = f"loss={{name: {head}}}"
    run = training(device, f"train.precision={precision}", loss, *OPTIMIZERS[optimizer])
    for _ in range(3):
        run.step()
    with no_waits(device):
        run.step()


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_a_step_with_more_waits_for_nothing(device, training, extra):
    run = training(device, "train.precision=bf16", *extra)
    for _ in range(3):
        run.step()
    with no_waits(device):
        run.step()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_bad_step_changes_nothing(device, training, optimizer, precision):
    only_on(device, precision)
    run = training(device, *OPTIMIZERS[optimizer], "train.ema=0.9", f"train.precision={precision}")
    model, weight = run.learner.model, run.learner.head.weight.data
    for _ in range(2):
        run.step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows, first = weight.clone(), weight[0, 0].clone()
    weight[0, 0] = math.nan
    for _ in range(3):
        if device.type == "cpu":
            with pytest.raises(ArithmeticError):
                run.step()
        else:
            run.step()
    weight[0, 0] = first
    assert not has_values() or run.learner.lost_steps() == (3 if device.type == "cuda" else 0)
    same(weight, rows)
    for name, value in model.state_dict().items():
        same(value, before[name])
    run.step()
    assert not has_values() or not torch.equal(weight, rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_step_is_the_plain_one(training, precision):
    plain, compiled = (
        training(torch.device("cuda"), f"train.precision={precision}", f"train.compile={choice}")
        for choice in ("false", "true")
    )
    wanted, found = plain.losses(3), compiled.losses(3)
    assert not has_values() or found == pytest.approx(wanted, rel=1e-3 if precision == "fp32" else 0.05)


def test_the_input_is_that_of_the_cpu(device, training):
    run, other = training(device), training(torch.device("cpu"))
    images, _ = run.learner.inputs(run.batch)
    near(images, other.learner.inputs(other.batch)[0], 1e-6)
