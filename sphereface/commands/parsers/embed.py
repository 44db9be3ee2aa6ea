"""Images to a table of embeddings, for search, for evaluation, or for programs of your own.

    sphereface embed photographs gallery.npz                        # by the network that ships with this package
    sphereface embed photographs gallery.npz --ckpt best.pt
    sphereface embed data/crops crops.npz --ckpt best.pt --aligned
    sphereface embed lfw.bin lfw.npz --ckpt best.pt --aligned       # the images of an InsightFace set
    sphereface embed files.txt some.npz --ckpt best.pt              # one path on each line, relative to the list

    sphereface search gallery.npz query.jpg --ckpt best.pt
    sphereface eval --embeddings crops.npz --lfw data/crops --pairs pairs.txt

OUT.npz holds names (N,) relative to IMAGES, embeddings (N, D) float32 as the network gives them,
mirror (N, D) for the mirror images, the folder, the checkpoint's SHA-256, and how images became
crops. The command lists and leaves out images that it cannot use, and counts files that are no
images. It says how many images have several faces: it takes one of these, or with --on-several all
every one, named IMAGE#1, IMAGE#2, … from the left. For many photographs, align them once on all
cores (sphereface align), then embed the crops with --aligned. Embeddings are biometric data of the
people on the images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..face_options import add_face_options, add_on_several
from ..parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(__doc__, "embed", program)
    help_text = "a folder of any depth, a .bin of InsightFace, or a text file with a path on each line"
    parser.add_argument("images", metavar="IMAGES", type=Path, help=help_text)
    parser.add_argument("output", metavar="OUT.npz", type=Path, help="the file to write")
    add_face_options(parser)
    add_on_several(parser)
    return parser.parse_args(argv)
