"""Pack a training set into one RecordIO file or into tar files.

    sphereface pack data/CASIA-WebFace-112x96 data/casia/train.rec
    sphereface pack data/CASIA-WebFace-112x96 data/shards/casia.tar --shard-mb 1024

SRC has any form that data.train takes: a folder of identities, a list file, a zip, a .rec, tar,
Parquet, Arrow or LMDB files. DST.rec is a RecordIO file of mxnet and InsightFace, with DST.idx and
property beside it. DST.tar (or DST-00000-of-00010.tar, ...) are shards for WebDataset.

The command copies the images byte by byte, unless --quality or --size is given. It copies a .rec
record by record, so a .rec without .idx gets its .idx. An interrupted command leaves the whole set
or nothing. The report of sphereface align tells training how the crops are aligned. The command
copies it too, but not with --size.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="a training set in any form")
    add("destination", metavar="DST", type=Path, help="the .rec or .tar to write; training takes it as data.train")
    add("--root", metavar="DIR", type=Path, help="folder that the paths of a list start from (default: the list's)")
    add("--quality", type=int, help="encode each image again as a JPEG of this quality, 1 to 100 (with --size: 95)")
    add("--size", metavar="HxW", help="resize each image to this height and width in pixels, such as 112x96")
    add("--shard-mb", type=int, help="for a .tar: write several files of at most this many MiB (default: one file)")
