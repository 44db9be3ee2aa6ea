"""Options of ``sphereface eval`` that say whose embeddings are evaluated."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..input_spec import ORDERS
from ..onnx_input import LAYOUTS, MIRRORS, PRESETS
from .checkpoint_option import HELP, checkpoint_path


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--ckpt``, ``--embeddings``, ``--onnx``, ``--compare`` and what belongs to them."""
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--ckpt", metavar="FILE", type=checkpoint_path, help=HELP)
    which.add_argument("--onnx", metavar="FILE", type=Path, help="network in an ONNX file")
    which.add_argument("--embeddings", metavar="FILE.npz", type=Path, help="table of names and embeddings; no images")
    help_text = "does B beat A? Each a checkpoint, an ONNX file or a table"
    which.add_argument("--compare", metavar=("A", "B"), type=checkpoint_path, nargs=2, help=help_text)
    add("--mirror", choices=MIRRORS, help="add or join the mirror images' embeddings (join, or as --spec has it)")
    add("--no-flip", dest="mirror", action="store_const", const="none", help="the same as --mirror none")
    add("--spec", choices=list(PRESETS), help="what the ONNX file reads: the input of this publisher's networks")
    add("--size", metavar="HxW", help="of the crops that the ONNX file reads, where it does not say so")
    add("--layout", choices=LAYOUTS, help="of the ONNX file's input, where its shape does not tell")
    add("--order", choices=ORDERS, help="of the channels that the ONNX file reads")
    add(
        "--mean",
        dest="pixel_mean",
        metavar="M",
        help="subtracted from a pixel of 0 to 255 for the ONNX file: one number or three",
    )
    add("--std", dest="pixel_std", metavar="S", help="then divides it: one number or three")
    add("--input", metavar="NAME", help="of the ONNX file, where it has several")
    add("--output-name", metavar="NAME", help="output of the ONNX file that holds embeddings, where it has several")
    add("--no-cache", action="store_true", help="do not keep embeddings beside the file")
    add("--device", help="auto, cuda, mps, cpu or cuda:N (auto)")
    add("--precision", choices=["fp32", "bf16"], help="of a checkpoint's network (fp32)")
    add("--batch-size", metavar="N", type=int, help="crops at a time (64)")
