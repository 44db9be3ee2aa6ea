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
from pathlib import Path

from ...input_spec import ORDERS
from ...onnx_input import LAYOUTS, MIRRORS, PRESETS
from ...places import allowed_forms
from ..checkpoint_option import HELP, checkpoint_path

NORM = "norm"
LFW, PAIRS = Path("data/lfw-112x96"), Path("data/pairs.txt")
"""The defaults of --lfw and --pairs."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add = parser.add_argument
    _add_source_options(parser)
    add("--lfw", metavar="DIR", type=Path, help=f"aligned crops ({LFW})")
    add("--pairs", metavar="FILE", type=Path, help=f"list of pairs ({PAIRS})")
    add("--dev-train", metavar="FILE", type=Path, help="training list of view 1 (pairsDevTrain.txt beside --pairs)")
    forms = "\n".join(f"  {form}" for form in allowed_forms())
    parser.epilog = f"SET (you may omit KIND: if the form is clear):\n{forms}"
    add(
        "--sets",
        metavar="NAME=SET",
        nargs="+",
        action="extend",
        help="any sets, instead of --lfw and --pairs; SET: see below",
    )
    add("--suite", metavar="DIR", type=Path, help="every .bin in a folder, in one table with the mean of the five")
    add("--ijb", metavar="DIR[,CROPS]", help="IJB-B or IJB-C from their files: the same as --sets ijb=ijb:DIR,CROPS")
    add("--identification", action="store_true", help="also rank 1 and 5, and DIR@FAR, among all people in the folder")
    add("--all-pairs", action="store_true", help="also compare every image in the folder with every other")
    help_text = "also error versus discard, by the embeddings' lengths or by the qualities in FILE"
    add("--quality", metavar="FILE", nargs="?", const=NORM, help=help_text)
    add("--html", action="store_true", help="also write report.html, which shows the hardest pairs")
    help_text = "write the calibration beside the file: thresholds and probabilities; verify uses a checkpoint's"
    add("--calibrate", action="store_true", help=help_text)
    add("--no-mean", dest="centre", action="store_false", help="do not centre the embeddings")
    add("--output", metavar="DIR", type=Path, help="folder of the results (eval-<pairs> or eval beside the file)")


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the network, or the table, to evaluate."""
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
    help_text = "for the ONNX file, subtract this from a pixel of 0 to 255: one number or three"
    add("--mean", dest="pixel_mean", metavar="M", help=help_text)
    add("--std", dest="pixel_std", metavar="S", help="then divide by this: one number or three")
    add("--input", metavar="NAME", help="input of the ONNX file, if it has several")
    add("--output-name", metavar="NAME", help="output of the ONNX file with the embeddings, if it has several")
    add("--no-cache", action="store_true", help="do not store the embeddings beside the file")
    add("--device", help="auto, cuda, mps, cpu or cuda:N (auto)")
    add("--precision", choices=["fp32", "bf16"], help="precision of a checkpoint's network (fp32)")
    add("--batch-size", metavar="N", type=int, help="number of crops in a batch (64)")
