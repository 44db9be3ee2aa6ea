"""A report to files, each whole or not there."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_whole
from ..small_files import check_replaceable, check_results, read_json
from .charts import figure_of
from .report import Report
from .table import format_table

MARK = b'"num_undefined_embeddings"'
"""In every JSON file of a report."""


_OURS = re.compile(r"[^/\\\0]+\.(txt|json|png)")  # a name that a report gives to a file, and no path

JSON_FILES = ("verification.json", "groups.json", "tinyface.json", "result.json")
"""Of the protocols that are shipped; each report writes one."""


def write_report(report: Report, directory: str | Path) -> list[str]:
    """Write the table, the figures as JSON and the charts of a report into a folder, which is made
    if need be.

    Everything is computed before the first file is replaced, and each file is replaced as a whole.
    Then the files of an earlier report in this folder that this one does not write are removed.

    Returns:
        The names of the files.

    Raises:
        UserError: the folder or a file cannot be written, or is not of an evaluation; earlier files
            stay.
    """
    directory = Path(directory)
    files: dict[str, bytes] = {"table.txt": (format_table(report) + "\n").encode()}
    json_name = report.results[0].file_name
    plain = to_dict(report)
    for result in report.results:
        for chart in result.figures():
            buffer = io.BytesIO()
            figure_of(replace(chart, title=f"{report.name}: {chart.title}")).savefig(buffer, dpi=150, format="png")
            files[f"{chart.name}.png"] = buffer.getvalue()
    files[json_name] = json_text({**plain, "files": [json_name, *files]}).encode()
    make_folder(directory)
    check_results(directory, files, MARK)
    earlier = _earlier_files(directory)
    for name in sorted(files, key=lambda name: not name.endswith(".json")):  # by which the others are known as ours
        write_result(directory / name, files[name])
    for name in earlier - set(files):
        _remove(directory / name)
    return list(files)


def remove_marked(path: Path, mark: bytes) -> bool:
    """Remove a file of an earlier evaluation, if there is one with this mark, and say whether there
    was.

    Raises:
        UserError: it cannot be removed.
    """
    try:
        check_replaceable(path, mark, "")
    except UserError:  # a stranger's
        return False
    if not path.is_file():
        return False
    _remove(path)
    return True


def _earlier_files(directory: Path) -> set[str]:
    """Names of the files that earlier reports wrote into a folder, as their JSON files say."""
    found = set[str]()
    for path in directory.glob("*.json"):
        try:
            values = read_json(path)
        except (OSError, ValueError):
            continue
        names = values.get("files")
        if "num_undefined_embeddings" in values and isinstance(names, list):
            found |= {name for name in names if isinstance(name, str) and _OURS.fullmatch(name)}
    return found


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: is of an earlier evaluation and cannot be removed ({error.strerror}) · remove it, or --output DIR"
        ) from error


def to_dict(report: Report) -> dict[str, Any]:
    """Return a report in plain types for JSON: full precision, fractions, None for what is not
    finite.
    """
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


def json_text(value: dict[str, Any]) -> str:
    """Return results as JSON, which has no NaN: a number that is not finite becomes null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
