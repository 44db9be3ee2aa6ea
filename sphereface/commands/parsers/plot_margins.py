"""Draw the figures of docs/losses.md.

    sphereface plot-margins                  # all four, in about a minute
    sphereface plot-margins margins extents  # only these

The figures show target logits, decision regions, angles over m, and features learned on digits.
The same seed on the same machine gives the same figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..parser import new_parser


def parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    """Parse the command line."""
    parser = new_parser(__doc__, "plot-margins", program)
    help_text = "margins, boundaries, extents or features (default: all)"
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=help_text)
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("docs/images"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="seed of the training on digits (%(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="steps of each training on digits (%(default)s)")
    return parser.parse_args(argv)
