"""Write a .rec of made-up crops of natural size, 112×96 and about 4 KB, to measure how fast
training is fed.

    python benchmarks/make_rec.py FOLDER --people 400 --each 50
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sphereface.cli import main as sphereface


def crop(identity: int, number: int) -> npt.NDArray[np.uint8]:
    """(112, 96, 3): smooth noise of the identity, and finer noise of the image."""
    of_identity = np.random.default_rng(identity).uniform(0, 255, (7, 6, 3))
    of_image = np.random.default_rng((identity, number)).normal(0, 12, (28, 24, 3))
    smooth, fine = (cv2.resize(noise, (96, 112)) for noise in (of_identity, of_image))
    return np.clip(smooth + fine, 0, 255).astype(np.uint8)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the images, then pack them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="gets images/ and train.rec")
    parser.add_argument("--people", type=int, default=400, help="identities (400)")
    parser.add_argument("--each", type=int, default=50, help="images of each (50)")
    args = parser.parse_args(argv)
    for identity in range(args.people):
        place = args.folder / "images" / f"{identity:05d}"
        place.mkdir(parents=True, exist_ok=True)
        for number in range(args.each):
            path = place / f"{number}.jpg"
            cv2.imwrite(str(path), crop(identity, number), [cv2.IMWRITE_JPEG_QUALITY, 95])
    return sphereface(["pack", str(args.folder / "images"), str(args.folder / "train.rec")])


if __name__ == "__main__":
    sys.exit(main())
