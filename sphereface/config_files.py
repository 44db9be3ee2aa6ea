"""Configuration files: where they are, YAML on top of YAML, and single values on top of both. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError
from .options import suggest

_PACKAGE = Path(__file__).resolve().parent
SHIPPED_CONFIG_DIRS = (_PACKAGE.parent / "configs", _PACKAGE / "configs")  # a checkout, an installed wheel

NAMED = {"loss": "a-softmax", "model": "spherenet"}
"""Sections whose other keys depend on their key ``name``, and the name where the file gives none."""


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key may stand once only: of two, one would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the safe loader does, but a repeated key is an error with its line."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"the key {key!r} stands twice, again in line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)


def find_config(name: str) -> Path:
    """The file behind ``--config``: a path, or the bare name of a file in ``configs/`` (``.yaml`` may be left out)."""
    wanted = Path(name)
    folders = [Path()] if len(wanted.parts) > 1 else [Path(), Path("configs"), *SHIPPED_CONFIG_DIRS]
    for folder in folders:
        for candidate in (folder / wanted, folder / f"{name}.yaml"):
            if candidate.is_file():
                return candidate
    shipped = sorted({p.name for d in SHIPPED_CONFIG_DIRS if d.is_dir() for p in d.glob("*.yaml")})
    raise UserError(f"--config: no file {name!r} here or in configs/{suggest(name, shipped)}")


def read_yaml(path: Path, _below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """One YAML file, on top of the file that its key ``extends`` names (looked up as ``--config`` is)."""
    if path in _below:
        raise UserError(f"{path}: extends: goes in a circle over {' → '.join(str(p) for p in (*_below, path))}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 -- a SafeLoader
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"{path}: got {type(values).__name__} · allowed: a mapping of keys to values")
    parent = values.pop("extends", None)
    if parent is None:
        return values
    beside = path.parent / str(parent)
    parent_path = beside if beside.is_file() else find_config(str(parent))
    return merge(read_yaml(parent_path, (*_below, path)), values)


def set_value(values: dict[str, Any], override: str) -> None:
    """Put what one ``--set`` got, ``key.sub=value``, into a configuration. Raises UserError where it is none."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"--set: got {override!r} · allowed: key.sub=value, for example train.lr=0.05")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"--set {key}: the value {text!r} is not YAML") from error
    section, _, name = key.partition(".")
    if name == "name" and section in NAMED:
        values[section] = _of_another_name(section, values.get(section), value)
    *parents, last = key.split(".")
    for parent in parents:
        below = {} if values.get(parent) is None else values[parent]
        if not isinstance(below, dict):
            raise UserError(f"--set {key}: {parent} is {below!r} · allowed there: a mapping, such as {{{last}: …}}")
        values[parent] = dict(below)
        values = values[parent]
    values[last] = value


def _of_another_name(section: str, options: object, name: object) -> dict[str, Any]:
    """The section once its name is ``name``: options of another loss or backbone mean something else, and go."""
    if isinstance(options, dict) and options.get("name", NAMED[section]) == name:
        return options
    return {"name": name}


def merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One configuration on top of another, section by section."""
    merged = dict(below)
    for key, value in above.items():
        if key in NAMED and isinstance(value, Mapping) and "name" in value:
            merged[key] = _of_another_name(key, merged.get(key), value["name"])
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict) and key != "sets":
            merged[key] = merge(merged[key], value)  # but verification sets are those of the file that names some
        else:
            merged[key] = value
    return merged
