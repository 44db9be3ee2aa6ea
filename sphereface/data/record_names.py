"""Read the names of a ``.rec``'s identities, and tie them to the ``.rec`` they were packed with."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from hashlib import sha256
from pathlib import Path

from ..errors import UserError, count_of, printable, shown
from ..files import read_plain, regular_file
from .text_files import read_text_lines, text_lines
from .walking import nfc

log = logging.getLogger(__name__)

_ENDS = 2**20  # bytes of a .rec that are compared, from its beginning and from its end
_NAMES, _REC = "sha256 of the names", "size and sha256 of the ends of the .rec"


def names_path(rec: Path) -> Path:
    """Return the file with the names of a ``.rec``'s identities."""
    return rec.with_suffix(".identities.txt")


def tie_path(rec: Path) -> Path:
    """Return the file that ties the names to the ``.rec``; without it, any names are believed."""
    return rec.with_suffix(".identities.check.json")


def read_names(rec: Path, num_labels: int) -> list[str] | None:
    """Return the names beside a ``.rec``, one for each label; None if there are none.

    Raises:
        UserError: they are too few, blank or repeated, or were packed with another ``.rec``.
    """
    path = names_path(rec)
    if not path.is_file():
        return None
    names = _names_in(read_text_lines(path, "a name a line"))
    _check_tie(rec, names)
    allowed = f"allowed: one on each of {num_labels} lines · move it away if it belongs to another .rec"
    if blank := [number for number, name in enumerate(names, 1) if not name.strip()]:
        raise UserError(f"{path}, line {blank[0]}: got a blank line instead of a name · {allowed}")
    if len(names) < num_labels or len(set(names)) < len(names):
        such = next((f", {shown(name)} twice" for name, count in Counter(names).items() if count > 1), "")
        raise UserError(f"{path}: got {count_of(len(set(names)), 'name', 'different names')}{such} · {allowed}")
    if len(names) > num_labels:
        sentence = "data: %s has %s, but the labels need %d: does it belong to another .rec?"
        log.warning(sentence, path, count_of(len(names), "name", "names"), num_labels)
    return names


def tie_text(rec: Path, names: bytes) -> bytes:
    """Return the content of the tie of a file of names to a written ``.rec``."""
    values = {_NAMES: _digest_of_names(_names_in(text_lines(names, "names"))), _REC: _digest_of_rec(rec)}
    return (json.dumps(values, indent=1) + "\n").encode()


def ties_names(path: Path, names: bytes) -> bool:
    """Return whether a tie is of these names, so that a new pack of them may replace it."""
    return path.is_file() and _read_tie(path).get(_NAMES) == _digest_of_names(_names_in(text_lines(names, "names")))


def _check_tie(rec: Path, names: list[str]) -> None:
    """Check that no other ``.rec`` was copied over the one of these names."""
    path = tie_path(rec)
    if not path.is_file():
        return
    tie = _read_tie(path)
    if not tie:
        sentence = "data: %s: is damaged, so the names are not compared with the .rec · copy the pack again"
        log.warning(sentence, printable(str(path)))
    elif tie[_NAMES] == _digest_of_names(names) and tie[_REC] != _digest_of_rec(rec):  # other names are the user's own
        raise UserError(
            f"{names_path(rec)}: got names that were packed with another {rec.name} than the one beside it · allowed: "
            f"both of one pack · copy both again, or move the names away to use numbers; if they are right, delete "
            f"{path.name}"
        )


def _read_tie(path: Path) -> dict[str, str]:
    """Return the content of a tie; empty if it has another form."""
    try:
        values = json.loads(read_plain(path))
    except (OSError, ValueError, RecursionError):
        return {}
    whole = isinstance(values, dict) and all(isinstance(values.get(key), str) for key in (_NAMES, _REC))
    return values if whole else {}


def _names_in(lines: list[str]) -> list[str]:
    """Return the names in the lines of a file, without blank lines at its end."""
    names = [nfc(name) for name in lines]
    while names and not names[-1].strip():
        names.pop()
    return names


def _digest_of_names(names: list[str]) -> str:
    return sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def _digest_of_rec(path: Path) -> str:
    """Return the size of a file and a digest of its ends, which differ between packs."""
    with open(path, "rb", opener=regular_file) as file:
        size = os.fstat(file.fileno()).st_size
        digest = sha256(file.read(_ENDS))
        file.seek(max(0, size - _ENDS))
        digest.update(file.read(_ENDS))
    return f"{size} {digest.hexdigest()}"
