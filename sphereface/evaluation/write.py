"""A report to files."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import UserError
from .plain import to_dict
from .report import Report
from .roc_plot import roc_figure
from .table import format_table

JSON_NAME = "verification.json"


def write_report(report: Report, directory: str | Path) -> None:
    """Write ``table.txt``, ``verification.json`` and ``roc.png`` into a folder, which is made if need be."""
    directory = Path(directory)
    make_folder(directory)
    (directory / "table.txt").write_text(format_table(report) + "\n", encoding="utf-8")
    text = json.dumps(to_dict(report), indent=2, ensure_ascii=False, allow_nan=False)
    (directory / JSON_NAME).write_text(text + "\n", encoding="utf-8")
    figure = roc_figure(report.verification, title=report.pair_set.name)
    figure.savefig(directory / "roc.png", dpi=150)


def make_folder(directory: Path) -> None:
    """Make a folder for results. Raises UserError where that cannot be done."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made a folder for the results ({error.strerror})") from error
