"""The grammar of evaluation sets, the same on the command line and in a configuration: ``[KIND:]PLACE[,PLACE…]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

_NAME = "[a-z][a-z0-9-]+"
_KIND = re.compile(rf"({_NAME}):(?!//)(.*)", re.DOTALL)  # two letters or more: C:\crops is a path


@dataclass(frozen=True)
class Places:
    """Where an evaluation set is.

    Attributes:
        kind: the protocol; None where the form of the places decides.
        paths: one or more, in the order that the protocol expects.
    """

    kind: str | None
    paths: tuple[Path, ...]


def parse_places(text: str) -> Places:
    """Read ``[KIND:]PLACE[,PLACE…]``.

    Raises:
        UserError: an empty place.
    """
    found = _KIND.fullmatch(text)
    kind, places = found.groups() if found else (None, text)
    parts = places.split(",")
    if not all(part.strip() for part in parts):
        raise UserError(f"got {text!r} · allowed: [KIND:]PLACE[,PLACE…] without empty places")
    return Places(kind, tuple(map(Path, parts)))


def is_kind(name: str) -> bool:
    """Say whether a text can name a protocol before a colon."""
    return re.fullmatch(_NAME, name) is not None


def check_set_name(name: object) -> str:
    """Return the name of a set if it can name a folder of results.

    Raises:
        UserError: it is no text, or holds a slash, or starts with a dot.
    """
    if not isinstance(name, str) or not name or "/" in name or "\\" in name or name.startswith(".") or "\0" in name:
        raise UserError(f"got the name {name!r} · allowed: a text without slashes that does not start with a dot")
    return name
