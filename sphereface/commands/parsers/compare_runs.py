"""Compare training runs: a table, and their curves in one chart.

    sphereface compare-runs runs/demo/20260101-120000 runs/demo/20260101-130000 --output curves.png

The curves are drawn over the number of images seen, so runs of different batch sizes are
comparable. --learning also draws the accuracies over minutes, with one colour for each name.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run folder, runs/<name>/<time>")
    parser.add_argument("--output", metavar="PNG", type=Path, help="draw the curves to this file")
    help_text = "draw accuracy over images and over minutes to this file"
    parser.add_argument("--learning", metavar="PNG", type=Path, help=help_text)
