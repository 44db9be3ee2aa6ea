"""ONNX files made by hand: one matrix over the pixels, so that NumPy can compute what they must give."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="pip install '.[export]'")
pytest.importorskip("onnxruntime", reason="pip install '.[export]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

SIZE, DIM = (6, 4), 5
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
}


def matrix(size=SIZE, dim=DIM, seed=0):
    """(D, 3·H·W) float32, over channels, rows, columns."""
    weight = np.random.default_rng(seed).standard_normal((dim, 3 * size[0] * size[1]))
    return (weight / 8).astype(np.float32)


def write_onnx(
    path, *, size=SIZE, dim=DIM, layout="nchw", dtype="float32", batch="B", shape=None, before=(), after=(), seed=0,
    inputs=(), outputs=(), out="embedding", external=None, constants=None, names=(), input_shape_known=True,
):  # fmt: skip
    """Write Cast, Transpose where needed, ``before``, Flatten, MatMul to ``raw``, then ``after`` to ``out``.

    ``before`` are (operator, constant) pairs on the pixels; ``after`` are nodes. ``names`` name the first nodes.
    """
    height, width = size
    sides = {"nchw": [batch, 3, height, width], "nhwc": [batch, height, width, 3]}[layout]
    weights = [numpy_helper.from_array(matrix(size, dim, seed).T.copy(), "weight")]
    weights += [numpy_helper.from_array(np.asarray(value), key) for key, value in (constants or {}).items()]
    nodes, at = [], "images"
    for number, (operator, value) in enumerate(before):
        weights.append(numpy_helper.from_array(np.array(value, dtype=dtype), f"c{number}"))
        nodes.append(helper.make_node(operator, [at, f"c{number}"], [f"b{number}"]))
        at = f"b{number}"
    if dtype != "float32":
        nodes.append(helper.make_node("Cast", [at], ["cast"], to=TensorProto.FLOAT))
        at = "cast"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [at], ["turned"], perm=[0, 3, 1, 2]))
        at = "turned"
    nodes.append(helper.make_node("Flatten", [at], ["flat"], axis=1))
    nodes.append(helper.make_node("MatMul", ["flat", "weight"], ["raw" if after else out]))
    nodes += after
    for node, name in zip(nodes, names, strict=False):
        node.name = name
    graph = helper.make_graph(
        nodes, "test",
        [helper.make_tensor_value_info("images", TYPES[dtype], shape or sides), *inputs],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, None), *outputs],
        weights,
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        onnx.save(proto, path, save_as_external_data=True, location=external, size_threshold=0)
    else:
        path.write_bytes(proto.SerializeToString())
    return path


def by_formula(crops, *, order, mean, std, seed=0, dim=DIM):
    """(B, H, W, 3) uint8 BGR → (B, D) float64."""
    pixels = crops.astype(np.float64)[..., :: 1 if order == "bgr" else -1]
    scaled = ((pixels - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    return scaled.reshape(len(crops), -1) @ matrix(crops.shape[1:3], dim, seed).T.astype(np.float64)


def crops_of(count=7, size=SIZE, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)
