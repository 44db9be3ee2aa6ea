"""The improved residual network of ArcFace (Deng et al., CVPR 2019).

Structure, names and initial values follow https://github.com/deepinsight/insightface,
recognition/arcface_torch, so its ``backbone.pth`` loads without renaming.

MagFace (Meng et al., CVPR 2021) uses the same network, so its published weights fit too. They need
``batch_norm: {eps: 2e-5}``, ``input_order: bgr``, ``input_mean: 0`` and ``input_std: 255``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from torch import Tensor, nn

from ..backbone_options import BackboneOptions
from ..options import option
from .backbone import StagedBackbone, full_precision, register
from .prelu import PReLU
from .recompute import run_units

UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 200: (6, 26, 60, 6)}
"""Residual units in the four stages, by depth."""

WIDTHS = (64, 128, 256, 512)


@register("iresnet")
@dataclass(frozen=True)
class IResNetOptions(BackboneOptions):
    """Options of ArcFace's residual network; input and defaults are the publisher's.

    Attributes:
        depth: 18, 34, 50, 100 or 200 layers.
        dropout: share of the last feature map that training sets to 0, before the embedding layer.
    """

    depth: int = option(50, choices=sorted(UNITS))
    dropout: float = option(0.0, low=0, high=0.9)

    def build(self) -> IResNet:
        """Build the network."""
        return IResNet(self)


class IResNetUnit(nn.Module):
    """shortcut(x) + bn(conv(prelu(bn(conv(bn(x)))))), without an activation after the sum.

    Args:
        channels_in, channels: before and after the unit.
        stride: of the second convolution and of the shortcut.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit: (B, channels_in, h, w) → (B, channels, ⌈h/stride⌉, ⌈w/stride⌉)."""
        y: Tensor = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        y = self.bn3(self.conv2(y))
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        return y + shortcut


class IResNet(StagedBackbone):
    """Embed face crops: a stem at full size, four stages that halve the sides, one linear layer.

    A batch normalisation ends the network. Its scale, ``features.weight``, stays 1 in training, as
    published.
    """

    def __init__(self, options: IResNetOptions) -> None:
        super().__init__(options.input_size)
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = PReLU(WIDTHS[0])
        channels = (WIDTHS[0], *WIDTHS)
        stages = (_stage(channels[i], channels[i + 1], units) for i, units in enumerate(UNITS[options.depth]))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        height, width = self.map_size
        self.bn2 = nn.BatchNorm2d(WIDTHS[-1])
        self.dropout = nn.Dropout(options.dropout)
        self.fc = nn.Linear(WIDTHS[-1] * height * width, options.embedding_dim)
        norm = nn.BatchNorm1d(options.embedding_dim)
        norm.weight.requires_grad_(False)
        self.features = norm  # the publisher's name
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.1)

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map: (B, 3, H, W) → (B, 512, H/16, W/16), sides rounded up."""
        x = self.prelu(self.bn1(self.conv1(images)))
        return run_units(chain(self.layer1, self.layer2, self.layer3, self.layer4), x, recompute=self.recompute)

    def embed(self, maps: Tensor) -> Tensor:
        """Return the embeddings of feature maps: (B, 512, h, w) → (B, D), not normalised."""
        return full_precision(self._head, maps, self.fc.weight)

    def _head(self, maps: Tensor) -> Tensor:
        result: Tensor = self.features(self.fc(self.dropout(self.bn2(maps).flatten(1))))
        return result


def _stage(channels_in: int, channels: int, units: int) -> nn.Sequential:
    first = IResNetUnit(channels_in, channels, stride=2)
    return nn.Sequential(first, *(IResNetUnit(channels, channels, stride=1) for _ in range(units - 1)))
