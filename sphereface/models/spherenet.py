"""The Sphere CNN of SphereFace (Liu et al., CVPR 2017, table 2, and the released network)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ..backbone_options import BackboneOptions
from ..errors import UserError, shown
from ..input_spec import InputSpec
from ..options import option
from .backbone import ConvBackbone, half, register
from .few_launches import Blocks, FixedBiasConv2d, run_block
from .fused_units import UnitWeights, fused_units, fuses
from .prelu import PReLU
from .recompute import run_units

Norm = Literal["none", "batch"]

UNITS = {4: (0, 0, 0, 0), 10: (0, 1, 2, 0), 20: (1, 2, 4, 1), 36: (2, 4, 8, 2), 64: (3, 8, 16, 3)}
"""Residual units in the four stages, by depth."""

WIDTHS = (64, 128, 256, 512)


@register("spherenet")
@dataclass(frozen=True)
class SphereNetOptions(BackboneOptions):
    """Options of the Sphere CNN; the defaults are the authors' released 20-layer network.

    Attributes:
        depth: 4, 10, 20, 36 or 64 layers.
        units: residual units of each stage, such as [3, 7, 16, 3]; null takes those of ``depth``.
        widths: channels of the four stages.
        norm: see :class:`SphereNet`.
    """

    input_size: tuple[int, ...] = option((112, 96), low=16)
    input_order: str = option("bgr", choices=("bgr", "rgb"))
    input_std: float | tuple[float, ...] = option(128.0, above=0)
    depth: int = option(20, choices=sorted(UNITS))
    units: tuple[int, ...] | None = option(None, low=0, high=100)
    widths: tuple[int, ...] = option(WIDTHS, low=1)
    norm: str = option("none", choices=["none", "batch"])

    @property
    def batch_statistics(self) -> bool:
        """Return whether ``norm`` is ``batch``."""
        return self.norm == "batch"

    def problems(self) -> list[str]:
        """Return the problems of the base class and of the four stages."""
        found = super().problems()
        if len(self.widths) != 4:
            found.append(f"model.widths: got {shown(list(self.widths))} · allowed: four stage widths")
        if self.units is not None and len(self.units) != 4:
            found.append(f"model.units: got {shown(list(self.units))} · allowed: four numbers, or null")
        return found

    def build(self) -> SphereNet:
        """Build the network."""
        return SphereNet(
            self.depth,
            widths=self.widths,
            embedding_dim=self.embedding_dim,
            input_size=self.input_size,
            norm="batch" if self.norm == "batch" else "none",
            units=self.units,
        )


class ResidualUnit(nn.Module):
    """x + prelu(conv(prelu(conv(x)))), without an activation after the sum.

    The biases exist so that imported weights can fill them. In training they stay fixed at 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_a = FixedBiasConv2d(channels, channels, 3, padding=1)
        self.relu_a = PReLU(channels)
        self.conv_b = FixedBiasConv2d(channels, channels, 3, padding=1)
        self.relu_b = PReLU(channels)
        for conv in (self.conv_a, self.conv_b):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(_bias(conv)).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.relu_b(self.conv_b(self.relu_a(self.conv_a(x))))
        return x + y

    def weights(self) -> UnitWeights:
        """Return the weights, without the fixed biases."""
        return UnitWeights(self.conv_a.weight, self.relu_a.weight, self.conv_b.weight, self.relu_b.weight)

    def adds_bias(self) -> bool:
        """Return whether a bias is trained or not zero."""
        return self.conv_a.adds_bias() or self.conv_b.adds_bias()


class SphereStage(nn.Module):
    """A stride-2 convolution with PReLU that halves the map, then residual units."""

    def __init__(self, channels_in: int, channels: int, units: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1)
        caffe_xavier_(self.conv.weight)
        nn.init.zeros_(_bias(self.conv))
        self.norm = nn.BatchNorm2d(channels) if norm == "batch" else nn.Identity()
        self.relu = PReLU(channels)
        self.units = nn.Sequential(*(ResidualUnit(channels) for _ in range(units)))
        self.recompute = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.conv(x))
        if not self.recompute and self._fuses(y):
            return fused_units(y, self.relu.weight, [unit.weights() for unit in self.own_units()])
        return run_units(self.units, self.relu(y), recompute=self.recompute)

    def _fuses(self, x: torch.Tensor) -> bool:
        weights = (weight for unit in self.own_units() for weight in unit.weights())
        layers = itertools.chain([self.relu], self.units.modules())
        return fuses(x, weights, layers) and not any(unit.adds_bias() for unit in self.own_units())

    def own_units(self) -> Iterator[ResidualUnit]:
        """Yield the units in order."""
        for unit in self.units:
            assert isinstance(unit, ResidualUnit)
            yield unit


class SphereNet(ConvBackbone):
    """Embed face crops: four stages, then one linear layer, ``fc5``, on the flattened C×H×W map.

    Args:
        depth: 4, 10, 20, 36 or 64 layers; 20 is the released network (22.67 M parameters).
        widths: channels of the stages.
        embedding_dim: length of fc5.
        input_size: (height, width) of the crops in pixels; the released network has 112×96.
        norm: ``"none"`` is the paper's. ``"batch"`` adds batch normalisation after each stride-2
            convolution and after fc5. The paper does not have it, but small training sets converge
            with it.
        units: residual units of each stage, in place of those of ``depth``.

    Raises:
        UserError: a depth that is not in the paper's table.
    """

    def __init__(
        self,
        depth: int = 20,
        *,
        widths: Sequence[int] = WIDTHS,
        embedding_dim: int = 512,
        input_size: Sequence[int] = (112, 96),
        norm: Norm = "none",
        units: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if units is None and depth not in UNITS:
            raise UserError(f"model.depth: got {depth} · allowed: {', '.join(map(str, UNITS))}")
        units = UNITS[depth] if units is None else units
        height, width = input_size
        self.input_spec = InputSpec(height, width)
        self.embedding_dim = embedding_dim
        channels = (3, *widths)
        self.stages = Blocks(*(SphereStage(channels[i], channels[i + 1], units[i], norm) for i in range(len(widths))))
        height, width = self.map_size = half(height, len(widths)), half(width, len(widths))
        self.fc5 = nn.Linear(widths[-1] * height * width, embedding_dim)
        caffe_xavier_(self.fc5.weight)
        nn.init.zeros_(self.fc5.bias)
        self.norm5 = nn.BatchNorm1d(embedding_dim) if norm == "batch" else nn.Identity()

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last map: (B, 3, H, W) → (B, widths[3], H/16, W/16), sides rounded up."""
        maps: torch.Tensor = self.stages(images)
        return maps

    def embed(self, maps: torch.Tensor) -> torch.Tensor:
        """Embed maps: flatten them in the order C, H, W, as Caffe does, then apply fc5."""
        embeddings: torch.Tensor = self.norm5(run_block(self.fc5, maps.flatten(1)))
        return embeddings

    def recompute_units(self, wanted: bool) -> None:
        """Set whether training keeps only the input of each residual unit and recomputes."""
        for stage in self.stages:
            assert isinstance(stage, SphereStage)
            stage.recompute = wanted

    def named_layers(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the layers in order, by the original's names: conv1_1, relu1_1, …, fc5."""
        for s, stage in enumerate(self.stages, start=1):
            assert isinstance(stage, SphereStage)
            pairs: list[tuple[nn.Module, nn.Module]] = [(stage.conv, stage.relu)]
            for unit in stage.own_units():
                pairs += [(unit.conv_a, unit.relu_a), (unit.conv_b, unit.relu_b)]
            for n, (conv, relu) in enumerate(pairs, start=1):
                yield f"conv{s}_{n}", conv
                yield f"relu{s}_{n}", relu
        yield "fc5", self.fc5


def caffe_xavier_(weight: torch.Tensor) -> torch.Tensor:
    """Fill with Caffe's "xavier": uniform in ±√(3 / fan_in), fan_in = ``weight[0].numel()``."""
    bound = math.sqrt(3.0 / weight[0].numel())
    return nn.init.uniform_(weight, -bound, bound)


def _bias(conv: nn.Conv2d) -> torch.Tensor:
    assert conv.bias is not None
    return conv.bias
