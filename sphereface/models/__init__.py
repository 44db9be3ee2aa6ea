"""Backbones, and how one is built from a configuration or read from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import BadCheckpoint, load_checkpoint
from ..config import ModelConfig
from ..errors import ConfigError
from ..options import parse_options
from .side_by_side import SideBySide
from .spherenet import SphereNet

__all__ = ["LoadedModel", "SideBySide", "SphereNet", "build_model", "load_model"]


@dataclass(frozen=True)
class LoadedModel:
    """A backbone read from a checkpoint, in evaluation mode.

    Attributes:
        model: (B, 3, H, W) float32 in [−1, 1], BGR → (B, D) embedding.
        input_size: (H, W) in pixels.
        meta: what the checkpoint says of itself: ``step``, ``run``, ``config``, ``versions``, ….
    """

    model: SphereNet | SideBySide
    input_size: tuple[int, int]
    meta: dict[str, Any]


def build_model(config: ModelConfig) -> SphereNet:
    """One network that ``model:`` describes, with fresh weights from torch's generator."""
    return SphereNet(
        config.depth,
        widths=config.widths,
        embedding_dim=config.embedding_dim,
        input_size=config.input_size,
        norm="batch" if config.norm == "batch" else "none",
    )


def build_whole(config: ModelConfig) -> SphereNet | SideBySide:
    """All that ``model:`` describes, which may be several networks side by side."""
    if config.networks == 1:
        return build_model(config)
    return SideBySide([build_model(config) for _ in range(config.networks)])


def load_model(path: Path, device: torch.device | str = "cpu") -> LoadedModel:
    """Read the backbone of a checkpoint: with averaged weights (``train.ema``) where it has them.

    Raises:
        BadCheckpoint: the file is missing, damaged, or its weights do not fit the network it names.
    """
    state = load_checkpoint(path, device=device)
    config, weights = model_config(state, path)
    model = build_whole(config)
    load_weights(model, weights, path)
    sizes = seen_sizes(state, config, path)
    if isinstance(model, SphereNet):
        model.seen_size = sizes[0]
    else:
        model.set_seen_sizes(sizes)
    model.to(device).eval()
    return LoadedModel(model, model.input_size, state["meta"])


def model_config(state: Mapping[str, Any], path: Path) -> tuple[ModelConfig, Mapping[str, torch.Tensor]]:
    """What a checkpoint says of its backbone, and the weights: averaged (``train.ema``) where it has them.

    Raises:
        BadCheckpoint: it holds no network.
        ConfigError: it describes one that there is not.
    """
    try:
        options, weights = state["meta"]["config"]["model"], state.get("average", state["model"])
    except KeyError as error:
        raise BadCheckpoint(f"{path}: holds no {error} entry, so it is not a training checkpoint") from error
    except TypeError as error:
        raise BadCheckpoint(f"{path}: its meta is not that of a training checkpoint") from error
    problems: list[str] = []
    config = parse_options(ModelConfig, options, prefix="model", problems=problems)
    if config is None:
        raise ConfigError(str(path), problems)
    return config, weights


def seen_sizes(state: Mapping[str, Any], config: ModelConfig, path: Path) -> list[tuple[int, int]]:
    """Of each network of a checkpoint (height, width) of the crops that it saw last: smaller in the midst of some runs.

    Raises:
        BadCheckpoint: it says none, or not as many as it has networks.
    """
    given = state.get("seen_size", config.input_size if config.networks == 1 else [config.input_size] * config.networks)
    try:
        sizes = [(int(height), int(width)) for height, width in ([given] if config.networks == 1 else given)]
    except (TypeError, ValueError) as error:
        raise BadCheckpoint(f"{path}: seen_size: got {given!r} · allowed: height and width of each network") from error
    if len(sizes) != config.networks:
        raise BadCheckpoint(f"{path}: seen_size: got {given!r} · allowed: that of its {config.networks} networks")
    return sizes


def load_weights(module: torch.nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Fill a module, or say in one line what of the checkpoint does not fit it."""
    check_weights({name: value.shape for name, value in module.state_dict().items()}, weights, path)
    module.load_state_dict(weights)


def check_weights(shapes: Mapping[str, Sequence[int]], weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Say in one line what of a checkpoint does not fit the shapes that are wanted."""
    if not isinstance(weights, Mapping) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise BadCheckpoint(f"{path}: the weights in it are not tensors with names")
    expected = {name: tuple(shape) for name, shape in shapes.items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        name = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))[0]
        raise BadCheckpoint(
            f"{path}: another architecture: {name} is {found.get(name, 'missing')} in the file, "
            f"{expected.get(name, 'absent')} in this network · use the config that it was trained with"
        )
