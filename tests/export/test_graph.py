"""From the pixels that a program feeds to what the network was trained on: order, scale, mirror image, precision."""

import numpy as np
import pytest
import torch
from torch import nn

from sphereface.export.graph import InputFormat, PixelsToEmbedding, expected, reads_other_order
from sphereface.input_spec import InputSpec
from sphereface.models import Backbone, Ensemble, Resized

from .networks import SIZE, by_formula, crops_of, network, off

CROPS = crops_of()


def run(model, form, mirror="none", crops=CROPS):
    with torch.inference_mode():
        return PixelsToEmbedding(model, form, mirror).eval()(torch.from_numpy(form.feed(crops))).numpy()


@pytest.mark.parametrize("order", ["bgr", "rgb"])
@pytest.mark.parametrize("trained_on", ["bgr", "rgb"])
@pytest.mark.parametrize(
    ("mean", "std"),
    [(127.5, 128.0), (0.0, 255.0), (0.0, 1.0), ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)), (0.0, (1.0, 2.0, 3.0))],
)
def test_the_fed_order_and_the_scale_follow_the_input_spec(order, trained_on, mean, std):
    model = network("spherenet", input_order=trained_on, input_mean=mean, input_std=std)
    wanted = by_formula(model, CROPS)
    for layout, dtype in (("nhwc", "uint8"), ("nchw", "float32")):
        assert off(run(model, InputFormat(order, layout, dtype)), wanted) < 1e-5


def test_the_order_goes_into_the_first_convolution_of_a_copy():
    model = network("spherenet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = PixelsToEmbedding(model, InputFormat("rgb"))
    assert not graph.reverse
    first, copied = model.stages[0].conv.weight, graph.network.stages[0].conv.weight
    torch.testing.assert_close(copied, first.flip(1), rtol=0, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_border_stays_grey():
    """A first convolution that pads with zeros pads with the mean: folding the mean into its bias would be wrong."""
    model = network("spherenet")
    grey = np.full((1, *SIZE, 3), 127, dtype=np.uint8)
    assert off(run(model, InputFormat("rgb"), crops=grey), by_formula(model, grey)) < 1e-5


class Gated(Backbone):
    """It reads its input in two ways, so no convolution alone can reorder it."""

    input_spec, embedding_dim = InputSpec(*SIZE, "rgb"), 4

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return self.conv(images).mean((2, 3)) * images[:, 0].mean((1, 2)).unsqueeze(1)


def test_a_network_that_no_convolution_can_reorder_gets_its_channels_reversed():
    model = Gated().eval()
    assert reads_other_order(model) is None
    assert PixelsToEmbedding(model, InputFormat("bgr")).reverse
    assert off(run(model, InputFormat("bgr")), by_formula(model, CROPS)) < 1e-5


def test_several_networks_are_each_reordered():
    model = Ensemble([network("spherenet", seed=seed) for seed in (1, 2)]).eval()
    assert not PixelsToEmbedding(model, InputFormat("rgb")).reverse
    assert off(run(model, InputFormat("rgb")), by_formula(model, CROPS)) < 1e-5
    small = Resized(network("spherenet"), (24, 16)).eval()
    assert off(run(small, InputFormat("rgb")), by_formula(small, CROPS)) < 1e-5


def test_the_mirror_image_is_added_or_joined():
    model = network("spherenet")
    plain, mirrored = by_formula(model, CROPS), by_formula(model, CROPS[:, :, ::-1])
    assert off(plain, mirrored) > 1e-2
    for form in (InputFormat(), InputFormat("rgb", "nchw", "float32")):
        assert off(run(model, form, "add"), plain + mirrored) < 1e-5
        assert off(run(model, form, "join"), np.hstack([plain, mirrored])) < 1e-5
        assert off(run(model, form), plain) < 1e-5


def test_half_precision_is_of_weights_and_arithmetic_and_its_result_float32():
    model = network("spherenet")
    graph = PixelsToEmbedding(model, InputFormat("rgb", "nchw", "float16"))
    assert {value.dtype for value in graph.parameters()} == {torch.float16}
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    found = run(model, graph.form)
    assert found.dtype == np.float32
    assert 1e-6 < off(found, by_formula(model, CROPS)) < 1e-2


@pytest.mark.parametrize("mirror", ["none", "add", "join"])
def test_expected_is_the_formula(mirror):
    model = network("spherenet", input_order="rgb", input_mean=(1.0, 2.0, 3.0), input_std=(4.0, 5.0, 6.0))
    plain, mirrored = by_formula(model, CROPS), by_formula(model, CROPS[:, :, ::-1])
    wanted = {"none": plain, "add": plain + mirrored, "join": np.hstack([plain, mirrored])}[mirror]
    assert off(expected(model, CROPS, mirror), wanted) < 1e-5
