"""train.recompute: the same loss and gradients from less memory."""

from __future__ import annotations

import pytest
import torch

from sphereface.models import SphereNet

NORMS = ["none", "batch"]


def gradients(norm: str, recompute: bool, kept: list[int] | None = None):
    torch.manual_seed(0)
    net = SphereNet(20, widths=(4, 6, 8, 8), embedding_dim=8, input_size=(32, 32), norm=norm).double()
    net.recompute_units(recompute)
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if kept is not None:
            kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = net(images).square().sum()
    loss.backward()
    found = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return found, dict(net.named_buffers())


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_and_running_statistics_are_those_without(norm):
    kept, recomputed = gradients(norm, False), gradients(norm, True)
    for with_all, with_less in zip(kept, recomputed, strict=True):
        assert with_all.keys() == with_less.keys()
        for name, value in with_all.items():
            torch.testing.assert_close(with_less[name], value, rtol=1e-12, atol=1e-14)


def test_less_is_kept():
    everything, less = [], []
    gradients("none", False, everything)
    gradients("none", True, less)
    assert sum(less) < sum(everything) / 2


def test_the_key_reaches_the_network(config_file):
    from sphereface.training.trainer import Trainer

    from .runs import CPU, load

    for wanted in (False, True):
        trainer = Trainer(load(config_file, f"train.recompute={str(wanted).lower()}"), CPU)
        assert [stage.recompute for stage in trainer.learner.model.stages] == [wanted] * 4
