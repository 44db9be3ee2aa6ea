"""Read YAML with the types of YAML 1.2, and write YAML that reads back unchanged. No torch."""

from __future__ import annotations

import re
from typing import Any

import yaml

from .errors import shown

_MOST_NODES = 100_000
_MOST_SAID = 300  # characters of a PyYAML message


class _Loader(yaml.SafeLoader):
    """The types of YAML 1.2 in place of PyYAML's 1.1.

    ``1e-1`` and ``.5`` are numbers. ``010``, ``0x1F``, ``1_000``, ``1:30``, ``yes``, ``on`` and
    dates are texts, and so is every key. So the names of identities keep their form. Options that
    expect a number read ``010`` as 10.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML declares it so


class _Dumper(yaml.SafeDumper):
    """Quotes texts that this loader or PyYAML's own would read as another type."""


_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"0|-?[1-9][0-9]*", list("-0123456789")),
    (_FLOAT, r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    (_MERGE, r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor(_INT, lambda _, node: int(node.value))
_Loader.add_constructor(_FLOAT, lambda _, node: float(node.value))


def parse_yaml(text: str) -> Any:
    """Parse YAML safely: types of YAML 1.2, texts as keys, and each key once in its mapping.

    Raises:
        ValueError: it is not valid, is nested too deeply, or is too large once aliases are
            expanded.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {})
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (yaml.YAMLError, TypeError, AttributeError, LookupError) as error:
        # all but the first: a tag on a wrong node
        raise ValueError(" ".join(str(error).split())[:_MOST_SAID]) from error


def dump_yaml(values: Any, **options: Any) -> str:
    """Write plain values as YAML; :func:`parse_yaml` and PyYAML read it back unchanged."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options))


def _check(node: yaml.Node, known: dict[int, int]) -> int:
    """Check keys and aliases below a node; return its number of nodes with aliases expanded."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = _MOST_NODES  # it contains itself
        children = _keys_and_values(node) if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_check(child, known) for child in children)
    if known[id(node)] > _MOST_NODES:
        raise ValueError(f"expands to more than {_MOST_NODES:,} values, or contains itself")
    return known[id(node)]


def _keys_and_values(node: yaml.MappingNode) -> list[yaml.Node]:
    """Return keys and values of a mapping; its keys become texts."""
    seen = set()
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"a list or a mapping as a key in line {line}")
        if key.value in seen:
            raise ValueError(f"the key {shown(key.value)} occurs twice, again in line {line}")
        seen.add(key.value)
        if key.tag != _MERGE:
            key.tag = _TEXT
    return [each for pair in node.value for each in pair]
