"""The programs with a checkpoint that was trained on a GPU: resume, evaluate, verify, export."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

import eval_lfw
import train
from sphereface.cli import main
from sphereface.evaluation.embed import embed_batch
from sphereface.models import load_model

from ..images import image, make_pairs, make_training_set
from ..training.runs import write_tiny
from .near import has_values, near, needs_values

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    make_training_set(folder / "train", 5, 7, size=(32, 32))
    make_pairs(folder / "pairs", size=(32, 32))
    return write_tiny(folder, folder)


def trained(config_file, device, runs_dir):
    """A run folder that was trained on the device."""
    assert train.main(["--config", str(config_file), "--device", device, "--set", f"runs_dir={runs_dir}"]) == 0
    (folder,) = (runs_dir / "tiny").iterdir()
    return folder


@pytest.fixture(scope="module")
def run(config_file, device):
    return trained(config_file, device.type, config_file.parent / "runs" / device.type)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def test_a_run_is_that_of_the_cpu_and_can_be_resumed(config_file, device, tmp_path):
    folder, other = (trained(config_file, where, tmp_path / name) for name, where in (("a", device.type), ("b", "cpu")))
    found, wanted = losses(folder), losses(other)
    assert len(found) == len(wanted) == 12
    needs_values()
    assert found == pytest.approx(wanted, rel=2e-2)
    for where, steps in ((device.type, 16), ("cpu", 20)):
        options = ["--set", f"train.steps={steps}", "--resume", str(folder)]
        assert train.main(["--config", str(config_file), "--device", where, *options]) == 0
        assert len(losses(folder)) == steps


def test_its_evaluation_is_that_of_the_cpu(run, config_file, device, tmp_path):
    needs_values()  # a checkpoint with numbers that are not finite is refused
    pairs = config_file.parent / "pairs"
    found = []
    for where in (device.type, "cpu"):
        files = ["--ckpt", str(run), "--lfw", str(pairs), "--pairs", str(pairs / "pairs.txt")]
        assert eval_lfw.main([*files, "--device", where, "--output", str(tmp_path / where)]) == 0
        found.append(json.loads((tmp_path / where / "verification.json").read_text(encoding="utf-8")))
    assert found[0]["auc"] == pytest.approx(found[1]["auc"], abs=0.02)


def test_it_verifies(run, device, tmp_path, capsys):
    needs_values()
    paths = [tmp_path / f"{k}.png" for k in range(2)]
    for k, path in enumerate(paths):
        cv2.imwrite(str(path), image(k, 0, (32, 32)))
    checkpoint, cosines = str(run / "last.pt"), []
    for where in (device.type, "cpu"):
        assert main(["verify", *map(str, paths), "--ckpt", checkpoint, "--aligned", "--device", where]) == 0
        cosines.append(float(capsys.readouterr().out.split()[1]))
    assert not has_values() or cosines[0] == pytest.approx(cosines[1], abs=2e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_its_embeddings_are_those_of_the_cpu(run, device, precision):
    crops = np.stack([image(k, 1, (32, 32)) for k in range(6)])
    on_cpu, here = (load_model(run / "last.pt").model.to(where).eval() for where in (CPU, device))
    with torch.inference_mode():
        wanted = embed_batch(on_cpu, crops, CPU, True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            found = embed_batch(here, crops, device, True)
    near(torch.as_tensor(found), torch.as_tensor(wanted), 1e-4 if precision == "fp32" else 3e-2)


def test_it_is_exported(run, tmp_path):
    needs_values()
    output = tmp_path / "face.ts"
    assert main(["export", str(run / "last.pt"), "--format", "torchscript", "--output", str(output)]) == 0
    assert output.stat().st_size > 1000
    tensors = torch.load(run / "last.pt", map_location="cpu", weights_only=True)["model"]
    assert {value.device.type for value in tensors.values()} == {"cpu"}
