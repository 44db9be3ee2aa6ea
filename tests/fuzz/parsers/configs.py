"""Configurations: YAML files on top of each other, and ``--set``."""

from __future__ import annotations

from pathlib import Path

import yaml

from sphereface.config import Config, load_config
from sphereface.losses.margins import MARGINS
from sphereface.models import BACKBONES
from sphereface.places import parse_places

from ..registry import register

_VALUES = {
    "name": "tiny", "seed": 1,
    "model": {"depth": 4, "widths": [4, 8, 8, 8], "embedding_dim": 8, "input_size": [32, 32], "norm": "batch"},
    "loss": {"name": "arcface", "m": 0.3, "s": 32},
    "data": {"train": "data/train", "workers": 0, "crop_shift": 1, "exclude": ["0045"], "min_images": 2},
    "train": {
        "batch_size": 8, "steps": 100, "lr": 0.01, "schedule": "step", "milestones": [50, 80], "ema": 0.9,
        "stages": [{"until": 0.5, "input_size": [16, 16], "loss": {"m": 0.1}}],
    },
    "eval": {"sets": {"own": {"images": "a", "pairs": "a/pairs.txt"}, "bin": "b.bin"}, "select": "own"},
    "log": {"tensorboard": False, "every_steps": 5},
    "checkpoint": {"every_steps": 10, "keep": 2},
}  # fmt: skip


def make_config(folder: Path) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(_VALUES), encoding="utf-8")
    (folder / "whole.yaml").write_text(yaml.safe_dump(_load(folder / "config.yaml").to_dict()), encoding="utf-8")


def make_extends(folder: Path) -> None:
    make_config(folder)
    (folder / "whole.yaml").unlink()
    (folder / "above.yaml").write_text("extends: config.yaml\ntrain: {lr: 0.1}\nloss: {m: 0.4}\n", encoding="utf-8")


def make_overrides(folder: Path) -> None:
    lines = ["train.lr=0.05", "loss.name=cosface", "loss.m=0.2", "model={name: iresnet, layers: [1, 1, 1, 1]}"]
    lines += [
        "data.exclude=['0045', x]",
        "eval.sets={}",
        "eval.select=null",
        "train.stages=[]",
        "train.milestones=[10]",
    ]
    (folder / "set.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "base.yaml").write_text(yaml.safe_dump(_VALUES), encoding="utf-8")


def make_places(folder: Path) -> None:
    (folder / "places.txt").write_text("pairs:data/lfw,data/pairs.txt\nijb:a,b\nlfw.bin\n", encoding="utf-8")


def _load(path: Path, overrides: list[str] | None = None) -> Config:
    return load_config(str(path), overrides or [], losses=MARGINS, backbones=BACKBONES)


def parse_config(folder: Path, path: Path) -> None:
    config = _load(folder / "above.yaml" if (folder / "above.yaml").exists() else path)
    yaml.safe_dump(config.to_dict())
    config.evaluation_sets()


def parse_overrides(folder: Path, _path: Path) -> None:
    text = (folder / "set.txt").read_text(encoding="utf-8", errors="surrogateescape")
    lines = [line for line in text.split("\n") if line][:50]
    yaml.safe_dump(_load(folder / "base.yaml", lines).to_dict())


def parse_place(folder: Path, _path: Path) -> None:
    for line in (folder / "places.txt").read_text(encoding="utf-8", errors="surrogateescape").split("\n")[:20]:
        parse_places(line)


register("config", make_config, parse_config, reads="config config_files options backbone_options")
register("config-extends", make_extends, parse_config, reads="config_files")
register("set", make_overrides, parse_overrides, files="set.txt", reads="config_files config")
register("places", make_places, parse_place, reads="places")
