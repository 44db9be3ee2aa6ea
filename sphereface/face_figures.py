"""Crops side by side: two that were compared, a query with what a gallery holds like it."""

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
"""In every file of a figure, so that no photograph is replaced by one."""
_ACROSS = 5  # results in a row of a contact sheet
_LONGEST = 26  # letters of a name over one of two images
_LONGEST_OF_MANY = 20  # over one on a contact sheet, in smaller letters


def pair_figure(crops: Sequence[Pixels], names: Sequence[str], title: str) -> Figure:
    """Two crops side by side.

    Args:
        crops: two (H, W, 3) uint8, BGR.
        names: of the images.
        title: the outcome.
    """
    figure = _new_figure(figsize=(4.2, 3.2), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    for axes, crop, name in zip(figure.subplots(1, 2), crops, names, strict=True):
        _show(axes, crop, _short(name))
    return figure


def search_figure(query: Pixels, results: Sequence[Pixels | None], captions: Sequence[str], name: str) -> Figure:
    """The query, and what was found, the best first.

    Args:
        query: (H, W, 3) uint8, BGR.
        results: K crops alike; None where an image is not there any more.
        captions: K texts, one over each; a line that is too long loses its beginning.
        name: of the query, in lines as well.
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
        path: the file to write, if any.
        images: files that are read, which the plot must not replace.

    Raises:
        UserError: it is a folder, one of ``images``, of an unknown format, or a file that holds no
            figure.
    """
    if path is None:
        return
    if path.is_dir() or os.path.realpath(path) in map(os.path.realpath, images):
        what = "a folder" if path.is_dir() else "an image that is read"
        raise UserError(f"--save-plot: got {path}, {what} · allowed: the name of a new file")
    if (kind := _kind(path)) not in (kinds := _new_figure().canvas.get_supported_filetypes()):
        raise UserError(f"--save-plot: got {path}, of the format {kind} · allowed: {', '.join(sorted(kinds))}")
    check_replaceable(path, FIGURE_MARK, "--save-plot")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole, in the format of the suffix. Raises UserError where that cannot be
    done.
    """
    try:
        drawn = io.BytesIO()  # Pillow does not notice a short write to a file
        draw_into(figure, drawn, _kind(path))
        write_whole(path, drawn.getvalue(), durable=False)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or first_line(error)  # without the name of the temporary file
        raise UserError(f"--save-plot: {path} cannot be written ({why}) · give another place, or free space") from error


def draw_into(figure: Figure, file: BinaryIO, kind: str) -> None:
    """Write a figure with :data:`FIGURE_MARK` in it, which Matplotlib itself writes in other
    formats than these.
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
    """Make an empty figure. Matplotlib is imported here, since most comparisons draw none."""
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
