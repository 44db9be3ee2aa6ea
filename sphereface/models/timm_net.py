"""Any network of timm, with the embedding head that face recognition uses.

timm is https://github.com/huggingface/pytorch-image-models. It is imported when such a network is
built, so the package works without it. Nothing is downloaded.
"""

from __future__ import annotations

import difflib
import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..backbone_options import BackboneOptions
from ..errors import UserError, first_line, shown
from ..extras import import_extra
from ..options import option
from .backbone import Backbone, ConvBackbone, check_images, full_precision, register
from .recompute import StatisticsOnlyInside


@register("timm")
@dataclass(frozen=True)
class TimmOptions(BackboneOptions):
    """Options of a timm network, with random weights.

    Attributes:
        architecture: timm's name of it, such as ``vit_tiny_patch16_224``, ``convnext_atto`` or
            ``resnet18``. The size in a name is that of published weights; the network is built for
            ``input_size``.
        drop_path: the share of images for which training skips the last residual unit (stochastic
            depth).
        dropout: share of the last features that training sets to 0, before the embedding layer.
    """

    architecture: str = option("vit_tiny_patch16_224")
    drop_path: float = option(0.0, low=0, high=0.9)
    dropout: float = option(0.0, low=0, high=0.9)

    def build(self) -> TimmNet:
        """Build the network.

        Raises:
            UserError: timm is missing, does not know the architecture, or cannot build it for these
                options.
        """
        network, fixed_size = _make_network(self)
        shape = _prepare(network, self)
        kind = TimmNet if fixed_size or len(shape) == 2 else TimmMaps
        return kind(network, shape, embedding_dim=self.embedding_dim, dropout=self.dropout)


class TimmNet(Backbone):
    """A timm network that reads crops of one size, and an embedding head.

    The head is batch normalisation (of maps only), dropout, one linear layer on all features, and
    batch normalisation.

    Args:
        network: a timm network without classifier.
        shape: of its features for one crop: (C, h, w) of a map, or (tokens, C).
        embedding_dim: length of an embedding.
        dropout: before the linear layer.
    """

    def __init__(self, network: Any, shape: tuple[int, ...], *, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        self._statistics: StatisticsOnlyInside | None = None
        self.network = network
        norm = [nn.BatchNorm2d(shape[0])] if len(shape) == 3 else []
        linear = nn.Linear(math.prod(shape), embedding_dim)
        self.head = nn.Sequential(*norm, nn.Dropout(dropout), nn.Flatten(), linear, nn.BatchNorm1d(embedding_dim))

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last features: (B, 3, H, W) → (B, C, h, w), or (B, tokens, C)."""
        with self._statistics or nullcontext():  # timm recomputes units in the backward pass, outside of this context
            return _features(self.network, images)

    def embed(self, maps: Tensor) -> Tensor:
        """Embed features: (B, C, h, w) or (B, tokens, C) → (B, D), not normalised."""
        return full_precision(self.head, maps, next(self.head.parameters()))

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised crops: (B, 3, H, W) float → (B, D), not normalised.

        Raises:
            UserError: crops of another size or without three channels.
        """
        check_images(images, self.input_spec.size)
        return self.embed(self.feature_map(images))

    def recompute_units(self, wanted: bool) -> None:
        """Set whether training computes timm's checkpointed units again in the backward pass.

        Raises:
            UserError: this architecture cannot.
        """
        try:
            self.network.set_grad_checkpointing(wanted)
        except (AssertionError, AttributeError, NotImplementedError):
            super().recompute_units(wanted)
        if self._statistics is not None:
            self._statistics.remove()
        self._statistics = StatisticsOnlyInside(self.network) if wanted else None


class TimmMaps(TimmNet, ConvBackbone):
    """A timm network that makes feature maps of crops of any size, and an embedding head."""

    def __init__(self, network: Any, shape: tuple[int, ...], *, embedding_dim: int, dropout: float) -> None:
        super().__init__(network, shape, embedding_dim=embedding_dim, dropout=dropout)
        _, height, width = shape
        self.map_size = height, width


def _make_network(options: TimmOptions) -> tuple[nn.Module, bool]:
    """Return a timm network without classifier, and whether it reads crops of one size only."""
    timm, name = import_extra("model.name", "timm", "timm"), options.architecture
    if not timm.is_model(name):
        near = difflib.get_close_matches(name[:100], timm.list_models(), n=3)
        raise UserError(
            f"model.architecture: got {shown(name)}, which timm {timm.__version__} does not have · "
            f"{'did you mean ' + ', '.join(near) if near else 'allowed: a name from timm.list_models()'}"
        )
    published = timm.get_pretrained_cfg(name)
    fixed_size = bool(published is not None and published.fixed_input_size)
    arguments: dict[str, Any] = {"img_size": tuple(options.input_size)} if fixed_size else {}
    if options.drop_path > 0:  # not all networks have this argument
        arguments["drop_path_rate"] = options.drop_path
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except Exception as error:
        if options.drop_path > 0 and "drop_path_rate" in str(error):
            raise UserError(
                f"model.drop_path: got {options.drop_path:g} · {name} has no stochastic depth · set it to 0"
            ) from error
        raise _unfit(options, error) from error
    return network, fixed_size


def _features(network: Any, images: Tensor) -> Tensor:
    """Return timm's last features: (B, C, h, w), or (B, tokens, C)."""
    features: Tensor = network.forward_features(images)
    if features.ndim == 4 and getattr(network, "output_fmt", "NCHW") == "NHWC":  # Swin and others
        return features.permute(0, 3, 1, 2)
    return features


def _prepare(network: nn.Module, options: TimmOptions) -> tuple[int, ...]:
    """Return the feature shape of one crop, and remove modules that do not affect the features.

    Some timm networks keep parts of their classifier, such as a last normalisation. Parameters
    without a gradient would stop training on several devices.

    Raises:
        UserError: the network cannot read such crops, or gives something else than a map or tokens.
    """
    network.eval()
    try:
        features = _features(network, torch.zeros(1, 3, *options.input_size))
        features.sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise _unfit(options, error) from error
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and any(side % part for side, part in zip(options.input_size, patch, strict=True)):
        raise UserError(
            f"model.input_size: got {list(options.input_size)} · {options.architecture} would leave pixels out · "
            f"allowed: multiples of its patches, {list(patch)}"
        )
    if features.ndim not in (3, 4):
        raise UserError(
            f"model.architecture: got {options.architecture!r}, whose features have {features.ndim} dimensions · "
            "allowed: a network that makes a map or tokens"
        )
    for name, part in network.named_children():
        gradients = [parameter.grad for parameter in part.parameters()]
        if gradients and all(gradient is None for gradient in gradients):
            setattr(network, name, nn.Identity())
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.requires_grad and parameter.grad is not None)
    network.zero_grad(set_to_none=True)
    network.train()
    return tuple(features.shape[1:])


def _unfit(options: TimmOptions, error: Exception) -> UserError:
    return UserError(
        f"model.input_size: got {list(options.input_size)} · {options.architecture} of timm cannot be built for it: "
        f"{first_line(error)} · set a size that the network supports (often a multiple of 32), or another architecture"
    )
