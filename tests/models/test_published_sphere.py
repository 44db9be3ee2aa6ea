"""The Sphere CNN as its authors released it and as its PyTorch port has it: every number in its place."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sphereface.checkpoint import BadCheckpoint, load_checkpoint
from sphereface.losses.head import MarginHead
from sphereface.losses.margins import make_margin
from sphereface.models import build_model, load_model
from sphereface.models.published import InputOverrides, import_published, save_published
from sphereface.models.spherenet import SphereNetOptions

from .published import Port, blob, caffemodel, input_layer, layer, sphere_tensors, write_python2_pth

GOLDEN = (Path(__file__).parents[2] / "../shared/golden/caffemodel").resolve()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def run_imported(path: Path, tmp_path: Path, images: torch.Tensor) -> torch.Tensor:
    """The embeddings of the network as a user gets it: imported, saved, loaded."""
    save_published(import_published(path), tmp_path / "out.pt", origin="a test")
    loaded = load_model(tmp_path / "out.pt")
    with torch.no_grad():
        return loaded.model(images)


# ---------------------------------------------------------------- what is read


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the file that Caffe wrote is not on this machine")
def test_the_original_file_gives_the_original_embeddings(tmp_path):
    path = GOLDEN / "sphere20_narrow.caffemodel"
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as golden:
        fc5 = run_imported(path, tmp_path, torch.from_numpy(golden["input"]))
        np.testing.assert_allclose(fc5.numpy(), golden["fc5"], rtol=0, atol=5e-5)
        widths, dim = tuple(golden["widths"].tolist()), int(golden["embedding_dim"])
    published = import_published(path)
    assert published.options == SphereNetOptions(depth=20, widths=widths, embedding_dim=dim, input_size=(112, 96))
    assert published.notes == ("no head in the file",)  # the size of the images is in the file
    assert published.head == {}


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the file that Caffe wrote is not on this machine")
@pytest.mark.parametrize("length", [1, 100, 20_000, 300_000, 681_065])
def test_the_original_file_cut_off(tmp_path, length):
    data = (GOLDEN / "sphere20_narrow.caffemodel").read_bytes()[:length]
    with pytest.raises(BadCheckpoint, match="truncated, damaged or not a .caffemodel"):
        import_published(write(tmp_path / "x.caffemodel", data))


@pytest.mark.parametrize("kind", ["now", "module", "2017", "parameters"])
def test_the_port_gives_its_own_embeddings(tmp_path, kind):
    torch.manual_seed(1)
    port, path = Port(), tmp_path / "sphere20a.pth"
    state = OrderedDict((name, value.detach().clone()) for name, value in port.state_dict().items())
    if kind == "module":
        torch.save(nn.DataParallel(port).state_dict(), path)
    elif kind == "2017":
        write_python2_pth(path, state)
    elif kind == "parameters":
        torch.save(dict(port.named_parameters()), path, _use_new_zipfile_serialization=False)
    else:
        torch.save(state, path)
    images = torch.rand(2, 3, 112, 96) * 2 - 1
    with torch.no_grad():
        expected = port(images)
    torch.testing.assert_close(run_imported(path, tmp_path, images), expected, rtol=0, atol=1e-6)
    published = import_published(path)
    assert published.options == SphereNetOptions(depth=20, widths=(4, 6, 8, 10), embedding_dim=12, input_size=(112, 96))
    assert published.notes == (
        "the file does not state the size of its images: taken as 112x96",
        "head: 7 identities, without their names",
    )
    assert torch.equal(published.head["weight"], state["fc6.weight"].T)  # a row a class
    MarginHead(12, 7, make_margin("a-softmax")).load_state_dict(published.head)


# convolutions a stage by hand from the paper's table
@pytest.mark.parametrize(
    ("depth", "counts"),
    [(4, (1, 1, 1, 1)), (10, (1, 3, 5, 1)), (20, (3, 5, 9, 3)), (36, (5, 9, 17, 5)), (64, (7, 17, 33, 7))],
)
@pytest.mark.parametrize("how", [{}, {"old": True, "v1": True}, {"old": True, "single": True}])
def test_every_depth_and_every_tensor_in_its_place(tmp_path, depth, counts, how):
    tensors = sphere_tensors(counts)
    published = import_published(write(tmp_path / "x", caffemodel(tensors, **how)))
    assert (published.options.depth, published.options.widths, published.options.embedding_dim) == (
        depth,
        (2, 3, 4, 5),
        6,
    )
    net = build_model(published.options)
    net.load_state_dict(published.weights)
    layers = dict(net.named_layers())
    for name, values in tensors.items():
        layer_name, kind = name.split(".")
        np.testing.assert_array_equal(getattr(layers[layer_name], kind).detach().numpy(), values)


@pytest.mark.parametrize(
    ("places", "asked", "stated", "size"),
    [
        (42, None, None, (112, 96)),
        (49, None, None, (112, 112)),
        (42, (105, 90), None, (105, 90)),
        (42, None, (100, 82), (100, 82)),
        (42, (112, 96), (100, 82), (112, 96)),
        (4, None, (32, 32), (32, 32)),
        (6, (33, 20), None, (33, 20)),
    ],
)
def test_the_size_of_the_images(tmp_path, places, asked, stated, size):
    start = input_layer((1, 3, *stated)) if stated else input_layer((64, 512))  # the latter is no image
    path = write(tmp_path / "x", caffemodel(sphere_tensors(places=places), start=start))
    published = import_published(path, overrides=InputOverrides(size=asked))
    assert published.options.input_size == size
    assert any("taken as" in note for note in published.notes) == (asked is None and stated is None)
    assert build_model(published.options)(torch.zeros(1, 3, *size)).shape == (1, 6)


def test_doubles_and_halves_become_float32(tmp_path):
    tensors = sphere_tensors()
    from_doubles = import_published(write(tmp_path / "x", caffemodel(tensors, double=True)))
    halves = {name: torch.from_numpy(value).half() for name, value in tensors.items()}
    torch.save(halves, tmp_path / "x.pth")
    from_halves = import_published(tmp_path / "x.pth")
    assert {value.dtype for value in (*from_doubles.weights.values(), *from_halves.weights.values())} == {torch.float32}
    np.testing.assert_array_equal(from_doubles.weights["fc5.weight"].numpy(), tensors["fc5.weight"])
    assert torch.equal(from_halves.weights["fc5.weight"], halves["fc5.weight"].float())


def test_an_rgb_network_keeps_its_weights_and_says_so(tmp_path):
    torch.save(Port().state_dict(), tmp_path / "x.pth")
    plain = import_published(tmp_path / "x.pth")
    rgb = import_published(tmp_path / "x.pth", overrides=InputOverrides(order="rgb"))
    assert (plain.options.input_spec.order, rgb.options.input_spec.order) == ("bgr", "rgb")
    assert rgb.options.input_spec.std == (128.0,)
    first = "stages.0.conv.weight"
    assert torch.equal(plain.weights[first], rgb.weights[first])


def test_units_that_are_of_no_depth_of_the_paper(tmp_path):
    path = write(tmp_path / "x", caffemodel(sphere_tensors((7, 15, 33, 7))))
    published = import_published(path)
    assert published.options.units == (3, 7, 16, 3)
    build_model(published.options).load_state_dict(published.weights)


# ---------------------------------------------------------------- the head


@pytest.mark.parametrize("old", [False, True])
def test_the_head_of_a_caffemodel(tmp_path, old):
    weight = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)  # as many identities as numbers
    tensors = {**sphere_tensors(), "fc6.weight": weight}
    published = import_published(write(tmp_path / "x", caffemodel(tensors, old=old)))
    np.testing.assert_array_equal(published.head["weight"].numpy(), weight)
    assert published.notes[-1] == "head: 6 identities, without their names"
    save_published(published, tmp_path / "x.pt", origin="here")
    assert torch.equal(load_checkpoint(tmp_path / "x.pt")["head"]["weight"], torch.from_numpy(weight))


def test_a_head_with_biases_is_that_of_softmax(tmp_path):
    tensors = {
        **sphere_tensors(),
        "fc6.weight": np.ones((9, 6), np.float32),
        "fc6.bias": np.arange(9, dtype=np.float32),
    }
    published = import_published(write(tmp_path / "x", caffemodel(tensors)))
    MarginHead(6, 9, make_margin("softmax")).load_state_dict(published.head)
    assert published.head["bias"].tolist() == list(range(9))


def test_what_the_checkpoint_says_of_itself(tmp_path):
    published = import_published(write(tmp_path / "x", caffemodel(sphere_tensors())))
    save_published(published, tmp_path / "x.pt", origin="imported from x")
    meta = load_model(tmp_path / "x.pt").meta
    assert meta["run"] == "imported from x"
    assert "step" not in meta
    assert '"taken as' not in (text := (tmp_path / "x.json").read_text())
    assert "taken as 112x96" in text


# ---------------------------------------------------------------- what is refused


def without(*names: str):
    return lambda tensors: [tensors.pop(name) for name in names]


def shaped(name: str, *shape: int):
    return lambda tensors: tensors.__setitem__(name, np.ones(shape, np.float32))


def holding(name: str, value: float):
    return lambda tensors: tensors[name].flat.__setitem__(3, value)


NOT_OURS = "not the network of .*: "
REFUSED = [
    (without("fc5.weight", "fc5.bias"), r"fc5.weight: missing · allowed: a tensor with 2 axes"),
    (without("conv3_1.weight", "conv3_1.bias"), "conv3_1.weight: missing"),
    (without("relu3_5.weight"), NOT_OURS + r"relu3_5.weight is missing$"),
    (without("conv3_5.weight", "conv3_5.bias"), NOT_OURS + r"conv3_5.weight is missing; conv3_5.bias is missing$"),
    (without("fc5.bias"), NOT_OURS + r"fc5.bias is missing$"),
    (without("conv4_3.weight", "conv4_3.bias"), NOT_OURS + r"conv4_3.weight is missing; conv4_3.bias is missing$"),
    (shaped("conv2_3.weight", 3, 3, 1, 1), NOT_OURS + r"conv2_3.weight is \(3, 3, 1, 1\), not \(3, 3, 3, 3\)$"),
    (shaped("conv1_1.weight", 2, 1, 3, 3), NOT_OURS + r"conv1_1.weight is \(2, 1, 3, 3\), not \(2, 3, 3, 3\)$"),
    (shaped("conv1_1.weight", 2, 27), r"conv1_1.weight: got \(2, 27\) · allowed: a tensor with 4 axes"),
    (shaped("conv1_1.bias", 2, 1), NOT_OURS + r"conv1_1.bias is \(2, 1\), not \(2,\)$"),
    (shaped("relu2_2.weight", 1), NOT_OURS + r"relu2_2.weight is \(1,\), not \(3,\)$"),
    (shaped("fc5.weight", 6, 5 * 30), "the embedding layer reads 30 places of the last map, .* give --input-size HxW"),
    (shaped("fc5.weight", 6, 211), r"112x96 give the embedding layer 210 numbers, its weights are for 211"),
    (shaped("fc5.weight", 1, 210), r"model.embedding_dim: got 1 · allowed: an integer of at least 2"),
    (shaped("bn1_1.weight", 2), NOT_OURS + "bn1_1.weight is unknown$"),
    (shaped("conv3_33x.weight", 2), NOT_OURS + "conv3_33x.weight is unknown$"),
    (holding("conv3_4.weight", float("nan")), "conv3_4.weight: has values that are not finite real numbers"),
    (holding("fc5.weight", float("inf")), "fc5.weight: has values that are not finite"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED)
@pytest.mark.parametrize("kind", ["caffemodel", "pth"])
def test_other_networks_are_refused_in_one_line(tmp_path, kind, change, message):
    tensors, path = sphere_tensors((3, 5, 9, 3)), tmp_path / f"x.{kind}"
    change(tensors)
    if kind == "caffemodel":
        path.write_bytes(caffemodel(tensors))
    else:
        torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)
    with pytest.raises(BadCheckpoint, match=message) as raised:
        import_published(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_a_third_blob_is_refused(tmp_path):
    tensors = sphere_tensors()
    data = caffemodel(tensors) + layer("bn", [blob(np.ones(3, np.float32))] * 3)
    with pytest.raises(BadCheckpoint, match=r"bn.weight is unknown; bn.bias is unknown; bn.2 is unknown$"):
        import_published(write(tmp_path / "x", data))


@pytest.mark.parametrize(
    ("asked", "stated", "message"),
    [
        ((112, 112), None, "images of 112x112 give the embedding layer 245 numbers, its weights are for 210"),
        (None, (64, 64), "images of 64x64 give the embedding layer 80 numbers"),
        (None, (0, 2**50), "give the embedding layer 0 numbers"),
    ],
)
def test_a_size_that_does_not_fit(tmp_path, asked, stated, message):
    start = input_layer((1, 3, *stated)) if stated else b""
    path = write(tmp_path / "x", caffemodel(sphere_tensors(), start=start))
    with pytest.raises(BadCheckpoint, match=message):
        import_published(path, overrides=InputOverrides(size=asked))


def test_ten_problems_are_listed_and_the_rest_counted(tmp_path):
    tensors = sphere_tensors((3, 5, 9, 3))
    for key in [key for key in tensors if key.startswith("relu")][:12]:
        del tensors[key]
    with pytest.raises(BadCheckpoint) as raised:
        import_published(write(tmp_path / "x", caffemodel(tensors)))
    assert str(raised.value).count("is missing") == 10
    assert str(raised.value).endswith("; and 2 more")
