"""Print options of the command line so that they can be copied."""

from __future__ import annotations

import json
import os
import shlex

from ..yaml_text import parse_yaml


def word(text: str) -> str:
    """Return a text with the quotes that the shell needs to read it as one word."""
    return shlex.quote(text) if os.name == "posix" else text


def setting(key: str, value: str) -> str:
    """Return ``--set KEY=VALUE`` with the quotes that the shell and the configuration need."""
    try:
        plain = parse_yaml(value) == value
    except ValueError:
        plain = False
    option = f"{key}={value if plain else json.dumps(value, ensure_ascii=False)}"  # a JSON text is YAML
    return f"--set {word(option)}"
