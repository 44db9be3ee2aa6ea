"""Export a checkpoint for programs without this package, with a model card.

    sphereface export best.pt --format onnx                          # feeds: NHWC, uint8, BGR
    sphereface export best.pt --format onnx --order rgb
    sphereface export best.pt --format onnx --layout nchw --dtype float32    # for OpenCV's dnn: blobFromImages(crops)
    sphereface export best.pt --format onnx --int8 data/crops        # and best-int8.onnx, ranges from these crops
    sphereface export best.pt --format torchscript --output face.torchscript
    sphereface export best.pt --format safetensors                   # the weights alone

Normalisation is inside (not in safetensors, which hold no graph): feed pixels from 0 to 255. The batch is free.
Every file is run and compared with PyTorch once written. OUTPUT.md is its model card.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..checkpoint import sha256_of
from ..errors import UserError
from ..export.card import Exported, card
from ..export.formats import write_onnx, write_safetensors, write_torchscript
from ..export.graph import DTYPES, LAYOUTS, ORDERS, InputFormat, PixelsToEmbedding
from ..export.quantise import calibration_crops, quantise
from ..files import write_whole
from ..models import LoadedModel, load_model
from .parser import new_parser

FORMATS = ("onnx", "torchscript", "safetensors")


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "export", program)
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", type=Path, help="such as runs/…/best.pt")
    add("--format", choices=FORMATS, required=True)
    add("--output", metavar="FILE", type=Path, help="default: the checkpoint's name with .onnx, .torchscript, …")
    add("--order", choices=ORDERS, default="bgr", help="of the channels that are fed (%(default)s)")
    add("--layout", choices=LAYOUTS, default="nhwc", help="of the pixels that are fed (%(default)s)")
    add("--dtype", choices=DTYPES, default="uint8", help="of the pixels that are fed, 0 to 255 (%(default)s)")
    add("--int8", metavar="DIR", type=Path, help="with onnx: an 8-bit copy too; DIR: aligned crops to take ranges from")
    add("--licence", metavar="TEXT", help="of the weights, for the card")
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None, program: str = "sphereface export") -> int:
    """Export, compare, write the card."""
    args = parse(argv, program)
    form = InputFormat(args.order, args.layout, args.dtype)
    if args.int8 and args.format != "onnx":
        raise UserError(f"--int8: got --format {args.format} · allowed: onnx")
    if args.format == "safetensors" and form != InputFormat():
        raise UserError("--order, --layout, --dtype: safetensors hold weights alone, fed by nobody · leave them out")
    output: Path = args.output or args.checkpoint.with_suffix(f".{args.format}")
    if output.suffix == ".pt" or output.resolve() == args.checkpoint.resolve():
        raise UserError(f"--output: got {output} · allowed: a name that does not end in .pt, as checkpoints do")
    loaded = load_model(args.checkpoint)
    crops = calibration_crops(args.int8, loaded.input_size) if args.int8 else None
    sha256 = sha256_of(args.checkpoint)
    difference = _write(loaded, form, output, args.format, sha256)
    print(f"{output}: {'weights' if difference is None else form.describe(loaded.input_size)}")
    if difference is not None:
        print(f"largest difference from PyTorch: {difference:.1e} of the largest number")
    quantised = output.with_name(f"{output.stem}-int8{output.suffix}") if crops is not None else None
    if crops is not None and quantised is not None:
        quantise(output, quantised, crops, form)
        print(f"{quantised}: in 8-bit integers, ranges from {len(crops)} crops · evaluate it before you use it")
    about = Exported(
        output, None if args.format == "safetensors" else form, args.checkpoint, sha256, loaded.meta,
        loaded.input_size, loaded.model.embedding_dim, args.licence, quantised,
    )  # fmt: skip
    path = output.with_name(f"{output.name}.md")
    try:
        write_whole(path, card(about))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    print(f"model card: {path}")
    return 0


def _write(loaded: LoadedModel, form: InputFormat, path: Path, file_format: str, sha256: str) -> float | None:
    """Write the file; the largest difference from PyTorch, where it can be run."""
    graph, size = PixelsToEmbedding(loaded.model, form).eval(), loaded.input_size
    about = {
        "checkpoint_sha256": sha256,
        "step": str(loaded.meta.get("step")),
        "model": json.dumps(loaded.meta["config"]["model"]),
    }
    if file_format == "safetensors":
        write_safetensors(graph, path, {**about, "input": "(B, 3, H, W) float32 = (pixel - 127.5) / 128, BGR"})
        return None
    write = write_onnx if file_format == "onnx" else write_torchscript
    return write(graph, size, path, {**about, "input": form.describe(size)})
