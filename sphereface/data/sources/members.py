"""Check the names of members of an untrusted archive."""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import UserError, shown
from ..walking import is_system_file

_DRIVE = re.compile(r"[A-Za-z]:")


def member_name(name: str, archive: Path) -> str:
    """Return a member's name in normal form; empty for a folder or a file of an operating system.

    Args:
        name: as in the archive.
        archive: its name in messages.

    Raises:
        UserError: the name leads out of the archive.
    """
    name = name.replace("\\", "/")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or _DRIVE.match(name) or "\0" in name:
        raise UserError(
            f"{archive}: got a member {shown(name)} · "
            f"allowed: names that stay inside the {archive.suffix.lower()[1:] or 'archive'}"
        )
    kept = [part for part in parts if part not in (".", "")]
    folder = parts[-1] in (".", "")
    return "" if folder or any(map(is_system_file, kept)) else "/".join(kept)
