"""Align a folder of photographs to face crops, from a file of five landmarks a picture.

    python scripts/align_faces.py --landmarks lfw/landmarks.txt lfw/images data/lfw-112x96

A landmark file has one picture a line, its fields separated by tabs (or by spaces, where no name has any):

    file  x1 y1  x2 y2  x3 y3  x4 y4  x5 y5

the eye on the left of the picture, the eye on the right, the nose tip, the mouth's corner left and right; in
pixels, the first pixel at 0; the file's name relative to SRC. Whatever could not be aligned is counted at the
end and listed with its reason in DST/align-report.json. Killed half way? The same command goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sphereface.alignment.align import CropSpec, align_folder
from sphereface.alignment.landmarks import read_landmarks
from sphereface.alignment.report import REPORT_NAME
from sphereface.alignment.similarity import TEMPLATES
from sphereface.errors import UserError, reports_user_errors

SIZES = {f"{height}x{width}": (height, width) for height, width in TEMPLATES}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="folder of pictures, of any depth")
    add("destination", metavar="DST", type=Path, help="folder for the crops, named as in SRC, ending in .jpg")
    add("--landmarks", metavar="FILE", type=Path, required=True, help="five points a picture, as above")
    add("--size", choices=SIZES, default="112x96", help="height x width of a crop (default: %(default)s)")
    add(
        "--template-origin",
        type=int,
        choices=(0, 1),
        default=0,
        help="what the template calls its first pixel: 0 as nearly every Python port, 1 as the MATLAB "
        "original, which puts the face a pixel further up and left (default: %(default)s)",
    )
    add("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core, %(default)s)")
    add("--quality", type=int, default=95, help="JPEG quality, 1 to 100 (default: %(default)s)")
    return parser.parse_args(argv)


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Align, then say how it went."""
    args = parse(argv)
    if not 1 <= args.quality <= 100:
        raise UserError(f"--quality: got {args.quality} · allowed: 1 to 100")
    if args.workers < 0:
        raise UserError(f"--workers: got {args.workers} · allowed: 0 (this process alone) or more")
    spec = CropSpec(SIZES[args.size], args.template_origin, args.quality)
    landmarks = read_landmarks(args.landmarks)
    report = align_folder(args.source, args.destination, landmarks, spec, workers=args.workers, progress=True)
    print(report.table())
    print(f"report: {args.destination / REPORT_NAME}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
