r"""Make a verification set of own images, and tell training whom to leave out.

    sphereface make-pairs data/faces data/faces-verify
    sphereface train --config faces-60min --set data.train=data/faces \
        --set data.exclude_file=data/faces-verify/people.txt --set eval.sets.own=data/faces-verify

SRC is whatever data.train may be: a folder of identities, a list, a zip, a .rec, a tar. The command
chooses some of its people and copies all images of these to DST/<Name>/<Name>_0001.jpg …, as LFW is
laid out. DST/pairs.txt has ten folds, as many pairs of one person as of two, nobody in two folds.
DST/people.txt lists the people for data.exclude_file, so that training and verification share
nobody. The same seed makes the same set.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "make-pairs", program)
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="a training set in any form")
    add("destination", metavar="DST", type=Path, help="new folder for images, pairs.txt and people.txt")
    add("--root", metavar="DIR", type=Path, help="what the paths of a list are relative to (default: its folder)")
    add("--folds", metavar="N", type=int, default=10, help="default: %(default)s")
    add("--people", metavar="N", type=int, help="to hold out (default: a tenth, but two a fold or more)")
    add("--pairs", metavar="N", type=int, help="of each kind in a fold (default: as many as there are, at most 300)")
    add("--seed", metavar="N", type=int, default=0, help="of the draw (default: %(default)s)")
    return parser.parse_args(argv)
