"""Typed, frozen option classes filled from YAML: one scheme for all settings. No torch.

An option class is a frozen dataclass whose fields are made by :func:`option`. :func:`parse_options`
fills one from a mapping. It collects every problem as one line: key, received value, allowed
values.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from .errors import UserError, shown, shown_key
from .option_values import MOST_INTEGER, NotOfType, describe, in_range, kind_of, to_type, wants_quotes

T = TypeVar("T")

_LONGEST_NAME = 100  # characters of a name that may have a suggestion


def option(
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Iterable[Any] | None = None,
    words: Iterable[str] = (),
) -> Any:
    """Declare a field of an option class.

    Args:
        default: its value where the YAML has no key; without a default the key is required.
        low, high: the closed range of allowed numbers (of each element, for a list).
        above, below: open bounds.
        choices: the allowed values, where they are few.
        words: texts that are allowed besides numbers.
    """
    metadata = {"low": low, "high": high, "above": above, "below": below, "words": tuple(words)}
    metadata["choices"] = tuple(choices) if choices else None
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
    parsed: T | None = _Reader(problems, exact).parse(cls, values, prefix, others)
    return parsed


def fill_options(cls: type[T], values: object, *, prefix: str, problems: list[str], others: Iterable[str] = ()) -> T:
    """Fill like :func:`parse_options`, but replace wrong values, to check the others too."""
    filled: T = _Reader(problems, exact=False).fill(cls, values, prefix, others)
    return filled


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ' · did you mean …?' for a similar name, else the list of known names."""
    known = list(known)
    near = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=1, cutoff=0.6)
    return f" · did you mean {near[0]!r}?" if near else f" · known: {', '.join(known)}"


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


def _default(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field; None without one."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


@dataclasses.dataclass
class _Reader:
    """Convert values by the hints of fields; see :func:`parse_options`."""

    problems: list[str]
    exact: bool

    def parse(self, cls: Any, values: object, prefix: str, others: Iterable[str] = ()) -> Any:
        """Return the filled class; None where there was a problem."""
        found = len(self.problems)
        filled = self._values(cls, values, prefix, others)
        if len(self.problems) == found:
            try:
                return cls(**filled)
            except UserError as error:  # from __post_init__: a wrong combination of valid values
                self.problems.append(f"{prefix}: {error}" if prefix else str(error))
        return None

    def fill(self, cls: Any, values: object, prefix: str, others: Iterable[str] = ()) -> Any:
        """Return the filled class, with defaults in place of wrong values."""
        filled = self._values(cls, values, prefix, others)
        try:
            return cls(**filled)
        except UserError as error:
            self.problems.append(f"{prefix}: {error}")
            return cls()

    def _values(self, cls: Any, values: object, prefix: str, others: Iterable[str]) -> dict[str, Any]:
        """Return a value for each field; a wrong one is replaced by its default, or None."""
        values = {} if values is None else values
        if not isinstance(values, Mapping):
            self.problems.append(f"{prefix}: got {shown(values)} · allowed: a mapping of keys to values")
            values = {}
        hints = typing.get_type_hints(cls)
        fields = {f.name: f for f in dataclasses.fields(cls) if "derived" not in f.metadata}
        for key in values:
            if key not in fields:
                self.problems.append(f"{_join(prefix, key)}: unknown key{suggest(str(key), (*others, *fields))}")
        filled: dict[str, Any] = {}
        for name, field in fields.items():
            key, hint = _join(prefix, name), hints[name]
            if dataclasses.is_dataclass(hint):
                filled[name] = self.fill(hint, values.get(name), key)
            elif name in values:
                filled[name] = self._convert(values[name], hint, field, key)
            else:
                filled[name] = _default(field)
                if field.default is field.default_factory:  # both are MISSING
                    self.problems.append(f"{key}: missing · allowed: {describe(hint, field.metadata)}")
        return filled

    def _convert(self, value: object, hint: Any, field: dataclasses.Field[Any], key: str) -> Any:
        base, optional = kind_of(hint, field.metadata)
        if (value is None and optional) or (isinstance(value, str) and value in field.metadata.get("words", ())):
            return value
        origin, kinds = typing.get_origin(base), typing.get_args(base)
        if origin is tuple and dataclasses.is_dataclass(kinds[0]) and isinstance(value, (list, tuple)):
            found = (self.parse(kinds[0], each, f"{key}[{number}]") for number, each in enumerate(value))
            return tuple(each for each in found if each is not None)
        if origin is dict and isinstance(value, Mapping):
            return {
                name: each if kinds[1] is Any else self._checked(each, kinds[1], field, _join(key, name))
                for name, each in value.items()
                if self._is_text(name, key)
            }
        return self._checked(value, hint, field, key)

    def _is_text(self, name: object, key: str) -> bool:
        if not isinstance(name, str):
            self.problems.append(f"{key}: got the key {shown(name)} · allowed: texts as keys")
        return isinstance(name, str)

    def _checked(self, value: object, hint: Any, field: dataclasses.Field[Any], key: str) -> Any:
        """Convert one value by its hint; if it is wrong, add a problem and return the default."""
        base, _ = kind_of(hint, field.metadata)
        with contextlib.suppress(NotOfType):
            converted = to_type(value, base, self.exact)
            if in_range(converted, field.metadata):
                return converted
        advice = _QUOTES if wants_quotes(value, base) and not field.metadata.get("choices") else ""
        if base is int and isinstance(value, int) and abs(value) > MOST_INTEGER:
            advice = f" · integers go up to {MOST_INTEGER:,}"
        self.problems.append(f"{key}: got {shown(value)} · allowed: {describe(hint, field.metadata)}{advice}")
        return _default(field)


_QUOTES = " · put a name that looks like a number, true, false or null into quotes"
