#!/bin/bash
# InsightFace decides by the names of ONNX nodes whether to scale the pixels: two equal networks get different input.
#
# Versions: insightface 2.1, onnx 1.23.2, onnxruntime 1.32.0, opencv-python-headless 4.12.0.88, Python 3.11, x86-64 Linux.
#   Seen on 2026-11-28.
# One would guess: the names of nodes, which ONNX leaves free, do not change an embedding.
# What happens: ArcFaceONNX (get_model of a .onnx file) looks at the names of the first 8 nodes. If one starts with "Sub"
#   or "_minus" and one with "Mul" or "_mul", it feeds the pixels as they are. Otherwise it feeds (pixel - 127.5) / 127.5.
#   PyTorch 2.14 writes "/Sub", "/Mul" or "node_sub", "node_mul". Such a network that scales its own input is scaled
#   twice: its input is almost constant at -1, and InsightFace says nothing. Landmark and Attribute have a similar test.
# Who is hurt: everybody who exports a network with its scaling inside and runs it in InsightFace: the embeddings of all
#   images are nearly the same, so any two faces match. Renaming the nodes of a working file has the same effect.
# Way out: set model.input_mean, model.input_std = 0.0, 1.0 after get_model; or leave the scaling out of the file.
# Output seen (one graph, only the names of two nodes differ; random weights, two generated images):
#   Sub_0, Mul_1             mean   0.0 std   1.0  cosine with the right embedding 1.000, of two different images 0.139
#   /Sub, /Mul               mean 127.5 std 127.5  cosine with the right embedding 0.110, of two different images 1.000
#   node_sub, node_mul       mean 127.5 std 127.5  cosine with the right embedding 0.110, of two different images 1.000
#   (no names)               mean 127.5 std 127.5  cosine with the right embedding 0.110, of two different images 1.000
#   (no names), set by hand  mean   0.0 std   1.0  cosine with the right embedding 1.000, of two different images 0.139
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/v"; "$W/v/bin/pip" install -q --no-deps insightface==2.1
"$W/v/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==4.12.0.88 scikit-image==0.26.0 \
    requests==2.34.2 tqdm==4.70.1 2> /dev/null
cat > "$W/run.py" <<'P'
import sys
import cv2, numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from insightface.model_zoo import get_model
rng = np.random.default_rng(0)
weights = {"mean": np.full(1, 127.5), "scale": np.full(1, 1 / 127.5), "w": rng.normal(size=(8, 3, 7, 7)) / 12,
           "b": rng.normal(size=8) / 10, "fc": rng.normal(size=(64, 8 * 16 * 16)) / 45}
weights = [numpy_helper.from_array(value.astype("f4"), name) for name, value in weights.items()]
info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
def write(sub, mul):
    nodes = [helper.make_node("Sub", ["x", "mean"], ["s"], name=sub), helper.make_node("Mul", ["s", "scale"], ["m"], name=mul),
             helper.make_node("Conv", ["m", "w", "b"], ["c"], strides=[7, 7]), helper.make_node("Relu", ["c"], ["r"]),
             helper.make_node("Flatten", ["r"], ["f"]), helper.make_node("Gemm", ["f", "fc"], ["y"], transB=1)]
    graph = helper.make_graph(nodes, "g", [info("x", ["batch", 3, 112, 112])], [info("y", ["batch", 64])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{sys.argv[1]}/f.onnx")
    return get_model(f"{sys.argv[1]}/f.onnx", providers=["CPUExecutionProvider"])
images = [cv2.resize(rng.integers(0, 256, (8, 8, 3), "u1"), (112, 112)) for _ in range(2)]
def report(text, model):
    print(f"{text:24} mean {model.input_mean:5} std {model.input_std:5}", end="  ")
    found = np.concatenate([model.get_feat(image) for image in images])
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    to_right, between = float(found[0] @ right[0]), float(found[0] @ found[1])
    print(f"cosine with the right embedding {to_right:.3f}, of two different images {between:.3f}")
    return to_right, between
model = write("Sub_0", "Mul_1")
session = ort.InferenceSession(f"{sys.argv[1]}/f.onnx", providers=["CPUExecutionProvider"])
right = session.run(None, {"x": np.stack([image[..., ::-1].transpose(2, 0, 1) for image in images]).astype("f4")})[0]
right /= np.linalg.norm(right, axis=1, keepdims=True)
to_right, between = report("Sub_0, Mul_1", model)
as_before = to_right > 0.999 and between < 0.8
for sub, mul in (("/Sub", "/Mul"), ("node_sub", "node_mul"), ("", "")):
    model = write(sub, mul)
    to_right, between = report(f"{sub}, {mul}" if sub else "(no names)", model)
    as_before &= to_right < 0.8 and between > 0.99
model.input_mean, model.input_std = 0.0, 1.0
as_before &= report("(no names), set by hand", model)[0] > 0.999
sys.exit(not as_before)
P
OMP_NUM_THREADS=1 "$W/v/bin/python" "$W/run.py" "$W"
