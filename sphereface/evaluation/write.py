"""A report to files, each whole or not there."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_whole
from ..small_files import check_results
from .charts import figure_of
from .report import Report
from .table import format_table

MARK = b'"num_undefined_embeddings"'
"""In every JSON file of a report."""


JSON_FILES = ("verification.json", "groups.json", "tinyface.json", "result.json")
"""Of the protocols that are shipped; each report writes one."""


def write_report(report: Report, directory: str | Path) -> list[str]:
    """Write the table, the figures as JSON and the charts of a report into a folder, which is made if need be.

    Everything is computed before the first file is replaced, and each file is replaced as a whole.

    Returns:
        The names of the files.

    Raises:
        UserError: the folder or a file cannot be written, or is not of an evaluation; earlier files stay.
    """
    directory = Path(directory)
    files: dict[str, bytes] = {"table.txt": (format_table(report) + "\n").encode()}
    files[report.results[0].file_name] = _json(to_dict(report))
    for result in report.results:
        for chart in result.figures():
            buffer = io.BytesIO()
            figure_of(replace(chart, title=f"{report.name}: {chart.title}")).savefig(buffer, dpi=150, format="png")
            files[f"{chart.name}.png"] = buffer.getvalue()
    make_folder(directory)
    check_results(directory, files, MARK)
    for name in sorted(files, key=lambda name: not name.endswith(".json")):  # by which the others are known as ours
        write_result(directory / name, files[name])
    return list(files)


def to_dict(report: Report) -> dict[str, Any]:
    """Return a report in plain types for JSON: full precision, fractions, None for what is not finite."""
    first, *others = report.results
    return {
        **report.about,
        "name": report.name,
        "images": str(report.images.root),
        "num_undefined_embeddings": report.num_undefined,
        **first.to_dict(),
        **{result.key: result.to_dict() for result in others},
    }


def write_result(path: Path, data: bytes | str) -> None:
    """Replace a file of results as a whole.

    Raises:
        UserError: it cannot be written; an earlier file stays as it was.
    """
    try:
        write_whole(path, data, durable=False)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}) · an earlier file is unchanged · free space, or --output DIR"
        ) from error


def make_folder(directory: Path) -> None:
    """Make a folder for results. Raises UserError where that cannot be done."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be made a folder for the results ({error.strerror})") from error


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
