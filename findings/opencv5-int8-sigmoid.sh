#!/bin/bash
# OpenCV 5 computes an 8-bit convolution that a sigmoid follows wrong, and says nothing; OpenCV 4 computes it right.
#
# Versions: opencv-python-headless 5.0.0.93 and 4.12.0.88, onnx 1.23.2, onnxruntime 1.32.0 (writes the 8-bit file),
# Python 3.11, x86-64 Linux. Seen on 2026-11-28.
# One would guess: cv2.dnn gives what onnxruntime gives, up to 8-bit rounding, as it does for the same convolution with
#   ReLU or without an activation, and as OpenCV 4 does.
# What happens: with QDQ nodes about Conv and Sigmoid, the output is far off, for a single image too.
# Who is hurt: everybody who runs an 8-bit ONNX network with squeeze-and-excitation or SiLU (EfficientNet, MobileNetV3,
#   SE-ResNet, AdaFace's IR-SE) in OpenCV 5, or moves one from OpenCV 4.
# Way out: leave the convolution before the sigmoid in float32 (nodes_to_exclude of quantize_static), or load the file
#   with cv2.dnn.readNetFromONNX(path, engine=cv2.dnn.ENGINE_CLASSIC), which gave a difference of 0.000 on 2026-11-29.
# Output seen (largest difference from onnxruntime, relative to the largest output):
#   4.12.0 Conv                     0.000
#   4.12.0 Conv, Relu               0.000
#   4.12.0 Conv, Sigmoid            0.000
#   4.12.0 Conv in float32, Sigmoid 0.000
#   5.0.0 Conv                     0.000
#   5.0.0 Conv, Relu               0.000
#   5.0.0 Conv, Sigmoid            0.949
#   5.0.0 Conv in float32, Sigmoid 0.000
# Exit status: 0 as long as this is so, 1 when it changes.
set -euo pipefail
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
python3 -m venv "$W/a"; "$W/a/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 opencv-python-headless==5.0.0.93
python3 -m venv "$W/b"; "$W/b/bin/pip" install -q opencv-python-headless==4.12.0.88
cat > "$W/make.py" <<'P'
import logging, sys
import numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
logging.disable(logging.WARNING)
folder, rng = sys.argv[1], np.random.default_rng(0)
x, w = rng.normal(size=(2, 3, 12, 12)).astype("f4"), (rng.normal(size=(16, 3, 3, 3)) * 0.3).astype("f4")
info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
class Reader:
    def __init__(self): self.left = iter([{"x": x}])
    def get_next(self): return next(self.left, None)
for name, kind, left_out in (("conv", None, []), ("relu", "Relu", []), ("sigmoid", "Sigmoid", []), ("float", "Sigmoid", ["c"])):
    nodes = [helper.make_node("Conv", ["x", "w"], ["c" if kind else "y"], name="c", kernel_shape=[3, 3], pads=[1] * 4)]
    nodes += [helper.make_node(kind, ["c"], ["y"], name="a")] if kind else []
    graph = helper.make_graph(nodes, "g", [info("x", ["b", 3, 12, 12])], [info("y", ["b", 16, 12, 12])], [numpy_helper.from_array(w, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), f"{folder}/f.onnx")
    quantize_static(f"{folder}/f.onnx", f"{folder}/{name}.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, nodes_to_exclude=left_out)
    y = ort.InferenceSession(f"{folder}/{name}.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.savez(f"{folder}/{name}.npz", x=x, y=y)
P
cat > "$W/run.py" <<'P'
import sys
import cv2, numpy as np
as_before, five = True, cv2.__version__.startswith("5")
texts = {"conv": "Conv", "relu": "Conv, Relu", "sigmoid": "Conv, Sigmoid", "float": "Conv in float32, Sigmoid"}
for name, text in texts.items():
    data, net = np.load(f"{sys.argv[1]}/{name}.npz"), cv2.dnn.readNetFromONNX(f"{sys.argv[1]}/{name}.onnx")
    net.setInput(data["x"])
    off = np.abs(net.forward() - data["y"]).max() / np.abs(data["y"]).max()
    print(cv2.__version__, f"{text:24} {off:.3f}")
    as_before &= bool(off > 0.3 if five and name == "sigmoid" else off < 0.05)
sys.exit(not as_before)
P
"$W/a/bin/python" "$W/make.py" "$W" 2> /dev/null
"$W/b/bin/python" "$W/run.py" "$W"
"$W/a/bin/python" "$W/run.py" "$W"
