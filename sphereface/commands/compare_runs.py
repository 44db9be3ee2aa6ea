"""Run ``sphereface compare-runs``; its options are in :mod:`.parsers.compare_runs`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..errors import UserError
from ..face_figures import FIGURE_MARK, draw_into
from ..files import write_whole
from ..plots import curves_figure, learning_figure, summary_table
from ..small_files import check_replaceable


def run(args: argparse.Namespace) -> int:
    """Print the table; draw the curves that the options name."""
    runs = labelled(args.runs)
    plots = [("output", args.output, curves_figure), ("learning", args.learning, learning_figure)]
    for option, path, _ in plots:
        if path is not None:
            check_replaceable(path, FIGURE_MARK, f"--{option}")
    if None not in (args.output, args.learning) and args.output.resolve() == args.learning.resolve():
        raise UserError(f"--output, --learning: got {args.output} for both · allowed: a file for each figure")
    print(summary_table(runs))
    for option, path, draw in plots:
        if path is None:
            continue
        figure = draw(runs)
        kind = path.suffix.lower().removeprefix(".") or "png"
        try:
            write_whole(path, partial(draw_into, figure, kind=kind), durable=False)
        except (OSError, ValueError) as error:
            raise UserError(f"--{option}: cannot write {path}: {error}") from error
        print(f"curves: {path}")
    return 0


def labelled(paths: Sequence[Path]) -> dict[str, Path]:
    """Label each run folder by ``<name>/<time>``, or by more of its path to avoid equal labels."""
    found = {path.resolve().parts: path for path in paths}
    length = 2
    while len({parts[-length:] for parts in found}) < len(found):
        length += 1
    return {"/".join(parts[-length:]): path for parts, path in found.items()}
