#!/bin/bash
# onnx.version_converter turns a valid opset 18 ReduceMean into an opset 17 model that no runtime loads.
#
# Versions: onnx 1.23.2, onnxruntime 1.32.0, Python 3.11, x86-64 Linux. Seen on 2026-11-28.
# One would guess: convert_version(model, 17) returns a valid model of opset 17, or raises.
# What happens: ReduceMean in opset 18 takes its axes as an input and has the attribute noop_with_empty_axes. The
#   converter moves the axes to an attribute, but leaves noop_with_empty_axes, which opset 17 does not have. It raises
#   nothing, also with the attribute at its default of 0. PyTorch's exporter always writes the attribute.
# Who is hurt: everybody who exports a network with a mean (squeeze-and-excitation, global pooling) from PyTorch and
#   converts it for an older runtime, by hand or through torch.onnx.export(opset_version=17), which calls this converter.
# Way out: delete the attribute from Reduce* nodes after the conversion, and run onnx.checker.check_model.
# Output seen:
#   opset 18: axes as input, runs
#   opset 17: attributes axes, keepdims, noop_with_empty_axes
#   checker: Unrecognized attribute: noop_with_empty_axes for operator ReduceMean
#   onnxruntime: Unrecognized attribute: noop_with_empty_axes for operator ReduceMean
#   attribute deleted: runs
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0
cat > "$W/run.py" <<'P'
import sys
import numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper, version_converter
info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
axes = numpy_helper.from_array(np.array([2, 3]), "axes")
node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1, noop_with_empty_axes=0)
graph = helper.make_graph([node], "g", [info("x", ["batch", 4, 5, 6])], [info("y", ["batch", 4, 1, 1])], [axes])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
x = np.random.default_rng(0).normal(size=(2, 4, 5, 6)).astype("f4")
def run(model):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, {"x": x})[0], x.mean((2, 3), keepdims=True), atol=1e-6)
def refused(call):
    try:
        call()
    except Exception as error:
        (line,) = [part for part in str(error).splitlines() if "Unrecognized attribute" in part]
        return line[line.index("Unrecognized"):].split("Operator:")[0].strip()
    return ""
run(model)
print("opset 18: axes as input, runs")
old = version_converter.convert_version(model, 17)
print("opset 17: attributes", ", ".join(sorted(a.name for a in old.graph.node[0].attribute)))
checker, runtime = refused(lambda: onnx.checker.check_model(old)), refused(lambda: run(old))
print("checker:", checker)
print("onnxruntime:", runtime)
(kept,) = [n for n in old.graph.node if n.op_type == "ReduceMean"]
attributes = [a for a in kept.attribute if a.name != "noop_with_empty_axes"]
del kept.attribute[:]
kept.attribute.extend(attributes)
run(old)
print("attribute deleted: runs")
sys.exit(not (checker and runtime))
P
"$W/v/bin/python" "$W/run.py"
