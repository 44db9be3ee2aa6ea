"""Convert and describe one value of an option class by its type hint. No torch."""

from __future__ import annotations

import contextlib
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

_DECIMAL = re.compile(r"[-+]?(?:[0-9]{1,300}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_LONGEST_INTEGER = 10**300  # float64 represents it, and Python prints it
MOST_INTEGER = 2**53  # float64 represents every integer up to it, and torch accepts it as a size


class NotOfType(Exception):
    """A value is not of the type of its field."""


_KINDS: dict[Any, str] = {
    **{int: "an integer", float: "a number", bool: "true or false", str: "a text"},
    **{tuple[int, ...]: "a list of integers", tuple[float, ...]: "a list of numbers"},
    **{tuple[str, ...]: "a list of texts", dict[str, float]: "a mapping of names to numbers"},
}


def describe(hint: Any, metadata: Mapping[str, Any]) -> str:
    """Describe the allowed values of a field: 'an integer from 1 to 4', 'one of exact, caffe'."""
    if metadata.get("choices"):
        return "one of " + ", ".join(str(choice) for choice in metadata["choices"])
    base, optional = kind_of(hint, metadata)
    origin = typing.get_origin(base)
    if origin is typing.Union:
        return " or ".join(describe(kind, metadata) for kind in typing.get_args(base))
    kind = _KINDS.get(base, "a list of mappings" if origin is tuple else "a mapping")
    low, high, above = metadata.get("low"), metadata.get("high"), metadata.get("above")
    if above is not None and metadata.get("below") is not None:
        kind += f" above {above:g} and below {metadata['below']:g}"
    elif low is not None and high is not None:
        kind += f" from {_number(low)} to {_number(high)}"
    elif low is not None:
        kind += f" of at least {_number(low)}"
    elif above is not None:
        kind += f" above {above:g}" + (f" and at most {high:g}" if high is not None else "")
    elif high is not None:
        kind += f" of at most {high:g}"
    kind += "".join(f" or {word}" for word in metadata.get("words", ()))
    return kind + (" or null" if optional else "")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def kind_of(hint: Any, metadata: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the type of a hint, and whether it allows null; with ``words``, it allows texts."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    kinds = typing.get_args(hint)
    left_out = (type(None), str) if metadata.get("words") else (type(None),)
    rest = tuple(kind for kind in kinds if kind not in left_out)
    return typing.Union[rest], type(None) in kinds  # noqa: UP007 -- Union of one is that one


def wants_quotes(value: object, base: Any) -> bool:
    """Return whether a text is expected where YAML found a number, a truth value or null."""
    single = typing.get_origin(base) not in (tuple, dict)  # quotes do not make it a list or a mapping
    several = value if isinstance(value, (list, tuple)) else [value] * single
    return "str" in str(base) and any(each is None or isinstance(each, (bool, float)) for each in several)


def to_type(value: object, kind: Any, exact: bool) -> Any:
    """Return the value as ``kind``; never round, and treat no bool as a number.

    Unless ``exact`` is set, an integer counts as a text, and a text of decimal digits as a number:
    YAML reads the name 45 as an integer, and the number 010 as a text.
    """
    origin, kinds = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Union:
        for allowed in kinds:
            with contextlib.suppress(NotOfType):
                return to_type(value, allowed, exact)
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(to_type(element, kinds[0], exact) for element in value)
    elif origin is dict or kind is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif kind in (int, float):
        return _to_number(value, kind, exact)
    elif kind is str and isinstance(value, int) and not isinstance(value, bool) and not exact:
        if abs(value) < _LONGEST_INTEGER:
            return str(value)
    elif isinstance(value, kind) and not (isinstance(value, str) and "\0" in value):  # not allowed in paths and names
        return value
    raise NotOfType


def _to_number(value: object, kind: type, exact: bool) -> Any:
    if isinstance(value, str) and not exact and _DECIMAL.fullmatch(value):
        value = float(value) if set(value) & set(".eE") else int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NotOfType
    if not abs(value) < _LONGEST_INTEGER or (kind is int and (value != int(value) or abs(value) > MOST_INTEGER)):
        raise NotOfType  # also NaN and infinity
    return kind(value)


def in_range(value: Any, metadata: Mapping[str, Any]) -> bool:
    """Return whether a value, or each element of a list, is in the range of its field."""
    if isinstance(value, tuple):
        return all(in_range(element, metadata) for element in value)
    choices = metadata.get("choices")
    if choices:
        return value in choices
    low, high, above = metadata.get("low"), metadata.get("high"), metadata.get("above")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return True
    below = metadata.get("below")
    closed = (low is None or value >= low) and (high is None or value <= high)
    return closed and (above is None or value > above) and (below is None or value < below)
