"""Embed images into a gallery: a table of embeddings for a search, an evaluation or your own program.

    sphereface embed photographs album.npz                      # by the shipped network
    sphereface embed photographs album/                         # many images; run again to update
    sphereface embed photographs album.npz --ckpt best.pt --all-faces
    sphereface embed data/crops crops.npz --ckpt best.pt --aligned
    sphereface embed lfw.bin lfw.npz --ckpt best.pt --aligned   # images of an InsightFace set
    sphereface embed files.txt some.npz --ckpt best.pt          # a list with a path on each line

    torchrun --nproc-per-node 8 -m sphereface embed photographs album/ --dtype float16
    sphereface search album/ query.jpg
    sphereface eval --embeddings crops.npz --lfw data/crops --pairs pairs.txt

OUT.npz is one file, which is written at the end. A folder as OUT is for many images: it is written
in parts, several processes share the work, and a killed run resumes. Run the command again to
update the folder. It then embeds only images that are new, or have another size or time.

Both hold the names of the images relative to IMAGES, the embeddings as the network returns them,
and those of the mirror images. They also hold the box and the score of each face, the checkpoint's
SHA-256, and how images became crops. The command lists images that it cannot use, and leaves them
out. It counts files that are not images, and images with several faces. It takes one of several
faces. --all-faces takes all of them, and names them IMAGE#1, IMAGE#2, … from the left. Embeddings
are biometric data of the people on the images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..face_options import add_face_options, add_on_several


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    help_text = "a folder of any depth, a .bin of InsightFace, or a text file with a path on each line, relative to it"
    parser.add_argument("images", metavar="IMAGES", type=Path, help=help_text)
    help_text = "the file OUT.npz, or a folder for many images"
    parser.add_argument("output", metavar="OUT", type=Path, help=help_text)
    add_face_options(parser)
    add_on_several(parser)
    help_text = "number type of the stored embeddings; float16 takes half the space (%(default)s)"
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32", help=help_text)
