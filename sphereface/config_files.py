"""Configuration files: find them, merge YAML files, and set single values. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from .errors import UserError, shown, shown_key
from .options import suggest
from .places import with_home
from .small_files import is_file, read_text, reason
from .yaml_text import parse_yaml

_PACKAGE = Path(__file__).resolve().parent
SHIPPED_CONFIG_DIRS = (_PACKAGE.parent / "configs", _PACKAGE / "configs")  # a checkout, an installed wheel

_MOST_BYTES = 1 << 18  # in a file; PyYAML reads that in seconds
_MOST_FILES = 20  # that extend each other

NAMED = {"loss": "a-softmax", "model": "spherenet"}
"""Sections whose other keys depend on their key ``name``, with the default of ``name``."""


def find_config(name: str, key: str = "--config") -> Path:
    """Return the file of ``--config``: a path, or the name of a file in ``configs/``.

    The name may leave out ``.yaml``.

    Args:
        name: the path or the name.
        key: the option, for messages.

    Raises:
        UserError: there is no such file, or its folder is not readable.
    """
    wanted = Path(name)
    folders = [Path()] if len(wanted.parts) > 1 else [Path(), Path("configs"), *SHIPPED_CONFIG_DIRS]
    for folder in folders:
        for candidate in (folder / wanted, folder / f"{name}.yaml"):
            if is_file(candidate):
                return candidate
    try:
        wanted.stat()
    except PermissionError as error:
        raise UserError(f"{key}: {shown_key(name)}: cannot be read ({error.strerror})") from error
    except (OSError, ValueError):
        pass  # missing, or not a valid file name
    raise UserError(f"{key}: no file {shown(name)} here or in configs/{suggest(name, list(shipped_configs()))}")


def shipped_configs() -> dict[str, str]:
    """Return the shipped configuration files in order of names, each with its first comment."""
    found = {path.name: path for folder in SHIPPED_CONFIG_DIRS if folder.is_dir() for path in folder.glob("*.yaml")}
    return {name: _first_comment(found[name]) for name in sorted(found)}


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        line = file.readline()
    return shorten(line.lstrip("# "), 80, placeholder=" …") if line.startswith("#") else ""


def read_yaml(path: Path, _below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a YAML file and merge it over the file that its key ``extends`` names."""
    if len(_below) > _MOST_FILES or any(path.samefile(below) for below in _below):
        raise UserError(f"{path}: extends: forms a cycle: {' → '.join(map(str, (*_below, path)[:_MOST_FILES]))}")
    try:
        values = parse_yaml(read_text(path, most=_MOST_BYTES))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as YAML: {reason(error)}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(f"{path}: got {type(values).__name__} · allowed: a mapping of keys to values")
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise UserError(f"{path}: extends: got {shown(parent)} · allowed: the path or the name of one file")
    parent = with_home(parent)
    beside = path.parent / parent
    below = read_yaml(beside if is_file(beside) else find_config(parent, f"{path}: extends"), (*_below, path))
    merged = merge(below, values)
    check_stages(below, merged, str(path))
    return merged


def check_stages(before: Mapping[str, Any], after: Mapping[str, Any], source: str) -> None:
    """Refuse a change of the loss below stages whose options were written for another loss.

    A stage that does not name its loss has the run's. ``m: 1`` is a multiplier in a-softmax and a
    radian in arcface.

    Args:
        before: the configuration that has the stages.
        after: the same after a merge.
        source: of the merged values, for messages.

    Raises:
        UserError: the loss has another name, and a stage without a name is unchanged.
    """
    stages, old, new = _stages(after), loss_name(before), loss_name(after)
    if old == new or stages is not _stages(before):
        return
    for number, stage in enumerate(stages or ()):
        loss = stage.get("loss") if isinstance(stage, dict) else None
        if isinstance(loss, dict) and loss and "name" not in loss:
            raise UserError(
                f"{source}: loss.name: got {shown(new)}, but train.stages[{number}].loss {shown(loss)} was written for "
                f"{shown(old)} · give that stage a loss with a name, or set train.stages=[]"
            )


def loss_name(values: Mapping[str, Any]) -> object:
    """Return the name of the loss that a configuration chooses."""
    loss = values.get("loss")
    return loss.get("name", NAMED["loss"]) if isinstance(loss, dict) else NAMED["loss"]


def _stages(values: Mapping[str, Any]) -> list[Any] | None:
    train = values.get("train")
    stages = train.get("stages") if isinstance(train, dict) else None
    return stages if isinstance(stages, list) else None


def set_value(values: dict[str, Any], override: str) -> None:
    """Apply one ``--set key.sub=value`` to a configuration.

    A mapping sets its own keys and keeps the others, like an extending file (:func:`merge`); an
    empty mapping removes them. A whole ``loss`` or ``model`` replaces the earlier one.

    Raises:
        UserError: the text has another form, or the value cannot be set there.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"--set: got {shown(override)} · allowed: key.sub=value, for example train.lr=0.05")
    if key == "extends":
        raise UserError("--set extends: allowed: in a file only · name that file in --config, or one that extends it")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"--set {shown_key(key)}: the value {shown(text)} is not YAML ({reason(error)})") from error
    section, _, name = key.partition(".")
    if section in NAMED and not name and isinstance(value, dict) and "name" not in value:
        _check_unnamed(section, values.get(section), value)
    if name == "name" and section in NAMED:
        values[section] = _of_another_name(section, values.get(section), value)
    *parents, last = key.split(".")
    for parent in parents:
        below = {} if values.get(parent) is None else values[parent]
        if not isinstance(below, dict):
            raise UserError(
                f"--set {key}: {parent} is {shown(below)} · allowed there: a mapping, such as {{{last}: …}}"
            )
        values[parent] = dict(below)
        values = values[parent]
    if value is None and isinstance(values.get(last), dict):
        raise UserError(
            f"--set {shown_key(key)}: got nothing in place of {shown(values[last])} · allowed: a mapping, such as "
            f"{{KEY: VALUE}} · leave --set {shown_key(key)} out to keep the value of the file"
        )
    if value is None and text.partition(" #")[0].strip().lower() not in ("null", "~"):
        raise UserError(
            f"--set {shown_key(key)}: got no value · allowed: a value, or null for none · an unset variable of the "
            "shell leaves nothing behind the equals sign"
        )
    before = values.get(last)
    if isinstance(value, dict) and value and isinstance(before, dict) and key not in NAMED:
        value = merge({last: before}, {last: value})[last]
    values[last] = value


def _check_unnamed(section: str, before: object, value: dict[str, Any]) -> None:
    """Refuse a section without a name over one with a name: it would select the default."""
    name = before.get("name", NAMED[section]) if isinstance(before, dict) else NAMED[section]
    if name != NAMED[section]:
        raise UserError(
            f"--set {section}: got {shown(value)} without a name, in place of {shown(name)} · add name: {shown(name)}, "
            f"or name: {NAMED[section]}, or set single keys, such as {section}.KEY=VALUE"
        )


def _of_another_name(section: str, options: object, name: object) -> dict[str, Any]:
    """Return a section with the given name; the options of another loss or backbone are dropped."""
    if isinstance(options, dict) and options.get("name", NAMED[section]) == name:
        return options
    return {"name": name}


_WHOLE = ("sets", "losses")
"""Mappings that replace instead of merge: verification sets, and losses of a teacher."""


def merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge one configuration over another by sections; an empty section (null) has no effect."""
    merged = dict(below)
    for key, value in above.items():
        if key in NAMED and isinstance(value, Mapping) and "name" in value:
            merged[key] = _of_another_name(key, merged.get(key), value["name"])
        if value is None and isinstance(merged.get(key), dict):
            continue
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict) and key not in _WHOLE:
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged
