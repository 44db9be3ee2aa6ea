"""Draw the crops of a comparison, or of a query and its most similar images."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .errors import UserError, first_line, printable
from .files import write_whole
from .small_files import check_replaceable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = npt.NDArray[np.uint8]

FIGURE_MARK = b"Matplotlib"
"""Bytes in every file of a figure. They show that a new figure may replace the file."""

_ACROSS = 5  # results in one row of a search figure
_LONGEST = 26  # letters of a name in a pair figure
_LONGEST_OF_MANY = 20  # letters of a name in a search figure


def pair_figure(crops: Sequence[Pixels], names: Sequence[str], title: str) -> Figure:
    """Draw two crops side by side.

    Args:
        crops: two of (H, W, 3) uint8, BGR.
        names: of the images.
        title: result of the comparison.
    """
    figure = _new_figure(figsize=(4.2, 3.2), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    for axes, crop, name in zip(figure.subplots(1, 2), crops, names, strict=True):
        _show(axes, crop, _short(name))
    return figure


def search_figure(query: Pixels, results: Sequence[Pixels | None], captions: Sequence[str], name: str) -> Figure:
    """Draw the query and the results of a search, the most similar one first.

    Args:
        query: (H, W, 3) uint8, BGR.
        results: K crops of the same form; None for an image that cannot be read any more.
        captions: K texts, one above each crop. A line that is too long loses its beginning.
        name: of the query; may have several lines.
    """
    rows = -(-len(results) // _ACROSS)
    figure = _new_figure(figsize=(1.5 * (_ACROSS + 1), 2.2 * rows), layout="constrained")
    grid = figure.subplots(rows, _ACROSS + 1, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    _show(grid[0, 0], query, _lines(f"query\n{name}"), "x-small")
    for axes, crop, caption in zip(grid[:, 1:].flat, results, captions, strict=False):
        _show(axes, np.full_like(query, 200) if crop is None else crop, _lines(caption), "x-small")
    return figure


def check_plot(path: Path | None, images: Sequence[str]) -> None:
    """Check ``--save-plot`` before any work.

    Args:
        path: the file to write; None: there is nothing to check.
        images: files that the command reads, and that the plot must not replace.

    Raises:
        UserError: ``path`` is a folder or one of ``images``, has an unknown format, or exists and
            is not a figure.
    """
    if path is None:
        return
    if path.is_dir() or os.path.realpath(path) in map(os.path.realpath, images):
        what = "a folder" if path.is_dir() else "an image that this command reads"
        raise UserError(f"--save-plot: got {path}, {what} · allowed: the name of a new file")
    if (kind := _kind(path)) not in (kinds := _new_figure().canvas.get_supported_filetypes()):
        raise UserError(f"--save-plot: got {path} with the format {kind} · allowed: {', '.join(sorted(kinds))}")
    check_replaceable(path, FIGURE_MARK, "--save-plot")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the suffix, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        drawn = io.BytesIO()  # Pillow does not notice a short write to a file
        draw_into(figure, drawn, _kind(path))
        write_whole(path, drawn.getvalue(), durable=False)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or first_line(error)  # strerror omits the temporary name
        raise UserError(f"--save-plot: {path} cannot be written ({why}) · give another place, or free space") from error


def draw_into(figure: Figure, file: BinaryIO, kind: str) -> None:
    """Write a figure that contains :data:`FIGURE_MARK`.

    Matplotlib itself writes the mark in formats other than those below.
    """
    from PIL import Image
    from PIL.ExifTags import Base

    exif = Image.Exif()
    exif[Base.Software] = FIGURE_MARK.decode()
    more: dict[str, Any] = {"pil_kwargs": {"exif": exif}} if kind in ("jpg", "jpeg", "webp", "tif", "tiff") else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of names in other scripts
        figure.savefig(file, dpi=110, format=kind, **more)


def _new_figure(**options: Any) -> Figure:
    """Make an empty figure. Matplotlib is imported here, since most comparisons draw nothing."""
    from matplotlib.figure import Figure

    return Figure(**options)


def _kind(path: Path) -> str:
    return path.suffix.lower().removeprefix(".") or "png"


def _show(axes: Any, crop: Pixels, title: str, size: str = "small") -> None:
    axes.axis("off")
    axes.imshow(crop[:, :, ::-1])
    axes.set_title(title, fontsize=size, parse_math=False)


def _lines(caption: str) -> str:
    return "\n".join(_short(line, _LONGEST_OF_MANY) for line in caption.split("\n"))


def _short(name: str, longest: int = _LONGEST) -> str:
    name = printable(name)
    return name if len(name) <= longest else f"…{name[-longest + 1 :]}"
