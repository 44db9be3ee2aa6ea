"""Decide whether two photographs show one person.

    sphereface verify a.jpg b.jpg                        # by the shipped network
    sphereface verify a.jpg b.jpg --ckpt best.pt
    sphereface verify a.jpg b.jpg --ckpt best.pt --far 0.01 --save-plot pair.png
    sphereface verify a.jpg b.jpg --ckpt best.pt --prior 0.001    # 1 pair in 1,000 shows one person
    sphereface verify crops/a.png crops/b.png --ckpt best.pt --aligned

The command finds the face on each photograph, aligns and embeds it, and prints the cosine of both.
The meaning of a cosine depends on the checkpoint. sphereface eval --ckpt best.pt --calibrate learns
it from labelled pairs and writes best.calibration.json. With this calibration the command also
prints the probability of one person, and a decision at a false accept rate (FAR).

FAR is the share of pairs of two people that would pass. The true accept rate (TAR) is the share of
pairs of one person that pass. Without --far, the command decides at the lowest FAR with a TAR of
90 % or more. If no FAR has such a TAR, it does not decide. The exit code is 0 for any result, and 2
if an image cannot be used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..face_options import add_decision_options, add_face_options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add = parser.add_argument
    add("images", metavar="IMAGE", nargs=2, help="two photographs")
    add_decision_options(parser)
    help_text = "share of one-person pairs among the pairs that you compare (default: that of the evaluation)"
    add("--prior", type=float, help=help_text)
    add("--save-plot", metavar="FILE", type=Path, help="draw both crops side by side (.png, .jpg, .svg, .pdf)")
    add_face_options(parser)
