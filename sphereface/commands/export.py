"""Export a checkpoint for programs without this package, with a model card.

    sphereface export best.pt --format onnx                          # feeds: NHWC, uint8, BGR
    sphereface export best.pt --format onnx --order rgb
    sphereface export best.pt --format onnx --layout nchw --dtype float32    # for OpenCV's dnn: blobFromImages(crops)
    sphereface export best.pt --format onnx --dtype float16          # half precision, half the size
    sphereface export best.pt --format onnx --batch 1                # a fixed batch size, for phones
    sphereface export best.pt --format onnx --mirror join            # with the mirror image, as the evaluation does
    sphereface export best.pt --format onnx --int8 data/crops        # and best-int8.onnx, ranges from these crops
    sphereface export best.pt --format torchscript --output face.torchscript
    sphereface export best.pt --format safetensors                   # the weights alone

Normalisation is inside (not in safetensors, which hold no graph): feed pixels from 0 to 255. The batch size is free
unless --batch fixes it. The command runs every file and compares it with PyTorch. OUTPUT.md is its model card.
docs/deploy.md lists the options that each runtime needs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..export.card import CARD_MARK, Exported, Quantised, card
from ..export.formats import DEFAULT_OPSET, Export, check_embeddings, write_onnx, write_safetensors, write_torchscript
from ..export.graph import DTYPES, LAYOUTS, MIRRORS, ORDERS, InputFormat, example_crops, expected
from ..export.onnx_graph import IR_VERSIONS
from ..export.quantise import calibration_crops, quantise
from ..files import sha256_of, write_whole
from ..models import LoadedModel, load_model
from ..models.loading import sizes_seen
from ..small_files import check_replaceable
from .checkpoint_option import HELP, checkpoint_path
from .parser import new_parser

SUFFIXES = {"onnx": (".onnx",), "torchscript": (".torchscript", ".ts"), "safetensors": (".safetensors",)}
"""Of the files, by format."""
_SHA256 = "checkpoint_sha256"
_MARK = _SHA256.encode()  # in every exported file, as the name of an entry


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "export", program)
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", type=checkpoint_path, help=HELP)
    add("--format", choices=list(SUFFIXES), required=True)
    add("--output", metavar="FILE", type=Path, help="default: the checkpoint's name with .onnx, .torchscript, …")
    add("--order", choices=ORDERS, default="bgr", help="channel order of the pixels that you feed (%(default)s)")
    add("--layout", choices=LAYOUTS, default="nhwc", help="layout of the pixels that you feed (%(default)s)")
    help_text = "type of the pixels that you feed, 0 to 255; float16: the network is in half precision (%(default)s)"
    add("--dtype", choices=DTYPES, default="uint8", help=help_text)
    add(
        "--mirror",
        choices=MIRRORS,
        default="none",
        help="add or append the embedding of the mirror image (%(default)s)",
    )
    add("--batch", metavar="N", type=int, help="fix the batch size; default: any batch size")
    help_text = f"of ONNX, {min(IR_VERSIONS)} to {max(IR_VERSIONS)}; older runtimes read older ones ({DEFAULT_OPSET})"
    add("--opset", metavar="N", type=int, help=help_text)
    add("--int8", metavar="DIR", type=Path, help="with onnx: an 8-bit copy too; DIR: aligned crops to take ranges from")
    add("--licence", metavar="TEXT", help="of the weights, for the card")
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None, program: str = "sphereface export") -> int:
    """Export, compare, write the card."""
    args = parse(argv, program)
    output = _checked(args)
    loaded = load_model(args.checkpoint)
    opset = DEFAULT_OPSET if args.opset is None else args.opset
    export = Export(
        loaded.model, InputFormat(args.order, args.layout, args.dtype), args.mirror, batch=args.batch, opset=opset
    )
    check_embeddings(expected(loaded.model, example_crops(export.size)), args.checkpoint)
    crops = calibration_crops(args.int8, loaded.input_size) if args.int8 else None
    sha256 = sha256_of(args.checkpoint)
    difference = _write(export, loaded, output, args.format, sha256)
    if difference is None:
        print(f"{output}: weights")
    else:
        print(f"{output}: {export.form.describe(export.size, export.batch)}")
        print(f"largest difference from PyTorch: {difference:.1e} of the largest number")
    quantised = None
    if crops is not None:
        path = _int8_path(output)
        quantised = Quantised(path, quantise(export, output, path, crops))
        print(
            f"{path}: in 8-bit integers, ranges from {len(crops)} crops · smallest cosine with PyTorch "
            f"{quantised.cosine:.3f} · evaluate it before you use it"
        )
    about = Exported(
        output, args.format, export, args.checkpoint, sha256, loaded.meta, difference, args.licence, quantised
    )
    path = _card_path(output)
    try:
        write_whole(path, card(about))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    print(f"model card: {path}")
    return 0


def _checked(args: argparse.Namespace) -> Path:
    """Refuse options that do not go together; return the file to write."""
    if args.int8 and args.format != "onnx":
        raise UserError(f"--int8: got --format {args.format} · allowed: onnx")
    if args.int8 and args.dtype == "float16":
        raise UserError("--int8: got --dtype float16 · allowed: uint8, float32 · export the two files one by one")
    if args.opset is not None and args.format != "onnx":
        raise UserError(f"--opset: got --format {args.format} · allowed: onnx · leave --opset out")
    if args.opset is not None and args.opset not in IR_VERSIONS:
        allowed = f"{min(IR_VERSIONS)} to {max(IR_VERSIONS)}"
        raise UserError(f"--opset: got {args.opset} · allowed: {allowed} · leave it out for {DEFAULT_OPSET}")
    if args.batch is not None and args.batch < 1:
        raise UserError(f"--batch: got {args.batch} · allowed: 1 or more · leave it out for any batch size")
    plain = InputFormat(args.order, args.layout, args.dtype) == InputFormat()
    if args.format == "safetensors" and not (plain and args.mirror == "none" and args.batch is None):
        raise UserError(
            "--order, --layout, --dtype, --mirror, --batch: safetensors hold the weights alone, without a graph · "
            "leave them out"
        )
    output: Path = args.output or args.checkpoint.with_suffix(f".{args.format}")
    if output.is_dir():
        raise UserError(f"--output: got the folder {output} · allowed: the name of a file")
    if output.suffix.lower() not in (allowed_suffixes := SUFFIXES[args.format]):
        raise UserError(f"--output: got {output} · allowed: a name that ends in {' or '.join(allowed_suffixes)}")
    for path in (output, *([_int8_path(output)] if args.int8 else [])):
        check_replaceable(path, _MARK, "--output")
    check_replaceable(_card_path(output), CARD_MARK.encode(), "--output")
    return output


def _int8_path(output: Path) -> Path:
    return output.with_name(f"{output.stem}-int8{output.suffix}")


def _card_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.md")


def _write(export: Export, loaded: LoadedModel, path: Path, file_format: str, sha256: str) -> float | None:
    """Write the file; return the largest difference from PyTorch, where it can be run."""
    about = {
        _SHA256: sha256,
        "step": str(loaded.meta.get("step")),
        "model": json.dumps(loaded.meta["config"]["model"]),
        "seen_size": json.dumps(sizes_seen(loaded.model)),
    }
    if file_format == "safetensors":
        spec = loaded.model.input_spec
        write_safetensors(loaded.model, path, {**about, "input": spec.describe().replace("−", "-")})
        return None
    write = write_onnx if file_format == "onnx" else write_torchscript
    about |= {"input": export.form.describe(export.size, export.batch), "mirror": export.mirror}
    return write(export, path, about)
