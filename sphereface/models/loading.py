"""Build a backbone from its options, or read it from a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..backbone_options import BackboneOptions
from ..checkpoint import BadCheckpoint, load_with_sha256
from ..config import parse_model
from ..errors import ConfigError, UserError, first_line, shown, shown_key
from ..input_spec import InputSpec
from ..plugins import OF_NETWORK, OTHER_CODE, changed_code, code_of
from .backbone import BACKBONES, Backbone, Resized, check_steady, resized, set_batch_norm
from .ensemble import Ensemble
from .pointwise import slice_strided_pointwise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A backbone loaded from a checkpoint, in evaluation mode.

    Attributes:
        model: (B, 3, H, W) float, described by its ``input_spec`` → (B, D) embedding.
        meta: the metadata of the checkpoint: ``step``, ``run``, ``config``, ``versions``, ….
        sha256: of the file that held the weights, 64 hexadecimal digits.
    """

    model: Backbone
    meta: dict[str, Any]
    sha256: str

    @property
    def spec(self) -> InputSpec:
        """Return the input that the network reads."""
        return self.model.input_spec

    @property
    def input_size(self) -> tuple[int, int]:
        """Return (height, width) of the crops in pixels."""
        return self.spec.size


def build_model(options: BackboneOptions) -> Backbone:
    """Build one network of ``model:``, with new weights from torch's generator."""
    model: Backbone = options.build()
    slice_strided_pointwise(model)
    model.input_spec, model.embedding_dim = options.input_spec, options.embedding_dim
    set_batch_norm(model, momentum=options.batch_norm.momentum, eps=options.batch_norm.eps)
    return model


def build_all(options: BackboneOptions) -> Backbone:
    """Build the network or the ensemble that ``model:`` describes."""
    if options.networks == 1:
        return build_model(options)
    return Ensemble([build_model(options) for _ in range(options.networks)])


def load_model(path: Path, device: torch.device | str = "cpu") -> LoadedModel:
    """Load the backbone of a checkpoint, with averaged weights (``train.ema``) where it has them.

    Raises:
        BadCheckpoint: the file is missing, damaged, or its weights do not fit the network it names.
        UserError: the network is a plugin, and embeds one crop in several ways.
    """
    state, sha256 = load_with_sha256(path, device=device)
    options, weights = model_options(state, path)
    check_network(options, weights, path)  # before memory is allocated for the shapes that the file states
    sizes = seen_sizes(state, options, path)
    model = build_all(options).to(torch.float32)  # the caller's default may be another type
    model.load_state_dict(weights)
    if isinstance(model, Ensemble):
        model.networks = torch.nn.ModuleList(
            resized(network, size, f"{path}: seen_size") for network, size in zip(model.backbones(), sizes, strict=True)
        )
    else:
        model = resized(model, sizes[0], f"{path}: seen_size")
    model.to(device).eval()
    code = code_of(model.modules())
    if changed_code(state["meta"], {OF_NETWORK: code}):
        log.warning("%s %s: its embeddings are not those of its evaluations", path, OTHER_CODE)
    if code:
        check_steady(model, str(path), model.input_spec.size)
    return LoadedModel(model, state["meta"], sha256)


def model_options(state: Mapping[str, Any], path: Path) -> tuple[BackboneOptions, Mapping[str, torch.Tensor]]:
    """Return the backbone's options and weights from a checkpoint.

    The weights are averaged ones (``train.ema``) where the checkpoint has them.

    Raises:
        BadCheckpoint: it holds no network.
        ConfigError: it describes a network that this program does not know.
    """
    try:
        given, weights = state["meta"]["config"]["model"], state.get("average", state["model"])
    except KeyError as error:
        raise BadCheckpoint(f"{path}: has no {error} entry, so it is not a training checkpoint") from error
    except TypeError as error:
        raise BadCheckpoint(f"{path}: its meta is not that of a training checkpoint") from error
    problems: list[str] = []
    options = parse_model(given, BACKBONES, problems)
    if options is None or problems:
        raise ConfigError(str(path), problems)
    return options, weights


def seen_sizes(state: Mapping[str, Any], options: BackboneOptions, path: Path) -> list[tuple[int, int]]:
    """Return (height, width) of the crops that each network of a checkpoint was last trained on.

    They are smaller than the whole crops during some runs.

    Raises:
        BadCheckpoint: the sizes are not valid, or there are not as many as networks.
    """
    number, whole = options.networks, options.input_spec.size
    given = state.get("seen_size", whole if number == 1 else [whole] * number)
    try:
        sizes = [(int(height), int(width)) for height, width in ([given] if number == 1 else given)]
    except (TypeError, ValueError, OverflowError) as error:
        raise BadCheckpoint(
            f"{path}: seen_size: got {shown(given)} · allowed: height and width of each network"
        ) from error
    if len(sizes) != number:
        raise BadCheckpoint(f"{path}: seen_size: got {shown(given)} · allowed: one for each of its {number} networks")
    if not all(1 <= height <= whole[0] and 1 <= width <= whole[1] for height, width in sizes):
        raise BadCheckpoint(f"{path}: seen_size: got {shown(given)} · allowed: from [1, 1] to {list(whole)}")
    return sizes


def stored_sizes(sizes: Sequence[tuple[int, int]]) -> list[Any]:
    """Return what a checkpoint stores as ``seen_size``: :func:`seen_sizes` reads it back."""
    return [list(size) for size in sizes] if len(sizes) > 1 else list(sizes[0])


def check_network(
    options: BackboneOptions, weights: Mapping[str, torch.Tensor], path: Path, *, finite: bool = True
) -> None:
    """Compare the weights of a checkpoint with the network that it describes; allocate nothing.

    Args:
        options: of the network that the checkpoint describes.
        weights: in the checkpoint.
        path: the checkpoint, for messages.
        finite: also refuse weights that are not finite.

    Raises:
        BadCheckpoint: names or shapes differ, a weight is not finite, or no such network can be
            built.
    """
    try:
        shapes = shapes_of(options)
    except UserError as error:
        raise BadCheckpoint(f"{path}: {error}") from error
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"{path}: describes a network that cannot be built ({first_line(error)})") from error
    check_weights(shapes, weights, path)
    if finite:
        check_finite(weights, path)


def shapes_of(options: BackboneOptions) -> dict[str, torch.Size]:
    """Return names and shapes of the weights that ``model:`` describes; allocate nothing."""
    shapes = {name: value.shape for name, value in _unfilled(options).state_dict().items()}
    if options.networks == 1:
        return shapes
    return {f"networks.{k}.{name}": shape for k in range(options.networks) for name, shape in shapes.items()}


def code_of_network(options: BackboneOptions) -> str:
    """Return the code of the network that ``model:`` describes, see :func:`.code_of`."""
    return code_of(_unfilled(options).modules())


def _unfilled(options: BackboneOptions) -> Backbone:
    """Build one network whose weights have shapes, but no values."""
    with torch.device("meta"), _Unfilled():
        return build_model(replace(options, networks=1))


class _Unfilled(TorchFunctionMode):
    """Create new weights without filling them with values.

    PyTorch fills tensors of the meta device through its compiler, whose import takes longer than
    ``sphereface verify``.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init" or func in _FILLS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


_FILLS = (torch.Tensor.normal_, torch.Tensor.uniform_)


def sizes_seen(model: Backbone) -> list[tuple[int, int]]:
    """Return (height, width) of the crops that each network of a loaded model receives."""
    if isinstance(model, Ensemble):
        return [size for network in model.backbones() for size in sizes_seen(network)]
    return [model.seen_size if isinstance(model, Resized) else model.input_spec.size]


def bare_weights(model: Backbone) -> dict[str, torch.Tensor]:
    """Return the state dict of a loaded model under the names of its checkpoint."""
    if isinstance(model, Resized):
        return bare_weights(model.backbone)
    if isinstance(model, Ensemble):
        return {
            f"networks.{number}.{name}": value
            for number, network in enumerate(model.backbones())
            for name, value in bare_weights(network).items()
        }
    return dict(model.state_dict())


def load_weights(module: torch.nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Load weights into a module; report in one line which of them do not fit."""
    check_weights({name: value.shape for name, value in module.state_dict().items()}, weights, path)
    module.load_state_dict(weights)


def check_weights(shapes: Mapping[str, Sequence[int]], weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Compare a checkpoint's weights with the expected shapes; report a difference in one line."""
    expected = {name: tuple(shape) for name, shape in shapes.items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        name = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))[0]
        raise BadCheckpoint(
            f"{path}: another architecture: {shown_key(name)} is {found.get(name, 'missing')} in the file, "
            f"{expected.get(name, 'absent')} in this network · use the config that it was trained with"
        )


def check_finite(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse weights that are not finite: every embedding would be undefined."""
    for name, value in weights.items():
        if not bool((value.float() if value.dtype is torch.float64 else value).isfinite().all()):
            raise BadCheckpoint(f"{path}: {name} holds numbers that are not finite · use an earlier checkpoint")
