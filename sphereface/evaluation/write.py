"""Write a report to files; each file is written completely or not at all."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, refusing, shown
from ..files import write_whole
from ..small_files import check_replaceable, check_results, read_json
from .charts import figure_of
from .result import Report
from .table import format_table

MARK = b'"num_undefined_embeddings"'
"""Text that every JSON file of a report contains."""

_OURS = re.compile(r"[^/\\\0]+\.(txt|json|png)")  # a file name of a report, without folders

_ELSEWHERE = "give --output DIR"

JSON_FILES = ("verification.json", "groups.json", "tinyface.json", "result.json")
"""JSON files of the protocols of this package; each report writes one."""


def write_report(report: Report, directory: str | Path) -> list[str]:
    """Write the table, the JSON file and the charts of a report to a folder.

    The folder is created if missing. The function computes everything before it replaces the first
    file, and it replaces whole files. Then it removes the files of an earlier report that this
    report does not write.

    Returns:
        The names of the files.

    Raises:
        UserError: the folder or a file cannot be written, or a file to replace is not of an
            evaluation. Earlier files are kept.
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
    for name in sorted(files, key=lambda name: not name.endswith(".json")):  # first the JSON file, which lists all
        write_result(directory / name, files[name])
    for name in earlier - set(files):
        _remove(directory / name)
    return list(files)


def remove_marked(path: Path, mark: bytes) -> bool:
    """Remove a file of an earlier evaluation, if it contains this mark; return whether it did.

    Raises:
        UserError: the file cannot be removed.
    """
    try:
        check_replaceable(path, mark, "")
    except UserError:  # not a file of an evaluation
        return False
    if not path.is_file():
        return False
    _remove(path)
    return True


def _earlier_files(directory: Path) -> set[str]:
    """Return the names of the files that earlier reports wrote, from their JSON files."""
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
    with refusing(f"{path}: belongs to an earlier evaluation and cannot be removed", f"remove it, or {_ELSEWHERE}"):
        path.unlink(missing_ok=True)


def to_dict(report: Report) -> dict[str, Any]:
    """Return a report as plain types for JSON: fractions in full precision, None if not finite."""
    first, *others = report.results
    return {
        **report.about,
        "name": report.name,
        "images": str(report.images.root),
        **({"set_digest": report.digest} if report.digest else {}),
        "num_undefined_embeddings": report.num_undefined,
        "headline": first.line(),
        **first.to_dict(),
        **{result.key: result.to_dict() for result in others},
    }


def write_result(path: Path, data: bytes | str) -> None:
    """Replace a whole file of results.

    Raises:
        UserError: the file cannot be written; an earlier file is unchanged.
    """
    with refusing(f"{path}: cannot be written", f"an earlier file is unchanged · free space, or {_ELSEWHERE}"):
        write_whole(path, data, durable=False)


def make_folder(directory: Path) -> None:
    """Create a folder for results.

    Raises:
        UserError: the folder cannot be created.
    """
    with refusing(f"{directory}: the folder cannot be created", _ELSEWHERE):
        directory.mkdir(parents=True, exist_ok=True)


def json_text(value: dict[str, Any]) -> str:
    """Return results as JSON; numbers that are not finite become null, since JSON has no NaN.

    Raises:
        UserError: a value is of a type that JSON does not have.
    """
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False, default=_refuse) + "\n"


def _refuse(value: object) -> None:
    raise UserError(
        f"the figures of an evaluation: got {shown(value)} · allowed for JSON: texts, numbers, lists, mappings and None"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {_finite(key): _finite(each) for key, each in value.items()}
    if isinstance(value, np.floating):
        value = float(value)
    elif hasattr(value, "tolist"):  # an array or a number of NumPy or torch, of a plugin
        return _finite(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
