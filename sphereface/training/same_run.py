"""Compare a configuration with those of earlier runs, for ``--resume auto``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..config import Config, config_from_dict
from ..errors import UserError
from ..losses.margins import MARGINS
from ..models import BACKBONES
from ..small_files import read_text, reason

_OTHER = {
    "data": ("workers", "keep_mb", "max_bad_share"),
    "eval": ("every_steps", "batch_size", "precision", "sets"),
    "train": ("on_nonfinite", "nonfinite_limit", "matmul"),
}
"""Keys that change neither the data nor, except for rounding, the weights. Of ``eval.sets``, the
selecting set stays.
"""
PLACES = {"data": ("train", "root", "exclude_file"), "train": ("init_from",)}
"""Keys whose values are places of files."""
TEACHER_PLACES = ("embeddings", "onnx", "checkpoint")
"""The same of ``train.teacher``."""
MOST_DIFFERENCES = 5
"""Differences that a message lists."""


def what_trains(config: Config) -> dict[str, Any]:
    """Return a plain configuration of the settings that change what is trained.

    The settings of logs, checkpoints, evaluations, workers and memory are left out. So are the
    rounding of products on CUDA, and how many unusable images or steps that are not finite end the
    run. The set that selects ``best.pt`` is kept. Paths are normalised.
    """
    plain = config.to_dict()
    sets, select = plain["eval"]["sets"], plain["eval"]["select"]
    for section in ("log", "checkpoint"):
        del plain[section]
    for section, names in _OTHER.items():
        for name in names:
            del plain[section][name]
    plain["runs_dir"] = _normal(plain["runs_dir"])
    for section, names in PLACES.items():
        plain[section] |= {name: _normal(plain[section][name]) for name in names}
    teacher = plain["train"]["teacher"]
    teacher |= {key: _normal(teacher[key]) for key in TEACHER_PLACES}
    plain["eval"]["selecting set"] = _normal(sets.get(select))
    return plain


def why_new(runs: Sequence[tuple[Path, list[str]]]) -> str:
    """Return a line on why a new run starts, with the differences to the nearest unfinished run.

    Args:
        runs: folders of unfinished runs, each with its other settings, a line each.
    """
    text = "no unfinished run of this configuration, starting a new one"
    if not runs:
        return text
    nearest, changes = _nearest(runs)
    return (
        f"{text} · the nearest unfinished one, {nearest}, has other settings: {changes} · "
        f"to resume it anyway: --resume {nearest}"
    )


def why_again(runs: Sequence[tuple[Path, list[str]]]) -> str:
    """Return a line on why an ensemble uses no finished network, with the nearest one.

    Args:
        runs: folders of finished runs, each with its other settings, a line each; at least one.
    """
    nearest, changes = _nearest(runs)
    return (
        f"no finished network of this configuration, training all of them · the nearest finished one, {nearest}, has "
        f"other settings: {changes} · to use finished networks: stop, and repeat the command with their settings"
    )


def _nearest(runs: Sequence[tuple[Path, list[str]]]) -> tuple[Path, str]:
    """Return the run with the fewest other settings, and these in one line."""
    nearest, lines = min(runs, key=lambda run: len(run[1]))
    more = f" · and {len(lines) - MOST_DIFFERENCES} more" if len(lines) > MOST_DIFFERENCES else ""
    return nearest, " · ".join(line[:200] for line in lines[:MOST_DIFFERENCES]) + more


def unknown_runs(folders: Iterable[Path]) -> Iterator[str]:
    """Yield a line for each folder without a readable ``run.json`` that may be of a run."""
    for folder in folders:
        try:
            names = [path.name for path in folder.iterdir()]
        except NotADirectoryError:
            continue
        except OSError as error:
            yield f"{folder} skipped: it cannot be read ({error.strerror})"
            continue
        if "run.json" in names or any(name.endswith(".pt") for name in names):
            yield (
                f"{folder} skipped: its run.json is missing or damaged · to resume that run, put its run.json back "
                "and repeat the command; to use its weights in a new run, set train.init_from"
            )


def _normal(paths: Any) -> Any:
    """Return paths in one spelling: absolute, and without a slash at the end."""
    if isinstance(paths, Mapping):
        return {key: _normal(path) for key, path in paths.items()}
    if isinstance(paths, (list, tuple)):
        return [_normal(path) for path in paths]
    return os.path.abspath(paths) if isinstance(paths, str) else paths  # noqa: PTH100 -- links stay


def saved_config(folder: Path) -> Config:
    """Read the configuration of a run folder; keys that its version did not have get defaults.

    Raises:
        UserError: it is missing, damaged, or of a version with keys that this one does not have.
    """
    path = folder / "config.yaml"
    try:
        values = yaml.safe_load(read_text(path))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a mapping of keys to values")
    return config_from_dict(values, source=str(path), losses=MARGINS, backbones=BACKBONES)
