"""Run ``sphereface plot-margins``; its options are in :mod:`.parsers.plot_margins`."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image  # comes with matplotlib

from ..errors import UserError
from ..files import write_whole
from ..geometry.curves import every_curve
from ..geometry.digits import Learned, learn_all
from ..geometry.figures import boundaries_figure, extents_figure, features_figure, margins_figure


def run(args: argparse.Namespace) -> int:
    """Draw the chosen figures and write them."""

    def features() -> Figure:
        learned = [learn_all(dim, steps=args.steps, seed=args.seed) for dim in (2, 3)]
        for dim, results in zip((2, 3), learned, strict=True):
            print(_table(dim, results))
        return features_figure(*learned)

    figures: dict[str, Callable[[], Figure]] = {
        "margins": lambda: margins_figure(every_curve()),
        "boundaries": boundaries_figure,
        "extents": extents_figure,
        "features": features,
    }
    _check(args, figures)
    for name in args.figures or figures:
        _write(figures[name](), args.output / f"{name}.png")
    return 0


def _check(args: argparse.Namespace, figures: dict[str, Callable[[], Figure]]) -> None:
    for name in args.figures:
        if name not in figures:
            raise UserError(f"FIGURE: got {name!r} · allowed: {', '.join(figures)} · omit it to draw all")
    if args.steps < 1:
        raise UserError(f"--steps: got {args.steps} · allowed: an integer of at least 1")
    if not 0 <= args.seed < 2**63:
        raise UserError(f"--seed: got {args.seed} · allowed: an integer from 0 to 2^63 − 1")


def _table(dim: int, results: Sequence[Learned]) -> str:
    lines = [f"{dim}-D features               accuracy  spread     gap"]
    lines += [f"{r.label:28}{r.accuracy:7.1%} {r.spread:6.1f}° {r.gap:6.1f}°" for r in results]
    return "\n".join(lines)


def _write(figure: Figure, path: Path) -> None:
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=110)
    Image.open(drawn).convert("RGB").quantize(128).save(small, "PNG", optimize=True)  # a third of the size
    try:
        write_whole(path, small.getvalue(), durable=False)
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error.strerror or error}") from error
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
