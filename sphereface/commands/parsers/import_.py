"""Turn published weights into a checkpoint: to evaluate, to fine-tune, to embed.

    sphereface import backbone.pth arcface-r50.pt
    sphereface import adaface_ir50_ms1mv2.ckpt adaface-r50.pt --names identities.txt
    sphereface import cvlface_adaface_ir50_ms1mv2 cvlface-r50.pt         # a Hugging Face folder
    sphereface import backbone_70000.pth sfnet20.pt --publisher opensphere-deprecated --head head_70000.pth
    sphereface import sphereface_model.caffemodel sphereface-caffe.pt

The publisher is recognised by the contents of FILE: Caffe and PyTorch SphereFace, arcface_torch,
AdaFace, CVLface, MagFace, OpenSphere, yakhyo/face-recognition. The channel order and scale that the
network reads are kept in the checkpoint, and every command uses them. No code in FILE is run.
docs/pretrained.md lists the published files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ...choices import PUBLISHERS
from ...input_spec import ORDERS
from ..parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "import", program)
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, help="the published weights, or a Hugging Face folder of CVLface")
    add("output", metavar="OUT.pt", type=Path, help="the checkpoint to write")
    add("--publisher", choices=PUBLISHERS, help="default: by the contents of FILE")
    add("--head", metavar="FILE", type=Path, nargs="+", default=[], help="files with the head, in order of their ranks")
    add("--names", metavar="FILE", type=Path, help="names of the identities of the head, one on each line")
    add("--input-size", metavar="HxW", help="of the images, where FILE does not tell (112x96, or 112x112)")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--order", choices=ORDERS, help="of the channels that the network reads (default: as published)")
    order.add_argument("--rgb", dest="order", action="store_const", const="rgb", help="the same as --order rgb")
    add("--mean", metavar="M", help="subtracted from a pixel of 0 to 255: one number or three (default: as published)")
    add("--std", metavar="S", help="by which the difference is divided (default: as published)")
    return parser.parse_args(argv)
