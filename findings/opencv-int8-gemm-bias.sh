#!/bin/bash
# OpenCV 4 computes an 8-bit linear layer with a bias right for the first row of a batch only, and says nothing.
#
# Versions: opencv-python-headless 4.10.0.84 and 4.12.0.88, onnx 1.23.2, onnxruntime 1.32.0 (writes the 8-bit file),
# Python 3.11, x86-64 Linux. Seen on 2026-11-28.
# One would guess: cv2.dnn gives the rows of a batch what it gives each row alone, as onnxruntime does.
# What happens: a QDQ Gemm with a bias: row 0 agrees with onnxruntime to 8-bit accuracy, every further row is far off.
#   Without the bias all rows are right. A bias of zeros hides the fault, so a
#   network that was never trained passes every test.
# Who is hurt: everybody who runs an 8-bit ONNX network that ends in a linear layer on more than one image at a time:
#   in face recognition the second and all later embeddings of a batch are nonsense.
# Way out: quantise a Gemm without bias and add the bias in a separate Add in float32; or feed one image at a time.
#   OpenCV 5.0.0.93 refuses the layer with a bias instead of computing it.
# Output seen (differences from onnxruntime, relative to the largest output; one row a column):
#   4.10.0 with bias  [0.   0.91 0.9  0.9 ]
#   4.10.0 bias apart [0. 0. 0. 0.]
#   4.12.0 with bias  [0.   0.91 0.9  1.29]
#   4.12.0 bias apart [0. 0. 0. 0.]
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/a"; "$W/a/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==4.10.0.84
python3 -m venv "$W/b"; "$W/b/bin/pip" install -q opencv-python-headless==4.12.0.88
cat > "$W/make.py" <<'P'
import logging
import sys
import numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
logging.disable(logging.WARNING)
folder, rng = sys.argv[1], np.random.default_rng(0)
w, b = rng.normal(size=(8, 32)).astype("f4"), rng.normal(size=8).astype("f4") * 20
x = rng.normal(size=(4, 32)).astype("f4")
info = lambda name, n: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n])
weights = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")]
class Reader:
    def __init__(self): self.left = iter([{"x": x}])
    def get_next(self): return next(self.left, None)
for name, nodes in {
    "bias": [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="g", transB=1)],
    "apart": [helper.make_node("Gemm", ["x", "w"], ["h"], name="g", transB=1), helper.make_node("Add", ["h", "b"], ["y"], name="add")],
}.items():
    graph = helper.make_graph(nodes, "g", [info("x", 32)], [info("y", 8)], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), f"{folder}/f.onnx")
    quantize_static(f"{folder}/f.onnx", f"{folder}/{name}.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, nodes_to_exclude=["add"])
    session = ort.InferenceSession(f"{folder}/{name}.onnx", providers=["CPUExecutionProvider"])
    np.savez(f"{folder}/{name}.npz", x=x, y=session.run(None, {"x": x})[0])
P
cat > "$W/run.py" <<'P'
import sys
import cv2, numpy as np
as_before = True
for name, text in (("bias", "with bias "), ("apart", "bias apart")):
    data, net = np.load(f"{sys.argv[1]}/{name}.npz"), cv2.dnn.readNetFromONNX(f"{sys.argv[1]}/{name}.onnx")
    net.setInput(data["x"])
    off = np.abs(net.forward() - data["y"]).max(axis=1) / np.abs(data["y"]).max()
    print(cv2.__version__, text, off.round(2))
    as_before &= off[0] < 0.05 and (off[1:].min() > 0.3 if name == "bias" else off.max() < 0.05)
sys.exit(not as_before)
P
"$W/a/bin/python" "$W/make.py" "$W"
"$W/a/bin/python" "$W/run.py" "$W"
"$W/b/bin/python" "$W/run.py" "$W"
