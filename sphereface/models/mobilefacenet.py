"""MobileFaceNet (Chen et al., CCBR 2018) in InsightFace's sizes ``mbf`` and ``mbf_large``.

Structure, names and initial values follow https://github.com/deepinsight/insightface,
recognition/arcface_torch, so its ``backbone.pth`` loads without renaming.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from ..backbone_options import BackboneOptions
from ..options import option
from .backbone import StagedBackbone, full_precision, register
from .prelu import PReLU
from .recompute import run_units


class Size(NamedTuple):
    """Units of the four stages, and the factor of their channels."""

    units: tuple[int, int, int, int]
    scale: int


SIZES = {"mbf": Size((1, 4, 6, 2), scale=2), "mbf_large": Size((2, 8, 12, 4), scale=4)}

LAST_CHANNELS = 512


@register("mobilefacenet")
@dataclass(frozen=True)
class MobileFaceNetOptions(BackboneOptions):
    """Options of MobileFaceNet; input and defaults are the publisher's.

    Attributes:
        size: ``mbf`` (2.1 M parameters) or ``mbf_large`` (6.3 M), which has twice the units and
            wider maps.
        dropout: share of the pooled features that training sets to 0, before the embedding layer.
    """

    size: str = option("mbf", choices=SIZES)
    dropout: float = option(0.0, low=0, high=0.9)

    def build(self) -> MobileFaceNet:
        """Build the network."""
        return MobileFaceNet(self)


class Layers(nn.Module):
    """Layers one after another, under the publisher's name ``layers``."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers: (B, channels_in, h, w) → (B, channels, h', w'), or (B, D)."""
        result: Tensor = self.layers(x)
        return result


class ConvNorm(Layers):
    """Convolution, batch normalisation and, unless ``linear`` is set, PReLU.

    Args:
        channels_in, channels: before and after.
        kernel: side of the kernel, or (height, width).
        stride, padding, groups: of the convolution.
        linear: leave the PReLU out.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        conv = nn.Conv2d(channels_in, channels, kernel, stride, padding, groups=groups, bias=False)
        activation = [] if linear else [PReLU(channels)]
        super().__init__(conv, nn.BatchNorm2d(channels), *activation)


class DepthWise(Layers):
    """Pointwise, depthwise 3×3 and pointwise convolution, the last without an activation.

    Args:
        channels_in, channels: before and after.
        hidden: channels of the depthwise convolution.
        stride: of the depthwise convolution.
        residual: add the input. Needs stride 1 and as many channels after as before.
    """

    def __init__(self, channels_in: int, channels: int, hidden: int, *, stride: int, residual: bool) -> None:
        super().__init__(
            ConvNorm(channels_in, hidden),
            ConvNorm(hidden, hidden, 3, stride=stride, padding=1, groups=hidden),
            ConvNorm(hidden, channels, linear=True),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers: (B, channels_in, h, w) → (B, channels, ⌈h/stride⌉, ⌈w/stride⌉)."""
        y = super().forward(x)
        return x + y if self.residual else y


class Residual(Layers):
    """Residual :class:`DepthWise` units of equal shape, one after another."""

    def __init__(self, channels: int, units: int, hidden: int) -> None:
        super().__init__(*(DepthWise(channels, channels, hidden, stride=1, residual=True) for _ in range(units)))


class MobileFaceNet(StagedBackbone):
    """Embed face crops with depthwise convolutions: a small and fast network.

    The head has one weight for each place and channel (GDC), a linear layer and batch
    normalisation.
    """

    def __init__(self, options: MobileFaceNetOptions) -> None:
        super().__init__(options.input_size)
        units, scale = SIZES[options.size]
        narrow, wide = 64 * scale, 128 * scale
        self.layers = nn.ModuleList(
            [
                ConvNorm(3, narrow, 3, stride=2, padding=1),
                Residual(narrow, units[0], 128) if units[0] > 1 else ConvNorm(narrow, narrow, 3, padding=1, groups=64),
                DepthWise(narrow, narrow, 128, stride=2, residual=False),
                Residual(narrow, units[1], 128),
                DepthWise(narrow, wide, 256, stride=2, residual=False),
                Residual(wide, units[2], 256),
                DepthWise(wide, wide, 512, stride=2, residual=False),
                Residual(wide, units[3], 256),
            ]
        )
        self.conv_sep = ConvNorm(wide, LAST_CHANNELS)
        self.features = Layers(
            ConvNorm(LAST_CHANNELS, LAST_CHANNELS, self.map_size, groups=LAST_CHANNELS, linear=True),
            nn.Sequential(nn.Flatten(), nn.Dropout(options.dropout)),
            nn.Linear(LAST_CHANNELS, options.embedding_dim, bias=False),
            nn.BatchNorm1d(options.embedding_dim),
        )
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map: (B, 3, H, W) → (B, 512, H/16, W/16), sides rounded up."""
        return run_units(self._units(), images, recompute=self.recompute)

    def embed(self, maps: Tensor) -> Tensor:
        """Return the embeddings of feature maps: (B, 512, h, w) → (B, D), not normalised."""
        return full_precision(self.features, maps, next(self.features.parameters()))

    def _units(self) -> Iterator[nn.Module]:
        for block in self.layers:
            if isinstance(block, Residual):
                yield from block.layers
            else:
                yield block
        yield self.conv_sep
