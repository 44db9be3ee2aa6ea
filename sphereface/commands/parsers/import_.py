"""Convert published weights to a checkpoint, for evaluation, fine-tuning and embedding.

    sphereface import backbone.pth arcface-r50.pt
    sphereface import adaface_ir50_ms1mv2.ckpt adaface-r50.pt --names identities.txt
    sphereface import cvlface_adaface_ir50_ms1mv2 cvlface-r50.pt         # a Hugging Face folder
    sphereface import backbone.pth sfnet20.pt --publisher opensphere --head head.pth
    sphereface import sphereface_model.caffemodel sphereface-caffe.pt

The command recognises the publisher by the contents of FILE: Caffe and PyTorch SphereFace,
arcface_torch, AdaFace, CVLface, MagFace, OpenSphere, yakhyo/face-recognition. The checkpoint
records the channel order and scale that the network reads, and every command uses them. The command
runs no code in FILE. docs/pretrained.md lists the published files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ...choices import PUBLISHERS
from ...input_spec import ORDERS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, help="the published weights, or a Hugging Face folder of CVLface")
    add("output", metavar="OUT.pt", type=Path, help="the checkpoint to write")
    add("--publisher", choices=PUBLISHERS, help="publisher (default: recognised by the contents of FILE)")
    help_text = "files with the head, in order of their ranks"
    add("--head", metavar="FILE", type=Path, nargs="+", action="extend", default=[], help=help_text)
    add("--names", metavar="FILE", type=Path, help="names of the identities of the head, one on each line")
    help_text = "size of the crops, if FILE does not fix it (default: 112x96 or 112x112, as published)"
    add("--input-size", metavar="HxW", help=help_text)
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--order", choices=ORDERS, help="channel order that the network reads (default: as published)")
    order.add_argument("--rgb", dest="order", action="store_const", const="rgb", help="the same as --order rgb")
    help_text = "subtract this from a pixel of 0 to 255: one number or three (default: as published)"
    add("--mean", metavar="M", help=help_text)
    add("--std", metavar="S", help="then divide by this: one number or three (default: as published)")
