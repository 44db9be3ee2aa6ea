#!/bin/bash
# OpenCV 5's new engine computes the last pixels of a small map wrong in an 8-bit convolution where a thread gets few
# channels, without an error: one network gives right embeddings in one thread and wrong ones in 64.
#
# Versions: opencv-python-headless 5.0.0.93 and 4.12.0.88, onnx 1.23.2, onnxruntime 1.32.0 (writes the 8-bit file),
# Python 3.11, x86-64 Linux on an Intel Xeon with AVX-512 and AMX. Seen on 2026-11-29.
# One would guess: cv2.dnn gives the same as onnxruntime, up to 8-bit rounding, for any number of threads.
# What happens: of a map whose number of pixels is no multiple of 8, such as 7×7, the last ones are off by as much as
#   the largest output, once the channels of a thread are few: 32 channels in 8 threads, 64 in 16, 512 in 64. With one
#   thread they are right. The engine is the default of OpenCV 5.
# Who is hurt: everybody who runs an 8-bit ONNX network in OpenCV 5 on a machine with many cores, or a small one on any:
#   face recognisers and classifiers end in maps of 7×7. Tests on a laptop do not show it. On another kind of processor
#   (AMD EPYC, Zen 5) the tests of this project's small networks passed with the same wheel.
# Way out: cv2.dnn.readNetFromONNX(path, engine=cv2.dnn.ENGINE_CLASSIC), or OpenCV 4.
# Output seen (largest difference from onnxruntime, relative to the largest output):
#   5.0.0 new       32 channels,  1 threads  0.000    5.0.0 new       32 channels,  8 threads  1.341
#   5.0.0 new       64 channels,  1 threads  0.000    5.0.0 new       64 channels, 16 threads  1.112
#   5.0.0 new      512 channels,  1 threads  0.000    5.0.0 new      512 channels, 64 threads  1.457
#   5.0.0 classic and 4.12.0: 0.000 in all six
# Exit status: 0 as long as this is so, 1 when it changes (or on a processor where it does not happen).
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
folder = sys.argv[1]
for channels in (32, 64, 512):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, channels, 7, 7)).astype("f4")
    w = (rng.normal(size=(channels, channels, 3, 3)) * 0.3).astype("f4")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1] * 4)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    class Reader:
        left = iter([{"x": x}])
        def get_next(self): return next(self.left, None)
    onnx.save(model, f"{folder}/float.onnx")
    quantize_static(f"{folder}/float.onnx", f"{folder}/{channels}.onnx", Reader(), quant_format=QuantFormat.QDQ,
                    activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)
    y = ort.InferenceSession(f"{folder}/{channels}.onnx").run(None, {"x": x})[0]
    np.savez(f"{folder}/{channels}.npz", x=x, y=y)
P
cat > "$W/run.py" <<'P'
import sys
import cv2, numpy as np
folder, engine = sys.argv[1:]
how = {"new": ["ENGINE_NEW"], "classic": ["ENGINE_CLASSIC"], "only": []}[engine]
off = {}
for channels, threads in ((32, 1), (32, 8), (64, 1), (64, 16), (512, 1), (512, 64)):
    data = np.load(f"{folder}/{channels}.npz")
    cv2.setNumThreads(threads)
    net = cv2.dnn.readNetFromONNX(f"{folder}/{channels}.onnx", *(getattr(cv2.dnn, name) for name in how))
    net.setInput(data["x"])
    off[channels, threads] = float(abs(net.forward() - data["y"]).max() / abs(data["y"]).max())
    print(f"  {cv2.__version__} {engine:8}{channels:4} channels,{threads:3} threads  {off[channels, threads]:.3f}")
wrong = [key for key, value in off.items() if value > 0.1]
sys.exit(wrong != ([(32, 8), (64, 16), (512, 64)] if engine == "new" else []))
P
"$W/a/bin/python" "$W/make.py" "$W"
"$W/a/bin/python" "$W/run.py" "$W" new && "$W/a/bin/python" "$W/run.py" "$W" classic && "$W/b/bin/python" "$W/run.py" "$W" only
