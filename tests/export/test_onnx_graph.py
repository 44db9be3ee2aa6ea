"""Files for older and smaller runtimes: operator set, file format, imports, fixed batch, bias apart."""

import numpy as np
import pytest

from sphereface.choices import IR_VERSIONS
from sphereface.errors import UserError
from sphereface.export import onnx_graph
from sphereface.export.formats import Export, onnx_runner, write_onnx
from sphereface.export.graph import InputFormat
from sphereface.export.onnx_graph import at_opset, multiply_before_erf, split_bias, tidy

from .networks import by_formula, crops_of, needs, network, off

needs("onnx", "onnxscript", "onnxruntime")
import onnx  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

CROPS = crops_of()


@pytest.mark.parametrize("opset", [17, 20])
def test_a_file_has_the_asked_operator_set_and_names_nothing_unused(opset, tmp_path):
    model, path = network("spherenet", norm="batch"), tmp_path / "face.onnx"
    write_onnx(Export(model, opset=opset), path, {"step": "7"})
    proto = onnx.load(str(path))
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", opset)]
    assert proto.ir_version == IR_VERSIONS[opset] == {17: 8, 20: 9}[opset]
    assert len(proto.graph.value_info) == 0
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert b"sphereface/" not in proto.SerializeToString()  # no path of this machine
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"step": "7"}


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_a_number_in_the_file(batch, tmp_path):
    model, path = network("spherenet"), tmp_path / "face.onnx"
    write_onnx(Export(model, batch=batch), path, {})
    (given,), (got,) = onnx.load(str(path)).graph.input, onnx.load(str(path)).graph.output
    assert [side.dim_value for side in given.type.tensor_type.shape.dim] == [batch, 48, 32, 3]
    assert [side.dim_value for side in got.type.tensor_type.shape.dim] == [batch, 16]
    crops = CROPS[:batch]
    assert off(onnx_runner(path)(crops), by_formula(model, crops)) < 1e-4


def test_a_free_batch_is_a_name(tmp_path):
    path = tmp_path / "face.onnx"
    write_onnx(Export(network("spherenet")), path, {})
    (given,) = onnx.load(str(path)).graph.input
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"


def small(nodes, opsets, weights=()):
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*entry) for entry in opsets], ir_version=10)


def test_imports_that_a_node_uses_stay_also_those_of_a_branch():
    inner = helper.make_graph([helper.make_node("Scaler", ["x"], ["z"], domain="ai.onnx.ml")], "inner", [], [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    proto = tidy(small([node], [("", 20), ("ai.onnx.ml", 5), ("com.microsoft", 1)]), 20)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 20), ("ai.onnx.ml", 5)]


def test_the_bias_of_a_gemm_becomes_an_addition():
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(4, 4)), "b": rng.normal(size=4)}
    weights = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1), helper.make_node("Gemm", ["h", "w"], ["y"])]
    proto = small(nodes, [("", 17)], weights)
    images = rng.normal(size=(3, 4)).astype(np.float32)
    wanted = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": images})[0]
    (added,) = split_bias(proto)
    assert [node.op_type for node in proto.graph.node] == ["Gemm", "Add", "Gemm"]
    assert [len(node.input) for node in proto.graph.node] == [2, 2, 2]
    assert proto.graph.node[1].name == added
    onnx.checker.check_model(proto, full_check=True)
    np.testing.assert_allclose(onnx.reference.ReferenceEvaluator(proto).run(None, {"x": images})[0], wanted, rtol=1e-5)


def test_the_division_of_a_gelu_becomes_a_multiplication():
    root = onnx.numpy_helper.from_array(np.float32(2**0.5), "root")
    nodes = [
        helper.make_node("Div", ["x", "root"], ["a"]), helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Div", ["b", "root"], ["y"]),
    ]  # fmt: skip
    proto, images = small(nodes, [("", 17)], [root]), np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    wanted = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": images})[0]
    multiply_before_erf(proto)
    assert [node.op_type for node in proto.graph.node] == ["Mul", "Erf", "Div"]
    np.testing.assert_allclose(onnx.reference.ReferenceEvaluator(proto).run(None, {"x": images})[0], wanted, rtol=1e-6)


def test_a_reduction_loses_the_attribute_that_older_sets_lack(exported):
    """onnx's converter leaves noop_with_empty_axes, and onnxruntime then refuses the file."""
    _, path = exported("ir")
    reductions = [node for node in onnx.load(str(path)).graph.node if node.op_type == "ReduceMean"]
    assert reductions
    assert {attribute.name for node in reductions for attribute in node.attribute} == {"axes", "keepdims"}


def test_what_cannot_be_converted_is_one_line(monkeypatch):
    proto = small([helper.make_node("Relu", ["x"], ["y"])], [("", 18)])
    assert at_opset(proto, 18) is proto

    def fail(*_):
        raise RuntimeError("no adapter for Split\nand more")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    with pytest.raises(UserError, match=r"--opset: got 17 · .*\(no adapter for Split\) · try --opset 18") as caught:
        at_opset(proto, 17)
    assert "\n" not in str(caught.value)
    assert onnx_graph.OLDEST_TRACED == 18


def test_half_precision_halves_the_file(exported, tmp_path):
    (whole, whole_path), path = exported("sfnet"), tmp_path / "float16.onnx"
    form = InputFormat(whole.form.order, "nchw", "float16")
    write_onnx(Export(whole.model, form), path, {})
    found = onnx_runner(path)(form.feed(CROPS))
    assert found.dtype == np.float32
    assert off(found, by_formula(whole.model, CROPS)) < 2e-2
    assert 0.49 < path.stat().st_size / whole_path.stat().st_size < 0.52
