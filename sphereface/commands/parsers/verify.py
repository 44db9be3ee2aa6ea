"""Say whether two photographs are of one person.

    sphereface verify a.jpg b.jpg                        # by the network that ships with this package
    sphereface verify a.jpg b.jpg --ckpt best.pt
    sphereface verify a.jpg b.jpg --ckpt best.pt --far 0.01 --save-plot pair.png
    sphereface verify a.jpg b.jpg --ckpt best.pt --prior 0.001    # one pair in a thousand is of one person
    sphereface verify crops/a.png crops/b.png --ckpt best.pt --aligned

Finds the face on each, aligns and embeds it, and prints their cosine. What a cosine means depends
on the checkpoint: sphereface eval --ckpt best.pt --calibrate learns it from pairs that are known
and keeps it in best.calibration.json. With it come the probability of one person, and the decision
at a false accept rate (FAR): the share of pairs of two people that would pass. The true accept rate
(TAR) is the share of pairs of one person that pass. Without --far, the command decides at the
lowest FAR with a TAR of 90 % or more, and does not decide where there is none. Exit code: 0
whatever the outcome, 2 where an image cannot be used.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..face_options import add_face_options
from ..parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "verify", program)
    add = parser.add_argument
    add("images", metavar="IMAGE", nargs=2, help="two photographs")
    help_text = "false accept rate to decide at (the lowest of the calibration that accepts 90%% of the genuine pairs)"
    add("--far", type=float, help=help_text)
    add("--prior", type=float, help="share of one-person pairs among those you meet (as in the evaluation)")
    add("--calibration", metavar="FILE", type=Path, help="default: NAME.calibration.json beside the checkpoint")
    add("--save-plot", metavar="FILE", type=Path, help="draw both crops side by side (.png, .jpg, .svg, .pdf)")
    add_face_options(parser)
    return parser.parse_args(argv)
