"""Find the images or the people of a gallery that are most similar to the face on an image.

    sphereface search album/ query.jpg                              # by the shipped network
    sphereface search album.npz query.jpg --ckpt best.pt
    sphereface search album.npz query.jpg --top 20 --save-plot found.png
    sphereface search people.npz query.jpg --by person              # of images <person>/<image>
    sphereface search album.npz query.jpg --far 0.001               # is the person in it?
    sphereface search large/ query.jpg --index faiss                # pip install '.[faiss]'

The most similar image may still show a stranger. A calibration (sphereface eval --calibrate) gives
a threshold at a false accept rate (FAR). The command then prints how many images of the gallery
pass the threshold, and for how many a stranger would pass by chance. Without --far, it decides like
sphereface verify.

GALLERY is the file or the folder that sphereface embed writes. Another folder is embedded for this
one search. If the gallery was made of crops by sphereface align, a photograph as QUERY is aligned
in the same way. For a crop as QUERY, add --aligned.

The command compares the query with all rows, block by block; the memory does not grow with the
gallery. For more than 1,000,000 rows, --index faiss builds an index (IVF-PQ) once and keeps it
beside the gallery. A search then visits few rows and may miss some; the command prints the recall.
It compares all rows if the recall is below 0.95, or if the index finds fewer results than --top.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..face_options import add_decision_options, add_face_options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add = parser.add_argument
    add("gallery", metavar="GALLERY", type=Path, help="output of sphereface embed, or a folder of images")
    add("query", metavar="QUERY", help="an image")
    add("--top", metavar="K", type=int, default=5, help="number of results (%(default)s)")
    help_text = "list images, or the people of <person>/<image> with their nearest image (%(default)s)"
    add("--by", choices=["image", "person"], default="image", help=help_text)
    add_decision_options(parser)
    add("--index", choices=["exact", "faiss"], default="exact", help="compare all rows, or use an index (%(default)s)")
    add("--save-plot", metavar="FILE", type=Path, help="draw the query and the results (.png, .jpg, .svg, .pdf)")
    add_face_options(parser)
