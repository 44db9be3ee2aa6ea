"""Find the images of a gallery that are most like the face on an image.

    sphereface search gallery/ query.jpg                            # by the network that ships with this package
    sphereface search gallery/ query.jpg --ckpt best.pt
    sphereface search gallery.npz query.jpg --ckpt best.pt --top 20 --save-plot found.png
    sphereface search gallery.npz query.jpg --ckpt best.pt --far 0.001      # who of them is it, or nobody?
    sphereface search gallery.npz query.jpg --ckpt best.pt --index faiss    # pip install '.[faiss]'

The most alike may still be a stranger. With a calibration (sphereface eval --calibrate) the command
says how many images of the gallery are over the threshold at a false accept rate (FAR), and for how
many a stranger would pass by chance. Without --far, it decides as sphereface verify does.

A folder is embedded for this one search; sphereface embed keeps its embeddings in a .npz. All of
the gallery is compared, block by block, which takes a tenth of a second for 1,000,000 images.
--index faiss builds a graph once, kept beside the .npz, and then visits few rows and may miss some:
for galleries of many millions, searched often.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..face_options import add_face_options
from ..parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "search", program)
    add = parser.add_argument
    add("gallery", metavar="GALLERY", type=Path, help="a folder of images, or the .npz of sphereface embed")
    add("query", metavar="QUERY", help="an image")
    add("--top", metavar="K", type=int, default=5, help="how many to show (%(default)s)")
    help_text = "false accept rate to decide at (the lowest of the calibration that accepts 90%% of the genuine pairs)"
    add("--far", type=float, help=help_text)
    add("--calibration", metavar="FILE", type=Path, help="default: NAME.calibration.json beside the checkpoint")
    add("--index", choices=["exact", "faiss"], default="exact", help="compare all, or follow a graph (%(default)s)")
    add("--save-plot", metavar="FILE", type=Path, help="draw the query and what was found (.png, .jpg, .svg, .pdf)")
    add_face_options(parser)
    return parser.parse_args(argv)
