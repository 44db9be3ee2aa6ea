r"""The grammar of evaluation sets, on the command line and in YAML: ``[KIND:]PLACE[,PLACE…]``.

A comma in a path is written as ``\,``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from .errors import UserError, shown

T = TypeVar("T")

_NAME = "[a-z][a-z0-9-]+"
_KIND = re.compile(rf"({_NAME}):(?!//)(.*)", re.DOTALL)  # two letters or more: C:\crops is a path
_LONGEST_NAME = 100  # bytes: file names contain it
_HOME = re.compile(r"(?<![^:,])~(?=/)")  # at the start, or after the kind or a comma of a set
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
"""The form of a set for each protocol. ``register_protocol`` adds those of other packages."""


@dataclass(frozen=True)
class Places:
    """The place of an evaluation set.

    Attributes:
        kind: the protocol; None where the form of the places determines it.
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
    parts = re.split(r"(?<!\\),", places)
    if not all(part.strip() for part in parts):
        raise UserError(f"got {shown(text)} · allowed: [KIND:]PLACE[,PLACE…] without empty places")
    return Places(kind, tuple(Path(part.replace("\\,", ",")) for part in parts))


def with_home(value: T) -> T:
    """Return a value of a configuration in which ``~/`` at the start of a path is the home folder.

    In a file, no shell expands it.
    """
    whole: Any = value
    if isinstance(value, dict):
        whole = {key: with_home(each) for key, each in value.items()}
    elif isinstance(value, list):
        whole = [with_home(each) for each in value]
    elif isinstance(value, str):
        whole = _HOME.sub(lambda _: os.path.expanduser("~"), value)  # noqa: PTH111 -- raises nothing
    return cast("T", whole)


def places_text(places: Places) -> str:
    """Return the text from which :func:`parse_places` reads these places."""
    text = ",".join(str(path).replace(",", "\\,") for path in places.paths)
    if places.kind is not None:
        return f"{places.kind}:{text}"
    return f"./{text}" if _KIND.fullmatch(text) else text  # a folder such as tiny:x is no protocol


def allowed_forms() -> list[str]:
    """Return the allowed forms of a set, one line for each protocol."""
    return [f"{kind}:{form}" for kind, form in FORMS.items()]


def is_kind(name: str) -> bool:
    """Return whether a text can be the name of a protocol before a colon."""
    return re.fullmatch(_NAME, name) is not None


def check_set_name(name: object) -> str:
    """Return the name of a set if it is valid for a folder of results and a curve.

    Raises:
        UserError: it is not a text, is too long, starts or ends with a blank, has a slash or a
            control character, or starts with a dot.
    """
    text = name if isinstance(name, str) else ""
    fits = 0 < len(text.encode("utf-8", "replace")) <= _LONGEST_NAME
    if not fits or text != text.strip() or text.startswith(".") or _NOT_IN_NAMES.search(text):
        raise UserError(
            f"got the name {shown(name)} · allowed: a text without slashes that does not start with a dot, without "
            f"line breaks and blanks at its ends, of at most {_LONGEST_NAME} bytes"
        )
    return text


def check_set_names(names: Iterable[object]) -> None:
    """Refuse sets whose results would share a folder or a curve.

    Some file systems ignore upper case. TensorBoard replaces every character but letters, digits,
    ``-``, ``_`` and ``.`` by ``_``.

    Raises:
        UserError: see :func:`check_set_name`, or two names collide.
    """
    seen: dict[str, str] = {}
    for name in map(check_set_name, names):
        first = seen.setdefault(re.sub(r"[^-\w.]", "_", name).casefold(), name)
        if first != name:
            raise UserError(
                f"got the names {shown(first)} and {shown(name)} · allowed: names that differ in more than upper case "
                "and signs, since each names a folder of results and a curve · rename one"
            )
