"""The interface of backbones, and the registry of ``model.name``.

To add a backbone, write one file with an options class and a network, and register the class
(docs/extend.md). No other file changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone_options import BackboneOptions
from ..errors import UserError, first_line
from ..input_spec import InputSpec

BACKBONES: dict[str, type[BackboneOptions]] = {}
"""The options class of each backbone, by ``model.name``."""

O = TypeVar("O", bound=BackboneOptions)  # noqa: E741

_SAME = 0.05
"""Largest relative difference between two embeddings of one crop. Rounding in float32 gives 1e-6,
and dropout of 1 % gives 0.1."""


def register(name: str) -> Callable[[type[O]], type[O]]:
    """Register a backbone under a name of the configuration. Decorates its options class."""

    def enter(cls: type[O]) -> type[O]:
        if name in BACKBONES:
            raise ValueError(f"a backbone named {name!r} is registered already · give yours another name")
        if not issubclass(cls, BackboneOptions) or "__dataclass_fields__" not in vars(cls):
            raise TypeError(f"{cls.__name__} is not a dataclass that extends BackboneOptions · see docs/extend.md")
        cls.name = name
        BACKBONES[name] = cls
        return cls

    return enter


class Backbone(nn.Module):
    """A network that embeds aligned crops: ``forward`` maps (B, 3, H, W) float to (B, D).

    Attributes:
        input_spec: the input of ``forward``. :func:`sphereface.models.build_model` sets it from the
            options.
        embedding_dim: D, set in the same way.
    """

    input_spec: InputSpec
    embedding_dim: int

    def recompute_units(self, wanted: bool) -> None:
        """Set whether training recomputes values in the backward pass (``train.recompute``).

        Raises:
            UserError: this backbone does not support it.
        """
        if wanted:
            raise UserError(f"train.recompute: got true · {type(self).__name__} cannot recompute its units · use false")


class ConvBackbone(Backbone):
    """A backbone with a feature map, which can train on smaller crops.

    ``train.stages[].input_size`` sets their size. A subclass implements :meth:`feature_map` and
    :meth:`embed`.

    Attributes:
        map_size: (h, w) of the feature map of a whole crop.
    """

    map_size: tuple[int, int]

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map: (B, 3, H, W) → (B, C, h, w)."""
        raise NotImplementedError

    def embed(self, maps: Tensor) -> Tensor:
        """Embed feature maps of ``map_size``: (B, C, h, w) → (B, D), not normalised."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised crops.

        Args:
            images: (B, 3, H, W) float, as :attr:`input_spec` says.

        Returns:
            (B, D), not normalised.

        Raises:
            UserError: crops of another size or without three channels.
        """
        check_images(images, self.input_spec.size)
        return self.embed(self.feature_map(images))


class StagedBackbone(ConvBackbone):
    """A backbone of units in stages, of which four halve the sides. Training can recompute units.

    Args:
        input_size: (height, width) of the crops in pixels.

    Attributes:
        recompute: training keeps only the input of each unit for the backward pass.
    """

    def __init__(self, input_size: Sequence[int]) -> None:
        super().__init__()
        height, width = input_size
        self.map_size = half(height, 4), half(width, 4)
        self.recompute = False

    def recompute_units(self, wanted: bool) -> None:
        """Set :attr:`recompute`."""
        self.recompute = wanted


def check_images(images: Tensor, *sizes: tuple[int, int]) -> None:
    """Refuse images that are not (B, 3, H, W) with (H, W) in ``sizes``."""
    if images.ndim == 4 and images.shape[1:] in [(3, *size) for size in sizes]:  # a list, because a tracer cannot hash
        return
    height, width = sizes[0]
    raise UserError(
        f"network input: got {tuple(images.shape)} · allowed: (batch, 3, {height}, {width}) · "
        "align the images to this size, or build the network with model.input_size of the images"
    )


class Resized(Backbone):
    """A backbone that receives smaller crops: progressive resizing.

    It shrinks crops to ``seen_size``, and enlarges the last feature map to the size that the
    embedding layer expects. Half the sides cost a quarter of the time, and the learned weights also
    work on whole crops.

    Args:
        backbone: shares its weights with this module.
        seen_size: (height, width) in pixels, at most the backbone's own; it may change at any time.
    """

    def __init__(self, backbone: Backbone, seen_size: tuple[int, int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.input_spec, self.embedding_dim = backbone.input_spec, backbone.embedding_dim
        self.seen_size = seen_size

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised crops: (B, 3, H, W) → (B, D).

        (H, W) is the backbone's size or already ``seen_size``.
        """
        whole = self.input_spec.size
        if self.seen_size == whole:
            result: Tensor = self.backbone(images)
            return result
        check_images(images, whole, self.seen_size)
        if images.shape[2:] != self.seen_size:
            images = F.interpolate(images, self.seen_size, mode="area")
        backbone = self.backbone
        assert isinstance(backbone, ConvBackbone)
        maps = backbone.feature_map(images)
        if maps.shape[2:] != backbone.map_size:
            maps = F.interpolate(maps, backbone.map_size, mode="bilinear")
        return backbone.embed(maps)


def resized(backbone: Backbone, seen_size: tuple[int, int], key: str) -> Backbone:
    """Return a backbone for crops of ``seen_size``: the backbone itself if that is its own size.

    Raises:
        UserError: it has no feature map, so it reads one size; ``key`` is the option to name.
    """
    if seen_size == backbone.input_spec.size:
        return backbone
    if not isinstance(backbone, ConvBackbone):
        height, width = backbone.input_spec.size
        raise UserError(
            f"{key}: got {list(seen_size)} · {type(backbone).__name__} makes no feature map, so it reads crops of one "
            f"size only · allowed: [{height}, {width}]"
        )
    return Resized(backbone, seen_size)


@torch.no_grad()
def check_backbone(backbone: Backbone, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Embed a crop at each training size, to find a wrong network before the first step.

    A network of a plugin also passes :func:`check_steady`.

    Args:
        backbone: in any mode, which stays.
        sizes: (height, width) by the key of the configuration that sets it.

    Raises:
        UserError: the network cannot embed it, its result is not (1, D), or the embedding of a
            crop is not always the same.
    """
    was_training, weight = backbone.training, next(backbone.parameters())
    backbone.eval()
    try:
        for key, size in sizes.items():
            crop = torch.zeros(1, 3, *size, device=weight.device)
            try:
                found = tuple(resized(backbone, size, key)(crop).shape)
            except UserError:
                raise
            except Exception as error:  # a network can raise anything
                raise UserError(
                    f"{key}: got {list(size)} · {type(backbone).__name__} cannot embed such a crop "
                    f"({type(error).__name__}: {first_line(error)}) · set a size that the network supports"
                ) from error
            if found != (1, backbone.embedding_dim):
                raise UserError(
                    f"model.name: {type(backbone).__name__} gives {found} for one crop · allowed: (1, "
                    f"{backbone.embedding_dim}), model.embedding_dim numbers"
                )
        if not type(backbone).__module__.startswith(f"{__package__}."):  # a plugin
            check_steady(backbone, "model.name", backbone.input_spec.size)
    finally:
        backbone.train(was_training)


@torch.no_grad()
def check_steady(backbone: Backbone, where: str, size: tuple[int, int]) -> None:
    """Check that the embedding of a crop depends on the crop alone, in evaluation mode.

    A crop of noise is embedded twice alone, and once beside a crop of higher contrast.

    Args:
        backbone: in evaluation mode.
        where: the key or the file to name.
        size: (height, width) of the crops.

    Raises:
        UserError: the network cannot embed them, or the embeddings differ by more than rounding.
    """
    draw = torch.Generator().manual_seed(0)
    noise = torch.rand((2, 3, *size), generator=draw, dtype=torch.float32, device="cpu") * 2 - 1
    noise[0] *= 0.25
    crops = noise.to(next(backbone.parameters()).device)
    given = crops.clone()
    name = type(backbone).__name__
    try:
        alone, again, beside = (backbone(some)[0].float() for some in (given[:1], given[:1], given))
    except UserError:
        raise
    except Exception as error:  # a network can raise anything
        raise UserError(
            f"{where}: {name} cannot embed one crop or two ({type(error).__name__}: {first_line(error)}) · allowed: a "
            "network that embeds a batch of any size"
        ) from error
    if not torch.equal(given, crops):
        raise UserError(
            f"{where}: {name} changes the crops that it gets · allowed: a network that leaves them as they are · work "
            "on a copy: x = x * 0.5 instead of x.mul_(0.5)"
        )
    if (off := _off(again, alone)) > _SAME:
        raise UserError(
            f"{where}: {name} embeds one crop differently each time, in evaluation mode (off by {off:.0%}) · allowed: "
            "the same embedding each time · leave out dropout there: F.dropout needs training=self.training"
        )
    if (off := _off(beside, alone)) > _SAME:
        raise UserError(
            f"{where}: {name} embeds a crop differently in a batch than alone, in evaluation mode (off by {off:.0%}) · "
            "allowed: the same embedding in every batch · leave out figures of the batch there: batch normalisation "
            "needs track_running_stats=True"
        )


def _off(found: Tensor, wanted: Tensor) -> float:
    """Return the relative difference of two (D,) embeddings; 0 if neither has a direction."""
    lengths = [float(each.norm()) for each in (found, wanted)]
    directed = [math.isfinite(length) and length > 0 for length in lengths]
    if not all(directed):
        return float(any(directed))
    return float((found - wanted).norm()) / lengths[1]


def full_precision(head: Callable[[Tensor], Tensor], maps: Tensor, weight: Tensor) -> Tensor:
    """Apply ``head`` to feature maps in the number type of its ``weight``.

    Under autocast an embedding in bfloat16 would have 8 significant bits, and so would its batch
    statistics. The head is a small share of the work, so full precision costs little.
    """
    if not torch.is_autocast_enabled(maps.device.type):
        return head(maps)
    with torch.autocast(maps.device.type, enabled=False):
        return head(maps.to(weight.dtype))


def set_batch_norm(model: nn.Module, *, momentum: float | None, eps: float | None) -> None:
    """Set momentum and eps of every batch normalisation layer; None keeps a value."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = layer.momentum if momentum is None else momentum
            layer.eps = layer.eps if eps is None else eps


def half(side: int, times: int = 1) -> int:
    """Return the length of a side after ``times`` stride-2 convolutions that round up."""
    for _ in range(times):
        side = (side + 1) // 2
    return side
