"""Several checkpoints as one: the weights of all their networks, whose embeddings :class:`SideBySide` joins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import MOST_NETWORKS, ModelConfig, differences
from ..errors import UserError
from ..options import to_plain
from . import build_model, check_weights, model_config

_TOTALS = ("step", "total_steps", "images_seen", "seconds")
_DATA = ("class_names", "num_images")


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint.

    Attributes:
        origin: the file it was trained to, as a path.
        model: its architecture, ``networks`` being 1.
        weights: its state, averaged (``train.ema``) where the checkpoint has averages.
        seen_size: (height, width) of the crops that it was trained on last.
    """

    origin: str
    model: ModelConfig
    weights: Mapping[str, Tensor]
    seen_size: Sequence[int]


def networks_of(state: Mapping[str, Any], path: Path) -> list[Part]:
    """The networks that a checkpoint holds: one, or those that were joined to it.

    Args:
        state: what :func:`load_checkpoint` read.
        path: from where.

    Raises:
        BadCheckpoint: no network, or one whose weights do not fit the architecture that the file names.
    """
    config, weights = model_config(state, path)
    one = replace(config, networks=1)
    if config.networks == 1:
        parts = [Part(str(path), one, weights, state.get("seen_size", config.input_size))]
    else:
        starts = [f"networks.{number}." for number in range(config.networks)]
        origins = state["meta"].get("networks", [str(path)] * config.networks)
        sizes = state.get("seen_size", [config.input_size] * config.networks)
        parts = [
            Part(origin, one, {n.removeprefix(start): w for n, w in weights.items() if n.startswith(start)}, size)
            for origin, start, size in zip(origins, starts, sizes, strict=True)
        ]
    with torch.device("meta"):  # shapes only
        shapes = {name: tuple(value.shape) for name, value in build_model(one).state_dict().items()}
    for part in parts:
        check_weights(shapes, part.weights, path)
    return parts


def join(states: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> dict[str, Any]:
    """One checkpoint of several.

    Args:
        states: what :func:`load_checkpoint` read; joined ones bring each of their networks.
        paths: from where.

    Returns:
        ``meta``, ``seen_size`` and ``model`` of a checkpoint with ``model.networks`` N. Steps, pictures and seconds in
        ``meta`` are those of all together, ``networks`` the N files; the rest is the first one's, and names and number
        of training pictures are there if they are the same in all.

    Raises:
        UserError: networks of different architectures, the same one twice, fewer than two or too many.
    """
    parts = [(part, path) for state, path in zip(states, paths, strict=True) for part in networks_of(state, path)]
    if not 2 <= len(parts) <= MOST_NETWORKS:
        raise UserError(f"networks to join: got {len(parts)} · allowed: 2 to {MOST_NETWORKS}")
    first, first_path = parts[0]
    for number, (part, path) in enumerate(parts):
        if lines := differences(to_plain(first.model), to_plain(part.model)):
            raise UserError(
                f"{path}: another architecture than {first_path} (model.{lines[0]}) · allowed: networks of one "
                "architecture"
            )
        for other, other_path in parts[:number]:
            if all(torch.equal(part.weights[name], value) for name, value in other.weights.items()):
                where = "that file" if path == other_path else str(other_path)
                raise UserError(f"{path}: holds the same network as {where} · give each network once")
    weights = {f"networks.{k}.{name}": w for k, (part, _) in enumerate(parts) for name, w in part.weights.items()}
    meta = _joined_meta([state["meta"] for state in states], [part.origin for part, _ in parts])
    return {"meta": meta, "seen_size": [list(part.seen_size) for part, _ in parts], "model": weights}


def _joined_meta(metas: Sequence[Mapping[str, Any]], origins: list[str]) -> dict[str, Any]:
    first = metas[0]
    config = {**first["config"], "model": {**first["config"]["model"], "networks": len(origins)}}
    told = [key for key in _TOTALS if all(meta.get(key) is not None for meta in metas)]
    totals = {key: sum(meta[key] for meta in metas) for key in told}
    data = {key: first[key] for key in _DATA if key in first and all(meta.get(key) == first[key] for meta in metas)}
    rest = {key: value for key, value in first.items() if key not in (*_TOTALS, *_DATA)}
    of_one = dict.fromkeys(("best", "best_step", "evaluated_step"))  # which say nothing of all together
    return {**rest, **totals, **data, **of_one, "config": config, "networks": origins}
