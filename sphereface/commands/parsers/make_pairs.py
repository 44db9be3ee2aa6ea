r"""Make a verification set of your images, and a list of its people to exclude from training.

    sphereface make-pairs data/faces data/faces-verify
    sphereface train --config faces-60min --set data.train=data/faces \
        --set data.exclude_file=data/faces-verify/people.txt --set eval.sets.own=data/faces-verify

SRC has any form that data.train takes: a folder of identities, a list, a zip, a .rec, a tar. The
command chooses some of its people and copies all their images to DST/<Name>/<Name>_0001.jpg …, the
layout of LFW. DST/pairs.txt has ten folds, with as many pairs of one person as of two people. Each
person is in one fold only. DST/people.txt lists the people for data.exclude_file, so that training
and verification have no person in common. The same seed makes the same set.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="a training set in any form")
    add("destination", metavar="DST", type=Path, help="new folder for images, pairs.txt and people.txt")
    add("--root", metavar="DIR", type=Path, help="folder that the paths of a list start from (default: the list's)")
    add("--folds", metavar="N", type=int, default=10, help="number of folds (default: %(default)s)")
    add("--people", metavar="N", type=int, help="people to hold out (default: a tenth, at least two for each fold)")
    help_text = "pairs of each kind in a fold (default: as many as possible, at most 300)"
    add("--pairs", metavar="N", type=int, help=help_text)
    add("--seed", metavar="N", type=int, default=0, help="seed of the draw (default: %(default)s)")
