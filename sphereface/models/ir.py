"""The IR network of AdaFace (Kim et al., CVPR 2022) and CVLface, optionally with SE blocks.

Structure, names and initial values follow ``net.py`` of https://github.com/mk-minchul/AdaFace. The
published network returns a unit vector and its length; this one returns their product.

CVLface (https://github.com/mk-minchul/CVLface) trains the same networks on RGB crops: set
``input_order: rgb``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..backbone_options import BackboneOptions
from ..input_spec import ORDERS
from ..options import option
from .backbone import StagedBackbone, full_precision, register
from .prelu import PReLU
from .recompute import run_units

UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    101: (3, 13, 30, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
"""Residual units in the four stages, by depth."""

WIDTHS = (64, 128, 256, 512)
BOTTLENECK_WIDTHS = (256, 512, 1024, 2048)
BOTTLENECK_DEPTHS = (152, 200)


@register("ir")
@dataclass(frozen=True)
class IROptions(BackboneOptions):
    """Options of AdaFace's residual network; input and defaults are the publisher's.

    Attributes:
        depth: 18, 34, 50, 101, 152 or 200 layers. The last two use bottleneck units.
        se: whether each unit ends with squeeze-and-excitation.
        dropout: share of the last feature map that training sets to 0, before the embedding layer.
    """

    input_order: str = option("bgr", choices=ORDERS)
    depth: int = option(50, choices=sorted(UNITS))
    se: bool = option(False)
    dropout: float = option(0.4, low=0, high=0.9)

    def build(self) -> IR:
        """Build the network."""
        return IR(self)


class SqueezeExcitation(nn.Module):
    """x · sigmoid(fc2(relu(fc1(map mean of x)))): a factor for each channel (Hu et al., 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (B, C, h, w) → (B, C, h, w)."""
        factors: Tensor = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()  # (B, C, 1, 1)
        return x * factors


class IRUnit(nn.Module):
    """shortcut(x) + residual(x), without an activation after the sum.

    Args:
        channels_in, channels: before and after the unit.
        stride: of the last convolution and of the shortcut.
        bottleneck: use three convolutions instead of two, with a quarter of the channels in
            between.
        se: see :class:`IROptions`.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, *, bottleneck: bool, se: bool) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)  # of one pixel: it picks every second
        if channels_in != channels:
            conv = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(conv, nn.BatchNorm2d(channels))
        layers = _bottleneck_layers if bottleneck else _basic_layers
        self.res_layer = nn.Sequential(*layers(channels_in, channels, stride))
        if se:
            self.res_layer.add_module("se_block", SqueezeExcitation(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit: (B, channels_in, h, w) → (B, channels, ⌈h/stride⌉, ⌈w/stride⌉)."""
        y: Tensor = self.res_layer(x)
        kept = isinstance(self.shortcut_layer, nn.MaxPool2d) and self.shortcut_layer.stride == 1
        return y + (x if kept else self.shortcut_layer(x))


class IR(StagedBackbone):
    """Embed face crops: a stem at full size, four stages that halve the sides, one linear layer.

    A batch normalisation without scale and shift ends the network.
    """

    def __init__(self, options: IROptions) -> None:
        super().__init__(options.input_size)
        bottleneck = options.depth in BOTTLENECK_DEPTHS
        widths = BOTTLENECK_WIDTHS if bottleneck else WIDTHS
        height, width = self.map_size
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0]), PReLU(WIDTHS[0])
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.Dropout(options.dropout),
            nn.Flatten(),
            nn.Linear(widths[-1] * height * width, options.embedding_dim),
            nn.BatchNorm1d(options.embedding_dim, affine=False),
        )
        shapes = _unit_shapes(widths, UNITS[options.depth])
        self.body = nn.Sequential(*(IRUnit(*shape, bottleneck=bottleneck, se=options.se) for shape in shapes))
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the last feature map: (B, 3, H, W) → (B, 512 or 2048, H/16, W/16), rounded up."""
        return run_units(self.body, self.input_layer(images), recompute=self.recompute)

    def embed(self, maps: Tensor) -> Tensor:
        """Return the embeddings of feature maps: (B, C, h, w) → (B, D), not normalised."""
        linear = self.output_layer[3]
        assert isinstance(linear, nn.Linear)
        return full_precision(self.output_layer, maps, linear.weight)


def _unit_shapes(widths: Sequence[int], units: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield channels before a unit, channels after it and its stride."""
    before = WIDTHS[0]
    for width, number in zip(widths, units, strict=True):
        yield before, width, 2
        yield from [(width, width, 1)] * (number - 1)
        before = width


def _basic_layers(channels_in: int, channels: int, stride: int) -> list[nn.Module]:
    return [
        nn.BatchNorm2d(channels_in),
        nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        PReLU(channels),
        nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    ]


def _bottleneck_layers(channels_in: int, channels: int, stride: int) -> list[nn.Module]:
    narrow = channels // 4
    return [
        nn.BatchNorm2d(channels_in),
        nn.Conv2d(channels_in, narrow, 1, bias=False),
        nn.BatchNorm2d(narrow),
        PReLU(narrow),
        nn.Conv2d(narrow, narrow, 3, padding=1, bias=False),
        nn.BatchNorm2d(narrow),
        PReLU(narrow),
        nn.Conv2d(narrow, channels, 1, stride, bias=False),
        nn.BatchNorm2d(channels),
    ]
