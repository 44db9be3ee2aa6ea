"""Crops side by side: two that were compared, a query with what a gallery holds like it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from .errors import UserError

Pixels = npt.NDArray[np.uint8]

_ACROSS = 5  # results in a row of a contact sheet
_LONGEST = 26  # letters of a name over one of two pictures
_LONGEST_OF_MANY = 20  # over one on a contact sheet, in smaller letters


def pair_figure(crops: Sequence[Pixels], names: Sequence[str], title: str) -> Figure:
    """Two crops side by side.

    Args:
        crops: two (H, W, 3) uint8, BGR.
        names: of the pictures.
        title: the outcome.
    """
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    for axes, crop, name in zip(figure.subplots(1, 2), crops, names, strict=True):
        _show(axes, crop, _short(name))
    return figure


def search_figure(query: Pixels, results: Sequence[Pixels | None], captions: Sequence[str], name: str) -> Figure:
    """The query, and what was found, the best first.

    Args:
        query: (H, W, 3) uint8, BGR.
        results: K crops alike; None where a picture is not there any more.
        captions: K texts, one over each; a line that is too long loses its beginning.
        name: of the query, in lines as well.
    """
    rows = -(-len(results) // _ACROSS)
    figure = Figure(figsize=(1.5 * (_ACROSS + 1), 2.2 * rows), layout="constrained")
    grid = figure.subplots(rows, _ACROSS + 1, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    _show(grid[0, 0], query, _lines(f"query\n{name}"), "x-small")
    for axes, crop, caption in zip(grid[:, 1:].flat, results, captions, strict=False):
        _show(axes, np.full_like(query, 200) if crop is None else crop, _lines(caption), "x-small")
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, in the format of the suffix. Raises UserError where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise UserError(f"--save-plot: cannot write {path}: {error}") from error


def _show(axes: Any, crop: Pixels, title: str, size: str = "small") -> None:
    axes.axis("off")
    axes.imshow(crop[:, :, ::-1])
    axes.set_title(title, fontsize=size, parse_math=False)


def _lines(caption: str) -> str:
    return "\n".join(_short(line, _LONGEST_OF_MANY) for line in caption.split("\n"))


def _short(name: str, longest: int = _LONGEST) -> str:
    return name if len(name) <= longest else f"…{name[-longest + 1 :]}"
