"""``--replay``: what of a kept step is damaged is one line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml

from sphereface.checkpoint import BadCheckpoint, load_checkpoint, save_checkpoint
from sphereface.errors import UserError
from sphereface.training.replay import replay
from sphereface.training.trainer import Trainer

from .runs import CPU, TINY, load

NAN = float("nan")


@pytest.fixture(scope="module")
def kept(tmp_path_factory, faces) -> Path:
    """A step as a run keeps it, with one augmentation."""
    root = tmp_path_factory.mktemp("kept")
    values = yaml.safe_load(TINY)
    values["data"] |= {"train": str(faces / "train"), "augment": {"erase": {"p": 0.5}}}
    values["eval"] |= {"sets": {}, "select": None}
    (root / "tiny.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    trainer = Trainer(load(root / "tiny.yaml"), CPU)
    batch = next(trainer.feed())
    whole = {**batch._asdict(), "augment": dict(batch.augment)}
    save_checkpoint(root / "kept.pt", {**trainer.state("run"), "batch": whole, "position": 0}, {})
    return root / "kept.pt"


def altered(path: Path, output: Path, change) -> Path:
    state = {key: value for key, value in load_checkpoint(path).items() if key not in ("format", "id")}
    change(state)
    save_checkpoint(output, state, {})
    return output


def test_a_kept_step_is_repeated(kept):
    report = replay(kept, CPU)
    assert "8 images, labels" in report
    assert "first layer not finite    none" in report


def test_a_step_of_a_compiled_network_is_repeated_without_compiling(kept, tmp_path, monkeypatch):
    """Each layer that is looked at would be compiled by itself."""
    monkeypatch.setattr(torch.nn.Module, "compile", None)
    compiled = altered(kept, tmp_path / "c.pt", lambda s: s["meta"]["config"]["train"].__setitem__("compile", True))
    report = replay(compiled, CPU)
    assert "network                   not compiled here, unlike in the run" in report
    assert report.replace("network                   not compiled here, unlike in the run\n", "") == replay(kept, CPU)


def test_weights_that_are_not_finite_are_what_it_tells(kept, tmp_path):
    bad = altered(kept, tmp_path / "bad.pt", lambda s: s["model"]["fc5.bias"].fill_(NAN))
    report = replay(bad, CPU)
    assert "weights not finite        model.fc5.bias" in report
    assert "first layer not finite    fc5" in report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("batch"), "holds no batch"),
        (lambda s: s.pop("position"), "holds no batch"),
        (lambda s: s["meta"].pop("total_steps"), "has no meta.total_steps"),
        (lambda s: s["meta"].pop("step"), "has no meta.step"),
        (lambda s: s.update(position=NAN), "position: got nan · allowed: a number from 0 to 12"),
        (lambda s: s.update(position=13), "position: got 13"),
        (lambda s: s.update(position=True), "position: got True"),
        (lambda s: s.update(batch=[1]), "batch: got .* · allowed: images, labels and mirror"),
        (lambda s: s["batch"].pop("mirror"), "batch: got .* · allowed: images, labels and mirror"),
        (lambda s: s["batch"].update(labels=torch.tensor(3)), "batch.images: not a torch.uint8 tensor"),
        (
            lambda s: s["batch"].update({k: s["batch"][k][:0] for k in ("images", "labels", "mirror")}),
            "batch.images: no",
        ),
        (lambda s: s["batch"].update(images=s["batch"]["images"].float()), "batch.images: not a torch.uint8 tensor"),
        (lambda s: s["batch"].update(images=s["batch"]["images"][:, :9]), r"batch.images: .* \(8, 32, 32, 3\)"),
        (lambda s: s["batch"].update(labels=s["batch"]["labels"].float()), "batch.labels: not a torch.int64 tensor"),
        (lambda s: s["batch"].update(mirror=None), "batch.mirror: not a torch.bool tensor"),
        (lambda s: s["batch"]["labels"].fill_(5), "batch.labels: got labels outside of 0 … 4"),
        (lambda s: s["batch"]["labels"].fill_(-1), "batch.labels: got labels outside of 0 … 4"),
        (lambda s: s["batch"].update(augment=3), "batch.augment.*: not rows of the batch"),
        (lambda s: s["batch"].update(augment={"erase": (torch.tensor([8]), torch.ones(1, 4))}), "batch.augment.*erase"),
        (lambda s: s["batch"].update(augment={"erase": (torch.tensor([0]), torch.ones(2, 4))}), "batch.augment.*erase"),
        (lambda s: s["batch"].update(augment={"erase": (torch.tensor([0]), NAN * torch.ones(1, 4))}), "augment.*erase"),
        (lambda s: s["batch"].update(augment={"x\ny": 3}), r"batch.augment.*x\\ny"),
        (lambda s: s["batch"].update(augment={"erase": (torch.tensor([0]), torch.ones(1, 1))}), "batch.augment.*erase"),
        (lambda s: s["batch"].update(augment={"other": (torch.tensor([0]), torch.ones(1, 1))}), "batch.augment.*other"),
        (lambda s: s["model"].pop("fc5.bias"), "another architecture: fc5.bias is missing"),
        (lambda s: s["head"].update(weight=torch.ones(4, 8)), "another architecture: head.weight"),
        (lambda s: s["meta"]["config"]["model"].update(embedding_dim=10**12), "another architecture|cannot be built"),
        (lambda s: s["optimizer"]["head.weight"].update(velocity=math.inf), "optimizer.head.weight"),
    ],
)
def test_a_damaged_step_is_one_line(kept, tmp_path, change, message):
    bad = altered(kept, tmp_path / "bad.pt", change)
    with pytest.raises(UserError, match=message) as caught:
        replay(bad, CPU)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_another_kind_of_file_is_refused(tmp_path):
    save_checkpoint(tmp_path / "other.pt", {"meta": {}}, {})
    with pytest.raises(BadCheckpoint, match=r"holds no batch · allowed: a nonfinite-….pt of a run folder"):
        replay(tmp_path / "other.pt", CPU)
