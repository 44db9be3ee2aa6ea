#!/bin/bash
# OnnxSlim folds a factor into a layer whose output another branch uses, and a factor of each row into the channels.
#
# Versions: onnxslim 0.1.98 (the newest release), onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6, Python 3.11, x86-64 Linux.
#   Seen on 2026-11-30.
# One would guess: a slimmed model gives the numbers of the model. Its description says "same accuracy".
# What happens: the rule FusionGemmMul multiplies the constant of Gemm -> Reshape -> Mul into the weights of the Gemm. It
#   looks for other users of the Reshape, but not of the Gemm, so each other branch that reads the Gemm is scaled too.
#   torch.onnx.export writes such a graph for p = fc(x); return p.view(-1, 5, 2) * 112, sigmoid(quality(p)).
#   And FusionConvMul takes a constant of shape (H, 1) or (W,) for one factor a channel, if its size is the number of
#   channels. Both rules are on by default. There is no warning. The scaled branch itself stays right.
# Who is hurt: networks with landmark, quality or alignment branches on a shared layer. A test of one output may miss it.
# Known: we found no issue. Issue 277 was another wrong rule, now repaired.
# Way out: onnxslim.slim(model, skip_fusion_patterns=["FusionGemmMul", "FusionConvMul"]); compare all outputs before use.
# Output seen (largest difference to the model, for 64 inputs or one image):
#   landmarks x 112, and a quality of the same layer  landmarks 0.0001 quality 0.4841
#      qualities below 0.01 or above 0.99: 0.00 of the model, 0.97 when slimmed
#   the same, FusionGemmMul skipped                   landmarks 0.0000 quality 0.0000
#   the same, with no second user                     landmarks 0.0001
#   a factor of each row, 16 channels, 16 rows        map 3.8027
#   a factor of each row, 24 channels, 16 rows        map 0.0000
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"
"$W/v/bin/pip" install -q --no-compile onnxslim==0.1.98 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 2> /dev/null
cat > "$W/run.py" <<'P'
import sys
import numpy as np, onnx, onnxruntime as ort, onnxslim
from onnx import TensorProto, helper, numpy_helper
rng, node = np.random.default_rng(0), helper.make_node
def model(nodes, constants, shape, outputs):
    value = lambda name, size: helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
    graph = helper.make_graph(nodes, "net", [value("x", shape)], [value(o, None) for o in outputs],
                              [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    net = onnx.shape_inference.infer_shapes(net)
    return onnx.checker.check_model(net) or net
run = lambda net, x: ort.InferenceSession(net.SerializeToString()).run(None, {"x": x})
f = lambda *shape: rng.normal(size=shape).astype("f4")
sure = lambda v: ((v < 0.01) | (v > 0.99)).mean()
def head(quality):
    nodes = [node("Gemm", ["x", "w", "b"], ["p"], transB=1), node("Reshape", ["p", "shape"], ["r"]),
             node("Mul", ["r", "size"], ["landmarks"]), node("Gemm", ["p", "w2"], ["q"]), node("Sigmoid", ["q"], ["quality"])]
    constants = {"w": f(10, 32) / 6, "b": f(10), "shape": np.array([-1, 5, 2]), "size": np.float32(112), "w2": f(10, 1) / 3}
    return model(nodes[:3 + 2 * quality], constants, (64, 32), ["landmarks", "quality"][:1 + quality])
def factor(channels, shape):
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1] * 4), node("Mul", ["c", "s"], ["map"])]
    return model(nodes, {"w": f(channels, 3, 3, 3) / 5, "s": np.abs(f(*shape))}, (1, 3, 16, 16), ["map"])
right = True
for text, net, wrong, options in (
    ("landmarks x 112, and a quality of the same layer", net := head(True), "quality", {}),
    ("the same, FusionGemmMul skipped", net, "", {"skip_fusion_patterns": ["FusionGemmMul"]}),
    ("the same, with no second user", head(False), "", {}),
    ("a factor of each row, 16 channels, 16 rows", factor(16, (16, 1)), "map", {}),
    ("a factor of each row, 24 channels, 16 rows", factor(24, (16, 1)), "", {}),
):
    x = f(*[d.dim_value for d in net.graph.input[0].type.tensor_type.shape.dim])
    copy = onnx.ModelProto(); copy.CopyFrom(net)
    before, after = run(net, x), run(onnxslim.slim(copy, **options), x)
    names = [o.name for o in net.graph.output]
    far = {n: float(np.abs(a - b).max()) for n, a, b in zip(names, before, after)}
    print(f"{text:49}", *[f"{n} {d:.4f}" for n, d in far.items()])
    right &= all((d > 0.1) == (n == wrong) and (n == wrong or d < 1e-3) for n, d in far.items())
    if wrong == "quality":
        print(f"   qualities below 0.01 or above 0.99: {sure(before[1]):.2f} of the model, {sure(after[1]):.2f} when slimmed")
sys.exit(not right)
P
OMP_NUM_THREADS=1 "$W/v/bin/python" "$W/run.py"
