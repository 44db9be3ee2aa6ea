"""Check a training set: read and decode every image, and say what is wrong with it, and what may
be.

    sphereface check data/faces
    sphereface check data/faces --write-list data/faces-clean.txt
    sphereface check data/faces --ckpt sphere10-small --against data/lfw-112x96,data/pairs.txt
    sphereface check data/faces --write-list data/faces-clean.txt --leave-out near-duplicates near-duplicates-across

SRC is whatever data.train may be: a folder of identities, a list, a zip, a .rec, a tar. Looked for:
unreadable, truncated and grey images, images of another size, copies (the same pixels twice), the
same image under two identities, identities with too few or too many images, gaps between labels. A
table is printed; report.json, histogram.png and contact-sheet.jpg go to --output. The sheet shows
the faces: keep it where the faces are.

Suspicions are for you to look at, each with its number and the threshold: near-duplicates by a
perceptual hash, crops of images with several faces (where align-report.json lies beside the crops)
and, with --ckpt, images unlike their own identity, identities that look like one person, and
identities that look like people of the sets of --against. With --ckpt, embeddings are kept in
--output/embeddings, so that a killed run resumes: they are biometric data.

The clean list leaves out what is unusable or repeated and, of an image under two identities, every
copy. Suspects stay in it, unless --leave-out names their kind. It trains with --set
data.train=data/faces-clean.txt. Exit code: 0 nothing is wrong, 1 something is, 2 it could not be
checked. Grey images, gaps and suspicions alone are no faults.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ...choices import DEVICES, SUSPICIONS
from ..checkpoint_option import HELP, checkpoint_path
from ..parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "check", program)
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="a training set in any form")
    add("--root", metavar="DIR", type=Path, help="what the paths of a list are relative to (default: its folder)")
    add("--output", metavar="DIR", type=Path, help="for report and images (default: runs/check/<name of SRC>)")
    add("--write-list", metavar="FILE.txt", type=Path, help="write the clean images as a list for data.train")
    help_text = f"kinds of suspects that the list leaves out too: {', '.join(SUSPICIONS)}"
    add("--leave-out", metavar="KIND", nargs="+", choices=SUSPICIONS, help=help_text)
    add("--ckpt", metavar="FILE", type=checkpoint_path, help=f"look at the labels with a network: {HELP}")
    add(
        "--against", metavar="SET", nargs="+", help="verification sets whose people to look for: DIR, DIR,PAIRS or .bin"
    )
    add("--device", default="auto", help=f"of the network: {', '.join(DEVICES)} or cuda:N (%(default)s)")
    add("--size", metavar="HxW", help="height and width all must have, as 112x96 (default: what most have)")
    add("--min-images", metavar="N", type=int, default=2, help="of an identity (default: %(default)s)")
    add("--max-images", metavar="N", type=int, default=1000, help="of an identity (default: %(default)s)")
    add("--workers", metavar="N", type=int, default=os.cpu_count(), help="processes (default: one a core, %(default)s)")
    return parser.parse_args(argv)
