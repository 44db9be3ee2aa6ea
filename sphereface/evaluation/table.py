"""Format a report as text, for the terminal and ``table.txt``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ..errors import printable
from .result import Report, Rows

WIDTH = 100
_ORIGIN = ("checkpoint", "step", "onnx", "embeddings", "input", "table")
_LONGEST_NUMBER = 24  # a column with a longer cell is text, and text is aligned to the left


def format_table(report: Report) -> str:
    """Return the whole report as text."""
    parts = [_head(report)]
    for number, result in enumerate(report.results):
        lines = [] if number == 0 else result.heading()
        heading = [part for line in lines for part in textwrap.wrap(printable(line), WIDTH)]
        blocks = [format_rows(rows) for rows in result.rows()]
        parts += ["\n".join(heading)] * bool(heading) + blocks
    return "\n\n".join(parts)


def _head(report: Report) -> str:
    first, *others = report.results[0].heading() or [""]
    about = [f"{key} {report.about[key]}" for key in _ORIGIN if report.about.get(key) is not None]
    lines = [f"{report.name}: {first}", *others, *([", ".join(about)] if about else [])]
    lines = [part for line in lines for part in textwrap.wrap(printable(line), WIDTH, break_long_words=False)]
    if report.num_undefined:
        some = f"{report.num_undefined:,} of {len(report.images):,} images"
        lines.append(f"{some} have an embedding that is zero or not finite")
    return "\n".join(lines)


def format_rows(rows: Rows) -> str:
    """Return one table as aligned columns, with its title above and its note below."""
    cells = [[printable(cell) for cell in row] for row in [*([rows.header] if rows.header else []), *rows.rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    figures = any(row[0][:1].isdigit() for row in rows.rows)  # in the first column
    text = [rows.key or prose or (not number and not figures) for number, prose in enumerate(prose_columns(rows))]
    lines = [_line(row, widths, text) for row in cells]
    title = [printable(rows.title)] if rows.title and not rows.key else []
    note = textwrap.wrap(printable(rows.note), WIDTH) if rows.note else []
    return "\n".join([*title, *lines, *note])


def prose_columns(rows: Rows) -> list[bool]:
    """Return for each column whether it contains text, which is left-aligned, or figures."""
    columns = zip(*(rows.rows or [rows.header]), strict=True)
    return [any(len(cell) > _LONGEST_NUMBER for cell in column) for column in columns]


def _line(row: Sequence[str], widths: Sequence[int], text: Sequence[bool]) -> str:
    """Join the cells of a row; wrap text that exceeds the width into further lines."""
    columns = zip(row, widths, text, strict=True)
    fitted = [cell.ljust(width) if left else cell.rjust(width) for cell, width, left in columns]
    before = " " + "".join(f"{cell}   " for cell in fitted[:-1])
    room = max(20, WIDTH - len(before))
    if not text[-1] or len(row[-1]) <= room:
        return (before + fitted[-1]).rstrip()
    first, *others = textwrap.wrap(row[-1], room)
    return "\n".join([before + first, *(" " * len(before) + line for line in others)])
