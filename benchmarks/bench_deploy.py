"""Run one export in other runtimes and compare each with PyTorch: the table of docs/deploy.md.

    # in this project's environment
    python benchmarks/bench_deploy.py make best.pt OUT --crops data/crops
    # in an environment with the runtime
    VENV/bin/python benchmarks/bench_deploy.py run onnxruntime OUT

`run` needs numpy and the runtime; it prints one table row for each file. A difference is the
largest one, divided by the largest number of PyTorch's embeddings. Runtimes: onnxruntime, opencv,
openvino and tract. mnn, ncnn and litert need converted files (docs/deploy.md has the commands). For
onnxruntime-web: node benchmarks/bench_deploy_web.mjs OUT.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]

FILES = {
    "nhwc": [],
    "nchw": ["--layout", "nchw", "--dtype", "float32"],
    "rgb": ["--layout", "nchw", "--dtype", "float32", "--order", "rgb"],
    "join": ["--layout", "nchw", "--dtype", "float32", "--mirror", "join"],
    "one": ["--layout", "nchw", "--dtype", "float32", "--batch", "1"],
    "half": ["--layout", "nchw", "--dtype", "float16"],
    "opset20": ["--layout", "nchw", "--dtype", "float32", "--opset", "20"],
}
"""The exports of `make`, with the options of each; "nchw" gets an 8-bit copy."""

COUNT = 5


def make(checkpoint: Path, folder: Path, crops_dir: Path) -> None:
    """Write the exports, five crops and PyTorch's embeddings of them."""
    from sphereface.cli import main as sphereface
    from sphereface.export.graph import expected
    from sphereface.export.quantise import calibration_crops
    from sphereface.models import load_model

    folder.mkdir(parents=True, exist_ok=True)
    loaded = load_model(checkpoint)
    crops = calibration_crops(crops_dir, loaded.input_size)[:COUNT]
    np.save(folder / "crops.npy", crops)  # (5, H, W, 3) uint8 BGR
    np.save(folder / "wanted.npy", expected(loaded.model, crops))
    np.save(folder / "wanted-join.npy", expected(loaded.model, crops, "join"))
    for name, options in FILES.items():
        int8 = ["--int8", str(crops_dir)] if name == "nchw" else []
        output = ["--output", str(folder / f"{name}.onnx")]
        sphereface(["export", str(checkpoint), "--format", "onnx", *output, *options, *int8])
    output = ["--output", str(folder / "nchw.torchscript"), *FILES["nchw"]]
    sphereface(["export", str(checkpoint), "--format", "torchscript", *output])


def feed(name: str, crops: np.ndarray) -> np.ndarray:
    """Convert crops (B, H, W, 3) uint8 BGR to the input of a file of `FILES`."""
    options = FILES[name.removesuffix("-int8")]
    pixels = crops[..., ::-1] if "rgb" in options else crops
    pixels = pixels.transpose(0, 3, 1, 2) if "nchw" in options else pixels
    dtype = next((kind for kind in ("float16", "float32") if kind in options), "uint8")
    return np.ascontiguousarray(pixels, dtype=dtype)


def onnxruntime(path: Path) -> Run:
    """Run in onnxruntime, the runtime of servers."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"images": pixels})[0]


def opencv(path: Path) -> Run:
    """Run in OpenCV's dnn, 8-bit files in its classic engine (docs/deploy.md)."""
    import cv2

    classic = "int8" in path.name and hasattr(cv2.dnn, "ENGINE_CLASSIC")
    net = cv2.dnn.readNetFromONNX(str(path), *([cv2.dnn.ENGINE_CLASSIC] if classic else []))

    def run(pixels: np.ndarray) -> np.ndarray:
        net.setInput(pixels)
        return net.forward()

    return run


def openvino(path: Path) -> Run:
    """Run in OpenVINO with its default settings."""
    import openvino as ov

    model = ov.Core().compile_model(str(path), "CPU")
    return lambda pixels: model(pixels)[0]


def openvino_f32(path: Path) -> Run:
    """Run in OpenVINO in float32."""
    import openvino as ov

    model = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pixels: model(pixels)[0]


def tract(path: Path) -> Run:
    """Run in tract, with a fixed batch size."""
    import tract as t

    def run(pixels: np.ndarray) -> np.ndarray:
        model = t.onnx().load(str(path))
        kind = {"uint8": "u8", "float32": "f32", "float16": "f16"}[str(pixels.dtype)]
        model.set_input_fact(0, ",".join(map(str, pixels.shape)) + f",{kind}")
        (found,) = model.into_model().into_runnable().run([pixels])
        return found.to_numpy()

    return run


def mnn(path: Path) -> Run:
    """Run in MNN: OUT/NAME.mnn."""
    import MNN

    def run(pixels: np.ndarray) -> np.ndarray:
        net = MNN.nn.load_module_from_file(str(path.with_suffix(".mnn")), ["images"], ["embedding"])
        given = MNN.expr.placeholder(list(pixels.shape), MNN.expr.NCHW)
        given.write(pixels)
        return np.array(net.forward([given])[0].read())

    return run


def ncnn(path: Path, half: bool = True) -> Run:
    """Run in ncnn: OUT/nchw.ncnn.param, one crop at a time."""
    import ncnn as n

    net = n.Net()
    if not half:
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = False
    net.load_param(str(path.with_name(f"{path.stem}.ncnn.param")))
    net.load_model(str(path.with_name(f"{path.stem}.ncnn.bin")))

    def run(pixels: np.ndarray) -> np.ndarray:
        rows = []
        for crop in pixels:
            extractor = net.create_extractor()
            extractor.input("in0", n.Mat(crop).clone())
            rows.append(np.array(extractor.extract("out0")[1]))
        return np.stack(rows)

    return run


def ncnn_f32(path: Path) -> Run:
    """Run in ncnn in float32."""
    return ncnn(path, half=False)


def litert(path: Path) -> Run:
    """Run in LiteRT: OUT/one_float32.tflite of onnx2tf, one NHWC crop at a time."""
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(str(path.with_name("one_float32.tflite")), num_threads=1)
    net.allocate_tensors()
    (given,), (got,) = net.get_input_details(), net.get_output_details()

    def run(pixels: np.ndarray) -> np.ndarray:
        rows = []
        for crop in pixels:
            nhwc = list(given["shape"])[3] == 3
            net.set_tensor(given["index"], (crop.transpose(1, 2, 0) if nhwc else crop)[None].copy())
            net.invoke()
            rows.append(net.get_tensor(got["index"])[0].copy())
        return np.stack(rows)

    return run


RUNTIMES: dict[str, tuple[Callable[[Path], Run], str, Sequence[str]]] = {
    "onnxruntime": (onnxruntime, "onnxruntime", ("nhwc", "nchw", "rgb", "join", "one", "half", "opset20", "nchw-int8")),
    "opencv": (opencv, "opencv-python-headless", ("nchw", "rgb", "join", "one", "half", "opset20", "nchw-int8")),
    "openvino": (openvino, "openvino", ("nhwc", "nchw", "rgb", "join", "one", "half", "nchw-int8")),
    "openvino-f32": (openvino_f32, "openvino", ("nhwc", "nchw", "rgb", "join", "one", "half", "nchw-int8")),
    "tract": (tract, "tract", ("nhwc", "nchw", "rgb", "join", "one", "half", "nchw-int8")),
    "mnn": (mnn, "MNN", ("nchw", "rgb", "join", "one")),
    "ncnn": (ncnn, "ncnn", ("nchw",)),
    "ncnn-f32": (ncnn_f32, "ncnn", ("nchw",)),
    "litert": (litert, "ai-edge-litert", ("one",)),
}
"""For each runtime: a function of a file, the package with its version, the files to try."""


def rows(runtime: str, folder: Path) -> Iterator[str]:
    """Yield a table row for each file: differences of batches of one and of five, or the error."""
    load, package, names = RUNTIMES[runtime]
    crops = np.load(folder / "crops.npy")
    version = importlib.metadata.version(package)
    for name in names:
        wanted = np.load(folder / ("wanted-join.npy" if name == "join" else "wanted.npy"))
        cells = [_difference(load, folder / f"{name}.onnx", name, crops[:count], wanted) for count in (1, len(crops))]
        yield f"| {runtime} {version} | {name} | {cells[0]} | {cells[1]} |"


def _difference(load: Callable[[Path], Run], path: Path, name: str, crops: Any, wanted: np.ndarray) -> str:
    try:
        found = np.asarray(load(path)(feed(name, crops)), dtype=np.float32)
    except Exception as error:  # an exception of a runtime is a result too
        return f"refused: {str(error).strip().splitlines()[-1][:90] if str(error) else type(error).__name__}"
    if found.shape != wanted[: len(crops)].shape:
        return f"shape {found.shape}"
    worst = np.abs(found - wanted[: len(crops)]).max(axis=1) / np.abs(wanted).max()
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted[: len(crops)], axis=1)
    cosines = (found * wanted[: len(crops)]).sum(axis=1) / lengths
    low = f", cosine {cosines.min():.3f}" if worst.max() > 1e-2 else ""
    return f"{worst.max():.0e}{low}"


def main(argv: Sequence[str] | None = None) -> int:
    """Make the files, or run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("checkpoint", type=Path)
    making.add_argument("folder", type=Path)
    making.add_argument(
        "--crops", type=Path, required=True, help="aligned crops for the 8-bit ranges and the comparison"
    )
    running = commands.add_parser("run")
    running.add_argument("runtime", choices=RUNTIMES)
    running.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    if args.command == "make":
        make(args.checkpoint, args.folder, args.crops)
        return 0
    for row in rows(args.runtime, args.folder):
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
