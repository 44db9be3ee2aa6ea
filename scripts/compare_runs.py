"""Set runs side by side: a table, and their curves in one picture.

    python scripts/compare_runs.py runs/demo/20260101-120000 runs/demo/20260101-130000 --output curves.png

The curves run over images seen, so that runs of different batch sizes or speeds compare; --learning draws the
accuracies over minutes as well, runs of one name in one colour.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sphereface.errors import UserError, reports_user_errors
from sphereface.face_figures import FIGURE_MARK, draw_into
from sphereface.files import write_whole
from sphereface.plots import curves_figure, learning_figure, summary_table
from sphereface.small_files import check_replaceable


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and, if asked, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run folder, runs/<name>/<time>")
    parser.add_argument("--output", metavar="PNG", type=Path, help="draw the curves into this file")
    parser.add_argument(
        "--learning", metavar="PNG", type=Path, help="draw accuracy over images and over minutes into this file"
    )
    args = parser.parse_args(argv)
    runs = labelled(args.runs)
    plots = [("output", args.output, curves_figure), ("learning", args.learning, learning_figure)]
    for option, path, _ in plots:
        if path is not None:
            check_replaceable(path, FIGURE_MARK, f"--{option}")
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
    """Label run folders by their last two names, ``<name>/<time>``, or by more of them where these are alike."""
    found = {path.resolve().parts: path for path in paths}
    length = 2
    while len({parts[-length:] for parts in found}) < len(found):
        length += 1
    return {"/".join(parts[-length:]): path for parts, path in found.items()}


if __name__ == "__main__":
    sys.exit(main())
