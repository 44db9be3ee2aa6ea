"""The options of ``sphereface eval`` that choose the network, or the table, to evaluate."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..input_spec import ORDERS
from ..onnx_input import LAYOUTS, MIRRORS, PRESETS
from .checkpoint_option import HELP, checkpoint_path


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--ckpt``, ``--embeddings``, ``--onnx``, ``--compare`` and their further options."""
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--ckpt", metavar="FILE", type=checkpoint_path, help=HELP)
    which.add_argument("--onnx", metavar="FILE", type=Path, help="a network in an ONNX file")
    help_text = "a table of names and embeddings; it needs no images"
    which.add_argument("--embeddings", metavar="FILE.npz", type=Path, help=help_text)
    help_text = "test whether B is better than A; each is a checkpoint, an ONNX file or a table"
    which.add_argument("--compare", metavar=("A", "B"), type=checkpoint_path, nargs=2, help=help_text)
    add("--mirror", choices=MIRRORS, help="add or join the embeddings of the mirror images (join, or as in --spec)")
    add("--no-flip", dest="mirror", action="store_const", const="none", help="the same as --mirror none")
    add("--spec", choices=list(PRESETS), help="input of the ONNX file: that of this publisher's networks")
    add("--size", metavar="HxW", help="size of the crops that the ONNX file reads, if the file does not fix it")
    add("--layout", choices=LAYOUTS, help="layout of the ONNX file's input, if its shape is ambiguous")
    add("--order", choices=ORDERS, help="channel order that the ONNX file reads")
    add(
        "--mean",
        dest="pixel_mean",
        metavar="M",
        help="for the ONNX file, subtract this from a pixel of 0 to 255: one number or three",
    )
    add("--std", dest="pixel_std", metavar="S", help="then divide by this: one number or three")
    add("--input", metavar="NAME", help="input of the ONNX file, if it has several")
    add("--output-name", metavar="NAME", help="output of the ONNX file with the embeddings, if it has several")
    add("--no-cache", action="store_true", help="do not store the embeddings beside the file")
    add("--device", help="auto, cuda, mps, cpu or cuda:N (auto)")
    add("--precision", choices=["fp32", "bf16"], help="precision of a checkpoint's network (fp32)")
    add("--batch-size", metavar="N", type=int, help="number of crops in a batch (64)")
