"""Draw the figures of docs/losses.md.

    sphereface plot-margins                  # all four, in about a minute
    sphereface plot-margins margins extents  # only these

The figures show target logits, decision regions, angles over m, and features learned on digits.
The same seed on the same machine gives the same figures.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    help_text = "margins, boundaries, extents or features (default: all)"
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=help_text)
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("docs/images"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="seed of the training on digits (%(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="steps of each training on digits (%(default)s)")
