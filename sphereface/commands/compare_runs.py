"""Run ``sphereface compare-runs``; its options are in :mod:`.parsers.compare_runs`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..face_figures import FIGURE_MARK, draw_into
from ..files import write_whole
from ..plots import curves_figure, is_cut_off, learning_figure, main_figures, read_metrics, summary_table
from ..small_files import check_replaceable

_OF_DATA = ("class_names", "num_images", "sample")  # what checkpoints of earlier versions have, too


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
    sys.stderr.writelines(f"note: {line}\n" for line in cut_files(runs))
    if len(runs) > 1:
        metas = {label: _meta(path) for label, path in runs.items()}
        sys.stderr.writelines(f"note: {line}\n" for line in different_data(metas) + different_sets(runs, metas))
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


def cut_files(runs: Mapping[str, Path]) -> list[str]:
    """Return a line on each run whose ``metrics.jsonl`` ends in the middle of a line."""
    told = "its last line is cut and was left out: the run is writing it, was killed, or the copy is incomplete"
    return [f"{path / 'metrics.jsonl'}: {told}" for path in runs.values() if is_cut_off(path)]


def different_sets(runs: Mapping[str, Path], metas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line on each set that had, or may have had, other content in some of the runs.

    Args:
        runs: label → run folder.
        metas: label → ``meta`` of the run's last checkpoint, whose digests tell; empty without one.
    """
    found: dict[str, dict[str, list[str]]] = {}  # set → digest, "" if it is not known → labels
    for label, path in runs.items():
        digests = metas[label].get("digests", {})
        for figure in main_figures(read_metrics(path)):
            name = figure.removeprefix("eval/").rpartition("/")[0]
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


def different_data(metas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line if runs are known to have learnt from different images or identities.

    Args:
        metas: label → ``meta`` of the run's last checkpoint; runs without one are not compared.
    """
    groups: dict[str, list[str]] = {}  # what is known of the data → labels
    for label, meta in metas.items():
        if "sample" in meta:
            groups.setdefault(repr([meta.get(key) for key in _OF_DATA]), []).append(label)
    if len(groups) < 2:
        return []
    sides = " | ".join(map(", ".join, groups.values()))
    return [f"data.train: its images or identities differ between runs: {sides} · compare recipes on the same data"]


def _meta(run: Path) -> Mapping[str, Any]:
    """Return what the last checkpoint of a run tells; an empty mapping if there is none."""
    from ..checkpoint import BadCheckpoint, load_checkpoint  # imports torch

    try:
        meta: Mapping[str, Any] = load_checkpoint(run / "last.pt", mapped=True).get("meta", {})
    except BadCheckpoint:
        return {}
    return meta


def labelled(paths: Sequence[Path]) -> dict[str, Path]:
    """Label each run folder by ``<name>/<time>``, or by more of its path to avoid equal labels."""
    found = {path.resolve().parts: path for path in paths}
    length = 2
    while len({parts[-length:] for parts in found}) < len(found):
        length += 1
    return {"/".join(parts[-length:]): path for parts, path in found.items()}
