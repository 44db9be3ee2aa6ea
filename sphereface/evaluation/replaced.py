"""Say which earlier results a new evaluation replaces, unless it repeats them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import shown, shown_key
from ..small_files import read_json
from .write import JSON_FILES

_SOURCES = ("checkpoint", "onnx", "embeddings")
_SET = ("set_digest", "num_images", "num_genuine", "num_impostor")  # earlier versions wrote no digest
_RULE = ("mirror", "subtract_mean", "precision", "input")

Results = Mapping[str, Mapping[str, Any]]
"""Name of a JSON file → its content."""


def results_in(directory: Path, names: tuple[str, ...] = JSON_FILES) -> Results:
    """Return the readable JSON files of an evaluation in a folder."""
    found = {}
    for name in names:
        with contextlib.suppress(OSError, ValueError):
            found[name] = read_json(directory / name)
    return found


def replaced_results(before: Results, after: Results) -> str:
    """Return a line on replaced results of another file, set or rule; "" if there are none.

    Args:
        before: :func:`results_in` a folder before the new report was written.
        after: the same afterwards.
    """
    for name, old in before.items():
        if why := _difference(name, old, after.get(name)):
            return f"\nreplaced: results {why} · --output DIR keeps both"
    return ""


def replaced_suite(before: Results, after: Results) -> str:
    """Return a line on a replaced table of other sets; "" if there is none."""
    for name, old in before.items():
        sets, now = old.get("sets"), after.get(name, {}).get("sets", {})
        if isinstance(sets, dict) and sets.keys() != now.keys():
            names = ", ".join(map(shown_key, sets))
            return f"\nreplaced: the table of other sets: {names} · --output DIR keeps both"
    return ""


def replaced_comparison(before: Results, after: Results) -> str:
    """Return a line on a replaced comparison of another file, set or rule; "" if there is none."""
    for name, old in before.items():
        for side in "ab":  # earlier versions wrote neither
            if isinstance(old.get(side), dict) and (why := _difference(name, old[side], after.get(name, {}).get(side))):
                return f"replaced: a comparison, {side.upper()} {why} · --output DIR keeps both"
    return ""


def origin_of_results(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a JSON file of results that name their file, set and rule."""
    files = (key for source in _SOURCES for key in (source, f"{source}_sha256"))
    return {key: content[key] for key in (*files, "pairs", "images", *_SET, *_RULE) if key in content}


def _difference(name: str, old: Mapping[str, Any], new: Mapping[str, Any] | None) -> str:
    """Return what the results in a file were of, if the new ones are of something else."""
    if new is None:
        return f"of another protocol, {name}"
    for key in (f"{source}_sha256" for source in _SOURCES):
        if old.get(key) is not None and old[key] != new.get(key):
            return f"of another file, {shown(old.get(key.removesuffix('_sha256')))}"
    if any(key in old and key in new and old[key] != new[key] for key in _SET):
        return f"of other pairs or images, {shown(old.get('pairs', old.get('images')))}"
    for key in _RULE:
        if key in old and key in new and old[key] != new[key]:
            return f"with {key} {shown(old[key])}, now {shown(new[key])}"
    return ""
