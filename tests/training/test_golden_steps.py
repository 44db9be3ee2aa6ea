"""Thirty steps of the original Caffe solver, reproduced by the trainer itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sphereface.config import config_from_dict
from sphereface.data.batch import Batch
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES, SphereNet
from sphereface.training.optimizer import make_optimizer
from sphereface.training.trainer import Trainer

from ..images import make_training_set

GOLDEN = Path(__file__).parents[1] / "golden"


def make_trainer(about: dict, data: Path) -> Trainer:
    """A trainer with the golden run's settings and its small network."""
    settings, solver = about["lambda"], about["solver"]
    config = {
        "model": {"depth": 4, "widths": [4, 4, 4, 4], "embedding_dim": 16, "input_size": [32, 32]},
        "loss": {
            "name": "a-softmax",
            "m": 4,
            "gradient": "caffe",
            "lambda_base": settings["base"],
            "lambda_gamma": settings["gamma"],
            "lambda_power": settings["power"],
            "lambda_min": settings["lambda_min"],
        },
        "data": {"train": str(data)},
        "train": {
            "steps": about["iterations"],
            "lr": solver["base_lr"],
            "milestones": solver["stepvalues"],
            "lr_decay": solver["lr_gamma"],
            "momentum": "caffe",
            "mu": solver["momentum"],
            "weight_decay": solver["weight_decay"],
        },
    }
    trainer = Trainer(
        config_from_dict(config, source="golden", losses=MARGINS, backbones=BACKBONES), torch.device("cpu")
    )
    learner = trainer.learner
    learner._called = learner.model = SphereNet(units=(1,), widths=(8,), embedding_dim=16, input_size=(28, 24))
    learner.head = MarginHead(16, 10, trainer.config.loss)
    learner.optimizer = make_optimizer(trainer.config, learner.parts, learner.factors, learner.dtype)
    return trainer


def parameters_by_original_name(trainer: Trainer) -> dict[str, torch.nn.Parameter]:
    named = {"fc6.weight": trainer.learner.head.weight}
    for name, layer in trainer.learner.model.named_layers():
        named[f"{name}.slope" if name.startswith("relu") else f"{name}.weight"] = layer.weight
        if not name.startswith("relu"):
            named[f"{name}.bias"] = layer.bias
    return named


@pytest.mark.parametrize("run", ["std", "fast"])
def test_thirty_steps_equal_the_original_solver(run, tmp_path, monkeypatch):
    with np.load(GOLDEN / "sgd_steps.npz", allow_pickle=False) as file:
        golden = {key[len(run) + 1 :]: value for key, value in file.items() if key.startswith(f"{run}.")}
    about = json.loads((GOLDEN / "sgd_steps.json").read_text())["runs"][run]
    trainer = make_trainer(about, make_training_set(tmp_path, 2, 2, size=(32, 32)))
    parameters = parameters_by_original_name(trainer)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(golden[f"init.{name}"]).reshape(parameter.shape))
    images, labels = torch.from_numpy(golden["input"]), torch.from_numpy(golden["label"])
    monkeypatch.setattr(trainer.learner, "inputs", lambda *_: (images, labels))  # the golden input is no image
    embeddings = []
    trainer.learner.model.register_forward_hook(lambda _m, _i, out: (out.retain_grad(), embeddings.append(out))[1])
    batch = Batch(images, labels, torch.zeros(len(labels), dtype=torch.bool), [])

    results = []
    for step in range(about["iterations"]):
        results.append(trainer.train_step(batch))
        if step == 0:
            for name, parameter in parameters.items():
                expected = golden[f"after1.{name}"].reshape(parameter.shape)
                np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-6, err_msg=name)

    np.testing.assert_allclose([result.lr for result in results], golden["lr"], rtol=1e-6)
    np.testing.assert_allclose([result.lam for result in results], golden["lambda"], rtol=1e-6)
    np.testing.assert_allclose([float(result.output.loss) for result in results], golden["loss"], rtol=5e-5)
    np.testing.assert_allclose(embeddings[0].detach().numpy(), golden["iter1.fc5"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(embeddings[0].grad.numpy(), golden["iter1.d_fc5"], rtol=0, atol=1e-5)
    for name, parameter in parameters.items():
        expected = golden[f"final.{name}"].reshape(parameter.shape)
        atol = 3e-5 * np.abs(expected).max()
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=atol, err_msg=name)
