"""Which settings decide what is trained: how ``--resume auto`` compares a configuration with those
of earlier runs.
"""

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
"""Keys that change neither the weights of a step nor the data, but for rounding; of ``eval.sets``, the selecting one
stays."""
_MOST_DIFFERENCES = 5


def what_trains(config: Config) -> dict[str, Any]:
    """Return a plain configuration without the settings that do not change what is trained, its
    paths normalised.

    Left out is what only concerns logs, checkpoints, evaluations, workers and memory. So are the
    rounding of products on CUDA, and how many unusable images or steps that are not finite end the
    run. The set that selects
    ``best.pt`` is kept.
    """
    plain = config.to_dict()
    sets, select = plain["eval"]["sets"], plain["eval"]["select"]
    for section in ("log", "checkpoint"):
        del plain[section]
    for section, names in _OTHER.items():
        for name in names:
            del plain[section][name]
    plain["runs_dir"] = _normal(plain["runs_dir"])
    plain["data"] |= {key: _normal(plain["data"][key]) for key in ("train", "root", "exclude_file")}
    plain["train"]["init_from"] = _normal(plain["train"]["init_from"])
    teacher = plain["train"]["teacher"]
    teacher |= {key: _normal(teacher[key]) for key in ("embeddings", "onnx", "checkpoint")}
    plain["eval"]["selecting set"] = _normal(sets.get(select))
    return plain


def why_new(runs: Sequence[tuple[Path, list[str]]]) -> str:
    """Say that a new run starts, and how the unfinished run that is most like it differs.

    Args:
        runs: folders of unfinished runs, each with what it trains otherwise, a line each.
    """
    text = "no unfinished run of this configuration, starting a new one"
    if not runs:
        return text
    nearest, lines = min(runs, key=lambda run: len(run[1]))
    more = f" · and {len(lines) - _MOST_DIFFERENCES} more" if len(lines) > _MOST_DIFFERENCES else ""
    return (
        f"{text} · the nearest unfinished one, {nearest}, trains otherwise: "
        f"{' · '.join(line[:200] for line in lines[:_MOST_DIFFERENCES])}{more} · "
        f"to resume that one all the same: --resume {nearest}"
    )


def unknown_runs(folders: Iterable[Path]) -> Iterator[str]:
    """Name, a line each, the folders without a readable ``run.json`` that may be those of runs all
    the same.
    """
    for folder in folders:
        try:
            names = [path.name for path in folder.iterdir()]
        except NotADirectoryError:
            continue
        except OSError as error:
            yield f"{folder} passed over: it cannot be read ({error.strerror})"
            continue
        if "run.json" in names or any(name.endswith(".pt") for name in names):
            yield (
                f"{folder} passed over: its run.json is missing or damaged · to resume that run, put its run.json back "
                "and repeat the command; to use its weights in a new run, set train.init_from"
            )


def _normal(paths: Any) -> Any:
    """Return paths in one spelling: relative or absolute, with or without a slash at the end."""
    if isinstance(paths, Mapping):
        return {key: _normal(path) for key, path in paths.items()}
    if isinstance(paths, (list, tuple)):
        return [_normal(path) for path in paths]
    return os.path.abspath(paths) if isinstance(paths, str) else paths  # noqa: PTH100 -- links stay


def saved_config(folder: Path) -> Config:
    """Read the configuration of a run folder; keys that its version did not know have their
    defaults.

    Raises:
        UserError: it is missing, damaged, or of a version whose keys this one does not know.
    """
    path = folder / "config.yaml"
    try:
        values = yaml.safe_load(read_text(path))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: got no mapping of keys to values")
    return config_from_dict(values, source=str(path), losses=MARGINS, backbones=BACKBONES)
