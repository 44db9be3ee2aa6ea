"""Key maps: each publisher's name for each entry of a state dict of this project.

A map takes a key of this project and returns the publisher's. It returns None where the publisher's
network lacks the entry; zeros replace it. Networks that keep their publisher's names need no map.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_STAGE = re.compile(r"stages\.(?P<s>\d+)\.(?P<layer>conv|relu)\.(?P<kind>\w+)")
_UNIT = re.compile(r"stages\.(?P<s>\d+)\.units\.(?P<u>\d+)\.(?P<layer>conv_a|relu_a|conv_b|relu_b)\.(?P<kind>\w+)")


def same_names(key: str) -> str | None:
    """Return the key itself: the network has its publisher's names."""
    return key


@dataclass(frozen=True)
class SphereNames:
    """Another project's names of the Sphere CNN's layers.

    In a template, ``{s}`` is the stage and ``{u}`` the residual unit, both from 1. ``{a}`` and
    ``{b}`` are the numbers of the unit's convolutions within the stage, from 2.

    Attributes:
        conv, relu, conv_a, relu_a, conv_b, relu_b, fc5: template of each layer of
            :class:`~sphereface.models.spherenet.SphereNet`; None where the publisher's network
            lacks it. A PReLU with slopes of 0 is a ReLU.
        unit_biases: whether the convolutions of residual units have biases.
    """

    conv: str
    relu: str | None
    conv_a: str
    relu_a: str | None
    conv_b: str
    relu_b: str | None
    fc5: str
    unit_biases: bool = True

    def __call__(self, key: str) -> str | None:
        """Return the publisher's name of a state-dict key; None means zeros."""
        if match := _UNIT.fullmatch(key):
            if match["kind"] == "bias" and not self.unit_biases:
                return None
            return self._filled(match["layer"], match["kind"], int(match["s"]) + 1, int(match["u"]) + 1)
        if match := _STAGE.fullmatch(key):
            return self._filled(match["layer"], match["kind"], int(match["s"]) + 1, 0)
        layer, kind = key.split(".")
        return self._filled(layer, kind, 0, 0)

    def first_of(self, stage: int, unit: int = 0) -> str:
        """Return the name of the first convolution's weight of a stage or unit (from 1)."""
        name = self._filled("conv_a" if unit else "conv", "weight", stage, unit)
        assert name is not None
        return name

    def _filled(self, layer: str, kind: str, stage: int, unit: int) -> str | None:
        template: str | None = getattr(self, layer)
        if template is None:
            return None
        return f"{template.format(s=stage, u=unit, a=2 * unit, b=2 * unit + 1)}.{kind}"


CAFFE = SphereNames(
    conv="conv{s}_1",
    relu="relu{s}_1",
    conv_a="conv{s}_{a}",
    relu_a="relu{s}_{a}",
    conv_b="conv{s}_{b}",
    relu_b="relu{s}_{b}",
    fc5="fc5",
)
"""The authors' release and its PyTorch port."""

YAKHYO = SphereNames(
    conv="layer{s}.0.0",
    relu="layer{s}.0.1",
    conv_a="layer{s}.{u}.block.0.0",
    relu_a="layer{s}.{u}.block.0.1",
    conv_b="layer{s}.{u}.block.1.0",
    relu_b="layer{s}.{u}.block.1.1",
    fc5="fc",
    unit_biases=False,
)

SFNET_DEPRECATED = SphereNames(
    conv="layer{s}.0.conv1",
    relu=None,
    conv_a="layer{s}.{u}.conv1",
    relu_a=None,
    conv_b="layer{s}.{u}.conv2",
    relu_b=None,
    fc5="fc",
)
"""OpenSphere's ``sfnet*_deprecated``: the Sphere CNN with ReLU, no activation after the sum."""
