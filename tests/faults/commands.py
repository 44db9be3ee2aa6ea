"""Every command that writes: its inputs, its command line, and what of its output may differ from run to run."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml

from sphereface import cli
from sphereface.alignment.landmarks import landmark_line
from sphereface.alignment.templates import TEMPLATES
from sphereface.files import sha256_of

from ..evaluation.checkpoints import write_checkpoint
from ..evaluation.crops import write_set
from ..images import make_training_set
from ..models.published import Port

OUT = "out"


@dataclass(frozen=True)
class Command:
    """A command that writes below ``folder/out``, and nowhere else but where ``also`` says.

    Attributes:
        make: writes its inputs into a folder.
        argv: the command line, with paths relative to the folder.
        also: globs of files outside ``out`` that it writes.
        volatile: regular expression of files whose content differs from run to run (times), and is not compared.
    """

    make: Callable[[Path], object]
    argv: tuple[str, ...]
    also: tuple[str, ...] = ()
    volatile: str = "(?!)"

    def files(self, folder: Path) -> dict[str, Any]:
        """Name → content of every file that it wrote, in a form that can be compared."""
        files = {path for glob in (f"{OUT}/**/*", *self.also) for path in folder.glob(glob) if path.is_file()}
        names = sorted(str(path.relative_to(folder)) for path in files)
        return {name: None if re.search(self.volatile, name) else content(folder / name) for name in names}

    def outputs(self, folder: Path) -> dict[str, Any]:
        """As :meth:`files`, with the newest of several folders that are named by the time."""
        return {re.sub(r"\d{8}-\d{6}(-\d+)?", "TIME", name): found for name, found in self.files(folder).items()}


def content(path: Path) -> Any:
    """What a file says, without the marks, times and places that are of one run only."""
    data = path.read_bytes()
    if path.suffix == ".pt":
        state = torch.load(io.BytesIO(data), weights_only=True)
        return {key: _plain(state.get(key)) for key in ("model", "head", "seen_size")}
    if path.suffix == ".json" and path.name != "model.json":
        return _without(
            json.loads(data),
            {"id", "sha256", "checkpoint_sha256", "seconds", "bytes", "run", "absolute_root", "source"},
        )
    if path.suffix == ".npz":
        with np.load(io.BytesIO(data)) as file:
            return {key: file[key].tobytes() for key in file if key not in ("checkpoint_sha256", "absolute_root")}
    if path.suffix == ".safetensors":  # its header is in no fixed order
        return {name: value.numpy().tobytes() for name, value in safetensors.torch.load(data).items()}
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def _without(tree: Any, keys: set[str]) -> Any:
    if isinstance(tree, dict):
        return {key: _without(value, keys) for key, value in tree.items() if key not in keys}
    return [_without(value, keys) for value in tree] if isinstance(tree, list) else tree


# ---------------------------------------------------------------- their inputs


def people(folder: Path) -> None:
    make_training_set(folder / "people", 3, 3, (32, 24))


def many_people(folder: Path) -> None:
    make_training_set(folder / "people", 8, 3, (32, 24))


def photographs(folder: Path) -> None:
    make_training_set(folder / "photos", 2, 3, (120, 100))
    points = np.asarray(TEMPLATES[(112, 96)], dtype=np.float64)
    names = [f"id{person:02d}/{number:03d}.png" for person in range(2) for number in range(3)]
    (folder / "landmarks.txt").write_text("".join(landmark_line(name, points) for name in names), encoding="utf-8")


def checkpoint_and_set(folder: Path) -> None:
    write_checkpoint(folder / "a.pt")
    write_checkpoint(folder / "b.pt", seed=1)
    write_set(folder / "set", people=8, images=14)


def calibrated(folder: Path) -> None:
    checkpoint_and_set(folder)
    points = [{"far": 0.1, "threshold": 0.5, "tar": 0.9, "num_impostor": 1000}]
    values = {
        "format": 1, "checkpoint_sha256": sha256_of(folder / "a.pt"), "flip": True, "source": "set", "slope": 9.0,
        "offset": -3.0, "prior": 0.5, "thresholds": points, "mirror": "join",
    }  # fmt: skip
    (folder / "a.calibration.json").write_text(json.dumps(values), encoding="utf-8")


def gallery(folder: Path) -> None:
    calibrated(folder)
    places = (folder / "set", folder / "gallery.npz")
    assert cli.main(["embed", *map(str, places), "--aligned", "--ckpt", str(folder / "a.pt"), "--device", "cpu"]) == 0


def published(folder: Path) -> None:
    torch.manual_seed(0)
    torch.save(Port().state_dict(), folder / "port.pth")


def configuration(folder: Path) -> None:
    people(folder)
    values = {
        "name": "tiny", "runs_dir": OUT,
        "model": {"depth": 4, "widths": [4, 4, 4, 4], "embedding_dim": 4, "input_size": [32, 24]},
        "data": {"train": "people", "workers": 0},
        "train": {"batch_size": 4, "steps": 4, "lr": 0.01, "ema": 0.9},
        "log": {"tensorboard": False, "every_steps": 1},
        "checkpoint": {"every_steps": 2, "keep": 2},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


_CHECKPOINT = ("--ckpt", "a.pt", "--device", "cpu")

COMMANDS: dict[str, Command] = {
    "align": Command(
        photographs, ("align", "--landmarks", "landmarks.txt", "photos", OUT, "--workers", "0"), volatile="report"
    ),
    "pack": Command(people, ("pack", "people", f"{OUT}/train.rec")),
    "pack-encode": Command(people, ("pack", "people", f"{OUT}/train.rec", "--quality", "90")),
    "check": Command(
        people, ("check", "people", "--output", OUT, "--write-list", f"{OUT}/clean.txt", "--workers", "0")
    ),
    "make_pairs": Command(many_people, ("make-pairs", "people", OUT, "--folds", "2", "--people", "4")),
    "embed": Command(checkpoint_and_set, ("embed", "set", f"{OUT}/gallery.npz", "--aligned", *_CHECKPOINT)),
    "embed-folder": Command(checkpoint_and_set, ("embed", "set", OUT, "--aligned", *_CHECKPOINT)),
    "eval": Command(
        checkpoint_and_set,
        ("eval", "--lfw", "set", "--pairs", "set/pairs.txt", "--output", OUT, "--calibrate", "--html", *_CHECKPOINT),
        also=("a.calibration.json", "embeddings/*"),
    ),
    "search": Command(
        gallery,
        (
            "search",
            "gallery.npz",
            "set/P0/P0_0001.jpg",
            "--aligned",
            "--index",
            "faiss",
            "--save-plot",
            f"{OUT}/found.png",
            *_CHECKPOINT,
        ),
        also=("*.faiss", "**/*.faiss"),
    ),
    "verify": Command(
        calibrated,
        (
            "verify",
            "set/P0/P0_0001.jpg",
            "set/P0/P0_0002.jpg",
            "--aligned",
            "--save-plot",
            f"{OUT}/pair.png",
            *_CHECKPOINT,
        ),
    ),
    "export": Command(
        checkpoint_and_set,
        ("export", "a.pt", "--format", "torchscript", "--output", f"{OUT}/a.torchscript"),
        volatile=r"\.torchscript$",
    ),
    "export-safetensors": Command(
        checkpoint_and_set, ("export", "a.pt", "--format", "safetensors", "--output", f"{OUT}/a.safetensors")
    ),
    "import": Command(published, ("import", "port.pth", f"{OUT}/port.pt")),
    "join": Command(checkpoint_and_set, ("join", "a.pt", "b.pt", "--output", f"{OUT}/ab.pt")),
    "train": Command(
        configuration,
        ("train", "--config", "config.yaml", "--resume", "auto", "--device", "cpu"),
        volatile=r"run\.json|train\.log|metrics\.jsonl|\.lock|config\.yaml|crops\.png",
    ),
}
