"""Typed, frozen option classes filled from YAML: one scheme for every setting of the project. No torch.

An option class is a frozen dataclass whose fields are made by :func:`option`. :func:`parse_options` fills one
from a mapping and collects every problem, each as one line: key, value received, what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from .errors import UserError

T = TypeVar("T")


def option(
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: Iterable[Any] | None = None,
    words: Iterable[str] = (),
) -> Any:
    """A field of an option class.

    Args:
        default: its value where the YAML is silent; without one the key must be given.
        low, high: the closed range of allowed numbers (of each element, for a list).
        above: an open lower bound.
        choices: the allowed values, where they are few.
        words: texts that are allowed beside numbers.
    """
    metadata = {"low": low, "high": high, "above": above, "choices": tuple(choices) if choices else None}
    metadata["words"] = tuple(words)
    if isinstance(default, (dict, list)):
        made = default
        return dataclasses.field(default_factory=lambda: type(made)(made), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse_options(cls: type[T], values: object, *, prefix: str, problems: list[str]) -> T | None:
    """Fill an option class from a mapping.

    Args:
        cls: a frozen dataclass of :func:`option` fields and nested option classes.
        values: what YAML gave for it; None stands for an empty mapping.
        prefix: the dotted key of this mapping, "" at the top.
        problems: gets one line for each thing that is wrong.

    Returns:
        The filled class, or None where something was wrong with it.
    """
    found = len(problems)
    filled = fill_options(cls, values, prefix=prefix, problems=problems)
    return filled if len(problems) == found else None


def fill_options(cls: type[T], values: object, *, prefix: str, problems: list[str]) -> T:
    """As :func:`parse_options`, but what was wrong gets its default, or None, so that the rest can be checked too."""
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        problems.append(f"{prefix}: got {values!r} · allowed: a mapping of keys to values")
        values = {}
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            problems.append(f"{_join(prefix, key)}: unknown key{suggest(str(key), fields)}")
    filled: dict[str, Any] = {}
    for name, field in fields.items():
        key = _join(prefix, name)
        if dataclasses.is_dataclass(hints[name]):
            filled[name] = fill_options(hints[name], values.get(name), prefix=key, problems=problems)
        elif name in values:
            filled[name] = _convert(values[name], hints[name], field, key, problems)
        else:
            filled[name] = _default(field)
            if filled[name] is dataclasses.MISSING:
                problems.append(f"{key}: missing · allowed: {describe(hints[name], field.metadata)}")
                filled[name] = None
    try:
        return cls(**filled)
    except UserError as error:  # from __post_init__: values that are each fine alone
        problems.append(f"{prefix}: {error}")
        return cls()


def suggest(name: str, known: Iterable[str]) -> str:
    """' · did you mean …?' for a near miss, else the list of what is known."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" · did you mean {near[0]!r}?" if near else f" · known: {', '.join(known)}"


def describe(hint: Any, metadata: Mapping[str, Any]) -> str:
    """What a field allows, in words: 'an integer from 1 to 4', 'one of exact, caffe'."""
    if metadata.get("choices"):
        return "one of " + ", ".join(str(choice) for choice in metadata["choices"])
    base, optional = _strip_none(hint)
    origin = typing.get_origin(base)
    if origin is typing.Union:
        return " or ".join(describe(kind, metadata) for kind in typing.get_args(base))
    kind = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(base, "a mapping")
    if origin is tuple:
        element = typing.get_args(base)[0]
        kind = {int: "a list of integers", float: "a list of numbers", str: "a list of texts"}[element]
    low, high, above = metadata.get("low"), metadata.get("high"), metadata.get("above")
    if low is not None and high is not None:
        kind += f" from {low:g} to {high:g}"
    elif low is not None:
        kind += f" of at least {low:g}"
    elif above is not None:
        kind += f" above {above:g}" + (f", at most {high:g}" if high is not None else "")
    elif high is not None:
        kind += f" of at most {high:g}"
    kind += "".join(f" or {word}" for word in metadata.get("words", ()))
    return kind + (" or null" if optional else "")


def to_plain(options: Any) -> Any:
    """An option class as dicts, lists and numbers, ready for YAML or JSON."""
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        return {f.name: to_plain(getattr(options, f.name)) for f in dataclasses.fields(options)}
    if isinstance(options, Mapping):
        return {key: to_plain(value) for key, value in options.items()}
    if isinstance(options, (list, tuple)):
        return [to_plain(value) for value in options]
    return options


def _join(prefix: str, key: object) -> str:
    return f"{prefix}.{key}" if prefix else str(key)


def _strip_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = tuple(arg for arg in typing.get_args(hint) if arg is not type(None))
        return typing.Union[rest], len(rest) < len(typing.get_args(hint))  # noqa: UP007 -- Union of one is that one
    return hint, False


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _convert(value: object, hint: Any, field: dataclasses.Field[Any], key: str, problems: list[str]) -> Any:
    base, optional = _strip_none(hint)
    if (value is None and optional) or (isinstance(value, str) and value in field.metadata.get("words", ())):
        return value
    converted = _to_type(value, base)
    if converted is _NOT_OF_TYPE or not _in_range(converted, field.metadata):
        problems.append(f"{key}: got {value!r} · allowed: {describe(hint, field.metadata)}")
        default = _default(field)
        return None if default is dataclasses.MISSING else default
    return converted


_NOT_OF_TYPE = object()


def _to_type(value: object, kind: Any) -> Any:
    """The value as ``kind``, or _NOT_OF_TYPE. Nothing is rounded, and a bool is no number."""
    if typing.get_origin(kind) is typing.Union:
        found = (_to_type(value, allowed) for allowed in typing.get_args(kind))
        return next((one for one in found if one is not _NOT_OF_TYPE), _NOT_OF_TYPE)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            return _NOT_OF_TYPE
        elements = tuple(_to_type(element, typing.get_args(kind)[0]) for element in value)
        return _NOT_OF_TYPE if any(element is _NOT_OF_TYPE for element in elements) else elements
    if typing.get_origin(kind) is dict or kind is dict:
        return dict(value) if isinstance(value, Mapping) else _NOT_OF_TYPE
    if kind in (int, float):
        return _to_number(value, kind)
    return value if isinstance(value, kind) else _NOT_OF_TYPE


def _to_number(value: object, kind: type) -> Any:
    if isinstance(value, str):  # PyYAML reads 1e-4 as a text
        try:
            value = float(value)
        except ValueError:
            return _NOT_OF_TYPE
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return _NOT_OF_TYPE
    if kind is int and value != int(value):
        return _NOT_OF_TYPE
    return kind(value)


def _in_range(value: Any, metadata: Mapping[str, Any]) -> bool:
    if isinstance(value, tuple):
        return all(_in_range(element, metadata) for element in value)
    choices = metadata.get("choices")
    if choices:
        return value in choices
    low, high, above = metadata.get("low"), metadata.get("high"), metadata.get("above")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return True
    return (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)
