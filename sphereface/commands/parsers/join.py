"""Join networks that were trained apart to one checkpoint: their embeddings side by side, the mean
of their cosines.

    sphereface join runs/a/<time>/last.pt runs/b/<time>/last.pt --output joined.pt
    sphereface eval --ckpt joined.pt

What model.networks does with networks that one command trains one after another, this does with any
of one
architecture: trained at once on several machines, from other seeds, with other settings. A joined
checkpoint brings each of its networks. Ten networks of a configuration, five on each of two
machines, each network of its own seed:

    sphereface train --config faces-long.yaml --set model.networks=5 --set seed=0     # on one
    sphereface train --config faces-long.yaml --set model.networks=5 --set seed=1     # on the other

Then join the two files that these commands name at their end.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..checkpoint_option import HELP, checkpoint_path
from ..parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "join", program)
    add = parser.add_argument
    add("checkpoints", metavar="CKPT", type=checkpoint_path, nargs="+", help=f"{HELP}; two networks or more in all")
    add("--output", metavar="FILE.pt", type=Path, required=True, help="the checkpoint to write")
    return parser.parse_args(argv)
