"""Check a training set: decode every image, and list errors and suspicions.

    sphereface check data/faces
    sphereface check data/faces --write-list data/faces-clean.txt
    sphereface check data/faces --ckpt sphere10-small --against data/lfw-112x96,data/pairs.txt
    sphereface check data/faces --write-list data/faces-strict.txt --leave-out near-duplicates

SRC has any form that data.train takes: a folder of identities, a list, a zip, a .rec, a tar. The
command finds unreadable, truncated and grey images, images of another size, and copies (the same
pixels twice). It also finds an image under two identities, identities with too few or too many
images, gaps between labels, and names in more than one spelling. It prints a table and writes
report.json, histogram.png and contact-sheet.jpg to --output. The contact sheet shows faces: store
it as safely as the images.

You decide on the suspicions. Each has its value and the threshold. Near-duplicates are found by a
perceptual hash, crops of images with several faces by align-report.json beside the crops. With
--ckpt, the command also finds images unlike their own identity, and identities that look like one
person. With --against, it finds identities that look like people of those sets. It stores the
embeddings in --output/embeddings, so that a killed run can resume. They are biometric data.

The clean list omits unusable and repeated images, and every copy of an image under two identities.
It keeps suspicious images, unless --leave-out names their kind. Train on it with
--set data.train=data/faces-clean.txt. It replaces no file. Exit code: 0 for no error, 1 for errors,
2 if the command could not check the set. Grey images, gaps, spellings and suspicions are no errors.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ...choices import DEVICES, SUSPICIONS
from ..checkpoint_option import HELP, checkpoint_path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add = parser.add_argument
    add("source", metavar="SRC", type=Path, help="a training set in any form")
    add("--root", metavar="DIR", type=Path, help="folder that the paths of a list start from (default: the list's)")
    add("--output", metavar="DIR", type=Path, help="folder of the report (default: runs/check/<name of SRC>)")
    help_text = "write the clean images as a list for data.train; an existing file is not replaced"
    add("--write-list", metavar="FILE.txt", type=Path, help=help_text)
    help_text = f"kinds of suspicion that the list omits too: {', '.join(SUSPICIONS)}"
    add("--leave-out", metavar="KIND", nargs="+", action="extend", choices=SUSPICIONS, help=help_text)
    add("--ckpt", metavar="FILE", type=checkpoint_path, help=f"check the labels with a network: {HELP}")
    help_text = "verification sets whose people to search for: DIR, DIR,PAIRS or .bin"
    add("--against", metavar="SET", nargs="+", action="extend", help=help_text)
    add("--device", default="auto", help=f"device of the network: {', '.join(DEVICES)} or cuda:N (%(default)s)")
    add("--size", metavar="HxW", help="height and width of all images, such as 112x96 (default: the most frequent)")
    add("--min-images", metavar="N", type=int, default=2, help="fewest images of an identity (default: %(default)s)")
    add("--max-images", metavar="N", type=int, default=1000, help="most images of an identity (default: %(default)s)")
    help_text = "number of processes (default: one for each core, %(default)s)"
    add("--workers", metavar="N", type=int, default=os.cpu_count(), help=help_text)
