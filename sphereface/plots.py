"""Draw the curves of training runs from ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from .errors import UserError, first_line

PANELS = {
    "train/loss": "loss",
    "train/accuracy": "training accuracy (m = 1)",
    "eval": "accuracy, or main figure, of each set",
    "train/target_angle_deg_mean": "mean target angle, degrees",
    "train/lambda": "λ",
    "train/lr": "learning rate",
}
"""The panels: metric and title. ``eval`` is the accuracy, or main figure, of each set."""


def read_metrics(run: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Read the curves of one run folder.

    Returns:
        Metric → (images seen, value) in the order of training. The accuracy of each set is
        ``eval/<set>/accuracy``. Where ``eval/<set>/changed`` says that the set has other content
        from there on, its earlier figures are left out. So is a last line that ends in its middle.

    Raises:
        UserError: there is no ``metrics.jsonl``, or another program wrote it.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{run}: no metrics.jsonl in it · allowed: a run folder, runs/<name>/<time>")
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({first_line(error)})") from error
    if lines and _is_cut(lines[-1]):
        del lines[-1]
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            values = {name: float(value) for name, value in json.loads(line).items()}
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not a line of metrics: {line.rstrip()[:60]!r}") from error
        for name, value in values.items():
            if name.startswith("eval/") and name.endswith("/changed"):
                earlier = name.removesuffix("changed")
                curves = {other: curve for other, curve in curves.items() if not other.startswith(earlier)}
            xs, ys = curves.setdefault(name, ([], []))
            xs.append(values.get("images_seen", 0.0))
            ys.append(value)
    return curves


def is_cut_off(run: Path) -> bool:
    """Return whether ``metrics.jsonl`` of a run folder ends in the middle of a line."""
    return _is_cut((run / "metrics.jsonl").read_text(encoding="utf-8").rpartition("\n")[2])


def _is_cut(line: str) -> bool:
    return line.startswith('{"') and not line.endswith(("}", "\n"))


def curves_figure(runs: Mapping[str, Path]) -> Figure:
    """Draw the curves of one or more runs over images seen, in one figure.

    Args:
        runs: label → run folder.

    Returns:
        A figure of 12 × 6.5 inches; global state is unchanged.
    """
    metrics = {label: read_metrics(path) for label, path in runs.items()}
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True):
        for number, (label, curves) in enumerate(metrics.items()):
            _draw(axes, name, curves, label if len(metrics) > 1 else "", f"C{number}")
        axes.set(title=title, xlabel="images seen")
        axes.grid(alpha=0.3)
        if "accuracy" in title:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        if name == "train/lambda" and any((np.asarray(line.get_ydata()) > 0).any() for line in axes.get_lines()):
            axes.set_yscale("log")
        _legend(axes)
    return figure


def learning_figure(runs: Mapping[str, Path]) -> Figure:
    """Draw the main figure of every evaluation set over images seen and over minutes.

    Runs of one recipe have labels that are equal up to the first ``/``. They share a colour, so the
    spread of their curves shows the effect of chance. A run with one evaluation, such as joined
    networks, is a star.

    Args:
        runs: label → run folder.

    Returns:
        A figure of two rows with one column for each set; global state is unchanged.

    Raises:
        UserError: no run has evaluated a set.
    """
    metrics = {label: read_metrics(path) for label, path in runs.items()}
    sets = list(dict.fromkeys(name for curves in metrics.values() for name in main_figures(curves)))
    if not sets:
        raise UserError(f"{', '.join(map(str, runs.values()))}: no set was evaluated (eval.sets)")
    recipes = list(dict.fromkeys(label.partition("/")[0] for label in runs))
    figure = Figure(figsize=(5.5 * len(sets), 7), layout="constrained")
    for row, per in zip(figure.subplots(2, len(sets), squeeze=False), ("images seen", "minutes"), strict=True):
        for axes, name in zip(row, sets, strict=True):
            labelled = set()
            for label, curves in metrics.items():
                recipe = label.partition("/")[0]
                images, accuracies = curves.get(name, ([], []))
                x = images if per == "images seen" else _minutes(curves, images)
                text = None if recipe in labelled or not images else _label(recipe)
                style, size = ("*", 11) if len(images) == 1 else ("-o", 3)
                axes.plot(x, accuracies, style, color=f"C{recipes.index(recipe)}", label=text, markersize=size)
                labelled.add(recipe if text else None)
            axes.set(xlabel=per)
            axes.set_title(_set_name(name), parse_math=False)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.grid(alpha=0.3)
            _legend(axes)
    return figure


def _minutes(curves: Mapping[str, tuple[list[float], list[float]]], images: Sequence[float]) -> list[float]:
    """Return the minutes of training after which these images had been seen."""
    seen, minutes = curves.get("train/minutes", ([], []))
    return [float(minute) for minute in np.interp(images, [0, *seen], [0, *minutes])]


def summary_table(runs: Mapping[str, Path]) -> str:
    """Return a line for each run: images, minutes, last loss, last and best figure of each set."""
    rows = [["run", "images", "minutes", "loss", "set", "last", "best"]]
    for label, path in runs.items():
        curves = read_metrics(path)
        images, minutes, loss = (
            _last(curves, name, form)
            for name, form in (("images_seen", ",.0f"), ("train/minutes", ".1f"), ("train/loss", ".3f"))
        )
        for name in main_figures(curves) or [""]:  # a run without a set also has a line
            accuracies = curves[name][1] if name else []
            best_of = max((value for value in accuracies if not math.isnan(value)), default=math.nan)
            last, best = (f"{accuracies[-1]:.2%}", f"{best_of:.2%}") if accuracies else ("–", "–")
            rows.append([label, images, minutes, loss, _set_name(name), last, best])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    fitted = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in fitted)


def _draw(
    axes: Any, name: str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], label: str, colour: str
) -> None:
    names = main_figures(curves) if name == "eval" else [name] * (name in curves)
    for style, found in zip(("-o", "--s", ":^", "-.d") * len(names), names, strict=False):
        which = _set_name(found) if name == "eval" else ""
        text = " · ".join(part for part in (label, which) if part)
        axes.plot(*curves[found], style if name == "eval" else "-", color=colour, label=_label(text), markersize=4)


def _label(text: str) -> str | None:
    """Return a label that Matplotlib shows; it hides labels that start with an underscore."""
    return f" {text}" if text.startswith("_") else text or None


def _legend(axes: Any) -> None:
    """Add the legend if there are labels. Dollar signs in names do not start formulas."""
    if axes.get_legend_handles_labels()[1]:
        for text in axes.legend(fontsize="small").get_texts():
            text.set_parse_math(False)


def main_figures(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> list[str]:
    """Return the main figure of each evaluation set: its accuracy, or else the one written longest.

    Of several it is the first: :meth:`~sphereface.evaluation.result.Result.scalars` begins with it.
    """
    main: dict[str, str] = {}
    for name, (seen, _) in curves.items():
        of_set, _, tag = name.rpartition("/")
        if not name.startswith("eval/") or tag == "changed" or "/accuracy_" in of_set:  # of a group such as a/b
            continue
        best = main.setdefault(of_set, name)
        if tag == "accuracy" or (not best.endswith("/accuracy") and seen[-1] > curves[best][0][-1]):
            main[of_set] = name
    return list(main.values())


def _set_name(figure: str) -> str:
    """Return the name of the set, with that of a figure other than the accuracy: ``id rank 1``."""
    of_set, _, tag = figure.removeprefix("eval/").rpartition("/")
    return of_set if tag in ("", "accuracy") else f"{of_set} {tag.replace('_', ' ')}"


def _last(curves: Mapping[str, tuple[list[float], list[float]]], name: str, form: str) -> str:
    return format(curves[name][1][-1], form) if name in curves else "–"
