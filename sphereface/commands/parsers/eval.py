"""Evaluate a network on LFW as the SphereFace paper does, and on the field's other benchmarks.

    sphereface eval --ckpt runs/sphere20/TIME/last.pt
    sphereface eval --ckpt latest                         # the checkpoint of the newest run
    sphereface eval --ckpt best.pt --pairs data/pairsDevTest.txt
    sphereface eval --ckpt best.pt --lfw my/crops --pairs my/pairs.txt
    sphereface eval --ckpt best.pt --sets lfw=data/lfw-112x96,data/pairs.txt cfp=cfp_fp.bin
    sphereface eval --ckpt best.pt --suite data/bins --html
    sphereface eval --ckpt best.pt --ijb data/ijbc,data/ijbc-crops
    sphereface eval --embeddings mine.npz --identification --all-pairs --quality
    sphereface eval --onnx mine.onnx --spec arcface --sets own=my/crops
    sphereface eval --ckpt best.pt --calibrate
    sphereface eval --compare a/best.pt b/best.pt

The protocol of LFW joins the embeddings of a crop and its mirror image, centres them, and compares
them by cosine. Use view 1 to choose between models, and view 2 to report. View 2 (pairs.txt) tests
each fold with the mean and the threshold of the other folds. View 1 takes both from
pairsDevTrain.txt. The crops must be aligned and have the network's size; the command cuts 112x112
crops to 112x96 if the network needs it. docs/evaluation.md explains every figure and every set.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ...places import allowed_forms
from ..parser import new_parser
from ..source_options import add_source_options

NORM = "norm"
LFW, PAIRS = Path("data/lfw-112x96"), Path("data/pairs.txt")
"""The defaults of --lfw and --pairs."""


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(__doc__, "eval", program)
    add = parser.add_argument
    add_source_options(parser)
    add("--lfw", metavar="DIR", type=Path, help=f"aligned crops ({LFW})")
    add("--pairs", metavar="FILE", type=Path, help=f"list of pairs ({PAIRS})")
    add("--dev-train", metavar="FILE", type=Path, help="training list of view 1 (pairsDevTrain.txt beside --pairs)")
    parser.epilog = "SET (you may omit KIND: if the form is clear):\n" + "\n".join(
        f"  {form}" for form in allowed_forms()
    )
    add("--sets", metavar="NAME=SET", nargs="+", help="any sets, instead of --lfw and --pairs; SET: see below")
    add("--suite", metavar="DIR", type=Path, help="every .bin in a folder, in one table with the mean of the five")
    add("--ijb", metavar="DIR[,CROPS]", help="IJB-B or IJB-C from their files: the same as --sets ijb=ijb:DIR,CROPS")
    add("--identification", action="store_true", help="also rank 1 and 5, and DIR@FAR, among all people in the folder")
    add("--all-pairs", action="store_true", help="also compare every image in the folder with every other")
    add(
        "--quality",
        metavar="FILE",
        nargs="?",
        const=NORM,
        help="also error versus discard, by the embeddings' lengths or by the qualities in FILE",
    )
    add("--html", action="store_true", help="also write report.html, which shows the hardest pairs")
    help_text = "write the calibration beside the file: thresholds and probabilities; verify uses a checkpoint's"
    add("--calibrate", action="store_true", help=help_text)
    add("--no-mean", dest="centre", action="store_false", help="do not centre the embeddings")
    add("--output", metavar="DIR", type=Path, help="folder of the results (eval-<pairs> or eval beside the file)")
    return parser.parse_args(argv)
