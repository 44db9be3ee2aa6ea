"""Draw the figures of docs/losses.md: target logits, decision regions, angles over m, features
learned on digits.

    sphereface plot-margins                  # all four, in about a minute
    sphereface plot-margins margins extents  # only these

The same seed on the same machine gives the same figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """What the command line says."""
    parser = new_parser(__doc__, "plot-margins", program)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="margins, boundaries, extents, features; or all")
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("docs/images"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="of the training on digits")
    parser.add_argument("--steps", type=int, default=1000, help="updates of each training on digits")
    return parser.parse_args(argv)
