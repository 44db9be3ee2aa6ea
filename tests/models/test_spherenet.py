"""The Sphere CNN against the original's own numbers and the recipe's literals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sphereface.errors import UserError
from sphereface.models import Resized, SphereNet

GOLDEN = Path(__file__).parents[1] / "golden" / "spherenet20_forward.npz"


def fill_from_golden(net: SphereNet, golden: dict) -> None:
    """Regenerate the 62 tensors of the golden file and put each into the layer of its name."""
    layers = dict(net.named_layers())
    for entry in json.loads(str(golden["params_json"])):
        values = np.random.RandomState(entry["seed"]).standard_normal(entry["shape"])
        tensor = torch.from_numpy((entry["offset"] + entry["scale"] * values).astype(np.float32))
        layer = layers[entry["layer"]]
        parameter = layer.bias if entry["kind"] == "bias" else layer.weight
        with torch.no_grad():
            parameter.copy_(tensor.reshape(parameter.shape))


@pytest.fixture(scope="module")
def golden() -> dict:
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


def test_forward_equals_the_original_layer_by_layer(golden):
    net = SphereNet(20)
    fill_from_golden(net, golden)
    names = {
        "conv1_1": net.stages[0].relu,
        "res1_3": net.stages[0].units[0],
        "res2_5": net.stages[1].units[1],
    }
    names |= {"res3_9": net.stages[2].units[3], "res4_3": net.stages[3].units[0]}
    seen = {}
    for name, module in names.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out.detach().numpy()))
    with torch.no_grad():
        fc5 = net(torch.from_numpy(golden["input"])).numpy()
    for name, blob in seen.items():
        assert blob.shape == tuple(golden[f"{name}.shape"])
        np.testing.assert_allclose(blob.ravel()[:32], golden[f"{name}.first32"], rtol=0, atol=3e-5)
        sample = blob.ravel()[golden[f"{name}.sample_index"]]
        np.testing.assert_allclose(sample, golden[f"{name}.sample"], rtol=0, atol=3e-5)
        assert blob.mean(dtype=np.float64) == pytest.approx(float(golden[f"{name}.mean"]), abs=1e-6)
    np.testing.assert_allclose(fc5, golden["fc5"], rtol=0, atol=5e-5)


def test_channels_last_gives_the_same_embedding(golden):
    net = SphereNet(20)
    fill_from_golden(net, golden)
    images = torch.from_numpy(golden["input"]).to(memory_format=torch.channels_last)
    with torch.no_grad():
        fc5 = net.to(memory_format=torch.channels_last)(images).numpy()
    np.testing.assert_allclose(fc5, golden["fc5"], rtol=0, atol=5e-5)


# by hand: convolutions with biases, slopes, fc5; 22.67 M is the recipe's figure
@pytest.mark.parametrize(("depth", "parameters"), [(4, 1_550_976 + 960 + 11_010_560), (20, 22_670_656)])
def test_parameter_count(depth, parameters):
    assert sum(p.numel() for p in SphereNet(depth).parameters()) == parameters


@pytest.mark.parametrize("depth", [4, 10, 20, 36, 64])
def test_depth_counts_the_convolutions(depth):
    layers = dict(SphereNet(depth, widths=(4, 4, 4, 4), embedding_dim=8).named_layers())
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers.values()) == depth


def test_layer_names_are_the_originals():
    names = [name for name, _ in SphereNet(20).named_layers()]
    assert names[:6] == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "conv1_3", "relu1_3"]
    assert names[-3:] == ["conv4_3", "relu4_3", "fc5"]
    assert [n for n in names if n.startswith("conv3")] == [f"conv3_{i}" for i in range(1, 10)]


def test_initial_values():
    torch.manual_seed(0)
    layers = dict(SphereNet(20).named_layers())
    for name, fan_in in (("conv2_1", 64 * 9), ("conv4_1", 256 * 9), ("fc5", 21504)):
        bound = math.sqrt(3 / fan_in)
        weight = layers[name].weight
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert torch.all(layers[name].bias == 0)
        assert layers[name].bias.requires_grad
    for name in ("conv1_2", "conv4_3"):
        assert layers[name].weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert torch.all(layers[name].bias == 0)
        assert not layers[name].bias.requires_grad
    assert torch.all(layers["relu3_4"].weight == 0.25)
    assert layers["relu3_4"].weight.shape == (256,)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_every_trainable_parameter_gets_a_gradient(norm):
    torch.manual_seed(0)
    net = SphereNet(20, widths=(4, 4, 8, 8), embedding_dim=8, input_size=(32, 32), norm=norm)
    net(torch.rand(3, 3, 32, 32)).pow(2).sum().backward()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_other_input_sizes():
    net = SphereNet(4, input_size=(112, 112))
    assert net.fc5.in_features == 512 * 7 * 7
    assert net(torch.zeros(1, 3, 112, 112)).shape == (1, 512)


@pytest.mark.parametrize("shape", [(1, 3, 112, 112), (1, 1, 112, 96), (3, 112, 96)])
def test_a_wrong_input_says_what_was_got_and_wanted(shape):
    with pytest.raises(UserError, match=r"got \(.*\) · allowed: \(batch, 3, 112, 96\)"):
        SphereNet(4)(torch.zeros(shape))


def test_an_unknown_depth_lists_the_known_ones():
    with pytest.raises(UserError, match=r"got 18 · allowed: 4, 10, 20, 36, 64"):
        SphereNet(18)


def test_a_smaller_seen_size_shrinks_the_crop_and_enlarges_the_map():
    """Crops of even tones stay so when shrunk; half the sides give a quarter of the positions."""
    net = SphereNet(4, widths=(4, 4, 4, 4), embedding_dim=8, input_size=(64, 32)).eval()
    seen: list[torch.Tensor] = []
    net.stages.register_forward_hook(lambda module, args, out: seen.extend([args[0], out]))
    crop = torch.rand(2, 3, 64, 32)
    small_net = Resized(net, (32, 16))
    small = small_net(crop)
    shrunk, maps = seen
    assert shrunk.shape == (2, 3, 32, 16)
    torch.testing.assert_close(shrunk[:, :, 2, 5], crop[:, :, 4:6, 10:12].mean((2, 3)))
    assert maps.shape == (2, 4, 2, 1)
    rows = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])  # bilinear, from two rows to four
    enlarged = torch.einsum("ij,bcjk->bcik", rows, maps).expand(2, 4, 4, 2)
    torch.testing.assert_close(small, net.fc5(enlarged.flatten(1)))
    torch.testing.assert_close(small_net(shrunk), small)  # of that size already
    small_net.seen_size = net.input_spec.size
    assert small_net(crop).shape == (2, 8)
    assert seen[-2] is crop
