"""The field's own backbones: equal to their publishers' networks, and fit for training.

Golden embeddings come from the publishers' code (tests/models/golden.py). The other tests use small networks.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from sphereface.backbone_options import BackboneOptions, BatchNormOptions
from sphereface.errors import UserError
from sphereface.models.backbone import BACKBONES, Backbone, ConvBackbone, Resized, check_steady, set_batch_norm
from sphereface.models.ir import IROptions
from sphereface.models.iresnet import IResNetOptions
from sphereface.models.loading import build_model
from sphereface.models.mobilefacenet import MobileFaceNetOptions
from sphereface.models.sfnet import SFNetOptions
from sphereface.models.timm_net import TimmMaps, TimmNet, TimmOptions
from sphereface.options import parse_options
from tests.models.golden import Golden, golden, images

PUBLISHED: dict[str, BackboneOptions] = {
    "arcface_r18": IResNetOptions(depth=18),
    "arcface_r50": IResNetOptions(depth=50),
    "arcface_mbf": MobileFaceNetOptions(),
    "adaface_ir18": IROptions(depth=18),
    "adaface_ir50": IROptions(depth=50),
    "magface_iresnet18": IResNetOptions(depth=18, batch_norm=BatchNormOptions(eps=2e-5)),
    "opensphere_sfnet20": SFNetOptions(),
}

MOST = 5
"""Allowed error as a multiple of the publisher's own float32 error. Another eps of MagFace would be within 20."""

SMALL: dict[str, BackboneOptions] = {
    "iresnet": IResNetOptions(depth=18),
    "ir": IROptions(depth=18, dropout=0.0),
    "ir_se": IROptions(depth=18, dropout=0.0, se=True),
    "mobilefacenet": MobileFaceNetOptions(),
    "sfnet": SFNetOptions(depth=10),
    "sfnet_batch": SFNetOptions(depth=10, norm="batch"),
    "timm_maps": TimmOptions(architecture="resnet18"),
    "timm_tokens": TimmOptions(architecture="test_vit"),
}
SMALL = {name: replace(options, embedding_dim=24, input_size=(48, 32)) for name, options in SMALL.items()}


def small(name: str, **changes: object) -> Backbone:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    return deepcopy(built(replace(SMALL[name], **changes)))  # type: ignore[arg-type]


@cache
def built(options: BackboneOptions) -> Backbone:
    """A network that no test changes: to draw millions of weights takes longer than to copy them."""
    torch.manual_seed(0)
    return build_model(options)


def batch(size: tuple[int, int] = (48, 32), number: int = 4) -> torch.Tensor:
    return torch.randn((number, 3, *size), generator=torch.Generator().manual_seed(5))


@cache
def published(name: str) -> tuple[Golden, Backbone]:
    wanted, network = golden(name), build_model(PUBLISHED[name]).eval()
    network.load_state_dict(wanted.state, strict=True)
    return wanted, network


def error_of(name: str) -> float:
    """Largest difference from the golden embedding, as a multiple of the publisher's own float32 error."""
    wanted, network = published(name)
    with torch.no_grad():
        found = network(images())
    if wanted.norm is not None:
        found = found / found.norm(dim=1, keepdim=True)
    return float((found - wanted.embedding).abs().max()) / wanted.float32_error


# ---------------------------------------------------------------- the publishers' networks


@pytest.mark.parametrize("name", PUBLISHED)
def test_equals_the_published_network(name):
    wanted, network = published(name)
    assert list(network.state_dict()) == list(wanted.state)
    assert error_of(name) < MOST
    if wanted.norm is not None:
        with torch.no_grad():
            torch.testing.assert_close(network(images()).norm(dim=1, keepdim=True), wanted.norm, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "50" not in name and "sfnet" not in name])
def test_another_eps_is_seen(name):
    _, network = published(name)
    eps = next(layer.eps for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    set_batch_norm(network, momentum=None, eps=1e-5 if eps == 2e-5 else 2e-5)
    try:
        assert error_of(name) > MOST
    finally:
        set_batch_norm(network, momentum=None, eps=eps)


@pytest.mark.parametrize("name", ["arcface_r18", "arcface_mbf", "adaface_ir18", "opensphere_sfnet20"])
def test_another_order_of_the_map_is_seen(name, monkeypatch):
    _, network = published(name)
    whole = network.embed
    monkeypatch.setattr(network, "embed", lambda maps: whole(maps.transpose(2, 3)))
    with torch.no_grad():
        wanted = published(name)[0].embedding
        found = network(images())
    assert (
        float((found / found.norm(dim=1, keepdim=True) - wanted / wanted.norm(dim=1, keepdim=True)).abs().max()) > 1e-3
    )


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (IResNetOptions(depth=100), 65_156_160),
        (IROptions(depth=101), 65_150_912),
        (IROptions(depth=152), 109_636_736),
        (IROptions(depth=50, se=True), 43_808_320),
        (MobileFaceNetOptions(), 2_059_520),
        (MobileFaceNetOptions(size="mbf_large"), 6_314_880),
        (SFNetOptions(depth=64, norm="batch"), 50_036_544),
    ],
)
def test_number_of_parameters_is_the_publishers(options, parameters):
    with torch.device("meta"):
        network = options.build()
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


# ---------------------------------------------------------------- training


def step(network: Backbone, images: torch.Tensor) -> torch.Tensor:
    """One forward and backward pass of a loss that is not the same for every direction."""
    network.zero_grad()
    embeddings = network(images)
    weights = torch.linspace(-1, 1, embeddings.numel()).view_as(embeddings)
    (embeddings * weights).sum().backward()
    return embeddings.detach()


@cache
def stepped(name: str) -> tuple[Backbone, torch.Tensor]:
    """A network with the gradients of its first step, and the embeddings of that step."""
    network = small(name)
    return network, step(network, batch())


@pytest.mark.parametrize("name", SMALL)
def test_every_trainable_parameter_gets_a_finite_gradient(name):
    network, embeddings = stepped(name)
    assert embeddings.shape == (4, 24)
    for key, parameter in network.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.isfinite().all()), key


def test_only_the_last_scale_of_iresnet_is_fixed():
    fixed = [key for key, parameter in small("iresnet").named_parameters() if not parameter.requires_grad]
    assert fixed == ["features.weight"]


@pytest.mark.parametrize("name", SMALL)
def test_bf16_channels_last_is_close_to_fp32(name):
    """Maps have two columns or more: see findings/onednn-bf16-convolution-one-column.sh."""
    size = (64, 64)
    network, low = small(name, input_size=size), small(name, input_size=size).to(memory_format=torch.channels_last)
    wanted = step(network, batch(size))
    with torch.autocast("cpu", torch.bfloat16):
        found = step(low, batch(size).contiguous(memory_format=torch.channels_last))
    assert found.dtype == torch.float32
    assert likeness(found, wanted) > 0.99
    assert likeness(gradient(low), gradient(network)) > 0.9


def gradient(network: Backbone) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])


def likeness(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


@pytest.mark.parametrize("name", SMALL)
def test_recomputation_changes_nothing(name):
    (network, wanted), other = stepped(name), small(name)
    other.recompute_units(True)
    keys = list(other.state_dict())
    assert torch.equal(step(other, batch()), wanted)
    for (key, a), b in zip(network.named_parameters(), other.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, msg=key)
    for (key, a), b in zip(network.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b), key
    assert list(other.state_dict()) == keys
    with torch.no_grad():
        found = other.eval()(batch())
        other.recompute_units(False)
        assert torch.equal(found, other(batch()))


@pytest.mark.parametrize("name", ["iresnet", "timm_maps"])
def test_recomputation_keeps_less(name):
    def kept(recompute: bool) -> int:
        network, bytes_kept = small(name), {}
        network.recompute_units(recompute)
        note = lambda t: bytes_kept.__setitem__(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) or t  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            network(batch())
        weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        return sum(size for at, size in bytes_kept.items() if at not in weights)

    assert kept(True) < 0.6 * kept(False)


def test_recomputation_can_be_switched_off_again():
    network = small("timm_maps")
    network.recompute_units(True)
    step(network, batch())
    network.recompute_units(False)
    step(network, batch())
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {int(layer.num_batches_tracked) for layer in norms} == {2}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_an_embedding_depends_on_its_crop_alone(name, bf16):
    network = small(name).eval()
    torch.set_default_dtype(torch.float64)  # of the caller's program
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            check_steady(network, name, (48, 32))
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("zeros", [False, True])
def test_numbers_that_are_not_finite_or_zero_are_no_difference(zeros):
    network = small("iresnet").eval()
    with torch.no_grad():
        network.features.weight.fill_(0.0 if zeros else float("nan"))
    check_steady(network, "x", (48, 32))


class OfTheBatch(nn.Module):
    """A network that ends in figures of its batch; of one crop they are zero, or not finite."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.scaled, self.weight = scaled, nn.Parameter(torch.ones(3, 4))

    def forward(self, crops):
        found = crops.mean((2, 3)) @ self.weight
        found = found - found.mean(0)
        return found / found.std(0) if self.scaled else found


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4))

    def forward(self, crops):
        return crops.mul_(0.5).add_(0.3).mean((2, 3)) @ self.weight


def test_a_network_that_changes_its_crops_is_refused():
    with pytest.raises(UserError, match="InPlace changes the crops that it gets · .* work on a copy"):
        check_steady(InPlace(), "x", (48, 32))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.filterwarnings("ignore:std")
def test_an_embedding_without_direction_alone_but_with_one_in_a_batch_is_refused(scaled):
    with pytest.raises(UserError, match="embeds a crop differently in a batch than alone"):
        check_steady(OfTheBatch(scaled), "x", (48, 32))


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("size", [(16, 16), (112, 96), (56, 48), (33, 47)])
@pytest.mark.parametrize("name", ["iresnet", "ir", "mobilefacenet", "sfnet", "timm_maps"])
def test_other_input_sizes(name, size):
    network = small(name, input_size=size).eval()
    assert isinstance(network, ConvBackbone)
    with torch.no_grad():
        maps = network.feature_map(batch(size, 2))
        assert maps.shape[2:] == network.map_size
        assert network.embed(maps).shape == (2, 24)


@pytest.mark.parametrize("name", ["iresnet", "ir", "mobilefacenet", "sfnet", "timm_maps"])
def test_trains_on_smaller_crops(name):
    network = small(name, input_size=(64, 48))
    assert isinstance(network, ConvBackbone)
    step(Resized(network, (32, 24)), batch((64, 48)))
    assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", SMALL)
def test_refuses_crops_of_another_size(name):
    with pytest.raises(UserError, match=r"network input: got \(4, 3, 40, 32\) · allowed: \(batch, 3, 48, 32\)"):
        small(name)(batch((40, 32)))


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("iresnet", {"depth": 49}, "model.depth: got 49 · allowed: one of 18, 34, 50, 100, 200"),
        ("ir", {"depth": 100}, "model.depth: got 100 · allowed: one of 18, 34, 50, 101, 152, 200"),
        ("ir", {"se": 1}, "model.se: got 1 · allowed: true or false"),
        ("mobilefacenet", {"size": "large"}, "model.size: got 'large' · allowed: one of mbf, mbf_large"),
        ("sfnet", {"depth": 18}, "model.depth: got 18 · allowed: one of 4, 10, 20, 36, 64"),
        ("timm", {"drop_path": 1}, "model.drop_path: got 1 · allowed: a number from 0 to 0.9"),
    ],
)
def test_a_wrong_option_is_one_line(name, values, message):
    problems: list[str] = []
    assert parse_options(BACKBONES[name], values, prefix="model", problems=problems) is None
    assert problems == [message]


def test_inputs_are_the_publishers():
    read = {name: BACKBONES[name]().input_spec.describe() for name in ("iresnet", "ir", "mobilefacenet", "sfnet")}
    whole = "(B, 3, 112, 112) float32 = (pixel − 127.5) / 127.5"
    assert read == {
        "iresnet": f"{whole}, RGB",
        "ir": f"{whole}, BGR",
        "mobilefacenet": f"{whole}, RGB",
        "sfnet": f"{whole}, RGB",
    }


def test_only_a_network_without_batch_norm_can_train_on_single_images():
    alone = {name for name, options in SMALL.items() if not options.batch_statistics}
    assert alone == {"sfnet"}


# ---------------------------------------------------------------- timm


def test_a_transformer_reads_one_size_only():
    assert not isinstance(small("timm_tokens"), ConvBackbone)
    assert isinstance(small("timm_maps"), TimmMaps)


def test_a_map_with_channels_last_is_turned():
    pytest.importorskip("timm")
    network = TimmOptions(architecture="mambaout_femto", input_size=(64, 32), embedding_dim=8).build()
    assert isinstance(network, TimmMaps)
    assert network.map_size == (2, 1)
    assert network.feature_map(batch((64, 32), 1)).shape == (1, 288, 2, 1)


def test_parts_of_timms_classifier_are_removed():
    pytest.importorskip("timm")
    network = TimmOptions(architecture="convnext_atto", input_size=(64, 64)).build()
    assert isinstance(network, TimmNet)
    assert not [key for key in network.state_dict() if key.startswith("network.head")]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_stochastic_depth():
    torch.manual_seed(0)
    network = small("timm_tokens", drop_path=0.5).train()
    assert not torch.equal(network(batch()), network(batch()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TimmOptions(architecture="resnt18"), r"model.architecture: got 'resnt18'.* · did you mean resnet18"),
        (TimmOptions(architecture="qqqqqqq"), r"model.architecture: got 'qqqqqqq'.* · allowed: a name from timm"),
        (TimmOptions(architecture="hf-hub:timm/resnet18.a1_in1k"), r"model.architecture: got 'hf-hub:"),
        (TimmOptions(architecture="vgg11", drop_path=0.1), r"model.drop_path: got 0.1 · vgg11 has no stochastic depth"),
        (
            TimmOptions(architecture="test_vit", input_size=(56, 48)),
            r"model.input_size: got \[56, 48\] · test_vit of timm",
        ),
        (TimmOptions(architecture="hrnet_w18_small"), r"model.input_size: got \[112, 112\] · hrnet_w18_small of timm"),
    ],
)
def test_timm_refusals_are_one_line(options, message):
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=message) as caught:
        options.build()
    assert "\n" not in str(caught.value)


def test_recomputation_that_an_architecture_lacks():
    pytest.importorskip("timm")
    network = TimmOptions(architecture="pit_ti_224", input_size=(64, 64)).build()
    network.recompute_units(False)
    with pytest.raises(UserError, match="train.recompute: got true"):
        network.recompute_units(True)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"model.name: timm is not installed · pip install '.\[timm\]'"):
        TimmOptions().build()
