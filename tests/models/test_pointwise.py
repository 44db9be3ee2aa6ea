"""Strided 1×1 convolutions as a slice: the same numbers, names and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sphereface.models import BACKBONES, build_model
from sphereface.models.pointwise import StridedPointwise, slice_strided_pointwise


@pytest.mark.parametrize(("stride", "groups", "bias"), [(2, 1, False), ((2, 3), 4, True)])
@pytest.mark.parametrize("size", [(9, 8), (14, 12)])
def test_it_computes_what_the_convolution_does(stride, groups, bias, size):
    torch.manual_seed(0)
    plain = nn.Conv2d(32, 64, 1, stride, groups=groups, bias=bias).double()
    sliced = nn.Conv2d(32, 64, 1, stride, groups=groups, bias=bias).double()
    sliced.load_state_dict(plain.state_dict())
    slice_strided_pointwise(sliced)
    assert type(sliced) is StridedPointwise
    x = [torch.randn(3, 32, *size, dtype=torch.float64).requires_grad_()]
    x.append(x[0].detach().clone().requires_grad_())
    out = [layer(one) for layer, one in zip((plain, sliced), x, strict=True)]
    torch.testing.assert_close(out[1], out[0])
    for one in out:
        one.pow(2).sum().backward()
    torch.testing.assert_close(x[1].grad, x[0].grad)
    torch.testing.assert_close(sliced.weight.grad, plain.weight.grad)


def test_other_layers_stay_as_they_are():
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 1, 2, 1), nn.Conv2d(4, 4, 1, 2)
    )
    slice_strided_pointwise(layers)
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.Conv2d, nn.Conv2d, StridedPointwise]


def test_every_built_network_has_it():
    network = build_model(BACKBONES["iresnet"](depth=18, input_size=(32, 32), embedding_dim=8))
    found = [name for name, layer in network.named_modules() if isinstance(layer, StridedPointwise)]
    assert found == [f"layer{k}.0.downsample.0" for k in (1, 2, 3, 4)]
