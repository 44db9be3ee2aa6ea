"""Evaluate a network on LFW as the SphereFace paper does, and on the field's other benchmarks.

    sphereface eval --ckpt runs/sphere20/TIME/last.pt
    sphereface eval --ckpt latest                         # the newest run's
    sphereface eval --ckpt best.pt --pairs data/pairsDevTest.txt
    sphereface eval --ckpt best.pt --lfw my/crops --pairs my/pairs.txt
    sphereface eval --ckpt best.pt --sets lfw=data/lfw-112x96,data/pairs.txt cfp=cfp_fp.bin
    sphereface eval --ckpt best.pt --suite data/bins --html
    sphereface eval --ckpt best.pt --ijb data/ijbc,data/ijbc-crops
    sphereface eval --embeddings mine.npz --identification --all-pairs --quality
    sphereface eval --onnx mine.onnx --spec arcface --sets own=my/crops
    sphereface eval --ckpt best.pt --calibrate
    sphereface eval --compare a/best.pt b/best.pt

LFW's protocol joins the embeddings of a crop and its mirror image, centres them, and compares
them by cosine. View 2 (pairs.txt) is for reporting: each fold is tested with the mean and the
threshold of the others. View 1 is for choosing between models: both come from
pairsDevTrain.txt. Crops are aligned and have the network's size; 112x112 ones are cut to
112x96 where the network needs it. docs/evaluation.md explains every figure and every set.
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
"""What --lfw and --pairs are where they are not given."""


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(__doc__, "eval", program)
    add = parser.add_argument
    add_source_options(parser)
    add("--lfw", metavar="DIR", type=Path, help=f"aligned crops ({LFW})")
    add("--pairs", metavar="FILE", type=Path, help=f"list of pairs ({PAIRS})")
    add("--dev-train", metavar="FILE", type=Path, help="of view 1 (pairsDevTrain.txt beside --pairs)")
    parser.epilog = "SET (KIND: may be left out where the form is clear):\n" + "\n".join(
        f"  {form}" for form in allowed_forms()
    )
    add("--sets", metavar="NAME=SET", nargs="+", help="any sets in place of --lfw and --pairs; SET: see below")
    add("--suite", metavar="DIR", type=Path, help="every .bin in a folder, in one table with the mean of the five")
    add("--ijb", metavar="DIR[,CROPS]", help="IJB-B or IJB-C by their own files: the same as --sets ijb=ijb:DIR,CROPS")
    add("--identification", action="store_true", help="rank 1 and 5, DIR@FAR among all people in the folder")
    add("--all-pairs", action="store_true", help="every image in the folder against every other")
    add(
        "--quality",
        metavar="FILE",
        nargs="?",
        const=NORM,
        help="error-versus-discard by embedding length, or by a file",
    )
    add("--html", action="store_true", help="write report.html too, which shows the hardest pairs")
    add("--calibrate", action="store_true", help="keep what scores mean beside the file; of a checkpoint, for verify")
    add("--no-mean", dest="centre", action="store_false", help="do not centre the embeddings")
    add("--output", metavar="DIR", type=Path, help="for the results (eval-<pairs> or eval beside the file)")
    return parser.parse_args(argv)
