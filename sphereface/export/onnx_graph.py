"""Change an ONNX graph so that older and smaller runtimes load it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..choices import IR_VERSIONS
from ..errors import UserError, first_line
from ..extras import import_extra

OLDEST_TRACED = 18
"""PyTorch's exporter writes no older opset; ONNX's own converter makes 17 of it."""

_WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")


def at_opset(proto: Any, opset: int) -> Any:
    """Convert a model to an operator set.

    Raises:
        UserError: ONNX's converter cannot.
    """
    onnx = import_extra("--format", "onnx")
    if _opset(proto) == opset:
        return proto
    try:
        proto = onnx.version_converter.convert_version(proto, opset)
        for node in _nodes(proto.graph):
            _drop_newer_attribute(node)
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # onnx's converter raises the exceptions of its C++ code
        raise UserError(
            f"--opset: got {opset} · this network cannot be converted to it ({first_line(error)}) · "
            f"try --opset {OLDEST_TRACED}"
        ) from error
    return proto


def tidy(proto: Any, opset: int) -> Any:
    """Remove the parts of a graph that no result depends on.

    Shapes of inner values name the free batch, which tract then cannot fix. An import of an opset
    that no node uses makes an old onnxruntime refuse the file. The exporter's notes hold paths of
    this machine.

    Args:
        proto: changed in place.
        opset: of the standard operators; the file format (IR) follows from it.
    """
    used = {node.domain for node in _nodes(proto.graph)}
    kept = [(entry.domain, entry.version) for entry in proto.opset_import if entry.domain in used | {""}]
    del proto.opset_import[:]
    for domain, version in kept:
        proto.opset_import.add(domain=domain, version=version)
    del proto.graph.value_info[:]
    for part in (proto.graph, *_nodes(proto.graph), *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    proto.ir_version = IR_VERSIONS[opset]
    return proto


def multiply_before_erf(proto: Any) -> None:
    """Replace the division by √2 before each Erf, half of a GELU, by a multiplication.

    The result is the same, and OpenCV 4 and 5 load a GELU in this form.

    Args:
        proto: changed in place.
    """
    numpy_helper = import_extra("--format", "onnx.numpy_helper")
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    into_erf = {node.input[0] for node in proto.graph.node if node.op_type == "Erf"}
    for node in proto.graph.node:
        if node.op_type != "Div" or node.output[0] not in into_erf or node.input[1] not in constants:
            continue
        name = f"{node.input[1]}_inverse"
        if name not in constants:
            divisor = numpy_helper.to_array(constants[node.input[1]])
            constants[name] = numpy_helper.from_array((1 / divisor).astype(divisor.dtype), name)
            proto.graph.initializer.append(constants[name])
        node.op_type, node.input[1] = "Mul", name


def split_bias(proto: Any) -> list[str]:
    """Replace each Gemm that has a bias by one without it, followed by an Add.

    OpenCV 4 computes an 8-bit Gemm with a bias correctly only for the first row of a batch.

    Args:
        proto: changed in place.

    Returns:
        The names of the new nodes.
    """
    onnx = import_extra("--format", "onnx")
    nodes, added = [], []
    for number, node in enumerate(proto.graph.node):
        nodes.append(node)
        if node.op_type != "Gemm" or len(node.input) < 3 or not node.input[2]:
            continue
        bias, output = node.input[2], node.output[0]
        del node.input[2:]
        node.output[0] = f"{output}_without_bias"
        add = onnx.helper.make_node("Add", [node.output[0], bias], [output], name=f"add_bias_{number}")
        nodes.append(add)
        added.append(add.name)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return added


def _drop_newer_attribute(node: Any) -> None:
    """Remove ``noop_with_empty_axes`` of opset 18, which onnx 1.23 leaves in opset 17."""
    if node.op_type.startswith("Reduce"):
        kept = [attribute for attribute in node.attribute if attribute.name != "noop_with_empty_axes"]
        del node.attribute[:]
        node.attribute.extend(kept)


def left_in_float32(proto: Any) -> list[str]:
    """Return the names of the nodes to leave in float32. They take little time.

    OpenCV fails on two kinds in 8 bits. One is batch normalisation that no convolution absorbs:
    onnxruntime gives its scale and zero point different shapes, which OpenCV 5 refuses. The other
    is the convolutions of squeeze-and-excitation, on a map of one pixel: OpenCV 5.0 computes an
    8-bit convolution before a sigmoid incorrectly.

    The third kind is the nodes from the pixels to the first layer with weights. 8 bits around 0
    hold no numbers such as p − 127.5, so each pixel is off by half a step, and the first layer
    enlarges that: its filters see differences of pixels.
    """
    names = [node.name for node in proto.graph.node if node.op_type == "BatchNormalization"]
    names += _on_pixels(proto)
    one_pixel = {node.output[0] for node in proto.graph.node if node.op_type in ("ReduceMean", "GlobalAveragePool")}
    for node in proto.graph.node:  # in the order of computation
        if node.op_type in ("Conv", "Relu", "PRelu", "BatchNormalization") and node.input[0] in one_pixel:
            one_pixel.add(node.output[0])
            names += [node.name] if node.op_type == "Conv" else []
    return names


def _on_pixels(proto: Any) -> list[str]:
    """Return the names of the nodes from the input of a graph to its first layers with weights."""
    names, pixels = [], {tensor.name for tensor in proto.graph.input}
    for node in proto.graph.node:  # in the order of computation
        if pixels.intersection(node.input):
            names.append(node.name)
            if node.op_type not in _WITH_WEIGHTS:
                pixels.update(node.output)
    return names


def _opset(proto: Any) -> int:
    (version,) = (entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    return int(version)


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
