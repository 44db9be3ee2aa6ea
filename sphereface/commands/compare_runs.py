"""Run ``sphereface compare-runs``; its options are in :mod:`.parsers.compare_runs`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ..errors import UserError
from ..face_figures import FIGURE_MARK, draw_into
from ..files import write_whole
from ..plots import curves_figure, learning_figure, read_metrics, summary_table
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
    sys.stderr.writelines(f"note: {line}\n" for line in different_sets(runs))
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


def different_sets(runs: Mapping[str, Path]) -> list[str]:
    """Return a line on each set that had, or may have had, other content in some of the runs.

    The digests in the runs' last checkpoints tell.

    Args:
        runs: label → run folder.
    """
    found: dict[str, dict[str, list[str]]] = {}  # set → digest, "" if it is not known → labels
    for label, path in runs.items() if len(runs) > 1 else ():
        digests = _digests(path)
        figures = [name.rpartition("/") for name in read_metrics(path) if name.startswith("eval/")]
        for name in dict.fromkeys(of[5:] for of, _, tag in figures if tag != "changed" and "/accuracy_" not in of):
            found.setdefault(name, {}).setdefault(digests.get(name, ""), []).append(label)
    unknown: dict[str, list[str]] = {}  # labels → sets
    for name, groups in found.items():
        labels = groups.pop("", [])
        if labels and (groups or len(labels) > 1):
            unknown.setdefault(", ".join(labels) if groups else "any run", []).append(f"eval.sets.{name}")
    different = [
        f"eval.sets.{name}: its lists or images differ between runs: {' | '.join(map(', '.join, groups.values()))}"
        " · figures of runs on different sides of | are not to be compared"
        for name, groups in found.items()
        if len(groups) > 1
    ]
    return different + [
        f"{', '.join(names)}: not known whether the lists and images are the same in all runs: no last.pt tells those "
        f"of {labels} · compare figures only if they are the same, or give folders with last.pt"
        for labels, names in unknown.items()
    ]


def _digests(run: Path) -> Mapping[str, str]:
    """Return the digests of a run's sets; an empty mapping if its checkpoint does not tell them."""
    from ..checkpoint import BadCheckpoint, load_checkpoint  # imports torch

    try:
        digests: Mapping[str, str] = load_checkpoint(run / "last.pt", mapped=True).get("meta", {}).get("digests", {})
    except BadCheckpoint:
        return {}
    return digests


def labelled(paths: Sequence[Path]) -> dict[str, Path]:
    """Label each run folder by ``<name>/<time>``, or by more of its path to avoid equal labels."""
    found = {path.resolve().parts: path for path in paths}
    length = 2
    while len({parts[-length:] for parts in found}) < len(found):
        length += 1
    return {"/".join(parts[-length:]): path for parts, path in found.items()}
