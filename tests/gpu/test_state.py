"""A training's state is saved on one device and resumed on another, or in another precision."""

from __future__ import annotations

import pytest
import torch

from .near import has_values, needs_values


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("to_cpu", [False, True], ids=["same device", "to the CPU"])
def test_a_resumed_training_has_the_losses_of_one_that_never_stopped(device, training, tmp_path, optimizer, to_cpu):
    overrides = (f"train.optimizer={optimizer}", "train.lr=0.001", "train.ema=0.9")
    first = training(device, *overrides)
    first.losses(2)
    path = tmp_path / "state.pt"
    torch.save(first.learner.state(), path)
    second = training(torch.device("cpu") if to_cpu else device, *overrides, seed=5)
    second.learner.restore(torch.load(path, map_location="cpu", weights_only=True), path)
    needs_values()
    wanted, found = first.losses(3), second.losses(3)
    assert found == pytest.approx(wanted, rel=1e-3 if to_cpu else 1e-5)


@pytest.mark.parametrize(
    ("old", "new"), [("bf16", "fp16"), ("fp16", "bf16"), ("fp32", "fp16"), ("fp16", "fp16"), ("fp32", "bf16")]
)
def test_the_precision_can_change_on_a_resume(device, training, tmp_path, old, new):
    if device.type == "cpu" and "fp16" in (old, new):
        pytest.skip("fp16 needs a GPU")
    first = training(device, f"train.precision={old}", "train.optimizer=adamw", "train.lr=0.001")
    first.losses(2)
    path = tmp_path / "state.pt"
    torch.save(first.learner.state(), path)
    second = training(device, f"train.precision={new}", "train.optimizer=adamw", "train.lr=0.001", seed=5)
    second.learner.restore(torch.load(path, map_location="cpu", weights_only=True), path)
    wanted, found = first.losses(1), second.losses(1)
    assert not has_values() or found == pytest.approx(wanted, rel=0.05)
