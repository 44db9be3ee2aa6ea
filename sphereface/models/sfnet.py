"""OpenSphere's Sphere CNN (Liu et al., CVPR 2017): ReLU, with or without batch normalisation.

Structure, names and initial values follow https://github.com/ydwen/opensphere.
:mod:`sphereface.models.spherenet` holds the released network of the paper. The two differ in the
activation, which follows the sum of a unit here, in the biases, and in the initial values.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from torch import Tensor, nn

from ..backbone_options import BackboneOptions
from ..options import option
from .backbone import StagedBackbone, full_precision, register
from .recompute import run_units

UNITS = {4: (0, 0, 0, 0), 10: (0, 1, 2, 0), 20: (1, 2, 4, 1), 36: (2, 4, 8, 2), 64: (3, 8, 16, 3)}
"""Residual units in the four stages, by depth."""

WIDTHS = (64, 128, 256, 512)

EMBEDDING_SCALE = 0.1
"""Initial scale of the batch normalisation that ends the network."""


@register("sfnet")
@dataclass(frozen=True)
class SFNetOptions(BackboneOptions):
    """Options of OpenSphere's Sphere CNN; input and defaults are the publisher's.

    Attributes:
        depth: 4, 10, 20, 36 or 64 layers.
        norm: ``batch`` puts batch normalisation after each convolution, which then has no bias, and
            after the embedding layer. ``none`` is the paper's.
        dropout: share of the last feature map that training sets to 0, before the embedding layer.
    """

    depth: int = option(20, choices=sorted(UNITS))
    norm: str = option("none", choices=["none", "batch"])
    dropout: float = option(0.0, low=0, high=0.9)

    @property
    def batch_statistics(self) -> bool:
        """Return whether ``norm`` is ``batch``."""
        return self.norm == "batch"

    def build(self) -> SFNet:
        """Build the network."""
        return SFNet(self)


class ConvBlock(nn.Module):
    """relu(bn(conv(x))) with stride 2. Without batch normalisation the convolution has a bias."""

    def __init__(self, channels_in: int, channels: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, 2, padding=1, bias=not batch_norm)
        self.bn1 = _norm(channels, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: (B, channels_in, h, w) → (B, channels, h/2, w/2), sides rounded up."""
        y: Tensor = self.bn1(self.conv1(x))
        return y.relu_()


class SFNetUnit(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))): the activation follows the sum."""

    def __init__(self, channels: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=not batch_norm)
        self.bn1 = _norm(channels, batch_norm)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=not batch_norm)
        self.bn2 = _norm(channels, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit: (B, C, h, w) → (B, C, h, w)."""
        y: Tensor = self.bn1(self.conv1(x)).relu_()
        y = self.bn2(self.conv2(y))
        return (y + x).relu_()


class SFNet(StagedBackbone):
    """Embed face crops: four stages that halve the sides, then one linear layer."""

    def __init__(self, options: SFNetOptions) -> None:
        super().__init__(options.input_size)
        batch_norm = options.batch_statistics
        norm: nn.Module = nn.Identity()
        if batch_norm:
            norm = nn.BatchNorm1d(options.embedding_dim)
            nn.init.constant_(norm.weight, EMBEDDING_SCALE)
        self.features = norm  # the publisher's name
        channels = (3, *WIDTHS)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(channels[i], channels[i + 1], units, batch_norm) for i, units in enumerate(UNITS[options.depth])
        )
        height, width = self.map_size
        self.dropout = nn.Dropout(options.dropout)
        self.fc = nn.Linear(WIDTHS[-1] * height * width, options.embedding_dim)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map: (B, 3, H, W) → (B, 512, H/16, W/16), sides rounded up."""
        return run_units(chain(self.layer1, self.layer2, self.layer3, self.layer4), images, recompute=self.recompute)

    def embed(self, maps: Tensor) -> Tensor:
        """Return the embeddings of feature maps: (B, 512, h, w) → (B, D), not normalised."""
        return full_precision(self._head, maps, self.fc.weight)

    def _head(self, maps: Tensor) -> Tensor:
        result: Tensor = self.features(self.fc(self.dropout(maps.flatten(1))))
        return result


def _norm(channels: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()


def _stage(channels_in: int, channels: int, units: int, batch_norm: bool) -> nn.Sequential:
    first = ConvBlock(channels_in, channels, batch_norm=batch_norm)
    return nn.Sequential(first, *(SFNetUnit(channels, batch_norm=batch_norm) for _ in range(units)))
