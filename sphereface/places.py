"""The grammar of evaluation sets, the same on the command line and in a configuration:
``[KIND:]PLACE[,PLACE…]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError, shown

_NAME = "[a-z][a-z0-9-]+"
_KIND = re.compile(rf"({_NAME}):(?!//)(.*)", re.DOTALL)  # two letters or more: C:\crops is a path
_LONGEST_NAME = 100  # bytes: file names are made of it
_NOT_IN_NAMES = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

FORMS = {
    "all-pairs": "DIR (DIR/<person>/<image>)",
    "groups": "DIR (RFW: DIR/txts/<group>/<group>_pairs.txt, DIR/data/<group>/) or DIR,LIST",
    "identification": "DIR (DIR/<person>/<image>)",
    "ijb": "DIR[,CROPS][,MODE…] (DIR: ijbc_face_tid_mid.txt, …; MODE: N1D1F2, …)",
    "pairs": "DIR (with DIR/pairs.txt), DIR,PAIRS or FILE.bin",
    "quality": "DIR,PAIRS[,QUALITY.txt]",
    "templates": "DIR,TEMPLATES,PAIRS",
    "tinyface": "DIR (with Probe, Gallery_Match and Gallery_Distractor in DIR or in DIR/Testing_Set)",
}
"""What a set of each protocol may be. ``register_protocol`` adds those from outside the package."""


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
        raise UserError(f"got {shown(text)} · allowed: [KIND:]PLACE[,PLACE…] without empty places")
    return Places(kind, tuple(map(Path, parts)))


def allowed_forms() -> list[str]:
    """Return what a set may be, a line for each protocol."""
    return [f"{kind}:{form}" for kind, form in FORMS.items()]


def is_kind(name: str) -> bool:
    """Say whether a text can name a protocol before a colon."""
    return re.fullmatch(_NAME, name) is not None


def check_set_name(name: object) -> str:
    """Return the name of a set if it can name a folder of results and a curve.

    Raises:
        UserError: it is no text, is long or blank at an end, holds a slash or a control character,
            or starts with a dot.
    """
    allowed = (
        isinstance(name, str)
        and name == name.strip()
        and 0 < len(name.encode("utf-8", "replace")) <= _LONGEST_NAME
        and not name.startswith(".")
        and not _NOT_IN_NAMES.search(name)
    )
    if not allowed or not isinstance(name, str):
        raise UserError(
            f"got the name {shown(name)} · allowed: a text without slashes that does not start with a dot, without "
            f"line breaks and blanks at its ends, of at most {_LONGEST_NAME} bytes"
        )
    return name


def check_set_names(names: Iterable[object]) -> None:
    """Refuse sets whose results would take one place: a folder where upper case is not told, or a
    curve.

    TensorBoard writes every sign but letters, digits, ``-``, ``_`` and ``.`` as ``_``.

    Raises:
        UserError: as :func:`check_set_name`, or two names are alike.
    """
    seen: dict[str, str] = {}
    for name in map(check_set_name, names):
        first = seen.setdefault(re.sub(r"[^-\w.]", "_", name).casefold(), name)
        if first != name:
            raise UserError(
                f"got the names {shown(first)} and {shown(name)} · allowed: names that differ in more than upper case "
                "and signs, since each names a folder of results and a curve · rename one"
            )
