"""Checkpoints: loading a network, joining several, starting from one, what lies beside them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch

from sphereface.checkpoint import load_checkpoint, save_checkpoint
from sphereface.checkpoint_place import occupied
from sphereface.commands.check import _source_of
from sphereface.commands.eval_source import kind_of
from sphereface.config import config_from_dict
from sphereface.evaluation.calibration import (
    Calibration,
    Threshold,
    calibration_path,
    read_calibration,
    write_calibration,
)
from sphereface.evaluation.replaced import replaced_results, replaced_suite, results_in
from sphereface.evaluation.write import _earlier_files
from sphereface.export.card import evaluations
from sphereface.files import sha256_of
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES, load_model
from sphereface.models.joining import join, networks_of
from sphereface.training.learner import Learner
from sphereface.training.starting import start_from

from ...evaluation.checkpoints import write_checkpoint
from ..registry import register

_CROPS = (2, 3, 32, 24)


def make_checkpoint(folder: Path) -> None:
    write_checkpoint(folder / "a.pt")


def parse_checkpoint(folder: Path, path: Path) -> None:
    occupied(folder / "a.new")  # reads a.json
    loaded = load_model(path.with_suffix(".pt"))
    with torch.inference_mode():
        loaded.model(torch.zeros(2, 3, *loaded.input_size))


def make_two(folder: Path) -> None:
    write_checkpoint(folder / "a.pt")
    write_checkpoint(folder / "b.pt", seed=1)
    joined = join([load_checkpoint(folder / name) for name in ("a.pt", "b.pt")], [folder / "a.pt", folder / "b.pt"])
    save_checkpoint(folder / "ab.pt", joined, {})


def parse_join(folder: Path, _path: Path) -> None:
    paths = [folder / "a.pt", folder / "b.pt"]
    join([load_checkpoint(path) for path in paths], paths)
    networks_of(load_checkpoint(folder / "ab.pt"), folder / "ab.pt")
    load_model(folder / "ab.pt")


_CONFIG = {
    "model": {"depth": 4, "widths": [4, 4, 4, 8], "embedding_dim": 16, "input_size": [32, 24]},
    "loss": {"name": "cosface"},
    "data": {"train": "data"},
    "train": {"steps": 10, "batch_size": 4, "init_from": "a.pt", "init_head": "auto", "ema": 0.9},
}


def _learner() -> Learner:
    config = config_from_dict(copy.deepcopy(_CONFIG), source="config", losses=MARGINS, backbones=BACKBONES)
    return Learner(config, 4, torch.device("cpu"))


def make_start(folder: Path) -> None:
    learner = _learner()
    meta = {"config": learner.config.to_dict(), "step": 3, "run": "r", "class_names": list("abcd")}
    state = {"meta": meta, "model": learner.model.state_dict(), "head": learner.head.state_dict()}
    save_checkpoint(folder / "a.pt", state, {"step": 3})


def parse_start(folder: Path, _path: Path) -> None:
    start_from(_learner(), folder / "a.pt", ["a", "b", "x", "y"])


def make_calibration(folder: Path) -> None:
    write_checkpoint(folder / "a.pt")
    points = tuple(Threshold(far, 0.9 - far, 0.9, 1000) for far in (0.1, 0.01))
    calibration = Calibration(sha256_of(folder / "a.pt"), True, "lfw", 9.0, -3.0, 0.5, points, "join")
    write_calibration(calibration, calibration_path(folder / "a.pt"))


def parse_calibration(folder: Path, path: Path) -> None:
    calibration = read_calibration(path, checkpoint_sha256=sha256_of(folder / "a.pt"), mirror="join")
    assert 0 <= calibration.probability(0.5) <= 1
    assert 0 <= calibration.probability(-1.0, prior=1e-6) <= 1
    assert -1.01 <= calibration.at().threshold <= 1.01
    json.dumps(calibration.thresholds[0].far, allow_nan=False)


def make_reports(folder: Path) -> None:
    """What ``eval`` leaves beside a checkpoint, which the card of an export quotes."""
    write_checkpoint(folder / "a.pt")
    outcome = {
        "checkpoint_sha256": sha256_of(folder / "a.pt"), "name": "lfw", "pairs": "x/pairs.txt", "num_images": 12,
        "mean": 0.9, "accuracy": 0.9, "standard_error": 0.01, "auc": 0.95, "eer": 0.1,
        "tar_at_far": [{"far": 0.1, "tar": 0.8}, {"far": 0.01, "tar": None}], "set_digest": "ab",
        "mirror": "join", "subtract_mean": True, "precision": "fp32", "sets": {"own": {}},
    }  # fmt: skip
    for name in ("eval-lfw", "eval/own"):
        (folder / name).mkdir(parents=True)
        (folder / name / "verification.json").write_text(json.dumps(outcome), encoding="utf-8")


def parse_reports(folder: Path, _path: Path) -> None:
    evaluations(folder / "a.pt", sha256_of(folder / "a.pt"))


def parse_replaced(folder: Path) -> None:
    before = results_in(folder)
    for new in ({}, *before.values(), {"set_digest": "cd"}, {"mirror": "none", "precision": "bf16"}):
        replaced_results(before, {"verification.json": {**new, "checkpoint_sha256": "0" * 64}})
        replaced_results({k: {**v, "checkpoint_sha256": None} for k, v in before.items()}, {"verification.json": new})
    replaced_suite(before, {"verification.json": {"sets": {"other": {}}}})


def make_earlier_report(folder: Path) -> None:
    """What the next evaluation into a folder reads, to remove the files that it does not write."""
    names = ["table.txt", "verification.json", "roc.png"]
    text = json.dumps({"num_undefined_embeddings": 0, "files": names})
    (folder / "verification.json").write_text(text, encoding="utf-8")


def make_check_report(folder: Path) -> None:
    """What the next check reads, to name the set whose report it replaces."""
    text = json.dumps({"source": "faces", "images": 4, "bad": [{"name": "a/1.jpg", "reason": "cut off"}]})
    (folder / "report.json").write_text(text, encoding="utf-8")


def make_kinds(folder: Path) -> None:
    """Files that ``eval --compare`` tells apart by their content."""
    write_checkpoint(folder / "a.pt")
    np.savez(folder / "table.npz", names=["a"], embeddings=np.ones((1, 2)))
    (folder / "a.onnx").write_bytes(b"\x08\x08")


register("compare-kind", make_kinds, lambda _, path: kind_of(path), reads="commands.eval_source")
register("checkpoint", make_checkpoint, parse_checkpoint, reads="archives checkpoint checkpoint_place models.loading")
register("join", make_two, parse_join, reads="models.joining checkpoint", files="*.pt")
register("init-from", make_start, parse_start, reads="training.starting", files="*.pt")
register(
    "calibration",
    make_calibration,
    parse_calibration,
    files="*.calibration.json",
    reads="evaluation.calibration small_files",
)
register(
    "earlier-report",
    make_earlier_report,
    lambda folder, _: _earlier_files(folder),
    files="verification.json",
    reads="evaluation.write",
)
register(
    "check-report",
    make_check_report,
    lambda folder, _: _source_of(folder / "report.json"),
    files="report.json",
    reads="commands.check",
)
register(
    "replaced-results",
    make_reports,
    lambda folder, _: parse_replaced(folder / "eval-lfw"),
    files="eval-lfw/*.json",
    reads="evaluation.replaced",
)
register("reports", make_reports, parse_reports, files="eval*/**/*.json", reads="export.card")
