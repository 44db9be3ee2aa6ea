"""ONNX files of every input against NumPy; what a file says and what has to be told; each error in one line."""

import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from sphereface.data.transforms import to_input
from sphereface.errors import UserError
from sphereface.input_spec import InputSpec
from sphereface.models import onnx_backbone
from sphereface.models.published import ADAPTERS
from sphereface.onnx_input import PRESETS, OnnxOptions

from .onnx_files import DIM, SIZE, TensorProto, by_formula, crops_of, helper, onnx, write_onnx

from sphereface.models.onnx_backbone import OnnxBackbone  # isort: skip

TOLD = OnnxOptions(order="bgr", mean=(100.0,), std=(50.0,))


def embed(model, crops):
    with torch.inference_mode():
        return model(to_input(torch.from_numpy(crops), model.input_spec)).numpy()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("batch", ["B", 1, 4])
@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_a_file_of_any_input_gives_what_its_formula_gives(tmp_path, layout, dtype, batch, order):
    path = write_onnx(tmp_path / "a.onnx", layout=layout, dtype=dtype, batch=batch)
    mean, std = ((0.0,), (1.0,)) if dtype == "uint8" else ((100.0, 110.0, 120.0), (50.0, 60.0, 70.0))
    told = {} if dtype == "uint8" else {"mean": mean, "std": std}
    model = OnnxBackbone(path, OnnxOptions(order=order, **told))
    assert model.input_spec == InputSpec(*SIZE, order, mean, std)
    assert (model.embedding_dim, model.reads.layout, model.reads.dtype) == (DIM, layout, dtype)
    assert model.reads.batch == (None if batch == "B" else batch)
    assert not model.notes
    crops = crops_of()
    wanted = by_formula(crops, order=order, mean=mean, std=std)
    for count in (7, 4, 1):
        found = embed(model, crops[:count])
        assert (found.shape, found.dtype) == ((count, DIM), np.float32)
        off = np.abs(found - wanted[:count]).max() / np.abs(wanted).max()
        assert off < (2e-3 if dtype == "float16" else 1e-6)
    assert embed(model, crops[:0]).shape == (0, DIM)


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        (["B", 3, 6, 4], {}, "(B, 3, 6, 4) float32 = (pixel − 100) / 50, BGR"),
        ([2, 6, 4, 3], {}, "(2, 6, 4, 3) float32 = (pixel − 100) / 50, BGR"),
        (["B", 3, "h", "w"], {"size": (6, 4)}, "(B, 3, 6, 4) float32"),
        (["B", "c", "h", "w"], {"size": (6, 4), "layout": "nchw"}, "(B, 3, 6, 4) float32"),
        (["B", 3, 6, "w"], {"size": (6, 4)}, "(B, 3, 6, 4) float32"),
        (["B", 3, 6, 4], {"size": (6, 4), "layout": "nchw"}, "(B, 3, 6, 4) float32"),
    ],
)
def test_the_options_fill_what_the_file_leaves_open(tmp_path, shape, options, words):
    layout = "nhwc" if shape[3] == 3 else "nchw"
    path = write_onnx(tmp_path / "a.onnx", layout=layout, shape=shape)
    told = OnnxOptions(order="bgr", mean=(100.0,), std=(50.0,), **options)
    model = OnnxBackbone(path, told)
    assert model.reads.describe().startswith(words)
    crops = crops_of()
    np.testing.assert_allclose(
        embed(model, crops), by_formula(crops, order="bgr", mean=(100.0,), std=(50.0,)), rtol=1e-4, atol=1e-4
    )


def test_three_channels_on_two_axes_need_a_layout(tmp_path):
    path = write_onnx(tmp_path / "a.onnx", size=(6, 3), layout="nchw")
    with pytest.raises(UserError, match=r"reads \(\?, 3, 6, 3\) float32 · give --layout nchw or --layout nhwc"):
        OnnxBackbone(path, TOLD)
    model = OnnxBackbone(path, OnnxOptions(layout="nchw", order="bgr", mean=(100.0,), std=(50.0,)))
    assert model.input_spec.size == (6, 3)


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ({}, {}, "does not state how it reads pixels: --order, --mean, --std missing · give them, or --spec "),
        ({}, {"order": "rgb", "mean": (0.0,)}, "--std missing · give it, or --spec"),
        ({}, {"spec": "sphereface"}, r"--spec sphereface: reads 112x96 · the file reads 6x4 (height x width) · choose"),
        ({}, {"spec": "arc"}, "--spec: got 'arc' · allowed: sphereface, arcface, insightface, adaface, cvlface"),
        ({}, {"order": "gbr"}, "--order: got 'gbr' · allowed: bgr, rgb"),
        ({}, {"size": (112, 96)}, "--size: got 112x96 · the file reads 6x4 (height x width) · omit it"),
        ({}, {"layout": "nhwc"}, "--layout: got nhwc · the file reads nchw, (?, 3, 6, 4) float32 · omit it"),
        ({"shape": ["B", 3, "h", 4]}, {}, "reads (?, 3, ?, 4) float32 · give --size HEIGHTxWIDTH"),
        ({"shape": ["B", 1, 18, 4]}, {}, "reads (?, 1, 18, 4) float32 · allowed: 3 channels"),
        ({"shape": ["B", 72]}, {}, "reads (?, 72) float32 · allowed: four axes"),
        ({"dtype": "float64"}, {}, "input images is a tensor(double) · allowed: float32, float16, uint8"),
        ({"dtype": "uint8"}, {"mean": (127.5,)}, "--mean: got 127.5 · the file reads bytes, so it scales"),
        ({"dtype": "uint8"}, {"std": (2.0,)}, "--std: got 2 · the file reads bytes"),
        ({}, {"input": "data"}, "--input: got 'data' · allowed: images ['B', 3, 6, 4]"),
        ({}, {"output": "fc1"}, "--output-name: got 'fc1' · allowed: embedding"),
        (
            {"inputs": [helper.make_tensor_value_info("phase", TensorProto.BOOL, [])],
             "after": [helper.make_node("Where", ["phase", "raw", "raw"], ["embedding"])]},
            {}, "has 2 inputs: images ['B', 3, 6, 4], phase [] · choose one with --input NAME",
        ),
        (
            {"inputs": [helper.make_tensor_value_info("phase", TensorProto.BOOL, [])],
             "after": [helper.make_node("Where", ["phase", "raw", "raw"], ["embedding"])]},
            {"input": "images"}, "needs all of its inputs: images ['B', 3, 6, 4], phase [] · allowed: one",
        ),
        (
            {"outputs": [helper.make_tensor_value_info("norm", TensorProto.FLOAT, None)],
             "after": [helper.make_node("Identity", ["raw"], ["embedding"]),
                       helper.make_node("ReduceL2", ["raw"], ["norm"], axes=[1])]},
            {}, "has 2 outputs: embedding ",
        ),
        (
            {"outputs": [helper.make_tensor_value_info("ints", TensorProto.INT64, None)],
             "after": [helper.make_node("Identity", ["raw"], ["embedding"]),
                       helper.make_node("Cast", ["raw"], ["ints"], to=TensorProto.INT64)]},
            {"output": "ints"}, "output ints holds no floating-point numbers · see --output-name",
        ),
        (
            {"after": [helper.make_node("ReduceSum", ["raw"], ["embedding"], keepdims=0)]},
            {}, "output embedding: got () for 1 image · allowed: (1, D) or (1, D, 1, 1) · see --output-name",
        ),
        (
            {"after": [helper.make_node("Transpose", ["raw"], ["embedding"], perm=[1, 0])]},
            {}, "output embedding: got (5, 1) for 1 image · allowed: (1, D)",
        ),
        (
            {"constants": {"square": np.array([0, 4, 6])}, "dim": 24,
             "after": [helper.make_node("Reshape", ["raw", "square"], ["embedding"])]},
            {}, "output embedding: got (1, 4, 6) for 1 image · allowed: (1, D)",
        ),
        (
            {"after": [helper.make_node("Sqrt", ["raw"], ["embedding"])]},
            {}, "gives NaN or infinity for images of noise · is its scale (pixel − 100) / 50?",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(tmp_path, file, options, message):
    path = write_onnx(tmp_path / "a.onnx", **file)
    unsaid = (
        message.startswith(("does not state", "--std missing")) or "spec" in options or file.get("dtype") == "uint8"
    )
    told = {} if unsaid else {"order": "bgr", "mean": (100.0,), "std": (50.0,)}
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        OnnxBackbone(path, OnnxOptions(**{**told, **options}))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_the_cause(tmp_path, value):
    path = write_onnx(
        tmp_path / "a.onnx", constants={"added": np.array([0, value], np.float32)[-1:]},
        after=[helper.make_node("Add", ["raw", "added"], ["embedding"])],
    )  # fmt: skip
    with pytest.raises(UserError, match="gives NaN or infinity for images of noise · its weights 'added' hold them"):
        OnnxBackbone(path, TOLD)


@pytest.mark.parametrize("content", [None, b"", b"no protobuf", b"\x08\x08"])
def test_what_is_no_onnx_file(tmp_path, content):
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        UserError, match="no such ONNX file" if content is None else "not an ONNX file, or a damaged one"
    ):
        OnnxBackbone(path, TOLD)


def test_a_cut_file_and_an_unknown_operator(tmp_path):
    path = write_onnx(tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"a.onnx: (not an ONNX file|onnxruntime .* refuses it)"):
        OnnxBackbone(path, TOLD)
    path = write_onnx(tmp_path / "b.onnx", after=[helper.make_node("Unknown", ["raw"], ["embedding"])])
    with pytest.raises(UserError, match=r"b.onnx: onnxruntime .* refuses it \(.*Unknown"):
        OnnxBackbone(path, TOLD)


@pytest.mark.parametrize("module", ["onnxruntime", "onnx"])
def test_without_the_packages_a_line_says_what_to_install(tmp_path, monkeypatch, module):
    path = write_onnx(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"--onnx: {module} is not installed · pip install '.\[export\]'"):
        OnnxBackbone(path, TOLD)


def test_a_device_that_onnxruntime_lacks(tmp_path):
    path = write_onnx(tmp_path / "a.onnx")
    with pytest.raises(
        UserError, match=r"--device: got cuda:1 · onnxruntime .* cannot use CUDA.*pip install onnxruntime-gpu"
    ):
        OnnxBackbone(path, TOLD, device=torch.device("cuda:1"))
    with pytest.raises(UserError, match=r"--device: got mps · onnxruntime .* cannot use mps here · use --device cpu"):
        OnnxBackbone(path, TOLD, device=torch.device("mps"))


# ---------------------------------------------------------------- inputs, outputs, batches


def test_a_named_output_and_one_with_axes_of_length_one(tmp_path):
    after = [helper.make_node("Neg", ["raw"], ["minus"]), helper.make_node("Reshape", ["raw", "long"], ["embedding"])]
    path = write_onnx(
        tmp_path / "a.onnx", after=after, constants={"long": np.array([0, -1, 1, 1])},
        outputs=[helper.make_tensor_value_info("minus", TensorProto.FLOAT, None)],
    )  # fmt: skip
    crops = crops_of()
    wanted = by_formula(crops, order="bgr", mean=(100.0,), std=(50.0,))
    for name, sign in (("embedding", 1), ("minus", -1)):
        model = OnnxBackbone(path, OnnxOptions(order="bgr", mean=(100.0,), std=(50.0,), output=name))
        np.testing.assert_allclose(embed(model, crops), sign * wanted, rtol=1e-4, atol=1e-4)


def test_a_file_whose_batch_is_fixed_inside_runs_image_by_image(tmp_path):
    """The shape of the input says any batch, but a Reshape inside says one: many published files are so."""
    after = [helper.make_node("Reshape", ["raw", "one"], ["embedding"])]
    path = write_onnx(tmp_path / "a.onnx", after=after, constants={"one": np.array([1, DIM])})
    model = OnnxBackbone(path, TOLD)
    assert model.one_by_one
    assert model.notes == ["the file cannot run a batch, so images run one at a time"]
    crops = crops_of()
    wanted = by_formula(crops, order="bgr", mean=(100.0,), std=(50.0,))
    np.testing.assert_allclose(embed(model, crops), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", ["B", 4])
def test_a_file_that_mixes_images_of_a_batch_runs_image_by_image(tmp_path, batch):
    after = [
        helper.make_node("ReduceMean", ["raw"], ["mean"], axes=[0]),
        helper.make_node("Add", ["raw", "mean"], ["embedding"]),
    ]
    path = write_onnx(tmp_path / "a.onnx", after=after, batch=batch)
    model = OnnxBackbone(path, TOLD)
    assert model.notes == ["the file gives other embeddings in a batch than alone, so images run one at a time"]
    crops = crops_of()
    wanted = 2 * by_formula(crops, order="bgr", mean=(100.0,), std=(50.0,))
    np.testing.assert_allclose(embed(model, crops), wanted, rtol=1e-4, atol=1e-4)


def test_nan_of_single_images_is_left_to_the_evaluation(tmp_path):
    after = [helper.make_node("Div", ["raw", "raw"], ["embedding"])]
    model = OnnxBackbone(write_onnx(tmp_path / "a.onnx", after=after), TOLD)
    grey = np.full((2, *SIZE, 3), 100, dtype=np.uint8)
    found = embed(model, np.concatenate([grey, crops_of(1)]))
    assert np.isnan(found).all(axis=1).tolist() == [True, True, False]


def test_images_of_another_size_are_refused(tmp_path):
    model = OnnxBackbone(write_onnx(tmp_path / "a.onnx"), TOLD)
    with pytest.raises(UserError, match=r"network input: got \(2, 3, 8, 4\) · allowed: \(batch, 3, 6, 4\)"):
        embed(model, crops_of(2, (8, 4)))


# ---------------------------------------------------------------- publishers


def test_presets_are_what_the_publishers_feed():
    wanted = {
        "sphereface": (112, 96, "bgr", 127.5, 128.0, "join"),
        "arcface": (112, 112, "rgb", 127.5, 127.5, "add"),
        "insightface": (112, 112, "rgb", 127.5, 127.5, "add"),
        "adaface": (112, 112, "bgr", 127.5, 127.5, "add"),
        "cvlface": (112, 112, "rgb", 127.5, 127.5, "add"),
        "magface": (112, 112, "bgr", 0.0, 255.0, "none"),
        "sface": (112, 112, "rgb", 0.0, 1.0, "none"),
        "facenet": (160, 160, "rgb", 127.5, 128.0, "join"),
    }
    assert {
        name: (*each.spec.size, each.spec.order, *each.spec.mean, *each.spec.std, each.mirror)
        for name, each in PRESETS.items()
    } == wanted
    imported = {row.publisher: row.given for row in ADAPTERS}
    for name, publisher in (("sphereface", "caffe"), *((n, n) for n in ("arcface", "adaface", "cvlface", "magface"))):
        spec, given = PRESETS[name].spec, imported[publisher]
        assert (spec.order, *spec.mean, *spec.std) == tuple(given[f"input_{key}"] for key in ("order", "mean", "std"))


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "facenet"])
def test_a_preset_is_all_that_a_publishers_file_needs(tmp_path, name):
    preset = PRESETS[name]
    path = write_onnx(tmp_path / "a.onnx", size=preset.spec.size, batch=1)
    model = OnnxBackbone(path, OnnxOptions(spec=name))
    assert (model.input_spec, model.reads.mirror) == (preset.spec, preset.mirror)
    crops = crops_of(3, preset.spec.size)
    wanted = by_formula(crops, order=preset.spec.order, mean=preset.spec.mean, std=preset.spec.std)
    np.testing.assert_allclose(embed(model, crops), wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_options_go_before_a_preset(tmp_path):
    path = write_onnx(tmp_path / "a.onnx")
    model = OnnxBackbone(path, OnnxOptions(spec="arcface", size=(6, 4), order="bgr", std=(64.0,)))
    assert model.input_spec == InputSpec(6, 4, "bgr", (127.5,), (64.0,))
    assert model.reads.mirror == "add"
    open_shape = write_onnx(tmp_path / "b.onnx", size=(112, 112), shape=["B", "c", "h", "w"])
    assert OnnxBackbone(open_shape, OnnxOptions(spec="arcface")).reads.describe() == (
        "(B, 3, 112, 112) float32 = (pixel − 127.5) / 127.5, RGB"
    )
    as_bytes = write_onnx(tmp_path / "c.onnx", size=(112, 112), dtype="uint8")
    assert OnnxBackbone(as_bytes, OnnxOptions(spec="arcface")).reads.describe() == "(B, 3, 112, 112) uint8 = pixel, RGB"


SCALING = (("Sub", 127.5), ("Mul", 0.0078125))


def test_an_mxnet_file_that_scales_itself_is_fed_as_insightface_feeds_it(tmp_path):
    names = ("_minusscalar0", "_mulscalar0")
    path = write_onnx(tmp_path / "a.onnx", size=(112, 112), before=SCALING, names=names)
    model = OnnxBackbone(path, OnnxOptions(spec="arcface"))
    assert model.input_spec == InputSpec(112, 112, "rgb", (0.0,), (1.0,))
    assert model.notes == ["the graph subtracts and multiplies, so pixels are fed unscaled, as InsightFace does"]
    crops = crops_of(3, (112, 112))
    wanted = by_formula(crops, order="rgb", mean=(127.5,), std=(128.0,))
    np.testing.assert_allclose(embed(model, crops), wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
    told = OnnxBackbone(path, OnnxOptions(spec="arcface", mean=(1.0,), std=(2.0,)))
    assert (told.input_spec.mean, told.input_spec.std, told.notes) == ((1.0,), (2.0,), [])


@pytest.mark.parametrize(("spec", "names"), [("arcface", ("/Sub", "/Mul")), ("cvlface", ("Sub_0", "Mul_1"))])
def test_a_file_that_may_scale_itself_has_to_be_told(tmp_path, spec, names):
    """InsightFace's own code looks for names that newer exporters do not give, and would scale twice."""
    path = write_onnx(tmp_path / "a.onnx", size=(112, 112), before=SCALING, names=names)
    with pytest.raises(UserError) as raised:
        OnnxBackbone(path, OnnxOptions(spec=spec))
    assert str(raised.value) == (
        f"{path}: its graph begins with Sub on the pixels, so it may scale them itself · give --mean 0 --std 1 if it "
        f"does, or --mean 127.5 --std 127.5, which --spec {spec} means"
    )
    assert OnnxBackbone(path, OnnxOptions(spec=spec, mean=(0.0,), std=(1.0,))).input_spec.mean == (0.0,)
    assert OnnxBackbone(path, OnnxOptions(order="rgb", mean=(3.0,), std=(1.0,))).input_spec.mean == (3.0,)


def test_arithmetic_further_on_is_no_scaling(tmp_path):
    after = [helper.make_node("Mul", ["raw", "raw"], ["embedding"])]
    path = write_onnx(tmp_path / "a.onnx", size=(112, 112), after=after)
    assert OnnxBackbone(path, OnnxOptions(spec="cvlface")).input_spec.mean == (127.5,)


# ---------------------------------------------------------------- external weights


def test_external_weights_are_read_from_the_files_folder_and_belong_to_its_hash(tmp_path):
    inside = OnnxBackbone(write_onnx(tmp_path / "in.onnx"), TOLD)
    assert inside.files == (tmp_path / "in.onnx",)
    path = write_onnx(tmp_path / "a.onnx", external="a.data")
    model = OnnxBackbone(path, TOLD)
    assert model.files == (path, tmp_path / "a.data")
    crops = crops_of()
    np.testing.assert_array_equal(embed(model, crops), embed(inside, crops))
    before = model.sha256
    data = bytearray((tmp_path / "a.data").read_bytes())
    data[3] ^= 1
    (tmp_path / "a.data").write_bytes(data)
    assert OnnxBackbone(path, TOLD).sha256 != before
    (tmp_path / "a.data").unlink()
    with pytest.raises(UserError, match="its file of weights a.data is missing · put it beside the .onnx"):
        OnnxBackbone(path, TOLD)


@pytest.mark.parametrize("way", ["parent", "absolute", "link"])
def test_external_weights_elsewhere_are_refused(tmp_path, way):
    path = write_onnx(tmp_path / "model" / "a.onnx", external="a.data")
    secret = (path.parent / "a.data").rename(tmp_path / "secret.data")
    place = {"parent": "../secret.data", "absolute": str(secret), "link": "link.data"}[way]
    (path.parent / "link.data").symlink_to(secret)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        tensor.external_data[0].value = place
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(
        UserError, match=rf"names the file of weights '{re.escape(place)}' · allowed: a file in its own"
    ):
        OnnxBackbone(path, TOLD)


def test_weights_of_a_nested_graph_are_found(tmp_path):
    """An If node holds graphs of its own, whose weights may lie elsewhere too."""
    path = write_onnx(tmp_path / "model" / "a.onnx")
    proto = onnx.load(path)
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])], [tensor])
    proto.graph.node.append(helper.make_node("If", ["flag"], ["unused"], then_branch=branch, else_branch=branch))
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match=r"names the file of weights '../../etc/passwd' .* refused"):
        OnnxBackbone(path, TOLD)


def test_a_link_to_a_file_with_its_weights_works_as_in_a_cache(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    write_onnx(blobs / "a.onnx", external="a.data")
    for name in ("a.onnx", "a.data"):
        (snapshot / name).symlink_to(blobs / name)
    assert OnnxBackbone(snapshot / "a.onnx", TOLD).embedding_dim == DIM


@pytest.mark.parametrize("kind", ["fifo", "folder", "nothing", "long"])
def test_what_is_no_file_is_one_line_and_never_waited_for(tmp_path, kind):
    path = tmp_path / ("n" * 300 if kind == "long" else "a.onnx")
    if kind in ("fifo", "folder"):
        os.mkfifo(path) if kind == "fifo" else path.mkdir()
    message = {
        "fifo": "not a regular file",
        "folder": "Is a directory",
        "nothing": "no such ONNX",
        "long": "name too long",
    }
    with pytest.raises(UserError, match=message[kind]):
        OnnxBackbone(path, TOLD)


@pytest.mark.parametrize("place", ["a\0b", "n" * 300, "circle", "x/" * 3000])
def test_external_weights_at_odd_places_are_refused(tmp_path, place):
    path = write_onnx(tmp_path / "a.onnx", external="a.data")
    (tmp_path / "circle").symlink_to("circle")
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        tensor.external_data[0].value = place
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match="names the file of weights '.*' · allowed: a file in its own folder") as caught:
        OnnxBackbone(path, TOLD)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(("shape", "batch"), [(["B", 3, "h", "w"], 1), ([2**40, 3, 6, 4], 2**40)])
def test_an_input_of_any_size_costs_no_memory(tmp_path, shape, batch):
    path = write_onnx(tmp_path / "a.onnx", shape=shape)
    with pytest.raises(
        UserError, match=rf"reads {batch} images of \d+×\d+ pixels at once · allowed: 16,777,216 pixels"
    ):
        OnnxBackbone(path, TOLD if batch > 1 else replace(TOLD, size=(2**15, 2**14)))


def test_a_file_that_is_replaced_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path, session = write_onnx(tmp_path / "a.onnx"), onnx_backbone._session

    def replaced(*arguments):
        write_onnx(tmp_path / "b.onnx", seed=1).replace(path)
        return session(*arguments)

    monkeypatch.setattr(onnx_backbone, "_session", replaced)
    with pytest.raises(UserError, match="a.onnx: changed while it was read · run the command again"):
        OnnxBackbone(path, TOLD)
