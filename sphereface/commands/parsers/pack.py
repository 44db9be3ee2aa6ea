"""Pack a training set into one RecordIO file, as mxnet and InsightFace write it (DST.rec, DST.idx,
property), or into tar files, as WebDataset reads them (DST.tar, or DST-00000-of-00010.tar, ...).

    sphereface pack data/CASIA-WebFace-112x96 data/casia/train.rec
    sphereface pack data/CASIA-WebFace-112x96 data/shards/casia.tar --shard-mb 1024

SRC is whatever data.train may be: a folder of identities, a list file, a zip, a .rec, tar, Parquet,
Arrow or LMDB files. Images are kept byte for byte, unless --quality or --size asks for new JPEGs. A
.rec that is kept as it is, is copied record by record; one without .idx gets its .idx that way.
Whatever interrupts a pack, it leaves the whole set or none. The report of sphereface align, which
tells training how the crops were aligned, is copied beside it, but not with --size.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "pack", program)
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="a training set in any form")
    add("destination", metavar="DST", type=Path, help="the .rec or .tar to write; training takes it as data.train")
    add("--root", metavar="FOLDER", type=Path, help="what the paths in a list are relative to (default: its folder)")
    add("--quality", type=int, help="encode anew as JPEG of this quality, 1 to 100 (with --size: 95)")
    add("--size", metavar="HxW", help="encode anew, resized to this height and width in pixels, such as 112x96")
    add("--shard-mb", type=int, help="of a .tar: write several files of at most this many MiB (default: one file)")
    return parser.parse_args(argv)
