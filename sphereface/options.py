"""Typed, frozen option classes filled from YAML: one scheme for all settings. No torch.

An option class is a frozen dataclass whose fields are made by :func:`option`. :func:`parse_options`
fills one from a mapping. It collects every problem as one line: key, received value, allowed
values.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from .errors import UserError, shown, shown_key

T = TypeVar("T")

_DECIMAL = re.compile(r"[-+]?(?:[0-9]{1,300}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_LONGEST_NAME = 100  # characters of a name that may have a suggestion


def option(
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: Iterable[Any] | None = None,
    words: Iterable[str] = (),
) -> Any:
    """Declare a field of an option class.

    Args:
        default: its value where the YAML has no key; without a default the key is required.
        low, high: the closed range of allowed numbers (of each element, for a list).
        above: an open lower bound.
        choices: the allowed values, where they are few.
        words: texts that are allowed besides numbers.
    """
    metadata = {"low": low, "high": high, "above": above, "choices": tuple(choices) if choices else None}
    metadata["words"] = tuple(words)
    if isinstance(default, (dict, list)):
        made = default
        return dataclasses.field(default_factory=lambda: type(made)(made), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def derived(default: Any) -> Any:
    """Declare a field that code derives from the others; no YAML key sets it."""
    return dataclasses.field(default=default, metadata={"derived": True})


def parse_options(
    cls: type[T], values: object, *, prefix: str, problems: list[str], exact: bool = False, others: Iterable[str] = ()
) -> T | None:
    """Fill an option class from a mapping.

    Args:
        cls: a frozen dataclass of :func:`option` fields and nested option classes.
        values: from YAML or JSON; None means an empty mapping.
        prefix: the dotted key of this mapping, "" at the top.
        problems: receives one line for each problem.
        exact: refuse an integer in place of a text, and a text in place of a number. YAML may read
            one as the other, JSON does not.
        others: further known keys of this mapping, which the caller has already taken out.

    Returns:
        The filled class, or None where there was a problem.
    """
    found = len(problems)
    filled = _fill(cls, values, prefix, problems, exact, others)
    if len(problems) > found:
        return None
    try:
        return cls(**filled)
    except UserError as error:  # from __post_init__: a wrong combination of valid values
        problems.append(f"{prefix}: {error}" if prefix else str(error))
        return None


def fill_options(
    cls: type[T], values: object, *, prefix: str, problems: list[str], exact: bool = False, others: Iterable[str] = ()
) -> T:
    """Fill like :func:`parse_options`, but replace wrong values, to check the others too."""
    filled = _fill(cls, values, prefix, problems, exact, others)
    try:
        return cls(**filled)
    except UserError as error:
        problems.append(f"{prefix}: {error}")
        return cls()


def _fill(
    cls: type[Any], values: object, prefix: str, problems: list[str], exact: bool, others: Iterable[str]
) -> dict[str, Any]:
    """Return a value for each field; a wrong one is replaced by its default, or None."""
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        problems.append(f"{prefix}: got {shown(values)} · allowed: a mapping of keys to values")
        values = {}
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if "derived" not in f.metadata}
    for key in values:
        if key not in fields:
            problems.append(f"{_join(prefix, key)}: unknown key{suggest(str(key), (*others, *fields))}")
    filled: dict[str, Any] = {}
    for name, field in fields.items():
        key = _join(prefix, name)
        if dataclasses.is_dataclass(hints[name]):
            nested = typing.cast("type[Any]", hints[name])
            filled[name] = fill_options(nested, values.get(name), prefix=key, problems=problems, exact=exact)
        elif name in values:
            filled[name] = _convert(values[name], hints[name], field, key, problems, exact)
        else:
            filled[name] = _default(field)
            if filled[name] is dataclasses.MISSING:
                problems.append(f"{key}: missing · allowed: {describe(hints[name], field.metadata)}")
                filled[name] = None
    return filled


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ' · did you mean …?' for a similar name, else the list of known names."""
    known = list(known)
    near = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=1, cutoff=0.6)
    return f" · did you mean {near[0]!r}?" if near else f" · known: {', '.join(known)}"


def describe(hint: Any, metadata: Mapping[str, Any]) -> str:
    """Describe the allowed values of a field: 'an integer from 1 to 4', 'one of exact, caffe'."""
    if metadata.get("choices"):
        return "one of " + ", ".join(str(choice) for choice in metadata["choices"])
    base, optional = _kind_of(hint, metadata)
    origin = typing.get_origin(base)
    if origin is typing.Union:
        return " or ".join(describe(kind, metadata) for kind in typing.get_args(base))
    kind = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}.get(base, "a mapping")
    if origin is tuple:
        element = typing.get_args(base)[0]
        kinds = {int: "a list of integers", float: "a list of numbers", str: "a list of texts"}
        kind = kinds.get(element, "a list of mappings")
    if origin is dict and typing.get_args(base)[1] is float:
        kind = "a mapping of names to numbers"
    low, high, above = metadata.get("low"), metadata.get("high"), metadata.get("above")
    if low is not None and high is not None:
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


def to_plain(options: Any) -> Any:
    """Convert an option class to dicts, lists and numbers for YAML or JSON."""
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        return {f.name: to_plain(getattr(options, f.name)) for f in dataclasses.fields(options)}
    if isinstance(options, Mapping):
        return {key: to_plain(value) for key, value in options.items()}
    if isinstance(options, (list, tuple)):
        return [to_plain(value) for value in options]
    return options


def _join(prefix: str, key: object) -> str:
    return f"{prefix}.{shown_key(key)}" if prefix else shown_key(key)


def _kind_of(hint: Any, metadata: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the type of a hint, and whether it allows null; with ``words``, it allows texts."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    kinds = typing.get_args(hint)
    left_out = (type(None), str) if metadata.get("words") else (type(None),)
    rest = tuple(kind for kind in kinds if kind not in left_out)
    return typing.Union[rest], type(None) in kinds  # noqa: UP007 -- Union of one is that one


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _convert(
    value: object, hint: Any, field: dataclasses.Field[Any], key: str, problems: list[str], exact: bool
) -> Any:
    base, optional = _kind_of(hint, field.metadata)
    if (value is None and optional) or (isinstance(value, str) and value in field.metadata.get("words", ())):
        return value
    if _is_list_of_classes(base) and isinstance(value, (list, tuple)):
        element = typing.get_args(base)[0]
        found = (
            parse_options(element, each, prefix=f"{key}[{number}]", problems=problems, exact=exact)
            for number, each in enumerate(value)
        )
        return tuple(each for each in found if each is not None)
    if typing.get_origin(base) is dict and isinstance(value, Mapping):
        kind = typing.get_args(base)[1]
        return {
            name: each if kind is Any else _checked(each, kind, field, _join(key, name), problems, exact)
            for name, each in value.items()
            if _is_text(name, key, problems)
        }
    return _checked(value, hint, field, key, problems, exact)


def _checked(
    value: object, hint: Any, field: dataclasses.Field[Any], key: str, problems: list[str], exact: bool
) -> Any:
    """Convert one value by its hint; if it is wrong, add a problem and return the default."""
    base, _ = _kind_of(hint, field.metadata)
    converted = _to_type(value, base, exact)
    if converted is _NOT_OF_TYPE or not _in_range(converted, field.metadata):
        advice = _QUOTES if _wants_quotes(value, base) and not field.metadata.get("choices") else ""
        if base is int and isinstance(value, int) and abs(value) > _MOST_INTEGER:
            advice = f" · integers go up to {_MOST_INTEGER:,}"
        problems.append(f"{key}: got {shown(value)} · allowed: {describe(hint, field.metadata)}{advice}")
        default = _default(field)
        return None if default is dataclasses.MISSING else default
    return converted


_NOT_OF_TYPE = object()
_QUOTES = " · put a name that looks like a number, true, false or null into quotes"


def _is_list_of_classes(base: Any) -> bool:
    return typing.get_origin(base) is tuple and dataclasses.is_dataclass(typing.get_args(base)[0])


def _is_text(name: object, key: str, problems: list[str]) -> bool:
    if not isinstance(name, str):
        problems.append(f"{key}: got the key {shown(name)} · allowed: texts as keys")
    return isinstance(name, str)


def _wants_quotes(value: object, base: Any) -> bool:
    """Return whether a text is expected where YAML found a number, a truth value or null."""
    single = typing.get_origin(base) not in (tuple, dict)  # quotes do not make it a list or a mapping
    several = value if isinstance(value, (list, tuple)) else [value] * single
    return "str" in str(base) and any(each is None or isinstance(each, (bool, float)) for each in several)


def _to_type(value: object, kind: Any, exact: bool) -> Any:
    """Return the value as ``kind``, or _NOT_OF_TYPE; never round, and treat no bool as a number.

    Unless ``exact`` is set, an integer counts as a text, and a text of decimal digits as a number:
    YAML reads the name 45 as an integer, and the number 010 as a text.
    """
    if typing.get_origin(kind) is typing.Union:
        found = (_to_type(value, allowed, exact) for allowed in typing.get_args(kind))
        return next((one for one in found if one is not _NOT_OF_TYPE), _NOT_OF_TYPE)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            return _NOT_OF_TYPE
        elements = tuple(_to_type(element, typing.get_args(kind)[0], exact) for element in value)
        return _NOT_OF_TYPE if any(element is _NOT_OF_TYPE for element in elements) else elements
    if typing.get_origin(kind) is dict or kind is dict:
        return dict(value) if isinstance(value, Mapping) else _NOT_OF_TYPE
    if kind in (int, float):
        return _to_number(value, kind, exact)
    if kind is str and isinstance(value, int) and not isinstance(value, bool) and not exact:
        return str(value) if abs(value) < _LONGEST_INTEGER else _NOT_OF_TYPE
    if isinstance(value, str) and "\0" in value:  # not allowed in paths and names
        return _NOT_OF_TYPE
    return value if isinstance(value, kind) else _NOT_OF_TYPE


_LONGEST_INTEGER = 10**300  # float64 represents it, and Python prints it
_MOST_INTEGER = 2**53  # float64 represents every integer up to it, and torch accepts it as a size


def _to_number(value: object, kind: type, exact: bool) -> Any:
    if isinstance(value, str) and not exact and _DECIMAL.fullmatch(value):
        value = float(value) if set(value) & set(".eE") else int(value)
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not -_LONGEST_INTEGER < value < _LONGEST_INTEGER  # also refuses NaN and infinity
    ):
        return _NOT_OF_TYPE
    if kind is int and (value != int(value) or abs(value) > _MOST_INTEGER):
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
