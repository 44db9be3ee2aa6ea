"""Join separately trained networks to one checkpoint, an ensemble.

    sphereface join runs/a/<time>/last.pt runs/b/<time>/last.pt --output joined.pt
    sphereface eval --ckpt joined.pt

The ensemble concatenates the embeddings of its networks; its cosine is the mean of their cosines.
model.networks trains such networks one after another. This command joins any networks of one
architecture: trained on several machines, with other seeds or other settings. A joined checkpoint
contributes each of its networks. For example, train ten networks with ten seeds on two machines:

    sphereface train --config faces-long.yaml --set model.networks=5 --set seed=0     # on one
    sphereface train --config faces-long.yaml --set model.networks=5 --set seed=1     # on the other

Then join the two files that these commands name in their last lines.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..checkpoint_option import HELP, checkpoint_path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add = parser.add_argument
    add("checkpoints", metavar="CKPT", type=checkpoint_path, nargs="+", help=f"{HELP}; two networks or more in all")
    add("--output", metavar="FILE.pt", type=Path, required=True, help="the checkpoint to write")
